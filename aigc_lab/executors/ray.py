"""Workers on a Ray cluster: placed where there is room, with fractions of GPUs, and again where a node is lost."""

import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from aigc_lab.config import Few, Strict
from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors.base import Place
from aigc_lab.executors.shared.queued import Queued, sent
from aigc_lab.executors.shared.ray_connection import Connection
from aigc_lab.executors.shared.ray_node import Task
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.host.settings import Settings
from aigc_lab.runs.resources import Resources
from aigc_lab.runs.worker import MARK, spool_mark

Json = dict[str, Any]

# Seconds after which workers that have no place are spoken of, where the cluster seemed to have room for them.
_BUSY = 30.0
# Variables whose values nodes need, with passwords among them: addresses of stores, and what opens these.
_TRAVEL = ("AIGC_LAB_", "MLFLOW_", "AWS_", "FSSPEC_", "PGPASS", "PGSSL")


def _grantable(amount: float) -> float:
    if amount > 1 and amount != int(amount):
        raise ValueError("Ray shares one of a kind in fractions, and gives more than one whole: 0.25, 1, 2")
    return amount


#: of a resource of a node: whole ones, or a fraction of one
Amount = Annotated[float, Field(ge=0, le=10_000), AfterValidator(_grantable)]


class Ray(Queued):
    """One Ray actor a worker. Ray decides on which node; a worker that is lost is started again."""

    class Config(Strict):
        address: str = Field(
            "auto",
            description="the cluster: auto (RAY_ADDRESS, or that of this machine), HOST:PORT, ray://HOST:10001, or "
            "local for one that is started here and ends with the sweep",
        )
        cpus_per_worker: Amount | None = Field(None, description="CPU cores of a worker [training.threads, or 1]")
        gpus_per_worker: Amount = Field(0, description="GPUs of a worker; with a fraction, workers share one")
        resources: dict[str, Amount] = Field(
            {}, description="other resources that a worker takes of its node, by name: {a100: 1}"
        )
        retries: Few = Field(3, description="times in a row that a worker may end before it is ready")

    config: Config
    elsewhere = True

    def __init__(
        self,
        experiment: Experiment,
        places: Sequence[Place],
        settings: Settings,
        say: Callable[[str], None],
        config: Any = None,
    ) -> None:
        super().__init__(experiment, places, settings, say, config)
        if importlib.util.find_spec("ray") is None:
            raise UsageError("executor ray: Ray is not installed here: pip install 'aigc-lab[ray]'")
        self.slots = len(places)
        self._workers = [_Worker() for _ in places]
        self._ends: dict[tuple[str, int], str] = {}  # host and pid of a worker -> how it ended
        self._waiting_since, self._told_waiting = time.monotonic(), False
        cores = (
            experiment.file.training.threads or 1
            if self.config.cpus_per_worker is None
            else self.config.cpus_per_worker
        )
        self._threads = max(1, int(cores))
        demand = {"cpus": cores, "gpus": self.config.gpus_per_worker, "resources": self.config.resources}
        self._connection = Connection(
            {"address": self.config.address, "workers": len(places)} | demand, settings.home / "logs" / "ray.log"
        )
        try:
            self._cluster = self._connection.connected()
        except BaseException:
            self._connection.kill()
            raise
        self._say(self._described(cores))

    def _described(self, cores: float) -> str:
        """A sentence on the cluster and what each worker takes of it."""
        count, gpus, nodes = len(self._workers), self.config.gpus_per_worker, self._cluster["nodes"]
        each = [f"{cores:g} CPU", f"{gpus:g} GPU" if gpus else "no GPU"]
        each += [f"{amount:g} {name}" for name, amount in self.config.resources.items()]
        text = f"{count} worker{'s' * (count > 1)} on a Ray cluster of {nodes} node{'s' * (nodes != 1)}, "
        text += f"{', '.join(each)}{' each' * (count > 1)}"
        if not gpus and self._cluster["gpus"]:
            text += f"; its {self._cluster['gpus']:g} GPU stay idle without --executor-option gpus_per_worker=1"
        return text

    def open(self, resources: Resources, spool: Path) -> None:
        """Has the workers placed, and returns when one is ready, or when it has been said that they wait."""
        super().open(resources, spool)
        home, sweep = self._settings.home, self._experiment.sweep
        environment = _environment(self._settings)
        for number in range(len(self._workers)):
            task = Task(
                home=str(home),
                sweep=sweep,
                device="cuda:0" if self.config.gpus_per_worker else "cpu",
                threads=self._threads,
                log=str(home / "logs" / f"ray-{number}.log"),
                mark_file=str(spool / MARK),
                mark=spool_mark(spool) or "",
                environment=environment,
            )
            self._connection.tell(do="start", place=number, task=asdict(task))
        self._waiting_since = time.monotonic()
        while not self._stopped.is_set() and not any(worker.ready for worker in self._workers):
            if self._told_waiting and not any(worker.placed for worker in self._workers):
                break
            if self._follower is not None and self._follower.error is not None:
                raise self._follower.error
            time.sleep(0.02)

    # ---- what the follower asks

    def watch(self, workers: Sequence[Json]) -> None:
        ready = {_name(row) for row in workers if row["ready"]}
        for event in self._connection.events():
            self._hear(event, self._workers[event["place"]], ready)
        for worker in self._workers:
            if worker.placed in ready:
                worker.ready, worker.deaths = True, 0
        if self._stopped.is_set():
            return
        if (why := self._connection.lost()) is not None:
            raise Failure(f"{why}; once it is there again: aigc-lab resume {self._experiment.sweep}")
        if all(worker.given_up for worker in self._workers):
            raise self._workers[-1].error or Failure(f"no worker can go on: {self._workers[-1].given_up}")
        self._speak_of_waiting()

    def _hear(self, event: Json, worker: "_Worker", ready: set[tuple[str, int]]) -> None:
        if event["event"] == "placed":
            worker.placed, worker.ready = (event["host"], event["pid"]), False
            return
        how = event["text"]
        if worker.placed is not None:
            if how == "its node was lost":
                how = f"its node {worker.placed[0]} was lost"
            self._ends[worker.placed] = how
            if worker.placed in ready:  # since the last look, and it has ended already
                worker.ready, worker.deaths = True, 0
        worker.deaths += not worker.ready
        if event["error"]:
            worker.error = UsageError(how)
        early = worker.error is not None and not worker.ready
        worker.placed, worker.ready = None, False
        if self._stopped.is_set():
            return
        if early or worker.deaths > self.config.retries:
            worker.given_up = how
            self._connection.tell(do="release", place=event["place"])
            if any(not each.given_up for each in self._workers):
                self._say(f"a worker is not started again: {worker.error or how}")
            return
        worker.error = None
        self._waiting_since = time.monotonic()
        self._connection.tell(do="start", place=event["place"])

    def _speak_of_waiting(self) -> None:
        """Says once that workers wait for a place."""
        wanted = [worker for worker in self._workers if not worker.given_up]
        waiting, room = sum(worker.placed is None for worker in wanted), self._cluster["room"]
        full = len(wanted) - waiting >= room
        if not waiting:
            self._told_waiting = False
        elif not self._told_waiting and (full or time.monotonic() - self._waiting_since > _BUSY):
            self._told_waiting = True
            why = f"room for {room}" if full else "no room for them now"
            self._say(
                f"waiting for {waiting} of {len(self._workers)} workers: the cluster has {why}; they join when it has "
                "more"
            )

    def slots_for(self, workers: Sequence[Json]) -> int:
        """A worker counts while it is started, unless it waits for room."""
        own = {worker.placed for worker in self._workers if worker.placed is not None}
        wanted = sum(not worker.given_up for worker in self._workers)
        coming = 0 if self._told_waiting else min(wanted, self._cluster["room"])
        joined = sum(bool(row["ready"]) and _name(row) not in own for row in workers)
        return max(1, max(len(own), coming) + joined)

    def fate(self, worker: Json | None) -> str:
        return (self._ends.get(_name(worker)) if worker is not None else None) or super().fate(worker)

    def erred(self, worker: Json) -> None:
        own = next((each for each in self._workers if each.placed == _name(worker)), None)
        if own is None:
            super().erred(worker)
        else:
            own.error = sent(worker["error"])

    # ---- its end

    def stop(self) -> None:
        super().stop()
        self._connection.tell(do="interrupt")

    def kill(self) -> None:
        self._connection.tell(do="kill")

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._connection.close()
        super().__exit__(*error)


@dataclass
class _Worker:
    """A worker that is wanted: the host and the pid where it is now, and how often it ended before it was ready."""

    placed: tuple[str, int] | None = None
    ready: bool = False
    deaths: int = 0
    error: Exception | None = None
    given_up: str = ""


def _name(row: Json) -> tuple[str, int]:
    return row["process"].host, row["process"].pid


def _environment(settings: Settings) -> dict[str, str]:
    """The environment of a worker, wherever it is: the places of this home, and what opens them."""
    places = {
        "AIGC_LAB_HOME": settings.home,
        "AIGC_LAB_REGISTRY_URL": settings.registry_url,
        "AIGC_LAB_OPTUNA_URL": settings.optuna_url,
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "AIGC_LAB_DATA_DIR": settings.data_dir,
    }
    given = {name: value for name, value in os.environ.items() if name.startswith(_TRAVEL)}
    return given | {name: str(place) for name, place in places.items()}
