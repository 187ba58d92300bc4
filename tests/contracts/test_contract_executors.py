"""What every file in `executors/` must do, found by name, and a user's executor, named by its path."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aigc_lab import plugins
from aigc_lab.commands import sweep
from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Executor, Place
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.host import signals
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_sweeps
from aigc_lab.runs.job import Job, RunOutcome
from aigc_lab.sweeps.session import Opened, opened, stores
from aigc_lab.tracking import writer
from aigc_lab.tracking.spool_log import records

# Does what files beside it ask for, while it is scored.
SYSTEM = """
import time
from pathlib import Path
from aigc_lab.systems import point_gan

HERE = Path(FOLDER)  # a file is loaded once for each content

class Told(point_gan.PointGAN):
    def generate(self, *given, **options):
        if (HERE / "fail").exists():
            raise RuntimeError("it was told to")
        if (HERE / "wait").exists():
            (HERE / "waits").touch()
        while (HERE / "wait").exists():
            time.sleep(0.02)
        return super().generate(*given, **options)
"""
EXPERIMENT = """\
data: {name: ring, points: 2000}
system: {name: ./told.py, hidden: 8}
training: {steps: 4, batch_size: 16, log_every: 2, evaluate_every: 4, threads: 1}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
"""
# An executor of one's own.
THEIRS = '''
"""Runs in this process, counted."""
from aigc_lab.executors import inline

class Counted(inline.Inline):
    count = 0

    def run(self, job, watcher):
        Counted.count += 1
        return super().run(job, watcher)
'''
NAMES = [*plugins.names("executors"), "./theirs.py"]


class Silent:
    """A writer that leaves everything in the spool."""

    def __init__(self, *_: object) -> None: ...

    def start(self) -> None: ...

    def finish(self, patience: float | None = None) -> None: ...


class Watcher:
    """Looks on, and notes what it is told."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def progress(self, now: Any) -> None: ...

    def scored(self, step: int, value: float) -> bool:
        self.steps.append(step)
        return False


class Work:
    """A sweep that an executor is open for."""

    def __init__(self, folder: Path, registry: Registry, settings: Settings, opening: Opened, plan: Any) -> None:
        self.folder, self.registry, self.settings = folder, registry, settings
        self.opening, self.plan = opening, plan
        self.watcher = Watcher()
        self._seed = 0
        registry.trial(opening.sweep, 0, plan.system, plan.chosen, plan.values)

    def job(self, objective: Any) -> Job:
        self._seed += 1
        run = self.registry.run(self.opening.sweep, 0, self._seed, "search")
        return Job(run, self.opening.sweep, 0, self._seed, "search", self.plan, objective)

    def told(self, run: str) -> dict[str, Any]:
        """What MLflow is told at the end of a run."""
        folder = writer.spool_folder(self.settings, self.opening.sweep) / f"{run}.1"
        return [record for record in records(folder) if "end" in record][-1]

    def attempts(self, run: str) -> list[str]:
        return [attempt["state"] for attempt in show_run(self.registry, run)["attempts"]]

    def process(self, run: str) -> Any:
        return next(row["process"] for row in liveness.running(self.registry) if row["run"] == run)

    @contextmanager
    def once_it_waits(self, do: Callable[[], None]) -> Iterator[None]:
        """Within, something is done in the middle of a run, which then goes on."""
        wait, waits = self.folder / "wait", self.folder / "waits"
        waits.unlink(missing_ok=True)
        wait.touch()

        def act() -> None:
            until = time.monotonic() + 120
            while not waits.exists() and time.monotonic() < until:
                time.sleep(0.02)
            try:
                do()
            finally:
                wait.unlink()

        thread = threading.Thread(target=act)
        thread.start()
        try:
            yield
        finally:
            thread.join()


@contextmanager
def working(folder: Path, name: str, said: list[str]) -> Iterator[tuple[Work, Any]]:
    (folder / "told.py").write_text(SYSTEM.replace("FOLDER", repr(str(folder))))
    (folder / "theirs.py").write_text(THEIRS)
    (folder / "mine.yaml").write_text(EXPERIMENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "Writer", Silent)
        patch.chdir(folder)
        for variable in [each for each in os.environ if each.startswith(("AIGC_LAB_HOME", "AIGC_LAB_R", "MLFLOW"))]:
            patch.delenv(variable)
        settings = Settings.load(folder / "home")
        experiment = load_experiment("mine.yaml", data_dir=settings.data_dir)
        plan = experiment.resolve(lambda hole: hole.ends()[0])
        given = [Place("cpu", 1)], said.append
        with (
            stores(settings, experiment.sweep) as (registry, _),
            opened(experiment, settings, registry, *given, executor=name) as opening,
        ):
            yield Work(folder, registry, settings, opening, plan), experiment.file.objective


@pytest.fixture(scope="module", params=NAMES)
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Work, Any]]:
    with working(tmp_path_factory.mktemp("executor"), request.param, []) as found:
        yield found


def test_a_small_job_is_done_and_recorded(work: tuple[Work, Any]) -> None:
    here, objective = work
    job = here.job(objective)
    outcome = here.opening.executor.run(job, here.watcher)
    assert outcome.state == RunState.FINISHED and outcome.reason is None
    row = show_run(here.registry, job.run)
    assert (row["state"], here.attempts(job.run)) == ("FINISHED", ["FINISHED"])
    assert here.watcher.steps == [4]
    (value,) = [score["value"] for score in row["progress"] if score["name"] == "rkl"]
    assert outcome.value == value
    assert here.told(job.run)["end"] == "FINISHED" and here.told(job.run)["tags"]["state"] == "FINISHED"


def test_a_job_that_fails_is_recorded_and_the_next_is_done(work: tuple[Work, Any]) -> None:
    here, objective = work
    job = here.job(objective)
    (here.folder / "fail").touch()
    try:
        outcome = here.opening.executor.run(job, here.watcher)
    finally:
        (here.folder / "fail").unlink()
    assert outcome == RunOutcome(RunState.FAILED, None, "RuntimeError: it was told to")
    assert show_run(here.registry, job.run)["state"] == "FAILED"
    assert here.told(job.run)["end"] == "FAILED"
    assert here.opening.executor.run(here.job(objective), here.watcher).state == RunState.FINISHED


def test_a_job_whose_process_is_killed_is_done_all_the_same(work: tuple[Work, Any]) -> None:
    """Where it has a process of its own: in this one the command dies with it, and `resume` goes on."""
    here, objective = work
    job = here.job(objective)
    killed: list[bool] = []

    def kill() -> None:
        process = here.process(job.run)
        if process.pid != os.getpid():
            process.signal(signal.SIGKILL)
            killed.append(True)

    with here.once_it_waits(kill):
        outcome = here.opening.executor.run(job, here.watcher)
    assert outcome.state == RunState.FINISHED
    assert here.attempts(job.run) == ["KILLED"] * len(killed) + ["FINISHED"]
    assert here.told(job.run)["end"] == "FINISHED"


@pytest.mark.parametrize("name", NAMES)
def test_a_stop_in_the_middle_interrupts_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    with signals.handled(exits=False), working(tmp_path, name, []) as (here, objective):
        job = here.job(objective)
        processes: list[Any] = []

        def stop() -> None:
            processes.append(here.process(job.run))
            here.opening.executor.stop()
            signals.request_stop()

        with pytest.raises(KeyboardInterrupt), here.once_it_waits(stop):
            here.opening.executor.run(job, here.watcher)
        here.opening.executor.stop()  # harmless
    with Registry.open(here.settings.registry_url, create=False) as registry:
        row = show_run(registry, job.run)
    assert (row["state"], [each["state"] for each in row["attempts"]]) == ("KILLED", ["KILLED"])
    assert row["reason"].startswith("interrupted")
    (process,) = processes
    assert process.pid == os.getpid() or not process.alive
    assert here.told(job.run)["end"] == "KILLED"


def test_a_sweep_is_done_by_the_executor_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "Writer", Silent)
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "told.py": SYSTEM.replace("FOLDER", "'.'"),
        "theirs.py": THEIRS,
        "mine.yaml": EXPERIMENT,
    }.items():
        (tmp_path / name).write_text(text)
    kind: Any = plugins.find(Executor, "./theirs.py")
    before = kind.count
    sweep.sweep_experiment("mine.yaml", [], device="cpu", json=True, home=tmp_path / "home", executor="./theirs.py")
    assert kind.count == before + 1


def test_an_executor_that_is_unknown_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"unknown executor 'lokal'; did you mean local\?"),
        working(tmp_path, "lokal", []),
    ):
        raise AssertionError
    with Registry.open(Settings.load(tmp_path / "home").registry_url, create=False) as registry:
        assert list_sweeps(registry) == []
