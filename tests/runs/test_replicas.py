"""Runs of a sweep that are trained as one program: each is a run of its own, whatever becomes of the others."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import NoWriter, plain_environment

from aigc_lab.executors.base import Place
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.host import signals
from aigc_lab.host.settings import Settings
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.store import Registry
from aigc_lab.runs import rounds
from aigc_lab.runs.job import Job, RunOutcome
from aigc_lab.runs.resources import Resources
from aigc_lab.runs.run import execute
from aigc_lab.runs.together import execute_together
from aigc_lab.sweeps.session import opened
from aigc_lab.tracking import writer
from aigc_lab.training import loop
from aigc_lab.training.stacked import Stacked

# A system whose samples cannot be drawn, at one learning rate.
SPY = """
from aigc_lab.systems import point_gan

class Spy(point_gan.PointGAN):
    def generate(self, *given, **options):
        if self.config.lr == 0.0123 and self.generator[0].bias.abs().max() > 0.05:
            raise RuntimeError("no samples today")
        return super().generate(*given, **options)
"""
TEXT = """\
data: {name: ring, points: 500}
system: {name: ./spy.py, hidden: 16, latent_size: 4, lr: {log: [1e-5, 1e30]}}
training: {steps: 40, batch_size: 16, log_every: 10, evaluate_every: 20, threads: 1, checkpoint_seconds: 0, ema: 0.9}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
search: {trials: 9, seeds: 3}
"""
# Of a loss after 40 steps of Adam: single precision is worth 10⁻⁶ a step, another seed or rate 10⁻² and more.
ROUNDING = 1e-3


@dataclass
class Watching:
    """Stops its run at a step, and keeps what it was told."""

    stop_at: int | None = None
    steps: list[int] = field(default_factory=list)
    seconds: float = 0.0
    at: Callable[[int], None] = lambda step: None

    def progress(self, now: Any) -> None:
        self.seconds += now.seconds
        self.at(now.step)

    def scored(self, step: int, value: float, *, error: float = math.nan, collapse: str | None = None) -> bool:
        self.steps.append(step)
        return step == self.stop_at


class Session:
    """A sweep that is open, whose runs are done here."""

    def __init__(self, sweep: str, resources: Resources, experiment: Any) -> None:
        self.sweep, self.resources, self._experiment = sweep, resources, experiment
        self.ended: list[tuple[str, str]] = []
        self.widths: list[int] = []

    def job(self, trial: int, seed: int, lr: float) -> Job:
        (hole,) = self._experiment.holes
        plan = self._experiment.resolve(lambda _: lr)
        registry = self.resources.registry
        registry.trial(self.sweep, trial, plan.system, plan.chosen, {hole.name: lr})
        run = registry.run(self.sweep, trial, seed, "search")
        return Job(run, self.sweep, trial, seed, "search", plan, self._experiment.file.objective)

    def together(self, jobs: Sequence[Job], watchers: Sequence[Watching]) -> None:
        def ended(job: Job, outcome: RunOutcome) -> None:
            self.ended.append((f"{job.trial}.{job.seed}", str(outcome.state)))

        execute_together(jobs, self.resources, watchers, ended=ended, fewer=self.widths.append)

    def run(self, job: Job) -> dict[str, Any]:
        return show_run(self.resources.registry, job.run)

    def weights(self, job: Job) -> str:
        return next(str(file["sha256"]) for file in self.run(job)["checkpoints"] if file["kind"] == "last")

    def losses(self, job: Job) -> dict[str, float]:
        return {name: value for name, value in self.run(job)["scalars"].items() if name.startswith("loss/")}

    def curve(self, job: Job) -> Any:
        path = next(file["path"] for file in self.run(job)["artifacts"] if file["name"] == "curves")
        return json.loads(Path(path).read_text("utf-8"))


Opener = Callable[[str], Any]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Opens the sweep in a home of this name."""
    for name in set(os.environ) - set(plain_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setattr(writer, "Writer", NoWriter)
    (tmp_path / "mine.yaml").write_text(TEXT)
    (tmp_path / "spy.py").write_text(SPY)

    @contextmanager
    def open_in(home: str) -> Iterator[Session]:
        settings = Settings.load(tmp_path / home)
        settings.prepare()
        experiment = load_experiment(str(tmp_path / "mine.yaml"), data_dir=settings.data_dir)
        with (
            Registry.open(f"sqlite:///{settings.home / 'registry.db'}") as registry,
            opened(experiment, settings, registry, [Place("cpu", 1)], lambda text: None) as opening,
        ):
            yield Session(opening.sweep, opening.resources, experiment)

    return open_in  # type: ignore[return-value]


def close(one: dict[str, float], two: dict[str, float]) -> bool:
    return one.keys() == two.keys() and all(
        abs(value - two[name]) <= ROUNDING * max(abs(value), abs(two[name])) for name, value in one.items()
    )


THREE = ((0, 0, 1e-3), (0, 1, 1e-3), (1, 0, 3e-3))


def test_each_is_what_it_is_alone(session: Opener) -> None:
    with session("stacked") as stack, session("alone") as alone:
        jobs = [stack.job(*each) for each in THREE]
        begun = time.perf_counter()
        stack.together(jobs, watchers := [Watching() for _ in jobs])
        passed = time.perf_counter() - begun
        by_itself = [alone.job(*each) for each in THREE]
        for job in by_itself:
            execute([job], alone.resources, [Watching()])
        for job, other, watcher in zip(jobs, by_itself, watchers, strict=True):
            run = stack.run(job)
            assert run["state"] == "FINISHED" and len(run["attempts"]) == 1
            assert close(stack.losses(job), alone.losses(other))
            assert watcher.steps == [20, 40]
            assert run["environment"]["stacked"] == ["0.0", "0.1", "1.0"]
            assert "stacked" not in alone.run(other)["environment"]
        assert not close(stack.losses(jobs[0]), alone.losses(by_itself[1])), "a seed tells"
        assert not close(stack.losses(jobs[1]), alone.losses(by_itself[2])), "so does a rate"
        assert [name for name, _ in stack.ended] == ["0.0", "0.1", "1.0"]
        # They share the time of their process.
        assert 0 < sum(stack.run(job)["seconds"] for job in jobs) <= passed
        assert sum(watcher.seconds for watcher in watchers) <= passed


def test_pruned_diverged_failed_and_the_others_go_on(session: Opener) -> None:
    with session("stacked") as stack, session("alone") as alone:
        jobs = [stack.job(trial, 0, lr) for trial, lr in enumerate((1e-3, 1e29, 0.0123, 2e-3))]
        watchers = [Watching(stop_at=20), *(Watching() for _ in jobs[1:])]
        stack.together(jobs, watchers)
        assert stack.ended == [("1.0", "DIVERGED"), ("2.0", "FAILED"), ("0.0", "PRUNED"), ("3.0", "FINISHED")]
        assert [stack.run(job)["state"] for job in jobs] == ["PRUNED", "DIVERGED", "FAILED", "FINISHED"]
        assert "no samples today" in stack.run(jobs[2])["reason"]
        assert all(len(stack.run(job)["attempts"]) == 1 for job in jobs)
        assert watchers[3].steps == [20, 40]
        other = alone.job(3, 0, 2e-3)
        execute([other], alone.resources, [Watching()])
        assert close(stack.losses(jobs[3]), alone.losses(other))


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Asks this process to stop, once, in the middle of an interval."""

    def stop_at(step: int) -> None:
        asked = [False]

        def requested() -> bool:
            return asked[0]

        whole = Stacked.step

        def stepping(course: Stacked, *end: Any) -> None:
            whole(course, *end)
            asked[0] = asked[0] or course.at == step

        monkeypatch.setattr(Stacked, "step", stepping)
        monkeypatch.setattr(signals, "stop_requested", requested)
        monkeypatch.setattr(signals, "raise_if_interrupted", lambda: _interrupt(requested()))

    return stop_at


def _interrupt(requested: bool) -> None:
    if requested:
        raise KeyboardInterrupt


def test_interrupted_they_go_on_to_the_same_bits_in_the_same_company(
    session: Opener, stop_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with session("straight") as straight:
        jobs = [straight.job(*each) for each in THREE]
        straight.together(jobs, [Watching() for _ in jobs])
        expected = [straight.weights(job) for job in jobs]
    with session("again") as again:
        jobs = [again.job(*each) for each in THREE]
        with monkeypatch.context():
            stop_at(27)
            with pytest.raises(KeyboardInterrupt):
                again.together(jobs, [Watching() for _ in jobs])
        assert [again.run(job)["state"] for job in jobs] == ["KILLED"] * 3
        assert not again.ended
        monkeypatch.undo()
        monkeypatch.setattr(writer, "Writer", NoWriter)
        again.together(jobs, [Watching() for _ in jobs])
        runs = [again.run(job) for job in jobs]
        assert [[each["from_step"] for each in run["attempts"]] for run in runs] == [[0, 27]] * 3
        assert [again.weights(job) for job in jobs] == expected


def test_those_that_lie_behind_catch_up_first(session: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a crash in the middle of the writing of checkpoints."""
    companies: list[tuple[int, list[int]]] = []
    trained = loop.train

    def spying(replicas: Any, **options: Any) -> Any:
        companies.append((len(replicas), [replica.state.step for replica in replicas]))
        return trained(replicas, **options)

    with session("alone") as alone, session("home") as home:
        by_itself = [alone.job(*each) for each in THREE]
        for job in by_itself:
            execute([job], alone.resources, [Watching()])
        jobs = [home.job(*each) for each in THREE]

        def crash(step: int) -> None:
            if step == 20:
                raise KeyboardInterrupt

        for job in jobs[1:]:
            with pytest.raises(KeyboardInterrupt):
                execute([job], home.resources, [Watching(at=crash)])
        monkeypatch.setattr(rounds, "train", spying)
        home.together(jobs, [Watching() for _ in jobs])
        assert companies == [(1, [0]), (3, [20, 20, 20])]
        for job, other in zip(jobs, by_itself, strict=True):
            assert close(home.losses(job), alone.losses(other))
            # No interval was cut where they met.
            curve = home.curve(job)
            assert curve["loss/critic/total"]["step"] == [10, 20, 30, 40]


def test_where_memory_ends_they_are_halved(session: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Stacked.step

    def full(course: Stacked, *end: Any) -> None:
        if len(course.replicas) > 2 and course.at == 25:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        whole(course, *end)

    monkeypatch.setattr(Stacked, "step", full)
    with session("home") as home:
        jobs = [home.job(trial, 0, 1e-3) for trial in range(5)]
        home.together(jobs, [Watching() for _ in jobs])
        runs = [home.run(job) for job in jobs]
        assert {run["state"] for run in runs} == {"FINISHED"}
        # Three were too many still.
        assert home.widths == [3, 2]
        counts = [[each["state"] for each in run["attempts"]] for run in runs]
        assert counts == [["KILLED", "KILLED", "FINISHED"]] * 3 + [["KILLED", "FINISHED"]] * 2
        assert {run["attempts"][-1]["from_step"] for run in runs} == {20}
        assert "out of memory" in runs[0]["attempts"][0]["reason"]
        assert [run["environment"].get("stacked") for run in runs] == [
            ["0.0", "1.0"], ["0.0", "1.0"], None, ["3.0", "4.0"], ["3.0", "4.0"]
        ]  # fmt: skip
        assert [name for name, _ in home.ended] == ["0.0", "1.0", "2.0", "3.0", "4.0"]
