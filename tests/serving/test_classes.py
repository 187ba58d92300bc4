"""Classes by name and by number: which are meant, what is refused, and where their names come back."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from systems_of_users import MINE, PAINTER

from aigc_lab import load, plugins
from aigc_lab.errors import UsageError
from aigc_lab.host.settings import Settings
from aigc_lab.noise import Draw, draw
from aigc_lab.pictures.class_grid import class_grid
from aigc_lab.samples import Images
from aigc_lab.serving import answering, classes, sample_files
from aigc_lab.serving.model import Model
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import BLOCK, System
from aigc_lab.training.checkpoint import save_weights

ANIMALS = ("cat", "dog", "polar bear")
MANY = Shape(Modality.POINTS, (2,), classes=20, class_names=tuple(f"kind {chr(97 + place)}" for place in range(20)))


def numbers(asked: list[Any], names: tuple[str, ...] | None = ANIMALS, count: int = 3) -> list[int]:
    return classes.numbers(asked, Shape(Modality.POINTS, (2,), classes=count, class_names=names), "mine")


def test_a_class_is_said_by_name_or_by_number() -> None:
    assert numbers(["dog", 0, "2", "polar bear"]) == [1, 0, 2, 2]
    assert numbers([np.int64(2), torch.tensor(1), 0.0]) == [2, 1, 0]
    assert numbers(["7", "0", 3], None, 8) == [7, 0, 3]
    # Folders may be called by numbers that are not their places: as a text it is the name, as a number the place.
    assert numbers(["7", "2", 2, "1"], ("7", "2", "9")) == [0, 1, 2, 1]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            "dgo",
            "label dgo: did you mean dog? mine knows the classes cat, dog, polar bear, by name or by number (0 to 2)",
        ),
        ("Cat", "label Cat: did you mean cat? mine knows"),
        ("horse", "label horse: mine knows the classes cat, dog, polar bear, by"),
        (3, "label 3: mine knows the classes cat"),
        (-1, "label -1: mine knows"),
        ("-1", "label '-1': mine knows"),
        ("", "label '': mine knows"),
        (True, "label True: mine knows"),
        (1.5, "label 1.5: mine knows"),
        (None, "label None: mine knows"),
        ([1], r"label [1]: mine knows"),
        ("a\nb", r"label 'a\nb': mine knows"),
        ("9" * 5000, f"label '{'9' * 59}: mine knows"),
    ],
)
def test_a_class_that_does_not_exist(asked: Any, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        numbers([0, asked])
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)


def test_of_many_names_twelve_are_listed() -> None:
    with pytest.raises(UsageError, match=r"classes kind a, .*, kind l and 8 more, by name or by number \(0 to 19\)$"):
        classes.numbers([20], MANY, "mine")


def test_names_as_they_are_typed() -> None:
    assert classes.typed("cat, dog") == ["cat", "dog"]
    assert classes.typed('"salt, pepper",3') == ["salt, pepper", "3"]
    assert classes.typed("") == [""] and classes.typed("0,") == ["0", ""] and classes.typed("a\rb") == ["a\rb"]


# ---- a model


def stored(folder: Path, source: str, shape: Shape) -> Path:
    """The weights of a user's system of such samples."""
    code = folder / ("painter.py" if source is PAINTER else "mine.py")
    code.write_text(source)
    kind: type[System] = plugins.find(System, str(code))  # type: ignore[type-abstract]
    made, weights = kind(kind.Config(), shape), folder / code.stem / "last.safetensors"
    weights.parent.mkdir()
    save_weights(made, made.state_dict(), weights, {})
    return weights


@pytest.fixture
def points(tmp_path: Path) -> Path:
    return stored(tmp_path, MINE, Shape(Modality.POINTS, (2,), classes=3, class_names=ANIMALS))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return stored(tmp_path, PAINTER, Shape(Modality.IMAGES, (1, 16, 16), classes=3, class_names=ANIMALS))


def places(samples: Any) -> list[int]:
    """The class of each point by where it lies."""
    return [int(number) for number in (samples[:, 0] / 10).round()]


def test_a_model_draws_the_classes_that_it_is_asked_for(points: Path, tmp_path: Path) -> None:
    model = load(str(points), home=tmp_path / "home", trust_code=True)
    assert model.class_names == ANIMALS
    assert places(model.sample(8, labels=[2] * 8)) == [2] * 8
    assert places(model.sample(5, labels=["dog", "cat"])) == [1, 0, 1, 0, 1]
    assert places(model.sample(4, labels=torch.tensor([2, 0]))) == [2, 0, 2, 0]  # type: ignore[arg-type]
    assert places(model.sample(4)) == [0, 1, 2, 0]
    for labels, said in (
        ([], "label missing: mine knows the classes cat, dog, polar bear"),
        ("cat", r"labels = 'cat': write a list of classes, like \['cat'\]"),
        (1, r"labels = 1: write a list of classes, like \[1\]"),
        (["cat"] * 5, "5 labels for 4 samples: each sample takes the next label.*; ask for at least 5 samples"),
    ):
        with pytest.raises(UsageError, match=f"^{said}"):
            model.sample(4, labels=labels)  # type: ignore[arg-type]


def test_a_served_model_takes_names_and_returns_them(points: Path) -> None:
    model = Model.of_file(points)
    rows: list[dict[str, Any]] = [{"n": 2, "label": "polar bear"}, {"n": 4}, {"n": 1, "label": 1.0}]
    records = answering.answer(model, rows, "records")
    drawn = places(np.array([record["sample"] for record in records]))
    assert drawn == [record["label"] for record in records] == [2, 2, 0, 1, 2, 0, 1]
    assert [record["class"] for record in records] == [ANIMALS[number] for number in drawn]
    grids = answering.answer(model, rows, "grid")
    assert [(each.get("label"), each.get("class")) for each in grids] == [(2, "polar bear"), (None, None), (1, "dog")]
    with pytest.raises(UsageError, match="label dgo: did you mean dog?"):
        answering.answer(model, [{"n": 1, "label": "dgo"}], "array")


# ---- files


def sampled(weights: Path, place: Path, n: int, labels: str | None) -> tuple[str, Path]:
    options: dict[str, Any] = {"seed": 5, "checkpoint": "last", "device": "cpu", "force": False}
    settings = Settings.load(place.parent / "home")
    return sample_files.sample(str(weights), settings, n=n, labels=labels, place=place, **options)


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aigc_lab.host.trust.gate", lambda home: None)


def test_the_grid_shows_each_latent_in_all_classes(pictures: Path, tmp_path: Path) -> None:
    said, grid = sampled(pictures, tmp_path / "out", 7, "polar bear,cat")
    assert said == "7 samples of last (painter), classes polar bear, cat, seed 5"
    # Rows in the order in which they were asked for; of 7 samples in two classes four columns.
    units = draw(Draw((BLOCK, 1), "unit"), "sample", 5, 0)[:, 0]
    expected = [[round(float(60 * units[column] + 80 * number)) for column in range(4)] for number in (2, 0)]
    canvas = np.asarray(Image.open(grid))
    left = canvas.shape[1] - 4 * 50 - 2
    tiles = [[canvas[2 + row * 50 :, left + 2 + column * 50 :][:48, :48] for column in range(4)] for row in range(2)]
    assert [[int(tile[0, 0, 0]) for tile in row] for row in tiles] == expected
    assert all((tile == tile[0, 0]).all() for row in tiles for tile in row) and canvas.shape[0] == 102
    even = torch.tensor(expected, dtype=torch.uint8).reshape(8, 1, 1, 1).expand(8, 1, 16, 16)
    assert np.array_equal(canvas, class_grid(Images(even), ["polar bear", "cat"]))
    # Sample k is the k-th latent in its own class.
    names = [f"{number:05d}-{'polar_bear' if number % 2 == 0 else 'cat'}.png" for number in range(7)]
    assert sorted(path.name for path in grid.parent.iterdir()) == [*names, "grid.png", "samples.json"]
    shades = [int(np.asarray(Image.open(grid.parent / name))[0, 0]) for name in names]
    assert shades[:4] == [expected[number % 2][number] for number in range(4)]


def test_the_note_says_the_classes(pictures: Path, points: Path, tmp_path: Path) -> None:
    _, grid = sampled(pictures, tmp_path / "out", 7, "cat,2")
    note = json.loads((grid.parent / "samples.json").read_text())
    assert note["classes"] == ["cat", "polar bear"] and note["note"]["labels"] == ["cat", 2]
    with np.load(sampled(points, tmp_path / "points.npz", 5, "dog")[1]) as archive:
        assert json.loads(str(archive["note"]))["classes"] == ["dog"] and places(archive["samples"]) == [1] * 5
    # What a note says of classes does not make the same samples others.
    assert "in the place of" not in sampled(points, tmp_path / "points.npz", 5, "dog")[0]
    assert "in the place of 5 with seed 5" in sampled(points, tmp_path / "points.npz", 4, "dog")[0]


@pytest.mark.parametrize(
    ("labels", "n", "told", "rows"),
    [
        (None, 7, ", classes cat, dog, polar bear,", 3),
        ("all", 7, ", classes cat, dog, polar bear,", 3),
        ("all", 2, ", classes cat, dog (the first of 3; more need more samples),", 2),
        ("dog", 3, ", class dog,", 1),
        ("cat,dog", 2, ", classes cat, dog,", 2),
    ],
)
def test_what_is_said_and_shown(
    pictures: Path, tmp_path: Path, labels: str | None, n: int, told: str, rows: int
) -> None:
    said, grid = sampled(pictures, tmp_path / "out", n, labels)
    assert said == f"{n} samples of last (painter){told} seed 5"
    assert Image.open(grid).size[1] == 50 * rows + 2


@pytest.mark.parametrize(
    ("labels", "remedy"), [("all,dog", "--labels dog"), ("1,all, cat", "--labels 1,cat"), ("all,all", "classes by")]
)
def test_all_stands_alone(pictures: Path, tmp_path: Path, labels: str, remedy: str) -> None:
    asked = ",".join(each.strip() for each in labels.split(","))
    said = f"--labels {asked}: all is every class already; write --labels all, or {remedy}"
    with pytest.raises(UsageError, match=re.escape(said)):
        sampled(pictures, tmp_path / "out", 3, labels)


def test_the_same_samples_are_drawn_again_over_changed_ones_and_others_refused(pictures: Path, tmp_path: Path) -> None:
    _, grid = sampled(pictures, tmp_path / "out", 3, "cat")
    (grid.parent / "00000-cat.png").write_bytes(b"changed")
    with pytest.raises(UsageError, match="00000-cat.png was changed after it was sampled"):
        sampled(pictures, tmp_path / "out", 3, "dog")
    sampled(pictures, tmp_path / "out", 3, "cat")
    sampled(pictures, tmp_path / "out", 2, "dog")
    names = ["00000-dog.png", "00001-dog.png", "grid.png", "samples.json"]
    assert sorted(path.name for path in grid.parent.iterdir()) == names


def test_points_are_coloured_by_class(points: Path, tmp_path: Path) -> None:
    _, scatter = sampled(points, tmp_path / "out", 300, "cat,polar bear")
    canvas = np.asarray(Image.open(scatter))[:, :400].astype(int)
    coloured = [(canvas == colour).all(2) for colour in ((0, 114, 178), (213, 94, 0))]
    middles = [np.argwhere(each).mean(0) for each in coloured]
    # (0, 0) lies below and left of (20, 20).
    assert middles[0][0] > middles[1][0] + 100 and middles[0][1] < middles[1][1] - 100
    assert not (coloured[0] & coloured[1]).any() and min(int(each.sum()) for each in coloured) > 10
