"""`execution.threads: auto`: the threads with the most runs per hour, measured once, and no more than the cores."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_limits

from aigc_lab.api import sweep
from aigc_lab.commands import sweep as command
from aigc_lab.commands.worker import crowded
from aigc_lab.display.terminal import console
from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Place
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.host import environment
from aigc_lab.host.settings import Settings
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry
from aigc_lab.sweeps import needs, thread_choice
from aigc_lab.sweeps.estimate import Estimate
from aigc_lab.sweeps.execution import Asked, choose
from aigc_lab.sweeps.places import assign_places, choose_places, describe_threads
from aigc_lab.sweeps.thread_choice import fastest, threaded

LONG = 3600.0
WHOLE: dict[str, Any] = {
    "name": "mine",
    "data": {"name": "ring", "points": 300},
    "system": {"name": "point_gan", "hidden": 8, "lr": {"log": [1e-4, 1e-3]}},
    "training": {"steps": 4, "batch_size": 8, "log_every": 2, "evaluate_every": 4},
    "evaluation": {"name": "points", "samples": 200},
    "objective": {"minimize": "rkl"},
    "search": {"trials": 100},
    "execution": {"threads": "auto"},
}


def made(**sections: Any) -> Experiment:
    return load_experiment(WHOLE | sections, data_dir=Path())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Sequence[int]]]:
    """A machine of so many cores, on which a step takes so many seconds by its threads; what was measured on it."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(needs, "free_memory", lambda device="cpu": 64 * 10**9)

    def of(cores: int, seconds: Mapping[int, float]) -> list[Sequence[int]]:
        asked: list[Sequence[int]] = []

        def measure(plan: Any, numbers: Sequence[int]) -> dict[int, float]:
            asked.append(numbers)
            return {number: seconds[number] for number in numbers}

        monkeypatch.setattr(environment, "cores", lambda: cores)
        monkeypatch.setattr(thread_choice, "_measure", measure)
        return asked

    return of


@pytest.mark.parametrize(
    ("seconds", "workers", "best"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.4}, 100, 1),  # 4, 3.3 and 2.5 steps a second
        ({1: 1.0, 2: 0.4, 4: 0.3}, 100, 2),  # 4, 5 and 3.3
        ({1: 1.0, 2: 0.6, 4: 0.4}, 2, 2),  # 2, 3.3 and 2.5: there are two runs
        ({1: 1.0, 2: 0.6, 4: 0.4}, 1, 4),
        ({1: 1.0, 2: 0.98, 4: 0.97}, 1, 1),  # a little is no gain
        ({1: 1.0, 3: 0.2}, 100, 3),  # of four cores one is left over
    ],
)
def test_the_most_runs_per_hour(seconds: dict[int, float], workers: int, best: int) -> None:
    assert fastest(seconds, 4, workers)[0] == best


def test_workers_times_threads_are_no_more_than_the_cores(machine: Any, tmp_path: Path) -> None:
    """Whatever is measured, whoever says the number of workers; more workers than cores have a thread each."""
    timings = (lambda n: 1.0, lambda n: 1 / n, lambda n: 0.4 + 0.6 / n, lambda n: n)
    for number, (cores, timing) in enumerate(itertools.product((1, 2, 3, 6, 8), timings)):
        machine(cores, {n: float(timing(n)) for n in range(1, cores + 1)})
        for runs in (1, 2, 100):
            experiment, cache = made(search={"trials": runs}), tmp_path / str(number)
            places, _ = threaded(experiment, assign_places("cpu", None, None, runs), cache, chooses=True)
            places, _ = choose_places(experiment, LONG, places[0].threads)
            assert len(places) <= runs and sum(place.threads for place in places) <= cores
            for workers in (1, 2, 5):
                given, _ = threaded(experiment, assign_places("cpu", workers, None, runs), cache, chooses=False)
                assert len(given) == min(workers, runs)
                assert sum(place.threads for place in given) <= max(cores, len(given))


def test_it_is_measured_once_and_said_in_a_line(machine: Any, tmp_path: Path) -> None:
    asked = machine(4, {1: 1.0, 2: 0.4, 4: 0.3})
    for _ in range(2):
        places, line = threaded(made(), [Place("cpu", 4)], tmp_path, chooses=True)
        assert places == [Place("cpu", 2)]
        assert line == (
            "execution.threads: 2 CPU threads for a run, for most runs per hour (measured: of these 0.80 with 1, "
            "0.67 with 4)"
        )
    assert asked == [[1, 2, 4]]
    other = made(training=WHOLE["training"] | {"batch_size": 16})
    threaded(other, [Place("cpu", 4)], tmp_path, chooses=True)
    assert len(asked) == 2
    (kept, *_) = (tmp_path / "threads").iterdir()
    assert json.loads(kept.read_text("utf-8"))["timing"] == {"1": 1.0, "2": 0.4, "4": 0.3}
    for broken in (tmp_path / "threads").iterdir():
        broken.write_text("[]")
    assert threaded(made(), [Place("cpu", 4)], tmp_path, chooses=True)[0] == [Place("cpu", 2)]


def test_systems_share_a_number_and_omp_num_threads_is_the_most(
    machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = made(system={"choice": [{"name": "point_gan", "hidden": 8}, {"name": "point_gan", "hidden": 16}]})
    asked = machine(4, {1: 1.0, 2: 0.4, 4: 0.3})
    assert threaded(two, [Place("cpu", 4)], tmp_path, chooses=True)[0] == [Place("cpu", 2)]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    places, line = threaded(two, [Place("cpu", 4)], tmp_path / "other", chooses=True)
    assert places == [Place("cpu", 1)] and line is not None and "1 CPU thread for a run" in line
    assert [list(each) for each in asked] == [[1, 2, 4]] * len(asked), "one number needs no measurement"
    assert describe_threads(two) is None, "the line says it"


def test_without_it_and_on_gpus_nothing_is_measured(machine: Any, tmp_path: Path) -> None:
    asked = machine(4, {})
    places = [Place("cpu", 4)]
    assert threaded(made(execution={}), places, tmp_path, chooses=True) == (places, None)
    gpus = [Place("cuda:0", 2), Place("cuda:1", 2)]
    assert threaded(made(), gpus, tmp_path, chooses=False) == (gpus, None)
    assert not asked


def test_a_real_measurement_is_of_each_number_of_threads() -> None:
    plan = made().resolve(lambda hole: hole.ends()[0])
    with threadpool_limits(2):
        seconds = thread_choice._measure(plan, [1, 2])
    torch.set_num_threads(1)
    assert list(seconds) == [1, 2] and all(0 < each < 10 for each in seconds.values())


@pytest.mark.parametrize(
    ("training", "execution", "said"),
    [
        ({"threads": "auto"}, {}, r"training\.threads.*set execution\.threads to auto"),
        ({"threads": 2}, {"threads": "auto"}, r"training\.threads is 2, so execution\.threads has nothing to choose"),
        ({"devices": 2}, {"threads": "auto"}, r"training\.devices is 2; leave out one"),
        ({}, {"threads": "most"}, r"execution\.threads"),
    ],
)
def test_what_contradicts_it_is_refused(training: dict[str, Any], execution: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_experiment(made(training=WHOLE["training"] | training, execution=execution))


def test_it_is_no_part_of_what_a_sweep_is() -> None:
    assert made().digest == made(execution={}).digest


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.parametrize(("alone", "threads"), [(3.0, 1), (0.3, 2)])
def test_runs_have_the_number_and_store_it(alone: float, threads: int, machine: Any, tmp_path: Path) -> None:
    """One run, which takes what is fastest alone; it would have both cores."""
    machine(2, {1: 1.0, 2: alone})
    home, one = tmp_path / "home", WHOLE | {"search": {"trials": 1}}
    with threadpool_limits(2):
        sweep(one, home=home)
    torch.set_num_threads(1)
    settings = Settings.load(home)
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        (run,) = list_runs(registry)
        assert show_run(registry, run["run"])["environment"]["threads"] == threads


# ---- workers that join a sweep


@pytest.mark.parametrize(("executor", "threads"), [(None, 1), ("queue", 4)])
def test_nothing_is_measured_for_workers_that_join(
    executor: str | None, threads: int, machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(4, {1: 1.0, 2: 3.0, 4: 9.0})
    monkeypatch.setattr(command, "estimate", lambda *_: Estimate(100, 100, LONG, {"point_gan": 1.0}))
    experiment, places = made(), [Place("cpu", 4)]
    how = choose(experiment, Asked(executor, devices="cpu"))
    _, chosen, _ = command._announced(experiment, places, console(stderr=True), False, how, tmp_path)
    assert chosen == [Place("cpu", threads)]


def test_workers_of_one_machine_that_take_too_many_threads_are_told(tmp_path: Path, machine: Any) -> None:
    machine(4, {})
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}", create=True) as registry:
        mine = registry.sweep("mine", "0123456789abcdef", {"training": {"steps": 4}}, "rkl", "lower")
        two = registry.sweep("two", "1123456789abcdef", {"training": {"steps": 4, "threads": 2}}, "rkl", "lower")
        assert crowded(registry, mine, None) is None, "alone here"
        registry.join(mine, "cpu")
        registry.join(mine, "cuda:0")  # takes next to none
        line = (
            "2 workers here, of 4 CPU threads each, share 4 cores; with --threads 2 they would not wait for each other"
        )
        assert crowded(registry, mine, None) == line
        assert crowded(registry, mine, 2) is None and crowded(registry, two, None) is None
        registry.join(mine, "cpu")
        assert "3 workers here, of 2 CPU threads each" in (crowded(registry, two, None) or "")
