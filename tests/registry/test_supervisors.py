"""Who runs a sweep: one process at a time."""

import threading
from pathlib import Path

import pytest
from registries import url_in

from aigc_lab.host.processes import Process
from aigc_lab.registry import liveness
from aigc_lab.registry.run_lifecycle import Outdated
from aigc_lab.registry.store import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(url_in(tmp_path))


@pytest.mark.parametrize("before", [None, Process("here", "boot", 1, "1")])
def test_of_many_that_would_run_a_sweep_at_once_one_does(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, before: Process | None
) -> None:
    """All of them have seen that nobody runs it any more, or that the one who did is gone."""
    me = threading.local()
    monkeypatch.setattr(Process, "this", lambda: me.process)
    sweep = registry.sweep("digits", "0123456789abcdef", {}, "fd", "lower")
    if before is not None:
        me.process = before
        assert registry.supervise(sweep)
    ready, done = threading.Barrier(4), dict[int, bool]()

    def begin(pid: int) -> None:
        me.process = Process("here", "boot", pid, "1")
        with Registry.open(url_in(tmp_path), create=False) as mine:
            ready.wait()
            done[pid] = mine.supervise(sweep, instead_of=before)

    threads = [threading.Thread(target=begin, args=(pid,)) for pid in range(2, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done.values()) == [False, False, False, True]
    (row,) = liveness.supervisors(registry)
    assert done[row["pid"]]


def test_who_is_no_longer_the_supervisor_takes_nothing_of_the_one_who_is(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers may each call a process of theirs 1."""
    first, second = Process("here", "boot:1", 1, "1"), Process("here", "boot:2", 1, "1")
    sweep = registry.sweep("digits", "0123456789abcdef", {}, "fd", "lower")
    monkeypatch.setattr(Process, "this", lambda: second)
    assert registry.supervise(sweep)
    (began,) = (row["heartbeat_at"] for row in liveness.supervisors(registry))
    registry.release(sweep, first)
    monkeypatch.setattr(Process, "this", lambda: first)
    for look in (registry.watch, registry.wanted):
        with pytest.raises(Outdated, match="silent for too long and was taken for lost"):
            look(sweep)
    assert registry.replaced(sweep)
    registry.release(sweep)
    (row,) = liveness.supervisors(registry)
    assert (row["process"], row["heartbeat_at"]) == (second, began)
    monkeypatch.setattr(Process, "this", lambda: second)
    assert not registry.replaced(sweep)
    registry.release(sweep, second)
    assert not registry.replaced(sweep)
    assert not liveness.supervisors(registry)
