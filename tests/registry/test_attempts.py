"""Attempts: what ends, replaces or outdates what, and what a process that dies leaves behind."""

import math
import signal
from pathlib import Path

import pytest
from registries import a_run, a_score, count, finish, start, url_in
from sqlalchemy.exc import IntegrityError

from aigc_lab.errors import Failure
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_trials
from aigc_lab.registry.tables import (
    Score,
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(url_in(tmp_path))


def test_a_replayed_finish_keeps_the_time_it_ended(registry: Registry) -> None:
    run = a_run(registry)
    attempt = registry.begin(run, {})
    finish(registry, run, attempt)
    before = show_run(registry, run)
    finish(registry, run, attempt)
    after = show_run(registry, run)
    assert before == after
    assert before["finished_at"].endswith("+00:00")


def test_a_new_attempt_closes_the_one_that_never_ended_and_replaces_what_it_stored(registry: Registry) -> None:
    run = a_run(registry)
    first = registry.begin(run, {"pid": 1})
    registry.finish(run, first, RunState.FAILED, reason="out of memory", scores=[a_score("old", 1.0)])
    second = registry.begin(run, {"pid": 2})
    assert show_run(registry, run)["reason"] is None
    third = registry.begin(run, {"pid": 3})
    finish(registry, run, third)
    shown = show_run(registry, run)
    assert (first, second, third) == (1, 2, 3)
    assert [attempt["state"] for attempt in shown["attempts"]] == ["FAILED", "KILLED", "FINISHED"]
    assert [score["name"] for score in shown["scores"]] == ["fd", "kid"]
    assert shown["environment"] == {"pid": 3}


def test_an_outdated_attempt_cannot_finish(registry: Registry) -> None:
    run = a_run(registry)
    old = registry.begin(run, {})
    new = registry.begin(run, {})
    with pytest.raises(Failure, match="run .*: attempt 1 is outdated: the newest is 2"):
        finish(registry, run, old)
    assert count(registry, Score) == 0
    finish(registry, run, new)
    with pytest.raises(Failure, match="already ended as FINISHED; it cannot end as KILLED"):
        registry.finish(run, new, RunState.KILLED)
    assert count(registry, Score) == 3


def test_a_finish_that_fails_half_way_changes_nothing(registry: Registry) -> None:
    run = a_run(registry)
    first = registry.begin(run, {})
    registry.finish(run, first, RunState.FAILED, scores=[a_score(), a_score("kid", 0.1)])
    attempt = registry.begin(run, {})
    with pytest.raises(IntegrityError):
        registry.finish(run, attempt, RunState.FINISHED, scores=[a_score("new"), a_score("new")])
    shown = show_run(registry, run)
    assert shown["state"] == "RUNNING"
    finish(registry, run, attempt)
    with pytest.raises(Failure, match="already ended as FINISHED; its result is kept"):
        registry.begin(run, {})
    assert [score["name"] for score in shown["scores"]] == ["fd", "kid"]


def test_what_is_not_finite_is_stored_as_none(registry: Registry) -> None:
    run = a_run(registry)
    attempt = registry.begin(run, {"loss": math.nan})
    bad = a_score(value=math.inf, low=-math.inf, high=math.nan, floor=None)
    registry.finish(run, attempt, RunState.DIVERGED, reason="loss is nan\x00", seconds=1.0, scores=[bad])
    registry.finish_trial("digits-01234567", 0, RunState.DIVERGED, math.inf)
    shown = show_run(registry, run)
    assert [shown["scores"][0][key] for key in ("value", "low", "high", "floor")] == [None] * 4
    assert shown["environment"] == {"loss": None}
    assert list_trials(registry, "digits")[0]["value"] is None


KILLED = """
    import os, signal, sys
    from aigc_lab.registry import statements
    from aigc_lab.registry.states import RunState
    from aigc_lab.registry.store import Registry
    real = statements.replace_rows
    def dies(connection, table, run, rows):
        real(connection, table, run, rows)
        if table.name == "scalar_summary":
            os.kill(os.getpid(), signal.SIGKILL)
    statements.replace_rows = dies
    registry = Registry.open(sys.argv[1])
    registry.finish(sys.argv[2], 1, RunState.FINISHED)
"""


def test_a_process_killed_inside_a_write_leaves_the_run_as_it_was(tmp_path: Path, registry: Registry) -> None:
    run = a_run(registry)
    registry.begin(run, {})
    before = show_run(registry, run)
    process = start(KILLED, url_in(tmp_path), run)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert show_run(registry, run) == before
    finish(registry, run, 1)
