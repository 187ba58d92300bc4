"""What `aigc-lab status` says of sweeps that are run, lost, stopped and ended."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from registries import Lab, url_in
from sqlalchemy import update
from test_cli_read import LAB, lab

from aigc_lab.commands.status import StatusView, line
from aigc_lab.host.settings import Settings
from aigc_lab.registry.records import StoredScore
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Attempt, Supervisor

# Two trials of two seeds: at most four runs, of 40 steps.
EXPERIMENT = {
    "data": {"name": "digits"},
    "system": {"name": "dcgan", "lr": {"log": [1e-4, 1e-3]}},
    "training": {"steps": 40, "log_every": 10, "evaluate_every": 20},
    "evaluation": "image-small",
    "objective": {"minimize": "fd"},
    "search": {"trials": 2, "seeds": 2},
}


class Told:
    """A registry with one sweep, and what status tells of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.registry = Registry.open(f"sqlite:///{home / 'registry.db'}")
        self.sweep = self.registry.sweep("digits", "0123456789", EXPERIMENT, "fd", "lower")
        for trial in range(2):
            self.registry.trial(self.sweep, trial, "dcgan", {"lr": 0.0002}, {})

    def run(self, trial: int, seed: int, state: RunState = RunState.FINISHED, reason: str | None = None) -> str:
        run = self.registry.run(self.sweep, trial, seed, "search")
        attempt = self.registry.begin(run, {})
        if state.ended:
            score = StoredScore("fd", 3.0, None, None, 10, None, "fd", "lower", "last", 40, "holdout")
            self.registry.finish(run, attempt, state, reason=reason, seconds=10.0, scores=[score])
        return run

    @property
    def row(self) -> dict[str, Any]:
        (row,) = StatusView(self.registry, Settings.load(self.home), "digits").rows()
        assert json.loads(json.dumps(row, allow_nan=False)) == row
        return row


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_sweep_that_somebody_runs(told: Told) -> None:
    told.registry.supervise(told.sweep)
    told.run(0, 0)
    run = told.run(0, 1, RunState.RUNNING)
    told.registry.beat(run, 1, step=10, from_step=4)
    row = told.row
    assert (row["condition"], row["done"], row["total"]) == ("running", 1, 4)
    assert (row["states"]["FINISHED"], row["states"]["RUNNING"], row["lost"]) == (1, 1, 0)
    assert row["seconds_left"] == 30.0  # three runs of ten seconds, one at a time
    (attempt,) = row["running"]
    assert {key: attempt[key] for key in ("run", "number", "from_step", "step", "steps", "pid", "alive")} == {
        "run": run,
        "number": 1,
        "from_step": 4,
        "step": 10,
        "steps": 40,
        "pid": os.getpid(),
        "alive": True,
    }
    assert f"aigc-lab stop {told.sweep}" in row["next"]
    shown = lab(told.home, "status", "digits", COLUMNS="80").stdout
    assert "10/40 (25%)" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_process_that_is_gone_is_told_as_lost(told: Told) -> None:
    told.registry.supervise(told.sweep)
    told.run(0, 0, RunState.RUNNING)
    with told.registry.write() as connection:
        for table in (Attempt, Supervisor):
            connection.execute(update(table).values(pid=gone()))
    row = told.row
    assert (row["condition"], row["lost"], row["states"]["RUNNING"], row["seconds_left"]) == ("lost", 1, 0, None)
    assert row["next"] == [f"aigc-lab resume {told.sweep}"]
    assert "which is gone" in lab(told.home, "status", "digits").stdout


def test_stopped_and_ended(told: Told) -> None:
    for trial in range(2):
        told.run(trial, 0)
    told.registry.finish_trial(told.sweep, 0, RunState.FINISHED, 7.0)
    told.registry.finish_trial(told.sweep, 1, RunState.FINISHED, 5.0)
    assert (told.row["condition"], told.row["best"]) == ("stopped", 5.0)
    assert told.row["next"] == [f"aigc-lab resume {told.sweep}"]
    for trial in range(2):
        told.run(trial, 1)
    assert told.row["condition"] == "ended"
    assert told.row["next"] == [f"aigc-lab compare {told.sweep}", f"aigc-lab promote {told.sweep}"]


def test_promote_is_proposed_only_where_a_run_passes(tmp_path: Path) -> None:
    made = Lab(Registry.open(url_in(tmp_path)))
    for name, verdict in (("sound", "NONE"), ("collapsed", "TOTAL")):
        made.run(made.sweep(name), 0, 0, 3.0, verdicts=[("collapse", verdict)])
    made.registry.close()
    rows = {row["name"]: row for row in json.loads(lab(tmp_path, "status", "--json").stdout)}
    sweeps = {name: row["sweep"] for name, row in rows.items()}
    assert rows["sound"]["next"] == [f"aigc-lab compare {sweeps['sound']}", f"aigc-lab promote {sweeps['sound']}"]
    assert rows["collapsed"]["next"] == [f"aigc-lab compare {sweeps['collapsed']}"]


def test_a_pruned_trial_has_no_further_seeds(told: Told) -> None:
    told.run(0, 0, RunState.PRUNED)
    assert told.row["total"] == 3


def test_a_trial_whose_first_run_failed_has_no_further_seeds(told: Told) -> None:
    told.run(0, 0, RunState.FAILED, "out of memory")
    told.registry.finish_trial(told.sweep, 0, RunState.FAILED, None)
    assert told.row["total"] == 3


def test_failures_are_grouped_by_reason(told: Told) -> None:
    for seed in range(2):
        told.run(0, seed, RunState.FAILED, "out of memory")
    told.run(1, 0, RunState.DIVERGED, "[loss] is nan")
    assert told.row["failures"] == [
        {"state": "FAILED", "reason": "out of memory", "runs": 2},
        {"state": "DIVERGED", "reason": "[loss] is nan", "runs": 1},
    ]
    assert "1 DIVERGED: [loss] is nan" in lab(told.home, "status", "digits").stdout
    assert {run["state"] for run in told.row["last"]} == {"FAILED", "DIVERGED"}


def test_an_experiment_that_cannot_be_read_has_no_total(tmp_path: Path) -> None:
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        assert StatusView(registry, Settings.load(tmp_path), None).rows() == []
        registry.sweep("old", "0123456789", {}, "fd", "lower")
        (row,) = StatusView(registry, Settings.load(tmp_path), None).rows()
        assert (row["total"], row["condition"]) == (None, "ended")
        assert line(row).startswith("old-01234567 · ended · 0")


def test_an_empty_registry_and_a_wrong_name(told: Told, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    Registry.open(f"sqlite:///{empty / 'registry.db'}").close()
    assert "no sweeps yet" in lab(empty, "status").stdout
    assert json.loads(lab(empty, "status", "--json").stdout) == []
    assert "did you mean digits?" in lab(told.home, "status", "digit", code=2).stderr


def test_watching_tells_each_change_and_ends_with_the_sweep(told: Told) -> None:
    told.registry.supervise(told.sweep)
    environment = os.environ | {"AIGC_LAB_HOME": str(told.home)}
    watcher = subprocess.Popen(
        [*LAB, "status", "digits", "--watch"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert watcher.stdout is not None
    assert "running · 0/4" in watcher.stdout.readline()
    told.run(0, 0)
    assert "running · 1/4 · 1 finished" in watcher.stdout.readline()
    told.registry.release(told.sweep)
    assert "stopped · 1/4" in watcher.stdout.readline()
    assert watcher.wait(30) == 0


def test_the_newest_sweeps_and_how_many_more(told: Told) -> None:
    for number in range(3):
        time.sleep(0.002)
        told.registry.sweep(f"s{number}", f"{number:08}", EXPERIMENT, "fd", "lower")
    rows = StatusView(told.registry, Settings.load(told.home), None, most=2).rows()
    assert [row["name"] for row in rows] == ["s2", "s1"]
