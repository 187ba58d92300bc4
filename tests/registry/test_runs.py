"""The rows of runs, and all that is known of one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from registries import Lab, a_run, url_in

from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.records import StoredScore
from aigc_lab.registry.runs import list_runs, newest_runs, show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_sweeps, list_trials
from aigc_lab.statistics.score import Score


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(Registry.open(url_in(tmp_path)))


def test_what_is_shown_of_a_run_is_ready_for_json(lab: Lab) -> None:
    run = lab.run(lab.sweep(), 0, 0, 5.0)
    progress = [
        StoredScore("fd", value, None, None, 10, None, "fd", "lower", "progress", step, "reference")
        for step, value in ((20, 7.0), (10, 9.0))
    ]
    lab.registry.finish(run, 1, RunState.FINISHED, scores=progress)
    shown = show_run(lab.registry, run)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert [(entry["step"], entry["value"]) for entry in shown["progress"]] == [(10, 9.0), (20, 7.0)]
    assert shown["config"] == {"lr": 0.0}
    assert shown["environment"] == {"host": "here"}
    assert {"role", "reason", "attempts", "scores_selected", "checkpoints", "artifacts", "scalars"} <= set(shown)


def test_the_class_that_a_score_is_of_is_stored(lab: Lab) -> None:
    run = a_run(lab.registry)
    attempt = lab.registry.begin(run, {})
    worst = Score("label_accuracy_worst", 0.5, 0.4, 0.6, 400, 0.9, "clf", "higher", of_class="eight")
    stored = [StoredScore.of(each, "last", 10, "holdout") for each in (worst, replace(worst, name="b", of_class=None))]
    lab.registry.finish(run, attempt, RunState.FINISHED, scores=stored)
    named = {score["name"]: score["of_class"] for score in show_run(lab.registry, run)["scores"]}
    assert named == {"label_accuracy_worst": "eight", "b": None}


def test_rows_of_one_sweep_hold_nothing_of_another(lab: Lab) -> None:
    first, second = lab.sweep("a"), lab.sweep("b")
    lab.run(first, 0, 0, 1.0)
    lab.run(second, 0, 0, 2.0)
    for read in (list_runs, list_trials):
        assert [row["sweep"] for row in read(lab.registry, first)] == [first]
    assert [row["sweep"] for row in compare_trials(lab.registry, second).rows] == [second]
    assert [row["sweep"] for row in list_sweeps(lab.registry)] == [second, first]


def test_the_newest_runs_of_a_state(lab: Lab) -> None:
    sweep = lab.sweep()
    for trial in range(12):
        lab.run(sweep, trial, 0, 1.0, state=RunState.FAILED if trial % 2 else RunState.FINISHED)
    found = newest_runs(lab.registry, state=RunState.FAILED, most=2)
    assert [row["trial"] for part in found.parts for row in part] == [9, 11]
    assert (found.shown, found.total) == (2, 6)
    assert len(list_runs(lab.registry)) == 12
