"""A run that FAILED is repeated when that is asked for, or when something that may have been the reason has changed."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aigc_lab.commands import sweep
from aigc_lab.executors import base
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.host import environment
from aigc_lab.host.settings import Settings
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.runs.job import Job, RunOutcome, Watcher
from aigc_lab.sweeps import scheduler
from aigc_lab.sweeps.execution import Chosen
from aigc_lab.sweeps.session import Opened

TEXT = """\
data: {name: ring, points: 2000}
system: {name: point_gan, hidden: 16, lr: 1e-3}
training: {steps: 20, log_every: 10, evaluate_every: 20}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
search: {trials: 1, seeds: 3}
"""
SAID = "1 run failed before and is left: the same would happen again; --retry-failed tries nevertheless"


class Doing(base.Executor):
    """Trains nothing, and remembers which seeds it was to do."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def run(self, job: Job, watcher: Watcher) -> RunOutcome:
        self.seeds.append(job.seed)
        return RunOutcome(RunState.FINISHED, 1.0, None)

    def stop(self) -> None: ...


class Told:
    """A display that remembers what it was to say."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def begin(self, job: Job, number: int, total: int) -> None: ...

    def progress(self, job: Job, now: Any) -> None: ...

    def scored(self, job: Job, step: int, value: float) -> None: ...

    def end(self, job: Job, outcome: RunOutcome) -> None: ...


class Before:
    """A sweep whose three seeds have ended: FINISHED, FAILED, and KILLED."""

    def __init__(self, folder: Path) -> None:
        (folder / "mine.yaml").write_text(TEXT)
        self.experiment: Experiment = load_experiment(str(folder / "mine.yaml"), data_dir=folder)
        self.settings = Settings.load(folder)
        self.registry = Registry.open(f"sqlite:///{folder / 'registry.db'}")
        self.sweep = self.registry.sweep("mine", self.experiment.digest, {}, "rkl", "lower", command="train")
        plan = self.experiment.resolve(lambda hole: hole.ends()[0])
        self.registry.trial(self.sweep, 0, plan.system, plan.chosen, plan.values)
        for seed, state in enumerate((RunState.FINISHED, RunState.FAILED, RunState.KILLED)):
            run = self.registry.run(self.sweep, 0, seed, "search")
            self.registry.finish(run, self.registry.begin(run, environment.describe("cpu")), state)

    def again(self, command: str = "sweep", *, retry_failed: bool = False) -> tuple[list[int], str]:
        """Which seeds are done by the same command, and what is said."""
        lab: Any = SimpleNamespace(registry=self.registry, settings=self.settings, device="cpu", replicas={})
        executor, display = Doing(), Told()
        opened = Opened(self.sweep, lab, executor, threading.Event())
        if command == "sweep":
            scheduler.run_sweep(self.experiment, opened, display, retry_failed=retry_failed)
        else:
            seeds: Sequence[int] = range(3)
            scheduler.run_seeds(self.experiment, opened, display, seeds, retry_failed=retry_failed)
        return executor.seeds, "\n".join(display.said)


@pytest.fixture
def before(tmp_path: Path) -> Iterator[Before]:
    made = Before(tmp_path)
    with made.registry:
        yield made


@pytest.mark.parametrize("command", ["sweep", "train"])
@pytest.mark.parametrize(
    ("changed", "repeated"),
    [
        ({}, False),
        ({"pid": 1, "host": "elsewhere", "threads": 99, "oom_kills": 10**6}, False),
        ({"versions": {"torch": "0.0.1"}}, True),
        ({"git_commit": "0" * 40}, True),
        ({"git_dirty": "neither"}, True),
        ({"device": "NVIDIA H100"}, True),
    ],
)
def test_what_failed_is_repeated_in_another_environment(
    before: Before, monkeypatch: pytest.MonkeyPatch, command: str, changed: dict[str, Any], repeated: bool
) -> None:
    now = environment.describe("cpu") | changed
    monkeypatch.setattr(environment, "describe", lambda device: now)
    seeds, said = before.again(command)
    assert seeds == ([1, 2] if repeated else [2])
    assert said == ("" if repeated else SAID)


@pytest.mark.parametrize("retry_failed", [False, True])
def test_resume_hands_on_what_failed_and_the_environment_decides(
    before: Before, monkeypatch: pytest.MonkeyPatch, retry_failed: bool
) -> None:
    """As when the command itself is typed again."""
    given: list[Any] = []
    monkeypatch.setattr(sweep, "_stored", lambda row, settings, asked: (before.experiment, Chosen()))
    monkeypatch.setattr(sweep, "_train", lambda *words, **options: given.append((*words, options)))
    sweep.resume_sweep("mine", device="cpu", retry_failed=retry_failed, table=False, home=before.settings.home)
    ((_, _, seeds, _, options),) = given
    assert (seeds, options["retry_failed"]) == ([1, 2], retry_failed)


@pytest.mark.parametrize("command", ["sweep", "train"])
def test_what_failed_is_repeated_when_asked_for(before: Before, command: str) -> None:
    assert before.again(command, retry_failed=True) == ([1, 2], "")


def test_it_is_the_newest_attempt_that_counts(before: Before, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run has failed here too, after it had failed elsewhere."""
    here = environment.describe("cpu")
    run = f"{before.sweep}.0.1"
    elsewhere = here | {"versions": {"torch": "0.0.1"}}
    before.registry.finish(run, before.registry.begin(run, elsewhere), RunState.FAILED)
    assert before.again()[0] == [1, 2]
    before.registry.finish(run, before.registry.begin(run, here), RunState.FAILED)
    assert before.again("train")[0] == [2]
