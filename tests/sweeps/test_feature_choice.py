"""`features: auto`: class folders that can be learned are scored by their own classifier, all else by lite0."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aigc_lab import train
from aigc_lab.commands import sweep
from aigc_lab.commands.sweep import resume_sweep
from aigc_lab.errors import Failure, UsageError
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.extractors import classifier
from aigc_lab.host.settings import Settings
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.sweeps import show_sweep
from aigc_lab.sweeps.feature_choice import chosen_features

KINDS = ("level", "round", "upright")
# 130 of 520 in each scored split.
COUNT, SHARES = 520, {"data.reference": "0.25", "data.holdout": "0.25"}


def shapes(folder: Path, label: Callable[[int, str], str] = lambda number, kind: kind, count: int = COUNT) -> Path:
    """Pictures of three shapes that nobody confuses, each in the folder that `label` says."""
    source = np.random.default_rng(0)
    down, across = np.mgrid[:16, :16]
    for number in range(count):
        kind, place = KINDS[number % 3], source.uniform(5, 10, 2)
        shape = {
            "level": abs(down - place[0]) < 2,
            "round": np.hypot(down - place[0], across - place[1]) < 5,
            "upright": abs(across - place[1]) < 2,
        }[kind]
        values = np.where(shape[..., None], 220, 30) + source.integers(-20, 20, (16, 16, 3))
        path = folder / label(number, kind) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(np.uint8)).save(path)
    return folder


def by_chance(number: int, kind: str) -> str:
    """A class that says nothing of the picture: three of each shape's pictures in a row go round the classes."""
    return KINDS[number // 3 % 3]


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("easy") / "pics")


def of(folder: Path, **changes: str) -> Experiment:
    """The experiment `folder` on these pictures, of 16 pixels a side."""
    given = {"data.path": str(folder), "data.size": "16"} | SHARES
    given |= {key.replace("__", "."): value for key, value in changes.items()}
    options = [(key, text, f"--set {key}={text}") for key, text in given.items()]
    return load_experiment("folder", options, data_dir=folder.parent / "data")


def chosen(experiment: Experiment, cache: Path) -> tuple[Experiment, list[str], list[str]]:
    """The experiment with its features, what is said of them, and what is said before."""
    said: list[str] = []
    took, notes = chosen_features(experiment, cache, "cpu", said.append)
    check_experiment(took)
    return took, notes, said


def extractors(experiment: Experiment) -> list[str | None]:
    return [metric.extractor for metric in experiment.metrics]


@pytest.mark.usefixtures("without_mlflow")
def test_class_folders_that_can_be_learned_are_scored_by_their_classifier(easy: Path, tmp_path: Path) -> None:
    took, (note,), said = chosen(of(easy), tmp_path)
    assert extractors(took) == ["classifier", "classifier"] and took.file.objective.minimize == "fd_clf"
    assert note.startswith("features: the classifier of folder (fd_clf, kid_clf): it sorts ")
    assert " of 130 reference pictures right (" in note and "; 90% needed), trained once in " in note
    assert note.endswith("; --set evaluation.features=lite0 takes lite0 instead")
    assert said == ["training the classifier that judges folder, once"]
    evaluation = took.document.data["evaluation"]
    assert evaluation["features"] == "classifier" and evaluation["chosen"].startswith("classifier: it sorts ")
    # The same command names the same sweep again, and what another machine would say of its test is no part of it.
    again, _, said = chosen(of(easy), tmp_path)
    assert not said and again.sweep == took.sweep
    evaluation["chosen"] = "classifier: it sorts 129 of 130"
    assert again.sweep == Experiment("folder", took.document, took.data_dir).sweep
    assert again.sweep != chosen(of(easy, evaluation__features="lite0"), tmp_path)[0].sweep
    # What is stored is not chosen anew.
    stored, notes = chosen_features(took, tmp_path / "elsewhere", "cpu", said.append)
    assert stored.document.data == took.document.data and not notes and not said


@pytest.mark.slow
def test_labels_that_say_nothing_fail_the_test_and_lite0_scores(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "pics", by_chance)
    took, (note,), said = chosen(of(folder), tmp_path / "cache")
    assert extractors(took) == ["lite0", "lite0"] and took.file.objective.minimize == "fd_lite0"
    assert note.startswith("features: lite0 (fd_lite0, kid_lite0): the classifier for folder cannot serve as a judge: ")
    right = int(note.partition("it sorts ")[2].partition(" of 130 reference pictures right (")[0])
    assert right < 0.6 * 130 and "; 90% needed)" in note
    assert said == ["training the classifier that judges folder, once"]
    again, notes, said = chosen(of(folder), tmp_path / "cache")  # what failed is not trained again
    assert not said and notes == [note] and again.sweep == took.sweep
    with pytest.raises(Failure, match="cannot serve as a judge: it sorts"):
        classifier.Classifier.prepare(
            took.dataset, cache=tmp_path / "cache", weights=took.weights, device="cpu", say=said.append
        )


def test_without_classes_or_with_few_pictures_nothing_is_trained(easy: Path, tmp_path: Path) -> None:
    took, (note,), said = chosen(of(easy, data__labels="none"), tmp_path)
    assert extractors(took)[0] == "lite0" and note.endswith("there are no classes that a classifier could learn")
    took, (note,), said = chosen(of(easy, data__reference="0.24"), tmp_path)
    assert extractors(took)[0] == "lite0" and took.file.objective.minimize == "fd_lite0"
    few = "125 pictures to compare with are fewer than the 128 that a classifier's features need"
    assert note.endswith(f"{few}: about {math.ceil(520 * 128 / 125)} in all, in these shares")
    rare = shapes(tmp_path / "pics", lambda number, kind: "rare" if number % 48 == 1 else kind)
    took, (note,), said = chosen(of(rare), tmp_path)
    assert extractors(took)[0] == "lite0" and "of rare there are " in note and not said
    assert not (tmp_path / "classifiers").exists()


def test_users_say_otherwise(easy: Path, tmp_path: Path) -> None:
    for features, score in (("lite0", "fd_lite0"), ("random", "fd_rand"), ("classifier", "fd_clf")):
        took, notes, _ = chosen(of(easy, evaluation__features=features), tmp_path)
        assert set(extractors(took)) == {features} and took.file.objective.minimize == score and not notes
    took, (note,), _ = chosen(of(easy, objective__minimize="fd_lite0"), tmp_path)
    assert extractors(took)[0] == "lite0" and note.endswith("the objective fd_lite0 is theirs")
    own = of(easy, evaluation__metrics="[{fd: {features: random}}]", objective__minimize="fd_rand")
    took, notes, _ = chosen(own, tmp_path)
    assert extractors(took) == ["random"] and not notes
    assert not (tmp_path / "classifiers").exists()
    with pytest.raises(UsageError, match="clasifier.*did you mean classifier"):
        chosen(of(easy, evaluation__features="clasifier"), tmp_path)


def test_an_objective_that_the_classifier_would_give_is_refused_where_it_fails(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "pics", by_chance)
    with pytest.raises(UsageError, match=r"objective.minimize=fd_clf: .*fd_lite0"):
        chosen(of(folder, objective__minimize="fd_clf"), tmp_path / "cache")


@pytest.mark.usefixtures("without_mlflow")
def test_a_sweep_stores_its_choice_and_a_resumed_one_does_not_choose(
    easy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {"data.path": str(easy), "data.size": 16, "system": {"name": "vae"}, "system.width": 8}
    changes |= {"training.evaluate_every": 2, "training.log_every": 2, "training.batch_size": 16}
    changes |= {key: float(text) for key, text in SHARES.items()}
    row = train("folder", steps=2, changes=changes, device="cpu", home=tmp_path / "home")
    assert row["state"] == "FINISHED" and row["objective"] == "fd_clf"
    assert {score["name"] for score in row["scores"]} == {"fd_clf", "kid_clf"}
    assert all("clf:folder:" in score["signature"] for score in row["scores"])
    assert capsys.readouterr().err.count("features: the classifier of folder") == 1
    name = row["run"].removesuffix(".0.0")
    with open_registry(Settings.load(tmp_path / "home")) as registry:
        assert show_sweep(registry, name)["experiment"]["evaluation"]["features"] == "classifier"

    def refuse(*arguments: object) -> None:
        raise AssertionError("a stored choice is not made again")

    monkeypatch.setattr(sweep, "chosen_features", refuse)
    monkeypatch.setattr(classifier, "_ACCURACY_GATE", 1.1)
    assert resume_sweep(name, device="cpu", table=False, home=tmp_path / "home")
