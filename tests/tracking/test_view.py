"""How MLflow's pages open on a sweep: the view that is stored, and whether the installed pages know its words."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from aigc_lab.registry.records import StoredArtifact
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.tracking.base import Status, shown_status, status_of
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.tracking.pages import _SHUT
from aigc_lab.tracking.view import TAG, keep_view, view


@cache
def scripts() -> str:
    """All that the pages of the installed MLflow run."""
    spec = find_spec("mlflow")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "server" / "js" / "build" / "static" / "js"
    return "".join(path.read_text("utf-8") for path in folder.glob("*.js"))


@pytest.mark.parametrize(("better", "ascending"), [("lower", True), ("higher", False)])
def test_the_best_run_comes_first_with_what_is_said_of_it(better: str, ascending: bool) -> None:
    state = json.loads(view("fid", better, 800))
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`score/fid`", ascending)
    columns = state["selectedColumns"]
    assert columns[:2] == ["metrics.`score/fid`", "metrics.`score/fid_holdout`"]
    assert {f"tags.`{name}`" for name in ("floor", "collapse", "stability", "system")} <= set(columns)
    assert [column for column in state["columnOrder"] if column in columns] == columns
    curve, bar, grid = state["compareRunCharts"]
    assert (curve["type"], curve["metricKey"], bar["metricKey"]) == ("LINE", "score/fid", "score/fid_holdout")
    assert (grid["imageKeys"], grid["showRunParams"], grid["step"]) == (["samples/grid"], False, 800)
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections
    views = ["reconstructions", "traversals"]
    more = json.loads(view("fid", better, 800, views))
    assert [chart["imageKeys"] for chart in more["compareRunCharts"][3:]] == [[f"{name}/grid"] for name in views]
    assert [section["name"] for section in more["compareRunSections"]] == ["score", "samples", *views]
    assert len({chart["uuid"] for chart in more["compareRunCharts"]}) == 5
    assert len(view("fid", better, 800, views)) < 20_000, "MLflow takes no longer tags of an experiment"


def test_the_installed_pages_know_these_words() -> None:
    state = json.loads(view("fid", "lower"))
    words = {"viewStateShareKey", "mlflow.sharedViewState.", "compareRunsMode", *state}
    words |= {key for part in ("compareRunCharts", "compareRunSections") for each in state[part] for key in each}
    words |= {chart["type"] for chart in state["compareRunCharts"]}
    assert [word for word in sorted(words) if word not in scripts()] == []
    for key in ("mlflow.assistant.fab.autoOpenedOnFirstLoad", "mlflow.assistant.panelOpen"):
        assert f'key:"{key}",version:1' in scripts() and f"{key}_v1".encode() in _SHUT
    assert '"data-assistant-ui"' in scripts()


def test_the_view_is_stored_with_the_experiment(tmp_path: Path) -> None:
    tracker = MlflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    experiment = tracker.experiment("ring-01234567")
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}", home=tmp_path) as registry:
        sweep = registry.sweep("ring", "01234567", {"training": {"steps": 60}}, "rkl", "lower")
        keep_view(tracker, registry, sweep, experiment)
    stored = tracker._client().get_experiment(experiment).tags[TAG]
    assert stored == view("rkl", "lower", 60)


def test_the_view_has_the_pictures_that_runs_have(tmp_path: Path) -> None:
    tracker = MlflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    experiment = tracker.experiment("ring-01234567")
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}", home=tmp_path) as registry:
        sweep = registry.sweep("ring", "01234567", {"training": {"steps": 60}}, "rkl", "lower")
        registry.trial(sweep, 0, "vae", {}, {})
        run = registry.run(sweep, 0, 0, "search")
        names = ("curves", "missing", "reconstructions", "samples/000010", "traversals/000010", "interpolations/000010")
        files = [StoredArtifact(name, "image/png", str(tmp_path / f"{name}.png")) for name in names]
        registry.finish(run, registry.begin(run, {}), RunState.FINISHED, artifacts=files)
        keep_view(tracker, registry, sweep, experiment)
    stored = tracker._client().get_experiment(experiment).tags[TAG]
    assert stored == view("rkl", "lower", 60, ["interpolations", "traversals"])


@pytest.mark.parametrize(
    ("state", "logged", "shown"),
    [
        ("FINISHED", "FINISHED", "FINISHED"),
        ("PRUNED", "FINISHED", "KILLED"),
        ("DIVERGED", "FINISHED", "FAILED"),
        ("FAILED", "FAILED", "FAILED"),
        ("KILLED", "KILLED", "KILLED"),
    ],
)
def test_a_run_without_a_result_does_not_look_finished(state: str, logged: Status, shown: Status) -> None:
    assert (status_of(state), shown_status(status_of(state), state)) == (logged, shown)


def test_mlflow_shows_a_pruned_run_as_killed(tmp_path: Path) -> None:
    tracker = MlflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    experiment = tracker.experiment("ring-01234567")
    for state, status in (("PRUNED", "KILLED"), ("FINISHED", "FINISHED")):
        run = tracker.start(experiment, state, f"{state}.1", {}, {})
        assert run.end("FINISHED", {"state": state}) == 0
        assert tracker.runs_by_key("ring-01234567")[f"{state}.1"][0].status == status
