"""Promotion and samples: versions here and in MLflow, killed anywhere; the same pictures by every way; refusals."""

import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from PIL import Image
from systems_of_users import MINE, PAINTER

from aigc_lab import cli, load, plugins
from aigc_lab.cli import completion
from aigc_lab.commands.sweep import sweep_experiment
from aigc_lab.data.folder import Folder
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import trust
from aigc_lab.host.files import locked, sha256
from aigc_lab.host.settings import Settings
from aigc_lab.modalities.base import modality
from aigc_lab.registry import read_only
from aigc_lab.registry.models import list_models
from aigc_lab.registry.records import Judged, Role, StoredCheckpoint, StoredPromotion, StoredScore, StoredVerdict
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import METADATA
from aigc_lab.serving import promotion, restoration, sample_files
from aigc_lab.serving.about import about
from aigc_lab.serving.model import Model
from aigc_lab.serving.promotion import PromotionResult, promote
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import System
from aigc_lab.tracking import spool_log, writer
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.tracking.model_registry import MlflowModels, default_store
from aigc_lab.tracking.spool import SpoolTracker
from aigc_lab.training.checkpoint import save_weights

RING = """\
data: {name: ring, points: 2000}
system: {name: point_gan, hidden: 16, lr: {log: [1e-4, 1e-2]}}
training: {steps: 20, batch_size: 32, log_every: 10, evaluate_every: 10, threads: 1}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
search: {trials: 2}
"""
# What a few steps have learned cannot be measured.
FORCED = ("--force", "--reason", "a test")
POINTS = Shape(Modality.POINTS, (2,), classes=8)
PICTURES = Shape(Modality.IMAGES, (1, 16, 16), classes=10)


class Home:
    """A home with runs that were recorded as if they had been trained."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = Settings.load(path)
        self.client = MlflowClient(tracking_uri=self.settings.tracking_uri)

    def registry(self) -> Registry:
        return Registry.open(self.settings.registry_url)

    def run(
        self,
        system: str,
        shape: Shape,
        config: dict[str, Any],
        seed: int = 0,
        state: RunState = RunState.FINISHED,
        weights: int | None = None,
        *,
        trial: int = 0,
        role: Role = "search",
        verdicts: Mapping[Judged, str] = MappingProxyType({}),
    ) -> str:
        """A run of the sweep `toy`, whose weights are those that the seed gives, or the seed `weights`. It scores 10
        less its seed and its trial.
        """
        kind_of_system: type[System] = plugins.find(System, system)  # type: ignore[type-abstract]
        torch.manual_seed(seed if weights is None else weights)
        made = kind_of_system(kind_of_system.Config(**config), shape)
        with self.registry() as registry:
            sweep = registry.sweep("toy", "0123456789", {}, "fd", "lower")
            registry.trial(sweep, trial, plugins.name_of(kind_of_system), {}, {})
            tracker = MlflowTracker(self.settings.tracking_uri, self.settings.artifacts)
            experiment = tracker.experiment(sweep)
            registry.set_mlflow_experiment(sweep, experiment)
            run = registry.run(sweep, trial, seed, role)
            attempt = registry.begin(run, {})
            registry.set_mlflow_run(run, self.client.create_run(experiment).info.run_id)
            path = self.settings.checkpoints / sweep / f"{trial}.{seed}" / "last.safetensors"
            save_weights(made, made.state_dict(), path, {"run": run})
            value = 10.0 - seed - trial
            ends = value, value - 1, value + 1
            score = StoredScore("fd", *ends, 500, 0.4, "fd|n:500", "lower", "last", 20, "holdout")
            stored = StoredCheckpoint("last", 20, str(path), sha256(path), path.stat().st_size)
            reason = None if state == RunState.FINISHED else "because"
            if state != RunState.RUNNING:
                said = [StoredVerdict(kind, 20, verdict, "why", {}, "s") for kind, verdict in verdicts.items()]
                registry.finish(run, attempt, state, reason=reason, scores=[score], checkpoints=[stored], verdicts=said)
        return run

    def promote(self, wanted: str, name: str = "toy", alias: str | None = "champion") -> PromotionResult:
        return promote(wanted, self.settings, name=name, alias=alias)

    def models(self) -> list[dict[str, Any]]:
        with self.registry() as registry:
            return list_models(registry)

    def versions(self, name: str = "toy") -> list[int]:
        return sorted(int(version.version) for version in self.client.search_model_versions(f"name = '{name}'"))

    def checkpoint(self, run: str) -> Path:
        with self.registry() as registry:
            return Path(show_run(registry, run)["checkpoints"][0]["path"])


@pytest.fixture(autouse=True, scope="module")
def _plain_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
                patch.delenv(name)
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        yield


@pytest.fixture
def home(tmp_path: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    (tmp_path / "home").mkdir()
    shutil.copy(empty_mlflow, tmp_path / "home" / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    return Home(tmp_path / "home")


def small(home: Home, seed: int = 0, state: RunState = RunState.FINISHED) -> str:
    return home.run("point_gan", POINTS, {"hidden": 4, "latent_size": 4}, seed, state)


def type_(monkeypatch: pytest.MonkeyPatch, *words: str, code: int = 0) -> None:
    monkeypatch.setattr(sys, "argv", ["aigc-lab", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert (stop.value.code or 0) == code


def served(home: Home, uri: str) -> Any:
    """The model as a stranger loads it, who has MLflow's address and nothing else."""
    with default_store(home.settings.tracking_uri):
        return mlflow.pyfunc.load_model(uri)


# ---- from a sweep to its samples


def test_a_sweep_is_promoted_and_sampled(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text(RING)
    rows = sweep_experiment("mine.yaml", [], device="cpu", dry_run=False, json=True, home=home.path)
    assert f"aigc-lab compare {rows[0]['sweep']}" in capsys.readouterr().err
    at_home = ("--home", str(home.path))
    type_(monkeypatch, "promote", "mine", *FORCED, *at_home)
    shown = capsys.readouterr().out
    best = f"{rows[0]['sweep']}.{rows[0]['trial']}.0"
    for text in (
        "mine version 1",
        "champion → version 1",
        f"run        {best} (the best by rkl on the reference split",
        "floor",
    ):
        assert text in shown
    type_(monkeypatch, "promote", "mine", *FORCED, *at_home, "--json")
    again = json.loads(capsys.readouterr().out)
    assert (again["version"], again["created"], again["run"]) == (1, False, best)
    type_(monkeypatch, "models", *at_home, "--json")
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["model"], row["aliases"], row["score"]["name"]) == ("mine", ["champion"], "rkl")
    assert row["score"]["value"] == rows[0]["score"]["value"]
    type_(monkeypatch, "show", best, *at_home)
    assert "mine version 1 @champion" in capsys.readouterr().out

    type_(monkeypatch, "sample", "mine", "-n", "20", *at_home)
    assert capsys.readouterr().out == "samples-mine-1/scatter.png\n"
    assert sorted(path.name for path in Path("samples-mine-1").iterdir()) == [
        "points.npy",
        "samples.json",
        "scatter.png",
    ]
    found = np.load("samples-mine-1/points.npy")
    assert found.dtype == np.float32 and found.shape == (20, 2)
    assert np.array_equal(served(home, "models:/mine@champion").predict(pd.DataFrame({"n": [20]})), found)
    for wanted in ("mine@champion", "models:/mine/1", "models:/mine@champion", "models:/mine/latest", best):
        assert np.array_equal(load(wanted, home=home.path).sample(20), found)
    assert not np.array_equal(load("mine", home=home.path).sample(20, seed=1), found)


def test_what_cannot_be_measured_is_promoted_only_with_a_reason(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a learning rate of 1,000 all points end far from all modes, and each is nearest to one."""
    Path("mine.yaml").write_text(RING.replace("{log: [1e-4, 1e-2]}", "1e3"))
    rows = sweep_experiment("mine.yaml", [], device="cpu", dry_run=False, json=True, home=home.path)
    said = capsys.readouterr().err
    (mark,) = rows[0]["marks"]
    verdict = mark.removeprefix("collapse ")
    assert rows[0]["rank"] == 1 and verdict in ("UNMEASURABLE", "TOTAL")
    assert rows[0]["score"]["value"] == pytest.approx(math.log(8) + 1)
    assert f"! The best trial is marked: {mark};" in said and "aigc-lab promote" not in said
    assert " 1 !  " in said and "! UNMEASURABLE, SEVERE or TOTAL: " in said
    at_home = ("--home", str(home.path))
    type_(monkeypatch, "promote", "mine", *at_home, code=2)
    refused = capsys.readouterr().err
    assert "no ranked run of mine-" in refused and f"rank 1): collapse {verdict}: " in refused
    assert "--force --reason WHY" in refused
    type_(monkeypatch, "models", *at_home, "--json")
    assert json.loads(capsys.readouterr().out) == []
    type_(monkeypatch, "promote", "mine", "--force", *at_home, code=2)
    assert "--force: say why, with --reason" in capsys.readouterr().err
    type_(monkeypatch, "promote", "mine", "--reason", "a test", *at_home, code=2)
    type_(monkeypatch, "promote", "mine", "--force", "--reason", "shown in a talk", *at_home)
    assert "shown in a talk" in capsys.readouterr().out
    type_(monkeypatch, "models", *at_home, "--json")
    (row,) = json.loads(capsys.readouterr().out)
    assert row["reason"] == "shown in a talk"
    assert home.client.get_model_version("mine", "1").tags["reason"] == "shown in a talk"
    type_(monkeypatch, "show", row["run"], *at_home)
    assert f"! {mark}: " in capsys.readouterr().out
    # The same weights again, for another reason.
    type_(monkeypatch, "promote", "mine", "--alias", "other", "--force", "--reason", "and in a paper", *at_home)
    assert "and in a paper" in capsys.readouterr().out
    type_(monkeypatch, "models", *at_home, "--json")
    assert [row["reason"] for row in json.loads(capsys.readouterr().out)] == ["and in a paper"]
    assert home.client.get_model_version("mine", "1").tags["reason"] == "and in a paper"


# ---- the same pictures


def test_pictures_are_the_same_by_every_way(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    run = home.run("vae", PICTURES, {"width": 4})
    home.promote(run)
    type_(monkeypatch, "sample", run, "-n", "7", "--seed", "3", "-o", "out", "--home", str(home.path))
    written = np.stack([np.asarray(Image.open(f"out/{number:05d}.png")) for number in range(7)])
    assert written.dtype == np.uint8 and written.shape == (7, 16, 16) and written.std() > 0
    assert Image.open("out/grid.png").size == (3 * 50 + 2, 3 * 50 + 2)
    note = json.loads(Path("out/samples.json").read_text())["note"]
    assert (note["run"], note["n"], note["seed"]) == (run, 7, 3)

    # MLflow needs neither our registry nor our files.
    shutil.rmtree(home.path / "models")
    shutil.rmtree(home.path / "checkpoints")
    (home.path / "registry.db").rename(home.path / "away.db")
    model = served(home, "models:/toy@champion")
    answer = model.predict(pd.DataFrame({"n": [7], "seed": [3]}))
    assert answer.dtype == np.uint8 and answer.shape == (7, 16, 16, 1)
    assert np.array_equal(answer[..., 0], written)
    both = model.predict(pd.DataFrame({"n": [2, 7], "seed": [0, 3]}))
    assert np.array_equal(both[2:], answer) and np.array_equal(both[:2], model.predict({"n": [2]}))
    assert np.array_equal(load("models:/toy/1", home=home.path).sample(7, seed=3), answer)

    logged = model.metadata
    assert json.loads(logged.signature.to_dict()["outputs"])[0]["tensor-spec"] == {
        "dtype": "uint8",
        "shape": [-1, 16, 16, 1],
    }
    assert model.input_example.to_dict("list") == {"n": [4], "seed": [0]}
    requirements = mlflow.pyfunc.get_model_dependencies(home.client.get_model_version_download_uri("toy", "1"))
    assert "aigc-lab==" in Path(requirements).read_text()


def test_more_samples_begin_with_the_same_ones(home: Home) -> None:
    model = load(small(home), home=home.path)
    assert np.array_equal(model.sample(503)[:9], model.sample(9))
    with pytest.raises(UsageError, match="at least one"):
        model.sample(0)


def test_nothing_in_mlflow_is_a_pickle(home: Home) -> None:
    home.promote(small(home))
    files = [path for path in (home.path / "artifacts").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {"", ".py", ".yaml", ".json", ".txt", ".safetensors"}
    # A pickle opens with its protocol, and torch's files are archives of pickles.
    assert all(not path.read_bytes().startswith((b"\x80", b"PK")) for path in files)


# ---- a user's system


def test_a_users_conditional_system_outlives_its_file(home: Home) -> None:
    mine = Path("mine.py")
    mine.write_text(MINE)
    run = home.run(str(mine), POINTS, {})
    trust.remember(home.path, {sha256(mine): mine.name})  # as the training of an experiment that names it does
    home.promote(run)
    mine.unlink()
    shutil.rmtree(home.path / "checkpoints")
    model = load("toy", home=home.path)
    points = model.sample(5, labels=[3, 7])
    assert points.round(-1)[:, 0].tolist() == [30, 70, 30, 70, 30]
    assert model.sample(9).round(-1)[:, 0].tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 0]  # all in turn
    # Over the seam of two blocks: each sample keeps its label.
    many = model.sample(504, labels=[1, 5])
    assert np.array_equal(many.round(-1)[498:, 0], [10, 50] * 3)
    answer = served(home, "models:/toy/1").predict(pd.DataFrame({"n": [5, 2], "seed": [0, 0], "label": [3, 7]}))
    assert answer.round(-1)[:, 0].tolist() == [30] * 5 + [70] * 2
    assert np.array_equal(answer[5:], model.sample(2, labels=[7]))
    with pytest.raises(UsageError, match="label 8: mine knows the classes 0 to 7"):
        model.sample(2, labels=[8])
    # Promoting the run again needs no checkpoint either.
    assert not home.promote(run).created


@pytest.fixture
def animals(tmp_path: Path) -> Folder:
    """A folder of pictures in three folders, called by what they show."""
    for number, name in enumerate(("cat", "dog", "cow") * 20):
        place = tmp_path / "animals" / name
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), number, np.uint8)).save(place / f"{number}.png")
    return Folder(Folder.Config(path=str(tmp_path / "animals"), size=16, channels=1), tmp_path / "data")


def test_the_names_of_a_folders_classes_outlive_the_folder(
    home: Home, animals: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    painter = Path("painter.py")
    painter.write_text(PAINTER)
    run = home.run(str(painter), animals.shape, {})
    shutil.rmtree("animals")
    trust.remember(home.path, {sha256(painter): painter.name})
    home.promote(run)
    painter.unlink()

    def check() -> None:
        version = home.client.get_model_version("toy", "1")
        assert version.tags["classes"] == "cat, cow, dog"
        assert "Classes drawn on demand: cat, cow, dog." in (version.description or "")
        asked = pd.DataFrame({"n": [2, 1, 1], "label": ["dog", 1, "cow"]})
        records = served(home, "models:/toy@champion").predict(asked, params={"format": "records"})
        assert [record["class"] for record in records] == ["dog", "dog", "cow", "cow"]
        assert [record["sample"][0][0][0] // 80 for record in records] == [2, 2, 1, 1]

    check()
    assert load("toy", home=home.path).class_names == ("cat", "cow", "dog")
    pictures = load("models:/toy/1", home=home.path).sample(3, labels=["dog", "cow"])
    assert (pictures[:, 0, 0, 0] // 80).tolist() == [2, 1, 2]
    home.client.delete_registered_model("toy")
    type_(monkeypatch, "reconcile", "--mlflow", "--home", str(home.path))
    assert "model toy 1: MLflow lacks it: shown again" in capsys.readouterr().out
    check()
    # What a shell offers behind --labels.
    monkeypatch.setenv("AIGC_LAB_HOME", str(home.path))
    for model in ("toy", "toy@champion", "models:/toy/1", run, "toy-01234567"):
        assert completion.labels(model, "cat,c") == ["cat,cat", "cat,cow"]
    type_(monkeypatch, "sample", "toy", "-n", "4", "--labels", "dgo", "--home", str(home.path), code=2)
    said = "label dgo: did you mean dog? painter knows the classes cat, cow, dog, by name or by number (0 to 2)"
    assert said in capsys.readouterr().err
    type_(monkeypatch, "sample", "toy", "-n", "4", "--labels", "dog,cat", "--home", str(home.path))
    assert "4 samples of toy-1 (painter, run toy-01234567.0.0), classes dog, cat, seed 0" in capsys.readouterr().err
    assert [int(np.asarray(Image.open(file))[0, 0]) // 80 for file in sorted(Path("samples-toy-1").glob("0*.png"))] == [
        *(2, 0),
        *(2, 0),
    ]


def test_an_import_keeps_the_names_of_classes(home: Home, animals: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("painter.py").write_text(PAINTER)
    run = home.run("painter.py", animals.shape, {})
    type_(monkeypatch, "export", "toy", "--home", str(home.path), "-o", "toy.tar.gz")
    type_(monkeypatch, "import", "toy.tar.gz", "--home", "other", "--trust-code")
    model = load(run, home="other")
    assert model.class_names == ("cat", "cow", "dog") and model.sample(1, labels=["dog"])[0, 0, 0, 0] // 80 == 2


def test_code_beside_a_model_is_not_run_unasked_when_mlflow_has_lost_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(MINE)
    run = home.run("mine.py", POINTS, {})
    trust.remember(home.path, {sha256(Path("mine.py")): "mine.py"})
    home.promote(run)
    home.client.delete_registered_model("toy")
    trust.trust_file(home.path).unlink()
    type_(monkeypatch, "reconcile", "--mlflow", "--home", str(home.path), code=1)
    said = capsys.readouterr().out
    assert "model toy 1: MLflow lacks it, and still does" in said and "--trust-code" in said
    assert home.versions() == []
    type_(monkeypatch, "reconcile", "--mlflow", "--trust-code", "--home", str(home.path))
    assert "model toy 1: MLflow lacks it: shown again" in capsys.readouterr().out
    assert home.versions() == [1] and trust.trusted(home.path) == {sha256(Path("mine.py"))}


def test_labels_of_a_system_that_knows_none(home: Home) -> None:
    run = small(home)
    for labels in ("3", "all", "3,x", ""):
        with pytest.raises(UsageError, match="point_gan is not conditional: .* leave the labels out"):
            draw(home, run, labels=labels)
    assert load(run, home=home.path).class_names is None
    assert not Path("out").exists()


# ---- versions and aliases


def test_versions_and_aliases(home: Home) -> None:
    first, second = small(home, 0), small(home, 1)
    done = home.promote(first)
    assert (done.row["version"], done.created, done.before, done.chosen) == (1, True, None, "")
    assert home.promote(second, alias=None).row["aliases"] == []
    assert (home.promote(second).before, home.promote(second).before) == (1, 2)
    back = home.promote(first)
    assert (back.row["version"], back.created, back.before) == (1, False, 2)
    assert home.promote(second, alias="next").row["aliases"] == ["next"]
    assert home.promote(first, "other").row["version"] == 1
    assert home.versions() == [1, 2]
    aliases = home.client.get_registered_model("toy").aliases
    assert {name: int(version) for name, version in aliases.items()} == {"champion": 1, "next": 2}
    rows = {(row["model"], row["version"]): row for row in home.models()}
    assert [event["alias"] for event in rows["toy", 1]["alias_history"]] == ["champion", "champion"]
    assert [event["alias"] for event in rows["toy", 2]["alias_history"]] == ["champion", "next"]
    times = [event["at"] for row in (rows["toy", 1], rows["toy", 2]) for event in row["alias_history"][:1]]
    assert times == sorted(times)
    assert rows["toy", 2]["score"]["value"] == 9.0
    # The files are MLflow's once, whatever the names.
    (experiment,) = (e.experiment_id for e in home.client.search_experiments() if e.name != "Default")
    assert len(home.client.search_logged_models([experiment])) == 2


# ---- rolled back, and refused


def aliases(home: Home, name: str = "toy") -> dict[str, int]:
    """MLflow's aliases, and the registry's, which must be the same."""
    shown = {key: int(number) for key, number in home.client.get_registered_model(name).aliases.items()}
    rows = [row for row in home.models() if row["model"] == name]
    assert {alias: row["version"] for row in rows for alias in row["aliases"]} == shown
    return shown


def test_a_model_is_rolled_back_to_a_version_of_before(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_home = ("--home", str(home.path))
    home.promote(small(home, 0))
    done = home.promote(small(home, 1))
    assert done.replaced is not None and (done.replaced.judgement, done.replaced.old["version"]) == (
        "cannot be told",
        1,
    )
    for number, (reference, now) in enumerate((("toy@1", 1), ("models:/toy/2", 2), ("models:/toy/1", 1)), 3):
        type_(monkeypatch, "promote", reference, *at_home, "--json")
        said = json.loads(capsys.readouterr().out)
        assert (said["version"], said["created"], said["before"]) == (now, False, 3 - now)
        assert said["replaced"]["version"] == 3 - now
        assert aliases(home) == {"champion": now} and home.versions() == [1, 2]
        assert sum(len(row["alias_history"]) for row in home.models()) == number
    type_(monkeypatch, "promote", "toy@champion", "--alias", "next", *at_home)
    assert aliases(home) == {"champion": 1, "next": 1}
    type_(monkeypatch, "models", *at_home)
    assert "toy@champion: 1 → 2 → 1 → 2 → 1 (" in capsys.readouterr().out
    for words, said in (
        (("toy@9",), "model toy has no version 9; its versions: 1, 2"),
        (("none@1",), "unknown model 'none'; promoted models: toy"),
        (("toy@1", "--no-alias"), "--no-alias: toy@1 is a version already"),
        (("toy@1", "--name", "other"), "--name other: toy@1 is a version of toy"),
        (("toy@1", "--checkpoint", "selected"), "toy@1 has the last weights of its run"),
    ):
        type_(monkeypatch, "promote", *words, *at_home, code=2)
        assert said in capsys.readouterr().err
    home.client.delete_model_version("toy", "2")
    type_(monkeypatch, "promote", "toy@2", *at_home, code=2)
    missing = capsys.readouterr().err
    assert "has no toy version 2; make it again: aigc-lab reconcile" in missing and "--mlflow toy-" in missing


def test_what_is_worse_takes_no_alias_without_a_reason(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the seeds 0 and 90 the scores are 10 and -80, each ± 1."""
    at_home = ("--home", str(home.path))
    worse = small(home, 0)
    assert home.promote(worse).replaced is None
    better = home.promote(small(home, 90))
    assert better.replaced is not None and better.replaced.judgement == "better"
    before = left(home)
    for reference in (worse, "toy@1"):
        type_(monkeypatch, "promote", reference, "--name", "toy", *at_home, code=2)
        refused = capsys.readouterr().err
        assert "it is worse than version 2 of toy, whose place it would take: fd 10 and -80 (lower is better" in refused
        assert "--force --reason WHY" in refused
        assert left(home) == before and aliases(home) == {"champion": 2}
    home.promote(worse, alias=None)  # takes nobody's place
    type_(monkeypatch, "promote", "toy@1", "--force", "--reason", "2 is too slow", *at_home)
    assert "worse than version 2: fd is 90 higher" in capsys.readouterr().out and aliases(home) == {"champion": 1}
    assert {row["version"]: row["reason"] for row in home.models()} == {1: "2 is too slow", 2: None}
    assert home.client.get_model_version("toy", "1").tags["reason"] == "2 is too slow"


def test_a_roll_back_that_was_killed_is_repaired_or_goes_on(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        home.promote(small(home, seed))
    for repair in (True, False):
        for owner, step in ((MlflowClient, "set_registered_model_alias"), (Registry, "point")):
            promote("toy@2", home.settings, name=None, alias="champion")
            original = getattr(owner, step)

            def killed(*given: Any, original: Any = original, **named: Any) -> None:
                original(*given, **named)
                raise KeyboardInterrupt

            with mock.patch.object(owner, step, killed), pytest.raises(KeyboardInterrupt):
                promote("toy@1", home.settings, name=None, alias="champion")
            if repair:
                type_(monkeypatch, "reconcile", "--mlflow", "--home", str(home.path))
                # The registry has the truth: it knew of the move, or MLflow's is taken back.
                assert aliases(home) == {"champion": 2 if step != "point" else 1}, step
            else:
                promote("toy@1", home.settings, name=None, alias="champion")
                assert aliases(home) == {"champion": 1}, step
    original_point = Registry.point
    promote("toy@2", home.settings, name=None, alias="champion")

    def fails(*given: Any, **named: Any) -> None:
        original_point(*given, **named)
        raise OSError("the answer is lost")

    before = left(home)
    with mock.patch.object(Registry, "point", fails), pytest.raises(OSError, match="the answer is lost"):
        promote("toy@1", home.settings, name=None, alias="champion")
    assert left(home) == before and aliases(home) == {"champion": 2}


def test_a_version_in_mlflow_says_what_it_is(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small(home)
    home.promote(run)
    shown = home.client.get_model_version("toy", "1")
    assert (shown.tags["score"], shown.tags["interval"], shown.tags["signature"]) == ("10", "[9, 11]", "fd|n:500")
    description = shown.description or ""
    assert description.startswith("fd 10 [9, 11] of 500 samples, 95 % interval, lower is better; real samples")
    assert run in description
    # Promoted by an earlier version, which said nothing of it.
    home.client.update_model_version("toy", "1", "")
    home.client.delete_model_version_tag("toy", "1", "score")
    for words, said in ((["--dry-run"], "it would be shown again"), ([], "shown again"), ([], "MLflow lacks nothing")):
        type_(monkeypatch, "reconcile", "--mlflow", "--home", str(home.path), *words)
        assert said in capsys.readouterr().out
    again = home.client.get_model_version("toy", "1")
    assert (again.tags, again.description) == (shown.tags, shown.description)


def test_another_models_version_of_the_same_number_is_left_alone(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where MLflow's model was deleted, and another home has promoted under its name since."""
    home.promote(small(home))
    (row,) = home.models()
    home.client.delete_registered_model("toy")
    home.client.create_registered_model("toy")
    theirs = {"aigc_lab.digest": "another", "score": "3"}
    home.client.create_model_version("toy", home.path.as_uri(), tags=theirs, description="")
    type_(monkeypatch, "reconcile", "--mlflow", "--home", str(home.path))
    assert "MLflow lacks its description" not in capsys.readouterr().out
    models = MlflowModels(home.settings.tracking_uri)
    with promotion.rollback_on_error() as undo:
        models.describe("toy", 1, row["digest"], about(row), undo)
    shown = home.client.get_model_version("toy", "1")
    assert (shown.tags, shown.description or "") == (theirs, "")


def test_a_users_description_in_mlflow_stays(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small(home)
    home.promote(run)
    ours = home.client.get_model_version("toy", "1").description or ""
    for text in ("the one of the talk", f"{ours}  \nShown in the talk."):
        home.client.update_model_version("toy", "1", text)
        type_(monkeypatch, "reconcile", "--mlflow", "--home", str(home.path))
        assert "MLflow lacks its description" not in capsys.readouterr().out
        home.promote(run, alias="next")
        promote("toy@1", home.settings, name=None, alias="other", reason=f"for {len(text)}")
        shown = home.client.get_model_version("toy", "1")
        assert shown.description == text and shown.tags["reason"] == f"for {len(text)}"
    # What was written here is written anew: once it is back, or where nothing is.
    for text in (ours, ""):
        home.client.update_model_version("toy", "1", text)
        type_(monkeypatch, "reconcile", "--mlflow", "--home", str(home.path))
        assert "MLflow lacks its description" in capsys.readouterr().out
        shown = home.client.get_model_version("toy", "1")
        (row,) = home.models()
        reason = f"Promoted all the same: {row['reason']}  \n"
        assert (shown.description or "").replace(reason, "") == ours != shown.description


def test_a_tag_that_no_longer_applies_goes_and_a_users_stays(home: Home) -> None:
    home.promote(small(home))
    (row,) = home.models()
    models, before = MlflowModels(home.settings.tracking_uri), home.client.get_model_version("toy", "1")
    home.client.set_model_version_tag("toy", "1", "collapse", "mine")
    with promotion.rollback_on_error() as undo:
        models.describe("toy", 1, row["digest"], about(row | {"score": None}), undo)
    kept = {key: value for key, value in home.client.get_model_version("toy", "1").tags.items() if "." not in key}
    assert kept == {"run": row["run"], "checkpoint": "last", "system": "point_gan", "collapse": "mine"}
    undo.close()
    again = home.client.get_model_version("toy", "1")
    assert (again.tags, again.description) == (before.tags | {"collapse": "mine"}, before.description)


def test_weights_that_are_a_version_keep_its_run(home: Home) -> None:
    """A run of another seed that ends with the same weights: the registry and MLflow name the first."""
    first = small(home)
    home.promote(first)
    before = home.client.get_model_version("toy", "1")
    second = home.run("point_gan", POINTS, {"hidden": 4, "latent_size": 4}, seed=1, weights=0)
    done = home.promote(second, alias="next")
    assert (done.row["version"], done.created, done.row["run"]) == (1, False, first)
    shown = home.client.get_model_version("toy", "1")
    assert (shown.tags, shown.description) == (before.tags, before.description)
    # Of a version that MLflow has no longer the next is made, and that is the second run's.
    home.client.delete_model_version("toy", "1")
    again = home.promote(second)
    assert (again.row["version"], again.row["run"]) == (2, second)
    assert home.client.get_model_version("toy", "2").tags["run"] == second


@pytest.mark.parametrize("reference", ["toy@1", "toy-01234567.0.0"])
def test_a_forced_promotion_that_fails_leaves_the_reason_of_before(home: Home, reference: str) -> None:
    """Of a version, and of a run whose weights are one."""
    for seed in (0, 1):
        home.promote(small(home, seed))
    for before in (None, "the first"):
        if before is not None:
            promote("toy@1", home.settings, name=None, alias="other", reason=before)
        with mock.patch.object(Registry, "point", side_effect=OSError("no answer")), pytest.raises(OSError):
            promote(reference, home.settings, name="toy", alias="champion", reason="another")
        assert {row["version"]: row["reason"] for row in home.models()} == {1: before, 2: None}
        assert home.client.get_model_version("toy", "1").tags.get("reason") == before


# ---- what verdicts say


SMALL = ("point_gan", POINTS, {"hidden": 4, "latent_size": 4})


def test_the_next_is_taken_where_the_best_score_is_a_collapsed_runs_or_an_unstable_ones(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials 3, 2 and 1 score 7, 8 and 9."""
    at_home = ("--home", str(home.path))
    sound = home.run(*SMALL, trial=1, verdicts={"collapse": "PARTIAL", "stability": "OSCILLATING"})
    unstable = home.run(*SMALL, trial=2, verdicts={"collapse": "NONE", "stability": "REGRESSED"})
    collapsed = home.run(*SMALL, trial=3, verdicts={"collapse": "SEVERE", "stability": "STABLE"})
    lines = [
        f"passed over {collapsed} (fd 7 [6, 8], rank 1): collapse SEVERE: why",
        f"passed over {unstable} (fd 8 [7, 9], rank 2): stability REGRESSED: why",
    ]
    type_(monkeypatch, "promote", "toy", *at_home)
    said = capsys.readouterr().out
    assert f"run        {sound} (the best by fd on the reference split of those that pass, of trial 1" in said
    assert all(line in said for line in lines) and "verdicts   collapse PARTIAL, stability OSCILLATING" in said
    type_(monkeypatch, "promote", "toy", *at_home, "--json")
    plain = json.loads(capsys.readouterr().out)
    assert (plain["run"], plain["created"], plain["selection"]["rank"]) == (sound, False, 3)
    assert [(each["run"], each["reasons"]) for each in plain["selection"]["passed_over"]] == [
        (collapsed, ["collapse SEVERE: why"]),
        (unstable, ["stability REGRESSED: why"]),
    ]
    # It is kept with the version, and shown wherever that is.
    shown = home.client.get_model_version("toy", "1")
    assert shown.tags["passed_over"] == f"{collapsed} {unstable}" and shown.tags["rank"] == "3"
    assert shown.tags["stability"] == "OSCILLATING"
    assert "Passed over " + lines[0].removeprefix("passed over ") in (shown.description or "")
    for command in (("models",), ("show", sound)):
        type_(monkeypatch, *command, *at_home)
        assert lines[1] in capsys.readouterr().out
    type_(monkeypatch, "reconcile", "--mlflow", *at_home)
    assert "MLflow lacks its description" not in capsys.readouterr().out
    # Samples of the sweep are of the same run.
    type_(monkeypatch, "sample", plain["sweep"], "-n", "2", "-o", "out", *at_home)
    drawn = capsys.readouterr().err
    assert f"2 samples of {sound} " in drawn and all(line in drawn for line in lines)
    # One that is named is refused for the same reasons, and its version keeps no selection.
    for run, why in ((collapsed, "collapse SEVERE: why"), (unstable, "stability REGRESSED: why")):
        type_(monkeypatch, "promote", run, *at_home, code=2)
        assert f"run {run}: {why}; promote another, or this one all the same: --force" in capsys.readouterr().err
    type_(monkeypatch, "promote", unstable, "--name", "other", "--force", "--reason", "for a talk", *at_home)
    forced = capsys.readouterr().out
    assert "forced     for a talk" in forced and "despite    stability REGRESSED: why" in forced
    assert [row["selection"] for row in home.models() if row["model"] == "other"] == [None]


def test_where_no_run_passes_a_sweep_is_refused_with_the_reasons_or_forced(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_home = ("--home", str(home.path))
    second = home.run(*SMALL, trial=1, verdicts={"stability": "NEVER-LEARNED"})
    first = home.run(*SMALL, trial=2, verdicts={"collapse": "TOTAL"})
    before = left(home)
    type_(monkeypatch, "promote", "toy", *at_home, code=2)
    refused = capsys.readouterr().err
    assert f"{first} (fd 8 [7, 9], rank 1): collapse TOTAL: why; {second} (fd 9 [8, 10], rank 2): stability" in refused
    assert refused.count("\n") == 1 and "--force --reason WHY" in refused and left(home) == before
    type_(monkeypatch, "promote", "toy", "--force", "--reason", "for a talk", *at_home)
    said = capsys.readouterr().out
    assert first in said and "for a talk" in said and "collapse TOTAL: why" in said
    for command in (("models",), ("show", first)):
        type_(monkeypatch, *command, *at_home)
        assert "all the same: for a talk" in capsys.readouterr().out
    shown = home.client.get_model_version("toy", "1")
    assert shown.tags["reason"] == "for a talk" and "Promoted all the same: for a talk" in (shown.description or "")


def test_force_is_for_what_is_refused_and_does_not_choose_a_collapsed_run(home: Home) -> None:
    """As where a sound run is to take the place of a better one."""
    sound = home.run(*SMALL, trial=1)
    home.run(*SMALL, trial=2, verdicts={"collapse": "TOTAL"})
    done = promote("toy", home.settings, name=None, alias="champion", reason="it is faster")
    assert (done.row["run"], done.row["reason"]) == (sound, "it is faster")


def test_an_unconfirmed_run_is_promoted_behind_confirmed_ones_and_said_to_be_that(home: Home) -> None:
    search = home.run(*SMALL, trial=1)
    home.run(*SMALL, trial=2)
    fresh = home.run(*SMALL, 5, trial=2, role="confirm", verdicts={"collapse": "TOTAL"})
    done = home.promote("toy")
    assert done.row["run"] == search and done.selection is not None
    assert [each["run"] for each in done.selection["passed_over"]] == [fresh]
    assert (done.selection["confirmed"], done.selection["confirmed_trials"]) == (False, 1)
    assert "Not confirmed: " in (home.client.get_model_version("toy", "1").description or "")


def test_a_promotion_that_fails_leaves_the_selection_of_before(home: Home) -> None:
    home.run(*SMALL, trial=1)
    home.promote("toy")
    ((before,), tags) = home.models(), home.client.get_model_version("toy", "1").tags
    home.run(*SMALL, trial=2, weights=7, verdicts={"collapse": "TOTAL"})
    with mock.patch.object(Registry, "point", side_effect=OSError("no answer")), pytest.raises(OSError):
        home.promote("toy")
    assert home.models() == [before] and home.client.get_model_version("toy", "1").tags == tags
    home.promote("toy")
    (row,) = home.models()
    assert len(row["selection"]["passed_over"]) == 1 and before["selection"]["passed_over"] == []


def test_a_reference_by_alias_means_what_the_alias_is_when_its_turn_comes(home: Home) -> None:
    """Another promotion moves the alias while this one waits for the lock."""
    for seed in (0, 1):
        home.promote(small(home, seed), alias="next")
    waiting = True

    def moved(path: Path) -> Any:
        nonlocal waiting
        if waiting:
            waiting = False
            promote("toy@1", home.settings, name=None, alias="next")
        return locked(path)

    with mock.patch.object(promotion, "locked", moved):
        done = promote("toy@next", home.settings, name=None, alias="champion")
    assert done.row["version"] == 1 and aliases(home) == {"next": 1, "champion": 1}


STEPS: list[tuple[Any, str]] = [
    (promotion, "own_copy"),
    (MlflowClient, "create_logged_model"),
    (MlflowClient, "log_model_artifacts"),
    (MlflowClient, "finalize_logged_model"),
    (MlflowClient, "create_registered_model"),
    (MlflowClient, "create_model_version"),
    (Registry, "promote"),
    (Registry, "point"),
    (MlflowClient, "set_registered_model_alias"),
]


def test_killed_after_any_step_the_same_command_ends_with_one_version(home: Home) -> None:
    for number, (owner, step) in enumerate(STEPS):
        run, name, original = small(home, number), f"m{number}", getattr(owner, step)

        def killed(*given: Any, original: Any = original, **named: Any) -> None:
            original(*given, **named)
            raise KeyboardInterrupt

        with mock.patch.object(owner, step, killed), pytest.raises(KeyboardInterrupt):
            home.promote(run, name)
        done = home.promote(run, name)
        assert done.row["version"] == 1, step
        assert home.versions(name) == [1], step
        assert {k: int(v) for k, v in home.client.get_registered_model(name).aliases.items()} == {"champion": 1}, step
        (row,) = (row for row in home.models() if row["model"] == name)
        assert len(row["alias_history"]) == 1, step
        (experiment,) = (e.experiment_id for e in home.client.search_experiments() if e.name != "Default")
        logged = home.client.search_logged_models([experiment], f"tags.`aigc_lab.digest` = '{row['digest']}'")
        assert [str(model.status) for model in logged] == ["READY"], step
        assert not [path for path in (home.path / "models").iterdir() if path.name.startswith(".")], step


def left(home: Home) -> dict[str, Any]:
    """All that a promotion makes."""
    with home.registry() as registry, registry.read() as connection:
        rows = {name: len(connection.execute(METADATA.tables[name].select()).all()) for name in MADE}
    experiments = [each.experiment_id for each in home.client.search_experiments()]
    versions = home.client.search_model_versions("name = 'toy'")
    paths = [path for place in ("models", "artifacts") for path in (home.path / place).rglob("*")]
    return rows | {
        "models": [(model.name, model.aliases) for model in home.client.search_registered_models()],
        "versions": [int(version.version) for version in versions],
        "logged": len(home.client.search_logged_models(experiments)),
        "files": {path for path in paths if path.is_file()},
    }


MADE = ("promotion", "alias_event")


@pytest.mark.parametrize("again", [False, True])
def test_a_promotion_that_fails_leaves_nothing_behind(home: Home, again: bool) -> None:
    """Again: of a model that has a version and an alias already."""
    first, second = small(home), small(home, 1)
    if again:
        home.promote(first)
    before = left(home)
    for owner, step in STEPS:
        original = getattr(owner, step)
        if again and step == "create_registered_model":
            continue

        def fails(*given: Any, original: Any = original, **named: Any) -> None:
            original(*given, **named)
            raise OSError("the answer is lost")

        with mock.patch.object(owner, step, fails), pytest.raises((OSError, Failure)):
            home.promote(second)
        assert left(home) == before, step
    done = home.promote(second)
    assert done.created and done.before == (1 if again else None)


def test_a_run_that_mlflow_has_not_got_yet_is_promoted_later(home: Home) -> None:
    run = small(home)
    sweep = run.rsplit(".", 2)[0]
    folder = writer.spool_folder(home.settings, sweep)
    SpoolTracker(folder).start(sweep, "n", f"{run}.1", {}, {}).text("a.txt", "a")
    before = left(home)
    with pytest.raises(UsageError, match=f"2 records wait here; deliver them first: aigc-lab spool {sweep} --flush"):
        home.promote(run)
    with locked(folder / spool_log.LOCK), pytest.raises(UsageError, match="being delivered; wait for that"):
        home.promote(run)
    assert left(home) == before
    shutil.rmtree(folder)
    home.client.delete_experiment(home.client.get_experiment_by_name(sweep).experiment_id)  # type: ignore[union-attr]
    with pytest.raises(UsageError, match=f"has no experiment {sweep}; .* aigc-lab reconcile --mlflow {sweep}"):
        home.promote(run)


def test_a_version_that_was_deleted_in_mlflow_comes_back_as_the_next(home: Home) -> None:
    run = small(home)
    home.promote(run)
    home.client.delete_model_version("toy", "1")
    before = load("toy@champion", home=home.path).sample(3)
    again = home.promote(run)
    assert (again.row["version"], again.created, again.before) == (2, True, 1)
    assert np.array_equal(served(home, "models:/toy@champion").predict({"n": [3]}), before)
    home.client.delete_registered_model("toy")
    with pytest.raises(UsageError, match="model toy was deleted in MLflow .* another --name"):
        home.promote(run)
    assert home.promote(run, "toy2").row["version"] == 1


def test_a_number_that_stands_for_another_model_is_refused(home: Home) -> None:
    run = small(home)
    home.promote(run)
    with home.registry() as registry, pytest.raises(Failure, match="version 1 of toy is another model"):
        registry.promote(StoredPromotion("toy", 1, run, "last", "other", "s", "p", "u", "m"))


# ---- refusals


@pytest.mark.parametrize(
    "state", [RunState.RUNNING, RunState.KILLED, RunState.FAILED, RunState.DIVERGED, RunState.PRUNED]
)
def test_what_did_not_finish_is_refused(home: Home, state: RunState) -> None:
    run = small(home, state=state)
    why = "" if state == RunState.RUNNING else r" \(because\)"
    with pytest.raises(UsageError, match=rf"run {run} is {state}{why}: only a FINISHED run .* aigc-lab compare toy-"):
        home.promote(run)
    with pytest.raises(UsageError, match=r"no finished run with a score .* 'aigc-lab runs toy-"):
        home.promote("toy")
    assert home.client.search_registered_models() == []


def test_weights_that_are_lost_or_changed_are_refused(home: Home) -> None:
    run = small(home)
    path = home.checkpoint(run)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for problem in ("not the file that the run stored", "gone"):
        with pytest.raises(UsageError, match=rf"{run}: {path} is {problem}; restore it, or take another run"):
            home.promote(run)
        path.unlink(missing_ok=True)
    path.write_bytes(content)
    with pytest.raises(UsageError, match="has stored no selected weights"):
        promote(run, home.settings, name="toy", alias=None, checkpoint="selected")
    home.promote(run)
    copy = Path(home.models()[0]["path"])
    copy.write_bytes(content[:-1] + b"x")
    with pytest.raises(UsageError, match="not the weights that were stored; .* promote them again"):
        load("toy", home=home.path)
    home.promote(run)
    assert load("toy", home=home.path).sample(1).shape == (1, 2)


def test_parts_that_are_missing_are_named(home: Home) -> None:
    Path("mine.py").write_text(MINE)
    run = home.run("mine.py", POINTS, {})
    path = home.checkpoint(run)
    for part in (path.with_name("mine.py"), path.with_suffix(".json")):
        part.unlink()
        with pytest.raises(UsageError, match=rf"{part}: (missing|no such file)"):
            home.promote(run)
    assert not (home.path / "models").exists()
    assert home.client.search_registered_models() == []


def test_a_look_into_nothing_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="models:/toy/1: there is no MLflow at sqlite:.*set MLFLOW_TRACKING_URI"):
        load("models:/toy/1", home=tmp_path / "none")
    with pytest.raises(UsageError, match="no registry at"):
        load("toy", home=tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "alias", "said"),
    [
        ("a/b", "champion", "--name 'a/b': use up to 200 letters"),
        ("", "champion", "--name ''"),
        ("a" * 201, "champion", "--name"),
        ("..", "champion", "--name"),
        ("toy@x", "champion", "--name"),
        ("toy", "v1", "--alias v1: MLflow keeps this word"),
        ("toy", "12", "--alias 12"),
        ("toy", "Latest", "--alias Latest"),
        ("toy", "a b", "--alias 'a b'"),
        ("toy", "", "--alias ''"),
    ],
)
def test_impossible_names(home: Home, name: str, alias: str, said: str) -> None:
    run = small(home)
    with pytest.raises(UsageError, match=said):
        home.promote(run, name, alias)
    assert not (home.path / "models").exists()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("nothing", "unknown .*'nothing'; .*toy"),
        ("toy-01234567.0.7", "unknown run .* did you mean toy-01234567.0.0"),
        ("nothing@champion", "unknown model 'nothing'; promoted models: toy"),
        ("toy@x", "model toy has no alias 'x'; its aliases: champion"),
        ("models:/toy", "write models:/NAME/VERSION or models:/NAME@ALIAS"),
        ("models:/toy/9", "models:/toy/9: neither in this home nor in MLflow at sqlite.*'aigc-lab models' lists"),
        ("x.safetensors", "x.safetensors: no such file"),
    ],
)
def test_models_that_are_not_there(promoted: Home, wanted: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(wanted, home=promoted.path)


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Home:
    """A home that nobody changes, in which `toy` was promoted."""
    folder = tmp_path_factory.mktemp("promoted") / "home"
    folder.mkdir()
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    home = Home(folder)
    home.promote(small(home))
    return home


def test_another_mlflow_is_refused(promoted: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(
        UsageError, match=r"model toy lives in MLflow at sqlite:///HOME/mlflow.db, and not at .*other.db"
    ):
        promote("toy", Settings.load(promoted.path), name=None, alias=None)
    assert not (tmp_path / "other.db").exists()


def test_models_of_a_home_that_cannot_be_written_are_compared(
    promoted: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a copy of their MLflow, which is told of under its own address."""
    (row,) = promoted.models()
    lab = mock.Mock(wraps=os, access=lambda *asked: False)
    monkeypatch.setattr(read_only, "os", lab)
    with read_only.readable(promoted.settings) as settings:
        assert settings.tracking_uri != promoted.settings.tracking_uri, "a copy is read"
        assert list(restoration.missing_versions([row], settings)) == []
        ((_, lacks),) = restoration.missing_versions([{**row, "aliases": ["other"]}], settings)
        assert lacks == "its alias other"
        assert settings.mlflow_address == promoted.settings.tracking_uri


# ---- what sample writes


def draw(home: Home, wanted: str, place: str = "out", **changes: Any) -> Path:
    options: dict[str, Any] = {"n": 3, "seed": 0, "labels": None, "checkpoint": "last", "device": "cpu", "force": False}
    return sample_files.sample(wanted, home.settings, place=Path(place), **(options | changes))[1]


def test_a_second_call_replaces_what_the_first_wrote(
    promoted: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    at_home = ("--home", str(promoted.path))
    type_(monkeypatch, "sample", "toy", "-n", "3", *at_home)
    before = Path("samples-toy-1/points.npy").read_bytes()
    type_(monkeypatch, "sample", "toy", "-n", "3", *at_home)
    assert Path("samples-toy-1/points.npy").read_bytes() == before
    assert "in the place of" not in capsys.readouterr().err
    type_(monkeypatch, "sample", "toy", "-n", "5", "--seed", "1", *at_home)
    assert np.load("samples-toy-1/points.npy").shape == (5, 2)
    assert "5 samples of toy-1" in (said := capsys.readouterr().err) and "seed 1, in the place of 3 with seed 0" in said
    assert sorted(path.name for path in Path().iterdir()) == ["samples-toy-1"]


def test_other_files_are_not_overwritten(promoted: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    for name, content in (("points.npy", "mine"), ("samples.json", '{"n": 3, "files": ["points.npy"]}')):
        Path("out", name).write_text(content)
        with pytest.raises(UsageError, match="-o out: holds something else; .* --force"):
            draw(promoted, "toy", seed=1)
        assert Path("out/points.npy").read_text() == "mine"
    draw(promoted, "toy", seed=1, force=True)
    assert Path("out/points.npy").read_text("latin-1") != "mine"
    Path("out/mine.txt").touch()
    draw(promoted, "toy", seed=2)
    assert Path("out/mine.txt").exists()
    with pytest.raises(UsageError, match="-o out/mine.txt: is for text, and this model makes none"):
        draw(promoted, "toy", "out/mine.txt", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_samples_that_were_changed_are_not_overwritten(
    promoted: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(promoted, "toy")
    Path("out/points.npy").write_text("mine")
    os.utime("out/points.npy", ns=(0, Path("out/samples.json").stat().st_mtime_ns + 1))
    with pytest.raises(UsageError, match=r"-o out: points.npy was changed after it was sampled; .* --force"):
        draw(promoted, "toy", seed=1)
    assert Path("out/points.npy").read_text() == "mine"
    draw(promoted, "toy", seed=1, force=True)
    draw(promoted, "toy", seed=2)


def test_pictures_of_an_earlier_call_go(tmp_path: Path) -> None:
    array = np.zeros((4, 8, 8, 3), np.uint8)
    sample_files.write(tmp_path / "out", modality("images"), [array[:3], array[3:]], 4, {"n": 4})
    assert len(list((tmp_path / "out").glob("0*.png"))) == 4
    sample_files.write(tmp_path / "out", modality("images"), [array[:2]], 2, {"n": 2})
    assert sorted(path.name for path in (tmp_path / "out").glob("0*.png")) == ["00000.png", "00001.png"]


def test_one_array_in_a_file(promoted: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert draw(promoted, "toy", "a.npz", n=5) == Path("a.npz")
    with np.load("a.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["samples"], load("toy", home=promoted.path).sample(5))
        assert json.loads(str(arrays["note"]))["n"] == 5
    draw(promoted, "toy", "a.npz", n=6)
    np.savez("a.npz", samples=np.zeros((6, 2)))
    with pytest.raises(UsageError, match="-o a.npz: holds something else"):
        draw(promoted, "toy", "a.npz", n=7)


def test_weights_in_a_file(promoted: Home, tmp_path: Path) -> None:
    path = promoted.checkpoint("toy.0.0")
    found = load(str(path), home=tmp_path / "no home")
    assert isinstance(found, Model)
    assert np.array_equal(found.sample(2), load("toy", home=promoted.path).sample(2))
