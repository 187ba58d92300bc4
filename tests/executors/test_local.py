"""The executor local, without processes: what it makes of those that have ended."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aigc_lab.errors import Failure
from aigc_lab.executors import local
from aigc_lab.executors.base import Place
from aigc_lab.executors.shared.follower import Follower
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.runs import worker_process

RING: dict[str, Any] = {
    "name": "mine",
    "data": {"name": "ring", "points": 2000},
    "system": {"name": "point_gan", "hidden": 8},
    "training": {"steps": 4, "batch_size": 16, "log_every": 2, "evaluate_every": 4, "threads": 1},
    "evaluation": {"name": "points", "samples": 200},
    "objective": {"minimize": "rkl"},
}


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[local.Local, list[int]]:
    """An executor of one place whose processes are killed as soon as they start, and their pids."""
    pids: list[int] = []

    def start(*_: object, **__: object) -> Any:
        pids.append(1000 + len(pids))
        return SimpleNamespace(pid=pids[-1], poll=lambda: -9, wait=lambda seconds: -9)

    monkeypatch.setattr(worker_process, "start", start)
    monkeypatch.setattr(worker_process, "close", lambda process: None)
    experiment = load_experiment(RING, data_dir=tmp_path)
    return local.Local(experiment, [Place("cpu", 1)], Settings.load(tmp_path), lambda text: None), pids


def row(pid: int, *, ready: bool) -> dict[str, Any]:
    process = SimpleNamespace(pid=pid, here=True)
    return {"worker": "w", "process": process, "ready": ready, "alive": False, "run": None, "error": None, "host": "a"}


def test_one_that_is_killed_after_it_was_ready_is_started_again(killed: tuple[local.Local, list[int]]) -> None:
    executor, pids = killed
    for count in range(1, 6):  # however soon it was killed
        executor.watch([row(pids[-1], ready=True)])
        assert len(pids) == 1 + count
        assert "SIGKILL" in executor.fate(row(pids[-2], ready=True))


def test_the_follower_shows_once_what_had_become_of_one_that_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[dict[str, Any]]] = []
    keeper = SimpleNamespace(watch=seen.append, resized=lambda rows: None)
    rows = [row(1, ready=True)]
    monkeypatch.setattr(liveness, "workers", lambda registry, sweep: list(rows))
    follower: Any = Follower.__new__(Follower)
    follower._keeper, follower._sweep = keeper, "mine-01234567"
    follower._registry = SimpleNamespace(leave=lambda worker: rows.clear())
    for _ in range(2):
        follower._look_at_workers({}, {})
    assert seen == [[row(1, ready=True)], []]


def test_one_that_was_ready_makes_good_for_one_that_was_not(killed: tuple[local.Local, list[int]]) -> None:
    executor, pids = killed
    for ready in (False, True, False, True, False):
        executor.watch([row(pids[-1], ready=ready)])
    assert len(pids) == 6


def test_how_one_ended_is_known_when_its_last_thread_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process counts as dead while threads of it still end, and until then it cannot be waited for."""
    ended: list[int] = []
    process = SimpleNamespace(pid=7, poll=lambda: ended[0] if ended else None, wait=lambda seconds: ended.append(-9))
    monkeypatch.setattr(worker_process, "start", lambda *_, **__: process)
    experiment = load_experiment(RING, data_dir=tmp_path)
    executor = local.Local(experiment, [Place("cpu", 1)], Settings.load(tmp_path), lambda text: None)
    assert "SIGKILL" in executor.fate(row(7, ready=True))


def test_one_that_is_never_ready_ends_the_sweep(killed: tuple[local.Local, list[int]]) -> None:
    executor, pids = killed
    executor.watch([row(pids[-1], ready=False)])
    with pytest.raises(Failure, match="a worker process cannot go on: .*SIGKILL"):
        executor.watch([row(pids[-1], ready=False)])
