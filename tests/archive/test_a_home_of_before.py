"""A home of the version whose modules had no rooms yet goes on: read, verified, sampled, carried over, continued.

`tests/fixtures/home-before.tar.xz` was made by that version; `tests/fixtures/make_home_before.py` makes it again. Its
`mine.py` imports `aigc_lab.point_system`, where that module was then, and so does the code stored beside weights.
"""

import contextlib
import hashlib
import json
import os
import re
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from conftest import WriterHere
from shell import Told, command

from aigc_lab.tracking import writer

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "home-before.tar.xz"


class Before:
    """A copy of the home in a folder of its own, what that version said it reached, and commands in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.expected: dict[str, Any] = json.loads((folder / "expected.json").read_bytes())
        self.finished: str = self.expected["finished"]
        self.killed: str = self.expected["killed"]
        self.sweep = self.finished.partition(".")[0]

    def __call__(self, *words: str, home: Path | None = None) -> Told:
        told = command(*words, "--home", str(home or self.home))
        assert told.code == 0, told.errors
        return told

    def json(self, *words: str, home: Path | None = None) -> Any:
        return json.loads(self(*words, "--json", home=home).output)

    def same(self, run: str, home: Path | None = None) -> None:
        """The run ended as it did undisturbed in that version: to the bit what was done then, and what is trained here
        as far as another processor rounds alike (torch's version and vector width do not tell an Intel from an AMD).
        """
        expected, home = self.expected["runs"][run], home or self.home
        scores = _rows(home, "SELECT name, checkpoint, split, value, low, high FROM score WHERE run_id = ?", run)
        verdicts = _rows(home, "SELECT kind, step, verdict, signature FROM verdict WHERE run_id = ?", run)
        weights = dict(_rows(home, "SELECT kind, path FROM checkpoint WHERE run_id = ?", run))
        assert [row[:3] for row in scores] == [row[:3] for row in expected["scores"]]
        assert weights.keys() == expected["weights"].keys()
        if run == self.killed:  # in 40 steps little comes of it
            now, then = ([row[3:] for row in table] for table in (scores, expected["scores"]))
            np.testing.assert_allclose(now, then, rtol=1e-3, atol=1e-3)
            return
        assert scores == expected["scores"]
        assert _without_rules(verdicts) == _without_rules(expected["verdicts"])
        found = {kind: hashlib.sha256((home / path).read_bytes()).hexdigest() for kind, path in weights.items()}
        assert found == expected["weights"]

    def same_samples(self, drawn: np.ndarray[Any, Any]) -> None:
        expected = self.expected["samples"]
        assert list(drawn.shape) == expected["shape"] and drawn.dtype == np.float32
        np.testing.assert_allclose(drawn, expected["values"], rtol=1e-4, atol=1e-5)


def _rows(home: Path, query: str, *values: str) -> list[list[Any]]:
    with closing(sqlite3.connect(home / "registry.db")) as database:
        return sorted(list(row) for row in database.execute(query, values))


def unpacked(folder: Path) -> Before:
    """The home elsewhere than it was made, which is said and corrected: what every home that was moved needs."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    before = Before(folder)
    with contextlib.chdir(folder):  # where `mine.py` lies
        refused = command("resume", before.sweep, "--home", str(before.home))
    assert refused.code == 2 and "aigc-lab doctor" in refused.why and "--repair' corrects" in refused.why
    command("doctor", "--repair", "--home", str(before.home))  # of this machine it may say what it likes
    return before


def _without_rules(verdicts: list[list[Any]]) -> list[list[Any]]:
    """Without the version of the rules, the end of a signature: a run that goes on is judged by those of today."""
    return [[kind, step, verdict, re.sub(r"\|v:\d+$", "", signature)] for kind, step, verdict, signature in verdicts]


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AIGC_LAB_", "MLFLOW_")) and "PLUGIN" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(writer, "Writer", WriterHere)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Before:
    """For what changes nothing of it."""
    return unpacked(tmp_path_factory.mktemp("before"))


def test_it_is_read(before: Before) -> None:
    first, second = before.json("compare")
    assert [first["state"], second["state"]] == ["FINISHED", "KILLED"]
    of_last = {
        (name, split): value
        for name, kind, split, value, *_ in before.expected["runs"][before.finished]["scores"]
        if kind == "last"
    }
    assert first["score"]["value"] == of_last["rkl", "holdout"]
    assert first["score"]["reference"] == of_last["rkl", "reference"]
    shown = before.json("show", before.finished)
    holdout = {each["name"]: each["value"] for each in shown["scores"]}
    assert holdout == {name: value for (name, split), value in of_last.items() if split == "holdout"}
    weights = {each["kind"]: each["sha256"] for each in shown["checkpoints"]}
    assert weights == before.expected["runs"][before.finished]["weights"]
    (model,) = before.json("models")
    assert model["model"] == "before" and model["run"] == before.finished
    before.same(before.finished)
    before("verify")


def test_what_was_promoted_gives_the_same_samples(before: Before, tmp_path: Path) -> None:
    before("sample", "before", "-n", "8", "--seed", "0", "-o", str(tmp_path / "drawn"))
    before.same_samples(np.load(tmp_path / "drawn" / "points.npy"))


def test_what_was_promoted_is_loaded_by_mlflow(before: Before, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow runs the code that it stored then, which imports `aigc_lab.serving.model`, and that `mine.py`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{before.home / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/before@champion")
    before.same_samples(np.asarray(model.predict([{"n": 8, "seed": 0}])))


def test_it_is_carried_to_another_home(before: Before, tmp_path: Path) -> None:
    other, file = tmp_path / "other", str(tmp_path / "sweep.tar")
    before("export", before.sweep, "-o", file)
    before("import", file, "--trust-code", home=other)
    assert before.json("compare", home=other) == before.json("compare")
    before.same(before.finished, other)
    before("sample", before.finished, "-n", "8", "--seed", "0", "-o", str(tmp_path / "drawn"), home=other)
    before.same_samples(np.load(tmp_path / "drawn" / "points.npy"))
    before("verify", home=other)


@pytest.mark.parametrize("words", [["resume", "points"], ["sweep", "points.yaml"]], ids=" ".join)
def test_the_interrupted_run_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = unpacked(tmp_path)
    before(*words, "--device", "cpu")
    states = _rows(before.home, "SELECT id, state FROM run")
    assert states == [[before.finished, "FINISHED"], [before.killed, "FINISHED"]], "it is the same sweep"
    attempts = _rows(before.home, "SELECT number, state, from_step FROM attempt WHERE run_id = ?", before.killed)
    assert attempts == [[1, "KILLED", 0], [2, "FINISHED", 30]], "nothing is done again"
    before.same(before.killed)
    before("verify")


def test_what_mlflow_had_is_shown_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MLflow's database: its runs and the promoted version come from what the home keeps itself."""
    before = unpacked(tmp_path)
    for file in before.home.glob("mlflow.db*"):
        file.unlink()
    before("reconcile", "--mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{before.home / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/before@champion")
    before.same_samples(np.asarray(model.predict([{"n": 8, "seed": 0}])))
    before("verify")
