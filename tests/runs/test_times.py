"""What runs cost, when several are done together: their seconds add up to the time of their process, wherever they are
shown; and the CPU threads that they take.
"""

import os
import time
from pathlib import Path

import pytest
import torch
from harness import NoWriter, plain_environment
from shell import command

from aigc_lab.commands.status import StatusView
from aigc_lab.data.shared.batches import Batches
from aigc_lab.display.progress import SweepDisplay
from aigc_lab.display.terminal import console
from aigc_lab.executors.base import Place
from aigc_lab.experiment import sections
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.host import environment
from aigc_lab.host.settings import Settings
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.states import RunState as RunState
from aigc_lab.registry.store import Registry
from aigc_lab.runs.job import Job
from aigc_lab.runs.record import SharedClock
from aigc_lab.runs.resources import Resources
from aigc_lab.samples import Points
from aigc_lab.shape import Modality, Shape
from aigc_lab.sweeps.places import describe_places, describe_threads
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.tracking import writer
from aigc_lab.training.averages import MovingAverage
from aigc_lab.training.course import Course
from aigc_lab.training.loop import train
from aigc_lab.training.plain import Plain
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Progress, Replica, Round, TrainingState

TEXT = """\
data: {name: ring, points: 500}
system: {name: point_gan, hidden: 16}
training: {steps: 40, batch_size: 16, log_every: 10, evaluate_every: 10, threads: 1, stacked: true}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
"""


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_runs_that_are_done_together_share_the_time() -> None:
    now = Clock()
    clock = SharedClock(24, now)
    now.seconds = 480.0
    assert clock.read() == 20.0
    clock.leave()
    now.seconds += 230.0
    assert clock.read() == 20.0 + 230.0 / 23
    # The one that left cost 20 s, the others 30 s each: 710 s, as the clock says.
    assert 20.0 + 23 * clock.read() == now.seconds


def replicas(count: int) -> list[Replica]:
    points = Points(torch.randn(60, 2, generator=torch.Generator().manual_seed(0)))
    found = []
    for seed in range(count):
        state = TrainingState.fresh(
            PointGAN,
            PointGAN.Config(hidden=8, latent_size=2),
            Shape(Modality.POINTS, (2,)),
            seed=seed,
            batch_size=6,
            device="cpu",
        )
        found.append(Replica(state, Batches(points, 6, seed), seed))
    return found


@pytest.mark.parametrize(("course", "a_step"), [(Plain, 3 * 2.0), (Stacked, 2.0)])
def test_the_seconds_of_steps_add_up_to_the_time_they_took(
    course: type[Course], a_step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three runs, a moving average in two seconds; `a_step` is how long a step of all takes by the clock."""
    now, update = Clock(), MovingAverage.update

    def slow(average: MovingAverage, step: int) -> None:
        now.seconds += 2.0
        update(average, step)

    monkeypatch.setattr(MovingAverage, "update", slow)
    monkeypatch.setattr(time, "perf_counter", now)
    rounds: list[Round] = []
    for reached in train(replicas(3), steps=10, every=4, precision="fp32", course=course):
        rounds.append(reached)
        now.seconds += 1000.0  # evaluations and files are none of the training's
    for reached, steps in zip(rounds, (4, 4, 2), strict=True):
        ends = [end for _, end in reached if isinstance(end, Progress)]
        assert [end.seconds for end in ends] == [steps * a_step / 3] * 3
        assert [end.samples_per_second for end in ends] == [6 / a_step] * 3


def test_a_run_that_began_further_on_has_its_own_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rounds of one do not cut the interval of another."""
    now, update = Clock(), MovingAverage.update

    def slow(average: MovingAverage, step: int) -> None:
        now.seconds += 1.0
        update(average, step)

    monkeypatch.setattr(MovingAverage, "update", slow)
    monkeypatch.setattr(time, "perf_counter", now)
    runs = replicas(2)
    for _ in train(runs[:1], steps=2, every=2, precision="fp32"):
        pass
    found = [
        (runs.index(replica), end.step, end.seconds, end.samples_per_second)
        for reached in train(runs, steps=8, every=4, precision="fp32")
        for replica, end in reached
        if isinstance(end, Progress)
    ]
    assert found == [
        (0, 4, 2.0, 3.0),
        (1, 4, 4.0, 3.0),
        (0, 8, 4.0, 3.0),
        (1, 8, 4.0, 4.0),
    ]  # 14 s in all, as by the clock


def test_stored_seconds_of_a_stack_add_up_to_no_more_than_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in set(os.environ) - set(plain_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setattr(writer, "Writer", NoWriter)
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(TEXT)
    seeds = [word for seed in range(6) for word in ("--seed", str(seed))]
    begun = time.perf_counter()
    assert command("train", "mine.yaml", "--device", "cpu", *seeds).code == 0
    passed = time.perf_counter() - begun
    with Registry.open(Settings.load().registry_url, create=False) as registry:
        runs = list_runs(registry)
        (row,) = compare_trials(registry, runs[0]["sweep"]).rows
        scalars = [show_run(registry, run["run"])["scalars"] for run in runs]
    assert len(runs) == 6
    assert 0 < sum(run["seconds"] for run in runs) <= passed
    assert row["seconds"] == pytest.approx(sum(run["seconds"] for run in runs))
    assert sum(each["time/training_seconds"] + each["time/evaluation_seconds"] for each in scalars) <= passed


EXPERIMENT = {
    "data": {"name": "digits"},
    "system": {"name": "dcgan"},
    "training": {"steps": 40},
    "evaluation": "image-small",
    "objective": {"minimize": "fd"},
}


def test_what_is_left_of_a_stack_is_told_by_the_clock(tmp_path: Path) -> None:
    """24 runs of one process: 12 cost 26 s each, so as much again, 312 s, is left, and not 26 s."""
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        sweep = registry.sweep("digits", "0123456789", EXPERIMENT, "fd", "lower", command="train")
        registry.trial(sweep, 0, "dcgan", {}, {})
        registry.supervise(sweep)
        for seed in range(24):
            run = registry.run(sweep, 0, seed, "search")
            attempt = registry.begin(run, {})
            if seed < 12:
                registry.finish(run, attempt, RunState.FINISHED, seconds=26.0)
        (row,) = StatusView(registry, Settings.load(tmp_path), "digits").rows()
    assert row["seconds_left"] == 312.0


@pytest.mark.parametrize(
    ("workers", "under_way", "total", "said"),
    [
        (1, 24, 24, "run 24 of at most 24 · 100 s left"),  # a stack: all end together
        (1, 1, 3, "run 1 of at most 3 · 500 s left"),
        (2, 2, 4, "run 2 of at most 4 · 300 s left"),
        (4, 1, 1, "100 s left"),  # nobody else has anything to do
    ],
)
def test_the_time_left_is_the_clock_s(
    workers: int, under_way: int, total: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All under way are half done after 100 s."""
    now = Clock()
    monkeypatch.setattr(time, "monotonic", now)
    monkeypatch.setattr("aigc_lab.display.progress.duration", lambda seconds: f"{seconds:g} s")
    display = SweepDisplay(console(stderr=True), 10, workers=workers)
    configuration = type("Configuration", (), {"system": "dcgan", "chosen": {}})
    jobs = [
        Job(f"run{seed}", "sweep", 0, seed, "search", configuration, None)  # type: ignore[arg-type]
        for seed in range(under_way)
    ]
    for job in jobs:
        display.begin(job, 1, total)
    now.seconds = 100.0
    for job in jobs:
        display.progress(job, Progress(5, {}, 1.0, 1.0))
    assert display._left() == said


@pytest.mark.parametrize(
    ("said", "given", "share", "used"),
    [
        (None, None, None, 8),
        ("3", None, None, 3),
        ("3,2", None, None, 3),
        ("100", None, None, 8),
        ("0", None, None, 8),
        ("many", None, None, 8),
        ("3", None, 2, 2),  # a worker's share of the cores
        ("3", None, 8, 3),
        ("3", 5, 8, 5),  # the experiment's own number is a part of its bits
        ("3", 5, 2, 2),
    ],
)
def test_threads_are_those_that_were_asked_for(
    said: str | None, given: int | None, share: int | None, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    before = torch.get_num_threads()
    try:
        resources = Resources(None, None, None, None, "cpu", share)  # type: ignore[arg-type]
        resources.settle(sections.Training(steps=1, threads=given, log_every=1, evaluate_every=1))
        assert torch.get_num_threads() == environment.describe("cpu")["threads"] == used
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("said", "given", "line"),
    [
        (None, None, None),
        ("8", None, None),
        ("3", 3, None),
        ("3", None, "3 CPU threads for a run, as OMP_NUM_THREADS=3 says"),
        ("3", 5, "OMP_NUM_THREADS=3 is not used: training.threads is 5"),
        ("100", None, "8 CPU threads for a run, as OMP_NUM_THREADS=100 says"),
    ],
)
def test_what_is_said_of_threads(
    said: str | None, given: int | None, line: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    file = tmp_path / "mine.yaml"
    file.write_text(TEXT.replace("threads: 1, ", f"threads: {given}, " if given else ""))
    experiment = load_experiment(str(file), data_dir=tmp_path)
    assert describe_threads(experiment) == line
    assert describe_places([Place("cpu", 4)] * 2, experiment).startswith(
        f"2 workers on cpu, {min(4, given or int(said or 8))} CPU threads each"
    )
