"""Classes that `sample` wrote beside a conditional system's samples come back with them, by the reference's numbers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aigc_lab.data.ring import Ring
from aigc_lab.evaluate import evaluate
from aigc_lab.modalities.base import modality
from aigc_lab.samples import Images
from aigc_lab.scoring.given_sentences import as_text, judge_sentences, scores
from aigc_lab.scoring.inputs import Pair, read_input
from aigc_lab.serving import sample_files

NOTE = {"n": 7, "seed": 0, "aigc_lab": "1"}
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
POINTS = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)


def written(place: Path, array: Any, turn: list[str]) -> Path:
    kind = modality("images" if array.ndim == 4 else "points")
    sample_files.write(place, kind, [array[:3], array[3:]], len(array), NOTE | {"n": len(array)}, turn=turn)
    return place


def labelled(path: Path, **options: Any) -> tuple[list[int] | None, list[str] | None]:
    given = read_input(path, data_dir=Path(), **options)
    labels = given.load(given.channels, None).labels
    return None if labels is None else labels.tolist(), None if given.classes is None else list(given.classes)


@pytest.mark.parametrize("name", ["folder", "all.npz"])
@pytest.mark.parametrize("array", [IMAGES, POINTS], ids=["images", "points"])
def test_samples_have_the_classes_that_they_were_drawn_of(tmp_path: Path, array: Any, name: str) -> None:
    place = written(tmp_path / "a" / name, array, ["polar bear", "ant"])
    assert labelled(place) == ([1, 0, 1, 0, 1, 0, 1], ["ant", "polar bear"])
    assert labelled(written(tmp_path / "b" / name, array, ["3", "1", "0"])) == ([3, 1, 0, 3, 1, 0, 3], None)
    assert labelled(written(tmp_path / "c" / name, array, [])) == (None, None)


def test_pictures_that_are_left_do_not_move_the_classes_of_others(tmp_path: Path) -> None:
    place = written(tmp_path / "a", IMAGES, ["5", "2"])
    next(place.glob("00001-*.png")).unlink()
    assert labelled(place)[0] == [5, 5, 2, 5, 2, 5]
    # A picture of the user's own among them: of which class it is nobody knows.
    shutil.copy(next(place.glob("00002-*.png")), place / "mine.png")
    assert labelled(place) == (None, None)


def test_a_note_of_other_origin_names_no_classes(tmp_path: Path) -> None:
    place = written(tmp_path / "a", IMAGES, [])
    (place / "grid.png").unlink()
    (place / "samples.json").write_text(json.dumps({"classes": ["a", "b"], "files": ["grid.png"]}))
    assert labelled(place) == (None, None)
    np.savez(tmp_path / "own.npz", samples=POINTS, note=json.dumps({"classes": ["a", "b"]}))
    np.savez(tmp_path / "labels.npz", samples=POINTS, labels=np.arange(7), note=json.dumps(NOTE | {"classes": ["9"]}))
    assert labelled(tmp_path / "own.npz") == (None, None)
    assert labelled(tmp_path / "labels.npz")[0] == list(range(7))
    # An array beside the one that was sampled.
    points = written(tmp_path / "points", POINTS, ["1", "2"])
    np.save(points / "other.npy", POINTS)
    assert labelled(points / "other.npy") == (None, None) and labelled(points / "points.npy")[0] == labelled(points)[0]


def test_classes_get_the_numbers_of_the_reference(tmp_path: Path) -> None:
    generated = read_input(written(tmp_path / "a", IMAGES, ["dog", "ant"]), data_dir=Path())
    reference = read_input(Images(torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 2, 2])), data_dir=Path())
    reference.classes = ["ant", "cat", "dog"]
    pair = Pair(generated, reference)
    assert pair.generated.labels is not None and pair.generated.labels.tolist() == [2, 0, 2, 0, 2, 0, 2]
    assert pair.asked is not None and torch.equal(pair.asked, pair.generated.labels) and not pair.notes
    reference.classes = ["cat", "dog"]
    pair = Pair(generated, reference)
    assert pair.generated.labels is None and pair.asked is None
    assert pair.notes == [f"{tmp_path / 'a'}: its labels are left out, since ant is no class of array"]
    numbers = Pair(read_input(written(tmp_path / "b", IMAGES, ["1", "0"]), data_dir=Path()), reference)
    assert numbers.asked is None and numbers.generated.labels is not None


def test_points_of_a_folder_are_scored_by_the_classes_asked_for(tmp_path: Path) -> None:
    ring = Ring(Ring.Config(), Path())
    real = ring.load("train").take(slice(0, 400))
    assert real.labels is not None
    order = real.labels.argsort(stable=True)
    each = min(torch.bincount(real.labels).tolist())
    rows = [order[real.labels[order] == label][:each] for label in range(8)]
    points = real.values[torch.stack(rows, 1).flatten()].numpy()  # one of each mode in turn
    right = written(tmp_path / "right", points, [str(label) for label in range(8)])
    wrong = written(tmp_path / "wrong", points, [str((label + 1) % 8) for label in range(8)])
    found = [
        evaluate(place, "ring:holdout", metrics=["mode_accuracy"], device="cpu")[0].value for place in (right, wrong)
    ]
    assert found[0] > 0.95 and found[1] < 0.05


# ---- sentences

SPORT = ["the team won a match", "a player kicks the ball far", "the goal came late in the match", "he kicks a ball"]
FOOD = ["fry onions in butter", "stir rice with some salt", "bake bread until golden", "boil rice with onions"]


def lines_of(count: int, seed: int) -> tuple[list[str], list[str]]:
    """As many sentences of both classes in turn, food first, and their classes."""
    source = np.random.default_rng(seed)
    words = [[word for line in lines for word in line.split()] for lines in (FOOD, SPORT)]
    sentences = [" ".join(source.choice(words[row % 2], 6)) for row in range(count)]
    return sentences, [("food", "sport")[row % 2] for row in range(count)]


def table(path: Path, sentences: list[str], classes: list[str]) -> Path:
    path.write_text("".join(f"{name}\t{line}\n" for name, line in zip(classes, sentences, strict=True)))
    return path


def drawn(place: Path, sentences: list[str], turn: list[str]) -> Path:
    note = NOTE | {"n": len(sentences)}
    sample_files.write(place, modality("text"), [np.array(sentences)], len(sentences), note, turn=turn)
    return place


@pytest.mark.parametrize("name", ["", "samples.txt", "samples.tsv"])
def test_sentences_have_the_classes_that_they_were_drawn_of(tmp_path: Path, name: str) -> None:
    """A column of classes is no word of the sentences, and a sentence without words shifts no class."""
    sentences, _ = lines_of(12, 0)
    sentences[3] = ""
    place = str(drawn(tmp_path / "a", sentences, ["food", "sport"]) / name)
    real = lines_of(40, 1)
    reference = str(table(tmp_path / "real.tsv", *real))
    fake, held = as_text(place, reference, "words", None)
    assert fake.sentences() == [line for line in sentences if line] and held.sentences() == real[0]
    assert fake.labels is not None and fake.labels.tolist() == [0, 1, 0, *([0, 1] * 4)]
    assert held.labels is not None and held.labels.tolist() == [0, 1] * 20
    plain = scores([line for line in sentences if line], real[0], metrics=["unique", "distinct"])
    assert list(scores(place, reference, metrics=["unique", "distinct"])) == list(plain)


def test_sentences_of_other_classes_than_the_references_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(drawn(tmp_path / "a", lines_of(12, 0)[0], ["food", "music"]))
    fake, held = as_text(place, str(table(tmp_path / "real.tsv", *lines_of(40, 1))), "words", None)
    assert fake.labels is None and held.labels is None
    assert capsys.readouterr().err == ("the classes of generated are left out, since music is no class of reference\n")
    lines = tmp_path / "plain.tsv"  # a file of sentences, whatever its name
    lines.write_text("a b\nc d\n")
    assert as_text(str(lines), str(lines), "words", None)[0].sentences() == ["a b", "c d"]


def test_a_verdict_on_sentences_says_what_was_drawn_for_a_class(tmp_path: Path) -> None:
    reference = str(table(tmp_path / "real.tsv", *lines_of(400, 1)))
    for turn, states in ((["food", "sport"], "drawn"), (["sport", "food"], "another")):
        place = str(drawn(tmp_path / states, lines_of(200, 2)[0], turn))
        verdict = judge_sentences(place, reference, None)
        assert verdict.asked is not None and [row["state"] for row in verdict.asked] == [states] * 2
