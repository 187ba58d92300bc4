"""Process that is connected to a Ray cluster, and has workers placed there, for `executors/ray.py`.

It is a process of its own, since a cluster that is lost ends whoever is connected to it, Ray takes signals and the
screen, and a process has one connection. It reads commands, a line of JSON each, from its standard input, and ends its
workers when that closes; it writes events to its standard output.

Commands: a first line with the fields of `Demand`; then `{"do": "start", "place": 0, "task": {…}}`, with a new `task`
or the one before, `{"do": "release", "place": 0}`, `{"do": "interrupt"}`, `{"do": "close"}`, `{"do": "kill"}`.
Events: `{"event": "connected", …}` or `{"event": "refused", "text": …}`; then of a place `placed` (host, pid), `ended`
(text; `error` where its node cannot do it at all).
"""

import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aigc_lab.executors.shared.ray_node import Node, Task

Json = dict[str, Any]

# Seconds for which a cluster's port is tried; that workers have to store their runs, and to be killed; and between two
# looks.
_REACH, _GRACE, _DEATH, _LOOK = 10.0, 10.0, 1.0, 0.2
_OBJECTS = 100 << 20  # bytes of a cluster of our own for objects, of which workers send none


@dataclass(frozen=True)
class Demand:
    """The cluster's address, what each worker takes of a node, and how many workers there are to be."""

    address: str
    cpus: float
    gpus: float
    resources: Mapping[str, float]
    workers: int

    @property
    def each(self) -> dict[str, float]:
        """Everything that one worker takes, by Ray's names."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return {name: amount for name, amount in wanted.items() if amount}

    def fit(self, node: Mapping[str, float]) -> int:
        """How many workers a node has room for when nobody else is there."""
        # Ray counts in ten-thousandths; a tenth ten times is one.
        return min(int(round(node.get(name, 0.0) / amount, 4)) for name, amount in self.each.items())


class Refused(Exception):
    """The cluster cannot do it, in words for the user."""


@dataclass
class _Place:
    """A worker that was placed, or waits for it."""

    actor: Any
    #: what Ray is to answer -> what that is
    waits: dict[Any, str] = field(default_factory=dict)


class Driver:
    """A connection to a cluster. `say` takes events."""

    def __init__(self, demand: Demand, say: Any) -> None:
        self._demand, self._say = demand, say
        self._places: dict[int, _Place] = {}
        self._tasks: dict[int, Task] = {}

    def connect(self) -> None:
        """Connects. Raises `Refused` where there is no cluster, and where no node of it has what a worker takes."""
        address = self._demand.address
        if address == "auto":
            address = os.environ.get("RAY_ADDRESS") or address
        _reach(_last_started() if address == "auto" else address)
        import ray

        own = {"include_dashboard": False, "object_store_memory": _OBJECTS} if address == "local" else {}
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR", **own)
        except Exception as error:
            raise Refused(_unconnected(address, error)) from error
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(map(self._demand.fit, nodes))
        if not room:
            raise Refused(_infeasible(self._demand, nodes))
        self._actor = ray.remote(Node).options(
            num_cpus=self._demand.cpus,
            num_gpus=self._demand.gpus,
            resources=dict(self._demand.resources) or None,
            max_restarts=0,  # where a worker ended, and why, is to be said before another is started
            max_concurrency=4,
            scheduling_strategy="SPREAD",
        )
        self._say(event="connected", nodes=len(nodes), room=room, gpus=sum(node.get("GPU", 0.0) for node in nodes))

    def serve(self, commands: "queue.SimpleQueue[Json]") -> None:
        """Obeys commands until one closes."""
        while True:
            with suppress(queue.Empty):
                while True:
                    command = commands.get(timeout=0 if self._waits() else _LOOK)
                    if command["do"] in ("close", "kill"):
                        self._end(0.0 if command["do"] == "kill" else _GRACE)
                        return
                    if command["do"] == "interrupt":
                        self._signal(signal.SIGTERM)
                    elif command["do"] == "release":
                        self._release(command["place"])
                    else:
                        self._start(command["place"], command.get("task"))
            self._look(_LOOK)

    def _start(self, place: int, task: Json | None) -> None:
        if task is not None:
            self._tasks[place] = Task(**task)
        held = self._places.setdefault(place, _Place(None))
        if held.actor is None:
            held.actor = self._actor.remote()
        held.waits[held.actor.begin.remote(self._tasks[place])] = "begin"

    def _waits(self) -> list[Any]:
        return [each for place in self._places.values() for each in place.waits]

    def _look(self, seconds: float) -> None:
        """Says what has happened; waits for that, but no longer."""
        import ray

        waits = self._waits()
        if not waits:
            return
        for ready in ray.wait(waits, timeout=seconds)[0]:
            number, place = next((i, place) for i, place in self._places.items() if ready in place.waits)
            what = place.waits.pop(ready)
            try:
                answer = ray.get(ready)
            except ray.exceptions.ActorUnavailableError:
                time.sleep(_LOOK)  # the node does not answer at the moment; Ray knows when it is lost
                if what == "wait":
                    place.waits[place.actor.wait.remote()] = what
                    continue
                self._ended(number, text="its node does not answer")
            except Exception as error:  # noqa: BLE001 -- whatever ends an actor
                self._ended(number, text=_death(error))
            else:
                if what == "wait":
                    self._say(event="ended", place=number, text=answer, error=False)  # the next begins at its place
                elif "error" in answer:
                    self._ended(number, text=answer["error"], error=True)
                else:
                    self._say(event="placed", place=number, host=answer["host"], pid=answer["pid"])
                    place.waits[place.actor.wait.remote()] = "wait"

    def _ended(self, number: int, *, text: str, error: bool = False) -> None:
        """A place is of no use any more; the next begins at another."""
        self._release(number)
        self._say(event="ended", place=number, text=text, error=error)

    def _release(self, number: int) -> None:
        import ray

        place = self._places.pop(number, None)
        if place is not None and place.actor is not None:
            with suppress(Exception):  # its node may be gone
                ray.kill(place.actor)  # what it took is free now, and not when Python forgets it

    def _signal(self, number: int) -> None:
        for place in self._places.values():
            if "wait" in place.waits.values():
                with suppress(Exception):
                    place.actor.signal.remote(number)

    def _end(self, grace: float) -> None:
        """Ends all workers, first with a signal and `grace` seconds."""
        import ray

        for number in [i for i, place in self._places.items() if "wait" not in place.waits.values()]:
            self._release(number)  # it may wait for a place for hours
        for signalled, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, _DEATH)):
            if seconds:
                self._signal(signalled)
            until = time.monotonic() + seconds
            while self._waits() and time.monotonic() < until:
                self._look(_LOOK)
        ray.shutdown()


# ---- in words


def _reach(address: str) -> None:
    """Raises `Refused` for a port that nobody listens at: Ray would try it for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error) or "no answer"
        raise Refused(f"no Ray cluster at {address}: {why.lower()}") from None


def _last_started() -> str:
    """The address of the cluster that was last started on this machine, as Ray writes it down; a crash leaves it."""
    path = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")  # noqa: S108 -- Ray's own place
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""


def _unconnected(address: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "AuthToken" in f"{error.__cause__} {error.__context__} {error}":
        return (
            f"the Ray cluster at {address} asks for a token: put it into RAY_AUTH_TOKEN, or into the file that "
            "RAY_AUTH_TOKEN_PATH names (~/.ray/auth_token)"
        )
    if isinstance(error, ImportError):
        return f"{address}: Ray's client is not installed here: pip install 'aigc-lab[ray]'"
    if "Could not find any running Ray" in text or "No address" in text:
        return (
            "no Ray cluster runs on this machine; start one (ray start --head), or name one: --executor-option "
            "address=HOST:PORT, or address=local for one that ends with the sweep"
        )
    return f"cannot connect to the Ray cluster at {address}: {text[:300]}"


def _infeasible(demand: Demand, nodes: list[Json]) -> str:
    wanted = ", ".join(f"{amount:g} {name}" for name, amount in demand.each.items())
    names = list(dict.fromkeys(["CPU", "GPU", *demand.each]))
    most = ", ".join(f"{max((node.get(name, 0.0) for node in nodes), default=0.0):g} {name}" for name in names)
    return (
        f"no node of the Ray cluster can ever hold a worker of {wanted}: of {len(nodes)} node{'s' * (len(nodes) != 1)} "
        f"none has more than {most}; ask for less with --executor-option cpus_per_worker=…, gpus_per_worker=… or "
        "resources=…"
    )


def _death(error: Exception) -> str:
    """Why an actor ended, in words."""
    import ray

    text = " ".join(str(error).split())
    if "No module named 'aigc_lab" in text:
        return "its node cannot import aigc_lab: install it there, as it is here"
    if isinstance(error, ray.exceptions.RayActorError | ray.exceptions.NodeDiedError):
        return "its node was lost" if "node" in text.lower() and "died" in text.lower() else "its Ray actor was ended"
    return f"its Ray actor was ended: {text[:200]}"


# ---- the process


def _lines(commands: "queue.SimpleQueue[Json]") -> None:
    for line in sys.stdin:
        commands.put(json.loads(line))
    commands.put({"do": "close"})


def main() -> None:
    """Entry point of the process."""
    # What Ray and libraries print goes to the log that standard error is; events have the pipe for themselves.
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**event: Any) -> None:
        with suppress(OSError):  # the sweep's process is gone, and its input closes
            print(json.dumps(event), file=pipe, flush=True)

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    driver = Driver(Demand(**json.loads(sys.stdin.readline())), say)
    try:
        driver.connect()
    except Refused as error:
        say(event="refused", text=str(error))
        return
    commands: queue.SimpleQueue[Json] = queue.SimpleQueue()
    threading.Thread(target=_lines, args=(commands,), daemon=True).start()
    driver.serve(commands)


if __name__ == "__main__":
    main()
