"""What `verify` finds of MLflow, and the command that it names: runs, curves, files and models shown again."""

import json
import math
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import WriterHere

from aigc_lab.archive import mlflow_replay
from aigc_lab.cli import training
from aigc_lab.commands import rebuild, sweep
from aigc_lab.commands.verify import verify_sweeps
from aigc_lab.errors import UsageError
from aigc_lab.host.files import sha256
from aigc_lab.host.settings import Settings
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.models import list_models
from aigc_lab.registry.store import Registry
from aigc_lab.scoring.evaluator import Evaluator
from aigc_lab.serving.promotion import promote
from aigc_lab.sweeps.reconcile import Finding
from aigc_lab.sweeps.supervision import alone
from aigc_lab.tracking import mlflow as tracking
from aigc_lab.tracking import relocation, writer
from aigc_lab.tracking.mlflow import MlflowTracker, RunSnapshot

POINTS = """\
data: {name: ring, points: 2000}
system: {name: point_gan, hidden: 16, lr: {log: [1e-4, 1e-2]}}
training: {steps: 20, batch_size: 32, log_every: 10, evaluate_every: 10, threads: 1}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
search: {trials: 2}
"""


class Home:
    def __init__(self, path: Path) -> None:
        self.path, self.settings = path, Settings.load(path)
        with self.registry() as registry:
            self.sweep = find_sweep(registry, "points")

    def registry(self) -> Registry:
        return Registry.open(self.settings.registry_url, home=self.path)

    def verify(self, **options: Any) -> list[str]:
        with self.registry() as registry:
            return verify_sweeps(registry, self.settings, **options).problems

    def rebuild(self, **options: Any) -> list[Finding]:
        with self.registry() as registry:
            return list(rebuild.rebuild(registry, self.settings, "points", **options))

    def shown(self) -> dict[str, RunSnapshot]:
        """Run -> what MLflow has of it."""
        found = MlflowTracker(self.settings.tracking_uri, self.settings.artifacts).runs_by_key(self.sweep)
        return {key.rpartition(".")[0]: run for key, (run,) in found.items()}

    def artifact(self, run: str, name: str) -> Path:
        return Path(self.shown()[run].artifact_uri.removeprefix("file://"), name)

    def sql(self, statement: str, *values: object) -> list[Any]:
        with closing(sqlite3.connect(self.path / "mlflow.db")) as database, database:
            return database.execute(statement, values).fetchall()

    def points(self) -> list[Any]:
        """Of every run: metric, step and value, as often as they are stored."""
        rows = self.sql(
            "SELECT t.value, m.key, m.step, m.value FROM metrics m JOIN tags t USING (run_uuid)"
            " WHERE t.key = 'aigc_lab.key' AND m.key != 'dynamics/samples_per_second'"
        )
        return sorted(rows)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A sweep whose better run is promoted."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "points.yaml").write_text(POINTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "Writer", WriterHere)
        for name in list(os.environ):
            if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
                patch.delenv(name)
        sweep.sweep_experiment(str(folder / "points.yaml"), [], device="cpu", json=True, home=folder / "home")
        made = Home(folder / "home")
        promote("points", made.settings, name="toy", alias="champion", reason="a test")
        yield made


@pytest.fixture
def home(trained: Home, tmp_path: Path) -> Home:
    """The same, to be spoilt."""
    shutil.copytree(trained.path, tmp_path / "home")
    relocation.repair(Settings.load(tmp_path / "home"))
    return Home(tmp_path / "home")


def own_tags(run: RunSnapshot) -> dict[str, str]:
    """The tags of an MLflow run without MLflow's."""
    return {name: value for name, value in run.tags.items() if not name.startswith("mlflow.")}


def test_files_in_mlflow_are_compared_and_sent_again(home: Home) -> None:
    assert home.verify() == []
    first, second = sorted(home.shown())
    weights = home.artifact(first, "model/last.safetensors")
    whole = sha256(weights)
    weights.unlink()
    weights.write_bytes(b"ten bytes!")
    home.artifact(first, "model/last.json").unlink()
    (picture, *_) = sorted(home.artifact(second, "images").glob("*step+10+*.webp"))
    picture.unlink()
    (grid, *_) = sorted(home.artifact(second, "images").glob("*step+20+*.png"))
    other = min(home.artifact(second, "images").glob("*step+0+*.png"))
    grid.unlink()
    grid.write_bytes(other.read_bytes()[:-40])
    remedy = f"aigc-lab reconcile --mlflow {home.sweep}"
    size = (home.path / "checkpoints" / home.sweep / "0.0" / "1" / "last.safetensors").stat().st_size
    assert sorted(home.verify()) == [
        f"{first}: MLflow lacks model/last.json; {remedy}",
        f"{first}: model/last.safetensors in MLflow is not what was written (10 bytes instead of {size}); {remedy}",
        f"{second}: MLflow lacks the samples of step 10; {remedy}",
        f"{second}: the samples of step 20 in MLflow are damaged; {remedy}",
    ]
    before, names = home.points(), sorted(path.name for path in home.artifact(second, "images").iterdir())
    would = home.rebuild(dry_run=True)
    assert [finding.run for finding in would] == [first, second] and len(home.verify()) == 4
    assert [finding.run for finding in home.rebuild()] == [first, second]
    assert home.verify() == [] and home.rebuild() == []
    assert sha256(weights) == whole and home.points() == before
    assert sorted(path.name for path in home.artifact(second, "images").iterdir()) == sorted([*names, picture.name])


def test_files_of_a_server_are_read_where_that_is_asked_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a server has them: they lie on no disk of this machine, and are fetched."""
    (run, *_) = sorted(home.shown())
    weights = home.artifact(run, "model/last.safetensors")
    ends, middle, begins = (min(home.artifact(run, "images").glob(f"*step+{step}+*.png")) for step in (20, 10, 0))
    whole, picture = sha256(weights), ends.read_bytes()
    for path, content in (
        (weights, bytes(weights.stat().st_size)),
        (ends, b"no picture"),
        (middle, begins.read_bytes()),
    ):
        path.unlink()  # the home's is the same file
        path.write_bytes(content)
    monkeypatch.setattr(tracking, "local_folder", lambda uri: None)
    assert home.verify() == [], "all have their size, as far as it is known"
    remedy = f"aigc-lab reconcile --mlflow {home.sweep} --deep"
    differs = home.verify(deep=True)
    assert differs[:2] == [
        f"{run}: model/last.safetensors in MLflow is not what was written (sha256); {remedy}",
        f"{run}: the samples of step 20 in MLflow are damaged; {remedy}",
    ]
    assert len(differs) == 3 and differs[2].startswith(f"{run}: home and MLflow differ in the samples of step 10; look")
    assert f", images/{middle.name} of MLflow's run {home.shown()[run].run_id}" in differs[2]
    assert home.rebuild() == []
    assert [finding.run for finding in home.rebuild(deep=True)] == [run]
    assert home.verify(deep=True) == differs[2:], "who is right of two pictures is for a person to say"
    assert (sha256(weights), ends.read_bytes()) == (whole, picture)


def test_a_lost_database_is_made_again_wherever_that_was_interrupted(
    trained: Home, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, runs = home.points(), trained.shown()  # this process must not hold the database that goes
    for file in home.path.glob("mlflow.db*"):
        file.unlink()
    lost = home.verify()
    assert [text.endswith(f"is lost; aigc-lab reconcile --mlflow {home.sweep}") for text in lost] == [True]
    assert not (home.path / "mlflow.db").exists(), "who looks makes nothing"
    show, calls = mlflow_replay.Projection._file, []

    def interrupted(*given: Any) -> None:
        show(*given)
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(mlflow_replay.Projection, "_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        home.rebuild()
    assert [f"reconcile --mlflow {home.sweep}" in text for text in home.verify()][:1] == [True]
    training.reconcile("points", mlflow=True, home=home.path)
    assert "toy 1: MLflow lacks it: shown again" in capsys.readouterr().out
    assert home.verify() == [] and home.rebuild() == []
    assert home.points() == before, "each once"
    again = home.shown()
    assert again.keys() == runs.keys()
    for name, run in again.items():
        assert run.status == "FINISHED" and run.tags["rebuilt"] == "true"
        assert run.params == runs[name].params and run.params["training.ema"] == "0.999"
        assert own_tags(run) == own_tags(runs[name]) | {"rebuilt": "true"}
        assert {"state", "data_digest", "protocol", "weights.selected"} <= run.tags.keys()
    with home.registry() as registry:
        (row,) = list_models(registry)
    assert (row["version"], row["aliases"]) == (1, ["champion"])
    assert row["mlflow_model_id"] in str(home.sql("SELECT model_id FROM logged_models"))


def test_runs_that_went_wrong_are_told_alike(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose score is infinite, and one that diverges."""
    examine = Evaluator.examine

    def infinite(*given: Any, **options: Any) -> Any:
        scores, said = examine(*given, **options)
        return [replace(score, value=math.inf) for score in scores], said

    monkeypatch.setattr(Evaluator, "examine", infinite)
    monkeypatch.setattr(writer, "Writer", WriterHere)
    text = POINTS.replace("{log: [1e-4, 1e-2]}", "{choice: [1.0e-9, 1.0e+30]}").replace("trials: 2", "sampler: grid")
    (tmp_path / "points.yaml").write_text(text)
    sweep.sweep_experiment(str(tmp_path / "points.yaml"), [], device="cpu", workers=1, json=True, home=home.path)
    made = Home(home.path)
    before = made.shown()
    assert {run.tags["state"] for run in before.values()} == {"FINISHED", "DIVERGED"}
    told = [run.tags.get("aigc_lab.nonfinite", "") for run in before.values()]
    assert any("score/rkl: 2 from step 10" in each and "score/rkl_holdout: 1 from step 20" in each for each in told)
    for run in before.values():  # so that they are made anew
        made.sql("DELETE FROM tags WHERE run_uuid = ?", run.run_id)
        made.sql("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = ?", run.run_id)
    made.rebuild()
    after = made.shown()
    assert after.keys() == before.keys()
    for name, run in after.items():
        assert run.run_id != before[name].run_id and run.params == before[name].params
        assert own_tags(run) == own_tags(before[name]) | {"rebuilt": "true"}


def test_runs_curves_and_endings_come_back(home: Home) -> None:
    first, second = sorted(home.shown())
    ids, points = {name: run.run_id for name, run in home.shown().items()}, home.points()
    home.sql("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = ?", ids[first])
    for table in ("metrics", "latest_metrics"):
        home.sql(f"DELETE FROM {table} WHERE run_uuid = ? AND key = 'score/rkl'", ids[second])
    home.sql("UPDATE runs SET status = 'RUNNING' WHERE run_uuid = ?", ids[second])
    found = "\n".join(home.verify())
    assert f"{first}: MLflow has no run of it" in found
    assert f"{second}: it is FINISHED, and MLflow says RUNNING" in found
    assert f"{second}: MLflow lacks the curve score/rkl" in found
    home.rebuild()
    assert home.verify() == []
    assert {name: run.run_id for name, run in home.shown().items()} == ids, "a deleted run is brought back"
    assert home.points() == points


def test_a_run_of_an_earlier_version_gets_the_tags_of_a_new_one(home: Home) -> None:
    """Its floor among them, which MLflow's table shows; a tag that says something else stays."""
    run, before = min(home.shown().items())
    assert "floor" in before.tags
    for name in ("floor", "system"):
        home.sql("DELETE FROM tags WHERE key = ? AND run_uuid = ?", name, before.run_id)
    home.sql("UPDATE tags SET value = 'mine' WHERE key = 'state' AND run_uuid = ?", before.run_id)
    assert home.verify() == [], "nothing is lost"
    said = [f"{run}: MLflow lacks its tags floor, system: it would be shown again"]
    assert [str(each) for each in home.rebuild(dry_run=True)] == said
    assert "floor" not in home.shown()[run].tags
    assert [str(each) for each in home.rebuild()] == [line.replace("it would be ", "") for line in said]
    assert home.shown()[run].tags == before.tags | {"state": "mine"}
    assert home.rebuild() == []


def test_values_that_mlflow_has_wrong_are_sent_again(home: Home) -> None:
    first, second = sorted(home.shown())
    ids = {name: run.run_id for name, run in home.shown().items()}
    scalar = next(name for name in sorted(home.shown()[second].metrics) if name.startswith("loss/"))
    right = {first: home.shown()[first].metrics["score/rkl"], second: home.shown()[second].metrics[scalar]}
    for table in ("metrics", "latest_metrics"):
        for run, metric in ((first, "score/rkl"), (second, scalar)):
            newest = f"(SELECT max(step) FROM {table} WHERE run_uuid = ? AND key = ?)"
            home.sql(
                f"UPDATE {table} SET value = 77 WHERE run_uuid = ? AND key = ? AND step = {newest}",
                *(ids[run], metric) * 2,
            )
    found = home.verify()
    assert [text.partition(":")[0] for text in found] == [first, second]
    assert "score/rkl" in found[0] and f"{scalar} ends at {right[second]}, and MLflow says 77.0" in found[1]
    home.rebuild()
    assert home.verify() == [] and home.rebuild() == []
    assert home.shown()[first].metrics["score/rkl"] == right[first]
    assert home.shown()[second].metrics[scalar] == right[second]


def test_a_damaged_file_of_the_home_is_told_and_not_sent(home: Home) -> None:
    run = min(home.shown())
    lost = home.path / "checkpoints" / home.sweep / "0.0" / "1" / "last.safetensors"
    copy = home.artifact(run, "model/last.safetensors")
    whole = sha256(copy)
    lost.unlink()
    lost.write_bytes(b"ten bytes!")
    (text,) = home.verify()
    assert text == f"{run}: {lost} is not what was written (sha256); MLflow's is whole: cp {copy} {lost}"
    assert home.rebuild() == [] and sha256(copy) == whole
    copy.unlink()
    text = next(text for text in home.verify() if "sha256" in text)
    assert f"aigc-lab delete {run}, and then aigc-lab resume {home.sweep}" in text
    home.rebuild()
    assert not copy.exists(), "what is damaged is shown to nobody"
    description = lost.with_suffix(".json")
    description.write_text("{")
    assert any("has no description" in text or "sha256" in text for text in home.verify())


def test_of_two_pictures_that_differ_neither_is_overwritten(home: Home) -> None:
    run = min(home.shown())
    folder = home.path / "artifacts" / home.sweep
    mine = next(path for path in sorted(folder.rglob("samples/000020.png")) if "0.0" in path.parts)
    (copy,) = home.artifact(run, "images").glob("*step+20+*.png")
    right = copy.read_bytes()
    other = mine.with_name("000000.png").read_bytes()
    mine.unlink()  # MLflow's is the same file
    mine.write_bytes(other)
    told = f"{run}: home and MLflow differ in the samples of step 20; look at both, and put the right one in the place"
    assert home.verify() == [f"{told} of the other: {mine}, {copy}"]
    assert home.rebuild() == [] and copy.read_bytes() == right
    damaged = bytearray(right)
    damaged[len(right) // 2] ^= 1
    mine.write_bytes(damaged)
    told = f"{run}: {mine} is cut off, or damaged; MLflow's is whole: cp --remove-destination {copy} {mine}"
    assert home.verify() == [told]
    assert home.rebuild() == [] and copy.read_bytes() == right


def test_curves_of_the_home_end_where_the_registry_does(home: Home) -> None:
    run = min(home.shown())
    (file, *_) = sorted((home.path / "artifacts" / home.sweep).rglob("curves.json"))
    curves = json.loads(file.read_bytes())
    name = max(curves)
    for spoilt, told in (
        ({}, "lacks the curve "),
        ({**curves, name: {"step": [20], "value": [77.0]}}, f"ends {name} at 77.0 (step 20), not "),
    ):
        file.unlink()
        file.write_text(json.dumps(spoilt))
        (text,) = home.verify()
        assert text.startswith(f"{run}: {file} {told}")


def test_a_sweep_that_is_run_is_left_alone(home: Home) -> None:
    with alone(home.settings, home.sweep):
        with pytest.raises(UsageError, match="being run by another process"):
            home.rebuild()
        with home.registry() as registry:
            (finding,) = rebuild.rebuild(registry, home.settings)
        assert "left alone" in finding.what
    with pytest.raises(UsageError, match="say --mlflow"):
        training.reconcile("points", home=home.path)
