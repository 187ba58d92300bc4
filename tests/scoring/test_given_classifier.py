"""A folder of class folders as a reference: a classifier of its classes scores and judges where it passes its test."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aigc_lab.evaluate import evaluate, judge
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.statistics.score import Scores
from aigc_lab.verdicts.conclusion import FOUND, CollapseVerdict

KINDS = ("level", "round", "upright")


def drawn(kind: str, source: np.random.Generator) -> Any:
    """A shape that nobody confuses with the others, uint8 [16, 16]."""
    down, across = np.mgrid[:16, :16]
    place = source.uniform(5, 10, 2)
    shape = {
        "level": abs(down - place[0]) < 2,
        "round": np.hypot(down - place[0], across - place[1]) < 5,
        "upright": abs(across - place[1]) < 2,
    }[kind]
    return (np.where(shape, 220, 30) + source.integers(-20, 20, (16, 16))).astype(np.uint8)


def folders(root: Path, label: Callable[[int], str], count: int = 800) -> Path:
    source = np.random.default_rng(0)
    for number in range(count):
        path = root / label(number) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn(KINDS[number % 3], source)).save(path)
    return root


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders(tmp_path_factory.mktemp("easy") / "real", lambda number: KINDS[number % 3])


def made(*kinds: str, count: int = 300) -> Any:
    source = np.random.default_rng(1)
    return np.stack([drawn(kinds[number % len(kinds)], source) for number in range(count)])[:, None]


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return {"cache": tmp_path / "cache", "weights": WeightsPolicy(tmp_path / "weights"), "device": "cpu"}


def scored(real: Any, fake: Any, options: dict[str, Any], **more: Any) -> tuple[Scores, list[str]]:
    said: list[str] = []
    return evaluate(fake, real, metrics=["fd"], say=said.append, **options, **more), said


def verdict(real: Any, fake: Any, options: dict[str, Any], **more: Any) -> tuple[CollapseVerdict, list[str]]:
    said: list[str] = []
    return judge(fake, real, say=said.append, **options, **more), said


def test_its_classifier_scores_and_judges(easy: Path, options: dict[str, Any]) -> None:
    (score,), said = scored(easy, made(*KINDS), options)
    assert score.name == "fd_clf" and "clf:given:" in score.signature
    chosen = next(line for line in said if line.startswith("features: "))
    assert chosen.startswith("features: the classifier of given (Inception's weights are not on this machine;")
    assert " of 600 reference pictures right (" in chosen and "; 90% needed), trained once in " in chosen
    assert said[-1].endswith("200 of 800 pictures train the classifier, and the others are compared")
    (worse,), said = scored(easy, made("level", "round"), options)
    assert worse.low > score.high and not [line for line in said if line.startswith("training")]
    found, said = verdict(easy, made(*KINDS), options)
    assert found.verdict not in FOUND and "by:classes" in found.signature and "|pool:600|" in found.signature
    lost, said = verdict(easy, made("level", "round"), options)
    assert lost.verdict in FOUND and [row["name"] for row in lost.bins if row["state"] == "missing"] == ["upright"]
    assert not [line for line in said if line.startswith("training")]
    # What it has learned is no part of what it compares with.
    index = next((options["cache"] / "classifiers").glob("given-*.json"))
    assert json.loads(index.read_text())["of"] == 600
    (named,), _ = scored(easy, made(*KINDS), options, features="classifier")
    assert named.signature == score.signature and named.value == score.value


def test_labels_that_say_nothing_give_way_to_lite0_and_all_pictures_are_compared(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    real = folders(tmp_path / "real", lambda number: KINDS[number // 3 % 3])
    (score,), said = scored(real, made(*KINDS), options)
    assert score.name == "fd_lite0"
    chosen = next(line for line in said if line.startswith("features: lite0"))
    assert "the classifier for given cannot serve as a judge: it sorts " in chosen and " of 600 " in chosen
    assert not [line for line in said if "train the classifier" in line]
    loose = folders(tmp_path / "loose", lambda number: "")
    (same,), said = scored(loose, made(*KINDS), options)
    assert same.name == "fd_lite0" and same.value == pytest.approx(score.value, rel=1e-3), "the whole reference"
    assert any("there are no classes that a classifier could learn" in line for line in said)


def test_few_pictures_train_none(tmp_path: Path, options: dict[str, Any]) -> None:
    real = folders(tmp_path / "real", lambda number: KINDS[number % 3], count=150)
    (score,), said = scored(real, made(*KINDS, count=100), options)
    assert score.name == "fd_lite0" and not (options["cache"] / "classifiers").exists()
    assert any("113 pictures to compare with are fewer than the 128" in line for line in said)


def test_classes_with_numbers_of_their_own(tmp_path: Path, options: dict[str, Any]) -> None:
    real = folders(tmp_path / "real", lambda number: str((3, 7, 12)[number % 3]))
    found, said = verdict(real, made("level", "round"), options)
    assert [row["name"] for row in found.bins if row["state"] == "missing"] == ["12"]
    assert any("features: the classifier of given" in line for line in said)
