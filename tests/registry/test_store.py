"""Writes of sweeps, trials and runs: replayed, raced, and of what is not there."""

from pathlib import Path

import pytest
from registries import a_run, a_score, count, finish, start, url_in
from sqlalchemy.exc import IntegrityError

from aigc_lab.errors import Failure
from aigc_lab.registry.find import find_run, find_sweep
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import (
    Artifact,
    Attempt,
    Checkpoint,
    Run,
    ScalarSummary,
    Score,
    Sweep,
    Trial,
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(url_in(tmp_path))


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


def test_another_configuration_or_role_under_the_same_key_is_refused(registry: Registry) -> None:
    sweep = a_run(registry).rsplit(".", 2)[0]
    with pytest.raises(Failure, match="already recorded with another configuration"):
        registry.trial(sweep, 0, "vae", {"beta": 2.0}, {"system": "vae"})
    with pytest.raises(Failure, match="already recorded as search"):
        registry.run(sweep, 0, 0, "confirm")
    with pytest.raises(Failure, match="two experiments share the id"):
        registry.sweep("digits", "01234567ffff", {}, "fd", "lower")


def test_writes_to_what_is_not_there_fail(registry: Registry) -> None:
    with pytest.raises(Failure, match=r"no run x\.0\.0"):
        registry.begin("x.0.0", {})
    with pytest.raises(Failure, match="no sweep x"):
        registry.set_mlflow_experiment("x", "1")
    with pytest.raises(IntegrityError):
        registry.run("x", 0, 0, "search")


def test_a_score_without_a_signature_is_refused() -> None:
    with pytest.raises(ValueError, match="'fd' has no signature"):
        a_score(signature="")


def test_names_are_text_and_not_sql(registry: Registry) -> None:
    name = "a'; DROP TABLE run; -- .[red]é\""
    run = a_run(registry, name=name)
    assert find_sweep(registry, name) == f"{name}-01234567"
    assert find_run(registry, f"{name}.0.0") == run
    assert len(list_runs(registry, name)) == 1


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
