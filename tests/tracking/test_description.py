"""What MLflow is told of a run, from whatever is stored of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from aigc_lab.archive.mlflow_replay import Projection
from aigc_lab.registry.records import DESCRIBED
from aigc_lab.tracking.base import DatasetInfo, run_key, run_of_key
from aigc_lab.tracking.description import RunDescription, beginning

DATA = DatasetInfo("ring", "0123", None, "2 numbers, 2000 samples")
DESCRIPTION = RunDescription({"data": "ring", "lr": 0.1, "training.ema": 0.999}, "points", DATA, ("brightness", "kl"))


def test_a_run_begins_with_all_that_it_depends_on() -> None:
    facts = {"device": "cpu", "threads": 2, "versions": {"torch": "2"}, "host": "here", "pid": 1, "git_dirty": False}
    place: dict[str, Any] = {"sweep": "s", "trial": 1, "seed": 2, "role": "search", "system": "vae", "attempt": 3}
    name, params, tags, dataset = beginning(DESCRIPTION, facts, **place)
    assert name == "vae 1.2" and dataset == DATA
    assert params == {"system": "vae", "seed": 2, "data": "ring", "lr": 0.1, "training.ema": 0.999}
    assert tags == {key: str(value) for key, value in place.items()} | {
        "data_digest": "0123",
        "protocol": "points",
        "device": "cpu",
        "threads": "2",
        "version.torch": "2",
        "git_dirty": "False",
    }


def test_a_description_is_stored_and_read_and_nothing_else_is_taken_for_one() -> None:
    assert RunDescription.load(DESCRIPTION.dump()) == DESCRIPTION
    junk: Any
    for junk in (
        None,
        3,
        [],
        {},
        {"params": 1, "protocol": None, "dataset": None},
        {**DESCRIPTION.dump(), "dataset": 1},
    ):
        assert RunDescription.load(junk) is None
    earlier = DESCRIPTION.dump()
    del earlier["describing"]
    assert RunDescription.load(earlier) == replace(DESCRIPTION, describing=())
    assert RunDescription.load(earlier | {"describing": [1]}) is None
    long = DESCRIPTION.dump()
    long["dataset"]["name"] = "x" * 1000  # MLflow would refuse it for ever
    assert RunDescription.load(long) is None


def test_a_key_is_read_as_it_was_made() -> None:
    assert run_of_key(run_key("s-1.0.2", 3)) == "s-1.0.2"


def test_an_attempt_of_an_earlier_version_is_told_as_far_as_it_is_known() -> None:
    sweep = {"id": "s", "experiment": {"data": {"name": "ring"}, "training": {"steps": 3}, "evaluation": "points"}}
    run = {"id": "s.0.1", "sweep_id": "s", "trial": 0, "seed": 1, "role": "search", "state": "FINISHED"}
    trial = {"system": "vae", "config": {"lr": 0.1}}
    attempt: dict[str, Any] = {"number": 1, "started_at": "2026-01-01T00:00:00", "environment": {"device": "cpu"}}
    rows: Any = {"attempt": [attempt], "score": [], "scalar_summary": []}
    made = Projection(Path(), "s.0.1.1", sweep, run | {"finished_at": None}, trial, rows)
    assert made.params == {"system": "vae", "seed": 1, "data": "ring", "training.steps": 3, "lr": 0.1}
    attempt["environment"][DESCRIBED] = DESCRIPTION.dump()
    made = Projection(Path(), "s.0.1.1", sweep, run | {"finished_at": None}, trial, rows)
    assert made.params == {"system": "vae", "seed": 1, **DESCRIPTION.params}
