"""How many workers a sweep has where the user named no number: by cores, threads of a run, runs and memory."""

from pathlib import Path
from typing import Any

import pytest

from aigc_lab.commands import sweep
from aigc_lab.display.terminal import console
from aigc_lab.executors.base import Place
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.host import capacity, environment
from aigc_lab.sweeps import needs, places
from aigc_lab.sweeps.estimate import Estimate
from aigc_lab.sweeps.execution import Chosen

LONG = 3600.0  # seconds of training that are worth any number of workers
EMPTY = 64 * 10**9  # bytes


def made(threads: int | None = 1, trials: int = 100, **search: Any) -> Experiment:
    training: dict[str, Any] = {"steps": 20, "batch_size": 32, "log_every": 10, "evaluate_every": 20}
    whole = {
        "name": "mine",
        "data": {"name": "ring", "points": 2000},
        "system": {"name": "point_gan", "hidden": 16, "lr": {"log": [1e-4, 1e-3]}},
        "training": training | ({"threads": threads} if threads else {}),
        "evaluation": {"name": "points", "samples": 400},
        "objective": {"minimize": "rkl"},
        "search": {"trials": trials, **search},
    }
    return load_experiment(whole, data_dir=Path())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine of so many cores and free bytes."""

    def of(cores: int, free: int = EMPTY) -> None:
        monkeypatch.setattr(environment, "cores", lambda: cores)
        monkeypatch.setattr(needs, "free_memory", lambda device="cpu": free)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return of


@pytest.mark.parametrize(
    ("cores", "threads", "runs", "free", "workers", "why"),
    [
        (1, 1, 100, EMPTY, 1, ""),
        (2, 1, 100, EMPTY, 2, "one for each core of 2"),
        (16, 1, 100, EMPTY, 16, "one for each core of 16"),
        (16, 3, 100, EMPTY, 5, "one for each 3 cores of 16"),
        (16, 64, 100, EMPTY, 1, "each run takes all 16 cores"),
        (16, None, 100, EMPTY, 1, "each run takes all 16 cores"),
        (16, 1, 4, EMPTY, 4, "one for each run"),
        (16, 1, 100, 3_500_000_000, 3, "as many as memory holds"),
        (16, 1, 100, 200_000_000, 1, "as many as memory holds"),
    ],
)
def test_so_many_as_the_machine_has_room_for(
    machine: Any, cores: int, threads: int | None, runs: int, free: int, workers: int, why: str
) -> None:
    machine(cores, free)
    chosen, reason = places.choose_places(made(threads, runs), LONG)
    assert (len(chosen), reason) == (workers, why)
    assert {place.device for place in chosen} == {"cpu"}
    # A run has the threads that it would have alone: nothing of its result depends on how many there are.
    asked = min(threads or cores, cores)
    assert all(min(asked, place.threads) == asked for place in chosen)


def test_runs_are_those_of_all_seeds_and_the_confirmation(machine: Any) -> None:
    machine(64)
    assert len(places.choose_places(made(trials=3, seeds=4), LONG)[0]) == 12


def test_omp_num_threads_counts_where_the_experiment_says_nothing(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(8)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert len(places.choose_places(made(None), LONG)[0]) == 4
    assert len(places.choose_places(made(1), LONG)[0]) == 8


def test_so_little_training_has_one_worker(machine: Any) -> None:
    machine(8)
    chosen, why = places.choose_places(made(), 30.0)
    assert chosen == [Place("cpu", 8)] and why.startswith("for so little training")
    assert len(places.choose_places(made(), 31.0)[0]) == 8


def test_what_is_said_of_them(machine: Any) -> None:
    machine(2)
    chosen, why = places.choose_places(made(), LONG)
    text = "2 workers on cpu, 1 CPU thread each: one for each core of 2 (--workers N takes another number)"
    assert places.describe_places(chosen, made(), why) == text
    chosen, why = places.choose_places(made(None), LONG)
    text = "1 worker on cpu, 2 CPU threads: each run takes all 2 cores (--workers N takes another number)"
    assert places.describe_places(chosen, made(None), why) == text


def test_the_estimate_is_shared() -> None:
    assert Estimate(4, 4, 120.0, {"a": 1.0}).shared(3) == Estimate(4, 4, 40.0, {"a": 1.0}, 3)
    assert Estimate(4, 4, 40.0, {"a": 1.0}, 3).shared(1) == Estimate(4, 4, 120.0, {"a": 1.0}, 1)


@pytest.mark.parametrize(("chooses", "count"), [(True, 4), (False, 1)])
def test_a_sweep_has_them_unless_the_user_named_a_number(
    chooses: bool,
    count: int,
    machine: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine(4)
    known = Estimate(100, 100, LONG, {"point_gan": 1.0})
    monkeypatch.setattr(sweep, "estimate", lambda *_: known)
    given = (made(), [Place("cpu", 4)], console(stderr=True), chooses, Chosen(), tmp_path)
    cost, chosen, stacks = sweep._announced(*given)
    assert not stacks.replicas
    assert (len(chosen), cost) == (count, known.shared(count))
    said = capsys.readouterr().err
    assert said.startswith("timing a few steps of each system …\n")
    assert (f"of training on {count} workers" in said, "4 workers on cpu, 1 CPU thread each" in said) == (chooses,) * 2


# ---- the quota of a container


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "250000 100000\n"}, 2.5),
        ({"cpu.max": "250000 100000\n", "a/cpu.max": "max 100000\n", "a/b/cpu.max": "150000 100000\n"}, 1.5),
        ({"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "150000 100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu.max": "nonsense"}, None),
    ],
)
def test_a_container_s_quota_is_read(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    mine = tmp_path / "own"
    mine.write_text("3:cpuset:/x\n0::/a/b\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert capacity.cpu_quota(tmp_path, mine) == quota


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (2.5, 2), (0.5, 1), (100.0, 8)])
def test_cores_are_those_of_the_quota(quota: float | None, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(capacity, "cpu_quota", lambda: quota)
    assert environment.cores() == cores
