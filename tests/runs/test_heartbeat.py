"""The heart: who is alive is said, who is outdated is told, and a registry that fails costs beats only."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aigc_lab.errors import Failure
from aigc_lab.registry import liveness
from aigc_lab.registry.run_lifecycle import Outdated
from aigc_lab.registry.store import Registry
from aigc_lab.runs.heartbeat import Heartbeat


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        yield registry


@pytest.fixture
def runs(registry: Registry) -> list[str]:
    """Two runs, in their first attempts."""
    sweep = registry.sweep("mine", "0123456789abcdef", {}, "fd", "lower")
    registry.trial(sweep, 0, "vae", {}, {})
    found = [registry.run(sweep, 0, seed, "search") for seed in (0, 1)]
    assert [registry.begin(run, {}) for run in found] == [1, 1]
    return found


def seen(registry: Registry) -> dict[str, int | None]:
    """Run -> the step that its last beat told."""
    return {row["run"]: row["step"] for row in liveness.running(registry)}


def after(monkeypatch: pytest.MonkeyPatch, beats: int, then: Callable[[int], None] = lambda _: None) -> threading.Event:
    """An event of so many beats; `then` is asked before each, with its number."""
    true, done, number = Registry.beat, threading.Event(), itertools.count(1)

    def beat(self: Registry, run: str, attempt: int, **facts: int) -> None:
        count = next(number)
        try:
            then(count)
            true(self, run, attempt, **facts)
        finally:
            if count == beats:
                done.set()

    monkeypatch.setattr(Registry, "beat", beat)
    return done


def test_every_attempt_is_told_with_its_step_while_the_context_lasts(
    registry: Registry, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {run: itertools.count(100 * index) for index, run in enumerate(runs, start=1)}
    done = after(monkeypatch, 6)
    with Heartbeat(registry, every=0.001) as heart:
        for run in runs:
            heart.add(run, 1, lambda run=run: next(steps[run]))  # type: ignore[misc]
        assert done.wait(60)
        for run in runs:
            heart.check(run, 1)
    heart._thread.join(60)
    assert not heart._thread.is_alive()
    told = seen(registry)
    assert told == {run: next(steps[run]) - 1 for run in runs}
    assert all(step is not None and step > 100 * index for index, step in enumerate(told.values(), start=1))


def test_who_is_outdated_is_told_so_and_nobody_else(registry: Registry, runs: list[str]) -> None:
    heart = Heartbeat(registry)
    for run in runs:
        heart.add(run, 1, lambda: 5)
    registry.lose(runs[0], "it was taken for dead")
    heart.beat()
    with pytest.raises(Outdated, match=f"attempt 1 of run {runs[0]} was given up"):
        heart.check(runs[0], 1)
    heart.check(runs[1], 1)
    assert seen(registry) == {runs[1]: 5}
    # The attempt that took over beats beside the one that does not know it yet.
    heart.add(runs[0], registry.begin(runs[0], {}), lambda: 7)
    heart.beat()
    heart.check(runs[0], 2)
    assert seen(registry) == {runs[0]: 7, runs[1]: 5}


def test_what_was_removed_is_not_told(registry: Registry, runs: list[str]) -> None:
    heart = Heartbeat(registry)
    heart.add(runs[0], 1, lambda: 5)
    heart.remove(runs[0], 1)
    heart.remove(runs[1], 1)  # which was never there
    heart.beat()
    assert seen(registry) == dict.fromkeys(runs)


def test_a_registry_that_fails_costs_beats_only(
    registry: Registry, runs: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(count: int) -> None:
        if count <= 3:
            raise Failure("the disk is gone")

    done = after(monkeypatch, 6, fails)
    with caplog.at_level(logging.WARNING), Heartbeat(registry, every=0.001) as heart:
        for run in runs:
            heart.add(run, 1, lambda: 9)
        assert done.wait(60)
        for run in runs:
            heart.check(run, 1)
    assert seen(registry) == dict.fromkeys(runs, 9)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"run {run}: no heartbeat: the disk is gone" for run in (runs[0], runs[1], runs[0])]


def test_beats_come_until_the_work_has_raised(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> Any:
        with Heartbeat(registry, every=0.001) as heart:
            hearts.append(heart)
            raise ValueError("the work")

    hearts: list[Heartbeat] = []
    with pytest.raises(ValueError, match="the work"):
        work()
    hearts[0]._thread.join(60)
    assert not hearts[0]._thread.is_alive()
