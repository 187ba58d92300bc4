"""`aigc-lab judge collapse`: samples of arrays, folders, datasets and files, by the command line."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Judged
from PIL import Image
from worlds import FOUND

from aigc_lab import cli, noise
from aigc_lab.data.base import SPLITS
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.data.ring import Ring
from aigc_lab.scoring.inputs import read_input as given_


class Command:
    """`aigc-lab judge collapse` in this process."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, caught: pytest.CaptureFixture[str]) -> None:
        self.folder, self._patch, self._caught = folder, patch, caught

    def __call__(self, *words: str, code: int = 0) -> tuple[str, str]:
        home = ["--home", str(self.folder / "home")]
        self._patch.setattr(sys, "argv", ["aigc-lab", "judge", "collapse", *words, *home])
        self._caught.readouterr()
        ended: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            ended = end.code
        said = self._caught.readouterr()
        assert (ended or 0) == code, said.out + said.err
        return said.out, said.err

    def refused(self, *words: str) -> str:
        """What is said, in one line, of what cannot be judged."""
        out, told = self(*words, code=2)
        lines = [line for line in told.splitlines() if not line.startswith("features: ")]
        assert out == "" and len(lines) == 1, out + told
        return lines[0]

    def file(self, name: str, array: Any) -> str:
        path = self.folder / name
        if name.endswith(".npz"):
            np.savez(path, array)
        elif name.endswith(".npy"):
            np.save(path, array)
        else:
            path.write_text(array, "utf-8")
        return str(path)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AIGC_LAB_WEIGHTS_DIR", str(tmp_path / "none"))
    return Command(tmp_path, monkeypatch, capsys)


def points() -> tuple[Any, Any, Any]:
    """Points of three modes of four, real ones of all four, and the modes of these."""
    data = Ring(Ring.Config(modes=4, sigma=0.1, points=2000), Path())
    made, real = data.load("train"), data.load("reference").take(slice(0, 1000))
    assert made.labels is not None and real.labels is not None
    return made.values[made.labels != 2][:400].numpy(), real.values.numpy(), real.labels.numpy()


def test_arrays_with_labels(command: Command) -> None:
    made, real, labels = points()
    given = ["--generated", command.file("made.npy", made), "--reference", command.file("real.npz", real)]
    names = "\n".join(("north", "east", "south", "west")[label] for label in labels)
    found = []
    for file in (
        command.file("labels.npy", labels),
        command.file("labels.txt", "\n".join(map(str, labels))),
        command.file("names.txt", names),
    ):
        out, _ = command(*given, "--labels", file, "--json")
        found.append(json.loads(out))
    assert {
        *["verdict", "reason", "n", "missing_low", "missing_seen", "missing_high", "diversity", "coverage"],
        *["precision", "duplicates", "bins", "signature", "phrases", "null", "accuracy", "accuracy_shifted", "asked"],
    } == {*found[0]}
    assert found[0]["accuracy"] > 0.99 and found[0]["accuracy_shifted"] is None  # points have no blur
    assert found[0] == found[1] and found[0]["verdict"] in {"PARTIAL", "SEVERE"} and found[0]["n"] == 400
    for verdict in found:
        (gone,) = [row for row in verdict["bins"] if row["state"] == "missing"]
        assert gone["generated"] == 0 and verdict["missing_low"] == gone["real"]
    assert [row["name"] for row in found[0]["bins"]] == ["0", "1", "2", "3"]
    assert [row["name"] for row in found[2]["bins"]] == ["east", "north", "south", "west"]
    assert "class south" in found[2]["reason"]
    # What is missing is shown by real samples of it, those nearest to its mean.
    shown = {row["name"]: row["examples"] for row in found[2]["bins"]}
    assert not any(shown[name] for name in ("east", "north", "west")) and len(shown["south"]) == 5
    places = [int(each.removeprefix("sample ")) for each in shown["south"]]
    away = np.linalg.norm(real - real[labels == 2].mean(0), axis=1)
    assert all(labels[places] == 2) and away[places].max() < np.median(away[labels == 2])
    out, _ = command(*given, "--labels", str(command.folder / "labels.npy"))
    assert out.startswith(f"{found[0]['verdict']}: at least") and "  2: missing, 0.0% [0.0%, " in out
    assert "    real ones: sample " in out
    # Without labels the bins are clusters.
    out, _ = command(*given, "--json")
    assert json.loads(out)["verdict"] in FOUND and json.loads(out)["signature"].count("by:clusters") == 1


def test_folders_of_pictures(command: Command, judged: Judged) -> None:
    sets = {"made": judged.dataset.load("train"), "real": judged.dataset.load("reference")}
    for name, samples in sets.items():
        (command.folder / name).mkdir()
        for number, pixels in enumerate((255 * samples.unit()).round().byte()[: 60 if name == "made" else 150, 0]):
            Image.fromarray(pixels.numpy()).save(command.folder / name / f"{number:04}.png")
    given = ["--generated", str(command.folder / "made"), "--reference", str(command.folder / "real")]
    out, told = command(*given, "--json")
    assert json.loads(out)["verdict"] not in FOUND and json.loads(out)["n"] == 60
    assert "features: lite0, ImageNet's EfficientNet-Lite0" in told
    one = command.folder / "one"
    one.mkdir()
    for number in range(40):
        (one / f"{number}.png").write_bytes((command.folder / "made" / "0000.png").read_bytes())
    out, _ = command("--generated", str(one), *given[2:], "--json")
    assert json.loads(out)["verdict"] == "TOTAL"


def test_a_classifier_learns_the_labels_that_are_given(command: Command, judged: Judged) -> None:
    """A quarter of the reference: it judges by pictures that it has not seen."""
    sets = {"made": ("train",), "real": ("reference", "holdout")}
    loaded = {name: [judged.dataset.load(split) for split in splits] for name, splits in sets.items()}  # type: ignore[arg-type]
    for name, samples in loaded.items():
        (command.folder / name).mkdir()
        for number, pixels in enumerate(torch.cat([(255 * each.unit()).round().byte()[:400, 0] for each in samples])):
            Image.fromarray(pixels.numpy()).save(command.folder / name / f"{number:04}.png")
    digits = torch.cat([each.labels[:400] for each in loaded["real"] if each.labels is not None])
    labels = command.file("labels.txt", "\n".join(map(str, digits.tolist())))
    given = ["--generated", str(command.folder / "made"), "--reference", str(command.folder / "real")]
    out, _ = command(*given, "--labels", labels, "--features", "classifier", "--json")
    found = json.loads(out)
    assert "clf:given" in found["signature"] and "|pool:600|" in found["signature"] and found["verdict"] not in FOUND
    assert 0.9 < found["accuracy"] < 1
    train = ["--generated", str(command.folder / "made"), "--reference", "digits:train", "--features", "classifier"]
    assert "the classifier has learned digits:train" in command.refused(*train)


def test_folders_of_classes_are_called_by_their_names(command: Command, judged: Judged) -> None:
    # A quarter of the real ones trains the classifier, and half of the rest is judged by: 447 of a tenth each decide.
    sets = {"made": slice(1200, None), "real": slice(0, 1200)}
    called = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    loaded = [judged.dataset.load(split) for split in SPLITS]
    every = torch.cat([each.labels for each in loaded if each.labels is not None])
    pictures = torch.cat([(255 * each.unit()).round().byte()[:, 0] for each in loaded])
    for name, rows in sets.items():
        labels, pixels = every[rows], pictures[rows]
        for digit in range(10) if name == "real" else range(1, 10):
            folder = command.folder / name / called[digit]
            folder.mkdir(parents=True)
            for number, picture in enumerate(pixels[labels == digit]):
                Image.fromarray(picture.numpy()).save(folder / f"{number:04}.png")
    given = ["--generated", str(command.folder / "made"), "--reference", str(command.folder / "real")]
    out, _ = command(*given, "--features", "classifier", "--json")
    found = json.loads(out)
    assert [row["name"] for row in found["bins"]] == sorted(called)
    (gone,) = [row for row in found["bins"] if row["generated"] < 0.05]
    assert gone["name"] == "zero"
    assert gone["state"] == "missing" and len(gone["examples"]) == 5
    assert all(each.startswith("zero/") for each in gone["examples"])
    read = given_(command.folder / "real", data_dir=command.folder)
    read.load(1, None)
    assert read.classes == sorted(called) and read.called(0) == "eight/0000.png"


def test_labels_come_before_modes_and_one_class_tells_nothing(command: Command) -> None:
    points_ = Ring(Ring.Config(), Path()).load("holdout").values.numpy()[:400]
    given = ["--generated", command.file("made.npy", points_), "--reference", "ring:holdout"]
    out, _ = command(*given, "--json")
    assert "by:modes" in json.loads(out)["signature"]
    count = len(Ring(Ring.Config(), Path()).load("holdout"))
    halves = command.file("halves.txt", "\n".join(("left", "right")[place % 2] for place in range(count)))
    out, _ = command(*given, "--labels", halves, "--json")
    found = json.loads(out)
    # Nothing tells these apart: they are no bins.
    assert "by:clusters" in found["signature"] and found["accuracy"] == pytest.approx(0.5, abs=0.05)
    assert found["verdict"] == "INCONCLUSIVE"
    assert f"sort {found['accuracy']:.0%} of real samples into their classes (75% are needed)" in found["reason"]
    assert all(re.fullmatch(r"\d+ \(\d+% (left|right)\)", row["name"]) for row in found["bins"])
    made, real, _ = points()
    given = ["--generated", command.file("made.npy", made), "--reference", command.file("real.npy", real)]
    one = command.file("one.txt", "\n".join(["same"] * len(real)))
    out, _ = command(*given, "--labels", one)
    assert "there is one class only, so that these are clusters" in out
    blank = command.file("blank.txt", "\n".join(["a", ""] * (len(real) // 2)))
    assert "lines are blank; write a class on each" in command.refused(*given, "--labels", blank)


def test_sentences_of_runs_and_datasets(command: Command) -> None:
    data = PyDoc(PyDoc.Config(), Path())
    made = command.file("made.txt", "\n".join(data.load("train").sentences()[:300]))
    out, _ = command("--generated", made, "--reference", "pydoc:reference", "--json")
    assert json.loads(out)["verdict"] not in FOUND
    real = command.file("real.txt", "\n".join(data.load("reference").sentences()))
    again, _ = command("--generated", made, "--reference", real, "--json")
    assert json.loads(again)["verdict"] == json.loads(out)["verdict"]
    assert "--size: is for pictures, and these are sentences" in command.refused(
        "--generated", made, "--reference", real, "--size", "32"
    )
    # A language model that has read the reference would find everything else strange.
    out, _ = command("--generated", "pydoc:holdout", "--reference", "pydoc:train", "--json")
    assert json.loads(out)["precision"] > 0.9 and json.loads(out)["verdict"] not in FOUND | {"UNMEASURABLE"}
    few = command.file("few.txt", "\n".join(["dog", "cat"] * 60))
    told = command.refused("--generated", made, "--reference", few)
    assert "2 different real sentences say nothing of others: give at least 40" in told


def test_files_of_sentences(command: Command) -> None:
    data = PyDoc(PyDoc.Config(max_length=15), Path())
    real, made = (data.load(split).sentences() for split in ("reference", "train"))
    reference = command.file("real.txt", "\n".join(real))
    out, _ = command("--generated", command.file("made.txt", "\n".join(made[:300])), "--reference", reference, "--json")
    assert json.loads(out)["verdict"] not in FOUND and json.loads(out)["signature"].startswith("sentences|")
    out, _ = command("--generated", command.file("one.txt", "\n".join(made[:1] * 100)), "--reference", reference)
    assert out.startswith("TOTAL: one thing over and over")
    short = command.file("short.txt", "0\n1\n")
    told = command.refused("--generated", reference, "--reference", reference, "--labels", short)
    assert f"--labels: 2 are given for {len(real):,} reference sentences" in told


def test_what_cannot_be_judged_is_refused_in_a_line(command: Command) -> None:
    made, real, labels = points()
    good, reference = command.file("made.npy", made), command.file("real.npy", real)
    pictures = (255 * torch.rand((60, 1, 16, 16), generator=noise.generator("pictures"))).byte().numpy()
    bad = made.copy()
    bad[5, 1] = np.nan
    text = command.file("text.txt", "a b c\n" * 30)
    for words, told in (
        (
            ["--generated", good, "--reference", reference, "--labels", command.file("few.npy", labels[:7])],
            "labels: 7 are given for 1,000 reference samples",
        ),
        (
            ["--generated", good, "--reference", reference, "--labels", command.file("float.npy", labels / 2)],
            "not one whole number a sample",
        ),
        (
            ["--generated", good, "--reference", reference, "--labels", str(command.folder / "no.npy")],
            "cannot be read as an array",
        ),
        (
            ["--generated", good, "--reference", reference, "--labels", str(command.folder / "no.txt")],
            "no.txt: cannot be read (No such file",
        ),
        (["--generated", command.file("nan.npy", bad), "--reference", reference], "NaN"),
        (["--generated", command.file("pictures.npy", pictures), "--reference", reference], "made of|points|images"),
        (["--generated", text, "--reference", reference], "real.npy"),
        (["--generated", command.file("tiny.npy", made[:10]), "--reference", reference], "10 samples say nothing"),
        (["--generated", good, "--reference", command.file("pool.npy", real[:30])], "a pool of 30 real samples"),
        (
            ["--generated", str(command.folder / "nothing"), "--reference", reference],
            "nothing: no such file, folder or dataset",
        ),
        (
            ["--generated", good, "--reference", command.file("wide.npy", np.hstack([real, real]))],
            "compare like with like",
        ),
    ):
        said = command.refused(*words)
        assert any(each in said for each in told.split("|")), said
