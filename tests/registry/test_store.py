"""The registry's writes: replayed, interrupted, raced, and pointed at the wrong file."""

import math
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, func, select
from sqlalchemy.exc import IntegrityError

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host.processes import Process
from aigc_lab.registry import liveness
from aigc_lab.registry.find import find_run, find_sweep
from aigc_lab.registry.models import list_models
from aigc_lab.registry.records import StoredArtifact, StoredCheckpoint, StoredPromotion, StoredScalar, StoredScore
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_trials
from aigc_lab.registry.tables import (
    AliasEvent,
    Artifact,
    Attempt,
    Checkpoint,
    Promotion,
    Run,
    ScalarSummary,
    Score,
    Sweep,
    Trial,
)


def url_in(folder: Path) -> str:
    return f"sqlite:///{folder / 'registry.db'}"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(url_in(tmp_path))


def a_run(registry: Registry, *, name: str = "digits", trial: int = 0, seed: int = 0) -> str:
    sweep = registry.sweep(name, "0123456789abcdef", {"steps": 10}, "fd", "lower")
    registry.trial(sweep, trial, "vae", {"beta": 1.0}, {"system": "vae"})
    return registry.run(sweep, trial, seed, "search")


def a_score(name: str = "fd", value: float | None = 12.0, **changes: Any) -> StoredScore:
    values: dict[str, Any] = {"low": 10.0, "high": 14.0, "n": 1000, "floor": 0.5, "signature": f"{name}|n:1000"}
    values |= {"better": "lower", "checkpoint": "last", "step": 10, "split": "holdout"}
    return StoredScore(name=name, value=value, **(values | changes))


def count(registry: Registry, table: Table) -> int:
    with registry.read() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def finish(registry: Registry, run: str, attempt: int) -> None:
    registry.finish(
        run,
        attempt,
        RunState.FINISHED,
        seconds=3.5,
        scores=[a_score(), a_score("kid", 0.1), a_score(checkpoint="progress", step=5, split="reference")],
        scalars={"loss/g": StoredScalar(last=1.0, minimum=0.5, maximum=math.inf, step=10)},
        checkpoints=[StoredCheckpoint("last", 10, "c/last", "ab" * 32, 2**33)],
        artifacts=[StoredArtifact("grid", "image", "a/grid.png")],
    )


def test_every_write_may_be_replayed(registry: Registry) -> None:
    for _ in range(2):
        run = a_run(registry)
        registry.set_mlflow_experiment(run.rsplit(".", 2)[0], "7")
        registry.set_mlflow_run(run, "m1")
    attempt = registry.begin(run, {"host": "h"})
    for _ in range(2):
        finish(registry, run, attempt)
        registry.finish_trial("digits-01234567", 0, RunState.FINISHED, 12.0)
    rows = {table: count(registry, table) for table in (Sweep, Trial, Run, Attempt, Score, ScalarSummary)}
    assert rows == {Sweep: 1, Trial: 1, Run: 1, Attempt: 1, Score: 3, ScalarSummary: 1}
    assert count(registry, Checkpoint) == count(registry, Artifact) == 1
    (row,) = list_runs(registry)
    assert (row["state"], row["seconds"], row["mlflow_run_id"]) == ("FINISHED", 3.5, "m1")
    assert show_run(registry, run)["checkpoints"][0]["bytes"] == 2**33


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


def test_another_configuration_or_role_under_the_same_key_is_refused(registry: Registry) -> None:
    sweep = a_run(registry).rsplit(".", 2)[0]
    with pytest.raises(Failure, match="already recorded with another configuration"):
        registry.trial(sweep, 0, "vae", {"beta": 2.0}, {"system": "vae"})
    with pytest.raises(Failure, match="already recorded as search"):
        registry.run(sweep, 0, 0, "confirm")
    with pytest.raises(Failure, match="two experiments share the id"):
        registry.sweep("digits", "01234567ffff", {}, "fd", "lower")


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
    registry.watch(sweep)
    registry.release(sweep)
    (row,) = liveness.supervisors(registry)
    assert (row["process"], row["heartbeat_at"]) == (second, began)
    registry.release(sweep, second)
    assert not liveness.supervisors(registry)


def test_writes_to_what_is_not_there_fail(registry: Registry) -> None:
    with pytest.raises(Failure, match=r"no run x\.0\.0"):
        registry.begin("x.0.0", {})
    with pytest.raises(Failure, match="no sweep x"):
        registry.set_mlflow_experiment("x", "1")
    with pytest.raises(IntegrityError):
        registry.run("x", 0, 0, "search")


def test_promotions_and_aliases_may_be_replayed_and_keep_their_history(registry: Registry) -> None:
    run = a_run(registry)
    versions = [StoredPromotion("m", n, run, "last", f"d{n}", "ab", "p", "u", "m-1") for n in (1, 2)]
    assert [registry.promote(version) for version in (*versions, *versions)] == [True, True, False, False]
    assert [registry.point("m", "champion", version, "me") for version in (1, 1, 2, 2, 1)] == [None, 1, 1, 2, 2]
    rows = list_models(registry)
    assert [(row["version"], row["aliases"]) for row in rows] == [(2, []), (1, ["champion"])]
    assert [len(row["alias_history"]) for row in rows] == [1, 2]
    assert list_models(registry, "other") == []
    shown = show_run(registry, run)["promotions"]
    assert shown[1] == {"model": "m", "version": 1, "checkpoint": "last", "aliases": ["champion"]}
    with pytest.raises(Failure, match="version 1 of m is another model"):
        registry.promote(replace(versions[0], digest="other"))
    with pytest.raises(IntegrityError):
        registry.point("m", "x", 3, "me")
    with pytest.raises(IntegrityError):
        registry.promote(replace(versions[0], version=3, run_id="no such run"))
    assert count(registry, Promotion) == 2 and count(registry, AliasEvent) == 3


def test_a_score_without_a_signature_is_refused() -> None:
    with pytest.raises(ValueError, match="'fd' has no signature"):
        a_score(signature="")


def test_names_are_text_and_not_sql(registry: Registry) -> None:
    name = "a'; DROP TABLE run; -- .[red]é\""
    run = a_run(registry, name=name)
    assert find_sweep(registry, name) == f"{name}-01234567"
    assert find_run(registry, f"{name}.0.0") == run
    assert len(list_runs(registry, name)) == 1


# ---- opening


def test_a_missing_registry_is_not_created_by_a_reader(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no registry at .*; run a sweep first, or name the home with --home"):
        Registry.open(url_in(tmp_path / "home"), create=False)
    assert not (tmp_path / "home").exists()


def test_the_file_is_in_wal_mode_and_keeps_its_foreign_keys(registry: Registry) -> None:
    with registry.read() as connection:
        names = ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 120000, "synchronous": 1}


@pytest.mark.parametrize("create", [True, False])
def test_a_newer_schema_is_refused_and_left_as_it_was(tmp_path: Path, create: bool) -> None:
    Registry.open(url_in(tmp_path)).close()
    file = tmp_path / "registry.db"
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(UsageError, match="has schema 9999, this version of aigc-lab reads .*upgrade aigc-lab"):
        Registry.open(url_in(tmp_path), create=create)
    assert file.read_bytes() == before


def test_another_programs_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "registry.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE studies (id INTEGER)")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(UsageError, match=r"holds another program's tables \(studies\)"):
        Registry.open(url_in(tmp_path))
    assert file.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "registry.db"
    file.write_text("these are my notes, not a database\n" * 100)
    before = file.read_bytes()
    for create in (True, False):
        with pytest.raises(UsageError, match="is not a database file"):
            Registry.open(url_in(tmp_path), create=create)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////proc/none/registry.db", "cannot be written"),
        ("sqlite:////dev/null/registry.db", "cannot be written"),
        ("sqlite:////", "cannot be opened or written"),
        ("mysql://me:secret@host/db", "it must begin with sqlite:// or postgresql"),
        ("nonsense", "cannot be used"),
        ("postgresql+psycopg://[", "cannot be reached"),
        ("postgresql+pg8000://me:secret@host/db", "cannot be used"),  # a driver that is not installed
    ],
)
def test_a_url_that_cannot_be_opened_is_one_line_without_the_password(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Registry.open(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreachable_server_is_one_line_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(UsageError, match="cannot be reached") as caught:
        Registry.open("postgresql+psycopg://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)


# ---- several processes

WORKER = """
    import sys
    from aigc_lab.registry.store import Registry
    from aigc_lab.registry.states import RunState
    url, worker = sys.argv[1], int(sys.argv[2])
    sys.stdin.readline()
    registry = Registry.open(url)
    sweep = registry.sweep("race", "0123456789", {}, "fd", "lower")
    registry.trial(sweep, 0, "vae", {}, {})
    for seed in range(20):
        run = registry.run(sweep, 0, 100 * worker + seed, "search")
        registry.finish(run, registry.begin(run, {}), RunState.FINISHED, seconds=1.0)
    run = registry.run(sweep, 0, 999, "search")
    print(registry.begin(run, {}))
"""


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_processes_that_open_a_new_database_at_once_all_succeed(tmp_path: Path) -> None:
    workers = [start(WORKER, url_in(tmp_path / "new"), worker) for worker in range(3)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    outputs = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], outputs
    assert sorted(int(out) for out, _ in outputs) == [1, 2, 3]  # no two workers hold the same attempt
    with Registry.open(url_in(tmp_path / "new"), create=False) as registry:
        states = [row["state"] for row in list_runs(registry)]
    assert sorted(set(states)) == ["FINISHED", "RUNNING"]
    assert len(states) == 61


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


KILLED_WHILE_CREATING = """
    import os, signal, sys
    from alembic import command
    real = command.upgrade
    def dies(*arguments):
        real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    command.upgrade = dies
    from aigc_lab.registry.store import Registry
    Registry.open(sys.argv[1])
"""


def test_a_creation_that_was_killed_is_done_again(tmp_path: Path) -> None:
    process = start(KILLED_WHILE_CREATING, url_in(tmp_path))
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert os.path.exists(tmp_path / "registry.db")
    with pytest.raises(UsageError, match="no registry"):
        Registry.open(url_in(tmp_path), create=False)
    with Registry.open(url_in(tmp_path)) as registry:
        a_run(registry)
