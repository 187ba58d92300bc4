"""Kills and failures at every instant between a run and MLflow: all arrives, once and in order."""

import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aigc_lab.errors import Failure
from aigc_lab.tracking import mlflow_run, shipper, spool_log
from aigc_lab.tracking.base import KEY, DatasetInfo
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.tracking.shipper import Shipper
from aigc_lab.tracking.spool import SpoolRun, SpoolTracker

DATA = DatasetInfo("ring", "0" * 40, None, "points 2, 100 samples")
GRID = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
RUN = "points-01234567.0.0.1"
STEPS = range(0, 40, 10)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every life is lived hundreds of times; a process that is killed leaves the disk's cache as it is."""
    monkeypatch.setattr(mlflow_run, "_THUMBNAIL", 6)
    monkeypatch.setattr("os.fsync", lambda file: None)


class Killed(BaseException):
    """The process is gone: nothing may catch this and go on."""


class Fate:
    """Strikes at an instant: the `number`th of those that are passed."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


class Server:
    """What an MLflow client reaches, with MLflow's keys: a point is its name, time, step and value; a file its path."""

    def __init__(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._before, self._after = before, after
        self.runs: dict[str, SimpleNamespace] = {}

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name == "runs":
            return found

        def call(*given: Any, **options: Any) -> Any:
            self._before()
            answer = found(*given, **options)
            self._after()  # an answer that is lost
            return answer

        return call

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="1", lifecycle_stage="active")

    def search_runs(self, experiments: list[str], condition: str, max_results: int = 1) -> list[Any]:
        key = condition.partition(" = ")[2].strip("'")
        return [self._entity(run) for run in self.runs.values() if run.tags[KEY] == key]

    def create_run(self, experiment: str, start_time: int, tags: dict[str, str], run_name: str) -> Any:
        id = str(len(self.runs))
        self.runs[id] = run = SimpleNamespace(
            id=id, status="RUNNING", tags=dict(tags), params={}, points={}, files={}, inputs=[]
        )
        return self._entity(run)

    def _entity(self, run: SimpleNamespace) -> Any:
        return SimpleNamespace(
            info=SimpleNamespace(run_id=run.id, status=run.status, artifact_uri=f"mlflow-artifacts:/1/{run.id}"),
            data=SimpleNamespace(params=dict(run.params)),
        )

    def update_run(self, id: str, status: str) -> None:
        self.runs[id].status = status

    def set_terminated(self, id: str, status: str, end_time: int | None = None) -> None:
        self.runs[id].status = status

    def set_tag(self, id: str, name: str, value: str) -> None:
        self.runs[id].tags[name] = value

    def log_batch(self, id: str, metrics: Any = (), params: Any = ()) -> None:
        for param in params:
            assert self.runs[id].params.setdefault(param.key, param.value) == param.value
        for point in metrics:
            self.runs[id].points.setdefault((point.key, point.timestamp, point.step, point.value))

    def log_inputs(self, id: str, datasets: Any) -> None:
        self.runs[id].inputs = list(datasets)

    def log_text(self, id: str, text: str, name: str) -> None:
        self.runs[id].files[name] = text.encode()

    def log_artifact(self, id: str, path: str, folder: str | None) -> None:
        self.runs[id].files[f"{folder}/{Path(path).name}"] = Path(path).read_bytes()

    def log_artifacts(self, id: str, folder: str, place: str) -> None:
        for path in sorted(Path(folder).iterdir()):
            self.runs[id].files[f"{place}/{path.name}"] = path.read_bytes()
            self._after()  # between two files


class World:
    """A sweep's spool, an MLflow server, and processes that are started again when they are killed."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder / "spool", server
        self.weights = folder / "weights.bin"
        self.weights.write_bytes(b"weights")
        self.told: set[tuple[str, str, str]] = set()
        self._start_shipper()

    def _start_shipper(self) -> None:
        tracker = MlflowTracker("http://lab", self.folder)
        tracker._cached_client = self.server  # type: ignore[assignment]
        self.shipper = Shipper(self.folder, tracker, lambda *ids: self.told.add(ids))

    def ship(self) -> bool:
        """Whether all is delivered; a shipper that was killed is followed by another."""
        try:
            return self.shipper.ship() == 0
        except Failure:
            return False
        except Killed:
            self._start_shipper()
            return False

    def finish(self) -> None:
        for _ in range(1000):
            if self.ship() and not any(self.folder.iterdir()):
                return
        pytest.fail("something waits for ever")

    def train(self, always_ship: bool) -> None:
        """A run over as many attempts as it takes: each goes on from the last checkpoint."""
        self.checkpoint = -10
        for number in range(1, 1000):
            try:
                self._attempt(number, always_ship)
                return
            except Killed:
                if always_ship:
                    self.ship()

    def _attempt(self, number: int, always_ship: bool) -> None:
        tracker, tags = SpoolTracker(self.folder), {"attempt": str(number), "seed": "0"}
        tracker.abandon("", RUN)
        run = tracker.start("points", "point_gan 0.0", RUN, {"lr": 0.1}, tags, DATA)
        for step in range(self.checkpoint + 10, STEPS[-1] + 10, 10):
            self._step(run, step)
            if always_ship:
                self.ship()
            if step % 20 == 0 or step == STEPS[-1]:
                run.flush()
                self.checkpoint = step
        run.artifact(self.weights, "model")
        run.end("FINISHED", {"state": "FINISHED"})

    def _step(self, run: SpoolRun, step: int) -> None:
        run.scalars(step, {"loss/a": step / 10, "loss/b": float("nan") if step == 10 else 1.0})
        run.image("samples/grid", GRID + step, step)
        run.text(f"samples/{step}.txt", f"text of {step}")

    def check(self) -> None:
        """Everything is on the server, once, in the order in which it happened."""
        (run,) = self.server.runs.values()
        assert (run.status, run.params, len(run.inputs)) == ("FINISHED", {"lr": "0.1"}, 1)
        points = defaultdict(list)
        for name, _, step, value in run.points:
            points[name].append((step, value))
        assert points == {
            "loss/a": [(step, step / 10) for step in STEPS],
            "loss/b": [(step, 1.0) for step in STEPS if step != 10],
        }
        assert {"seed": "0", "state": "FINISHED", "mlflow.loggedImages": "True"}.items() <= run.tags.items()
        assert run.tags["aigc_lab.nonfinite"] == "loss/b: 1 from step 10"
        pictures = [name.split("+") for name in run.files if name.startswith("images/")]
        assert sorted((parts[0], int(parts[2]), len(parts)) for parts in pictures) == [
            ("images/samples~grid", step, parts) for step in STEPS for parts in (6, 7)
        ]
        others = {name: content for name, content in run.files.items() if not name.startswith("images/")}
        assert others == {f"samples/{step}.txt": f"text of {step}".encode() for step in STEPS} | {
            "model/weights.bin": b"weights"
        }
        assert list(self.folder.iterdir()) == []
        assert self.told == {(RUN, "1", "0")}


@contextmanager
def struck(fate: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every write to the disk, by the run and by the shipper, is surrounded by instants; lines may be cut anywhere."""
    append = spool_log.append

    def halting(folder: Path, record: dict[str, Any]) -> None:
        size = (folder / spool_log.LOG).stat().st_size if (folder / spool_log.LOG).is_file() else 0
        for part in (lambda line: 0, lambda line: line // 2, lambda line: line - 1):
            try:
                fate()
            except Killed:
                append(folder, record)
                with (folder / spool_log.LOG).open("ab") as log:
                    log.truncate(size + part(log.tell() - size))
                raise
        append(folder, record)
        fate()

    with monkeypatch.context() as patch:
        patch.setattr(spool_log, "append", halting)
        patch.setattr(spool_log, "clear_leftover", partial(piecewise, fate))
        for owner, name in (
            (shipper, "write_atomically"),
            (Path, "rename"),
            (Path, "unlink"),
            (Path, "write_bytes"),
        ):
            patch.setattr(owner, name, surrounded(getattr(owner, name), fate))
        yield


def piecewise(fate: Callable[[], None], folder: Path) -> None:
    """A folder goes file by file."""
    fate()
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        os.unlink(folder / name)
        fate()
    with suppress(FileNotFoundError):
        os.rmdir(folder)


def surrounded(call: Callable[..., Any], fate: Callable[[], None]) -> Callable[..., Any]:
    def calls(*given: Any, **options: Any) -> Any:
        fate()
        answer = call(*given, **options)
        fate()
        return answer

    return calls


@pytest.mark.parametrize("always_ship", [True, False])
def test_a_kill_at_any_instant_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always_ship: bool
) -> None:
    instants = 0
    for number in range(1, 10_000):
        fate = Fate(number)
        home = tmp_path / str(number)
        home.mkdir()
        world = World(home, Server(fate, fate))
        with struck(fate, monkeypatch):
            world.train(always_ship)
            world.finish()
        world.check()
        if fate.left > 0:
            break
        instants += 1
    assert instants > 100, "the kills went through everything that is done"


@pytest.mark.parametrize("seed", range(20))
def test_a_store_that_fails_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    source = random.Random(seed)

    def fail() -> None:
        if source.random() < 0.15:
            raise ConnectionError("connection reset")

    def kill() -> None:
        if source.random() < 0.01:
            raise Killed

    world = World(tmp_path, Server(fail, fail))
    with struck(kill, monkeypatch):
        world.train(always_ship=True)
        world.finish()
    world.check()
