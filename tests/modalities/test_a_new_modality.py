"""A modality that the package does not know is one file of a user's, `waveform.py`: it trains, samples, is scored and
is reported without a change to `aigc_lab/`.

Its samples, its `ModalityKind` and the dataset, system and metric of it stand in that one file, which an experiment
names by path. Nothing is registered by hand: the class registers itself when the file is imported, and the file is
imported before any of its samples exist, because dataset and system are classes of it. It lies beside stored weights
too, so that another process samples from these without the experiment.
"""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import WriterHere
from PIL import Image
from shell import Told, command

import aigc_lab
from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.evaluate import evaluate, judge
from aigc_lab.modalities.base import ModalityKind, modality, modality_of
from aigc_lab.modality import Modality
from aigc_lab.samples import Samples
from aigc_lab.shape import Shape
from aigc_lab.tracking import writer

FILE = Path(__file__).with_name("waveform.py")
EXPERIMENT = """\
data: {name: ./waveform.py}
system: {name: ./waveform.py, lr: {log: [1.0e-3, 1.0e-2]}}
training: {steps: 200, batch_size: 64, log_every: 20, evaluate_every: 100, threads: 1}
evaluation: {name: points, samples: 200, metrics: [./waveform.py]}
objective: {minimize: spectrum_error}
search: {trials: 2}
"""

# The error of silence is all power of a real wave: that of a sine of T = 32 values is T / 2 (Parseval), half of it at
# the frequencies of a one-sided spectrum.
SILENCE = 32 / 2 / 2


class Swept(NamedTuple):
    folder: Path
    sweep: str
    rows: list[dict[str, Any]]

    def run(self, *words: str) -> Told:
        told = command(*words, "--home", str(self.folder / "home"))
        assert told.code == 0, told.errors
        return told


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    folder = tmp_path_factory.mktemp("waves")
    (folder / FILE.name).write_bytes(FILE.read_bytes())
    (folder / "waves.yaml").write_text(EXPERIMENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "Writer", WriterHere)
        done = command("sweep", str(folder / "waves.yaml"), "--home", str(folder / "home"), "--json")
    assert done.code == 0, done.errors
    rows = json.loads(done.output)
    return Swept(folder, rows[0]["sweep"], rows)


def test_it_is_trained_scored_and_ranked(swept: Swept) -> None:
    assert [row["rank"] for row in swept.rows] == [1, 2]
    for row in swept.rows:
        score = row["score"]
        assert score["name"] == "spectrum_error" and score["low"] <= score["value"] <= score["high"]
        assert 0 < score["floor"] < score["value"] < SILENCE / 2  # the system has learned
        assert sum(row["verdicts"]["collapse"].values()) == 1


def test_samples_are_written_as_the_modality_says(swept: Swept, tmp_path: Path) -> None:
    swept.run("sample", swept.sweep, "-n", "10", "-o", str(tmp_path / "out"))
    waves = np.load(tmp_path / "out" / "samples.npy")
    assert waves.shape == (10, 32) and waves.dtype == np.float32
    assert Image.open(tmp_path / "out" / "waves.png").size == (128, 8 * 24)
    swept.run("sample", swept.sweep, "-n", "10", "-o", str(tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz") as stored:
        assert np.array_equal(stored["samples"], waves)
    refused = command("sample", swept.sweep, "-o", str(tmp_path / "a.txt"), "--home", str(swept.folder / "home"))
    assert "is for text, and this model makes none" in refused.why


def test_a_served_model_answers_with_arrays_and_pictures(swept: Swept) -> None:
    model = aigc_lab.load(swept.sweep, home=swept.folder / "home")
    waves = model.answer([{"n": 2, "seed": 1}])
    assert np.array_equal(waves, model.sample(2, seed=1)) and waves.shape == (2, 32)
    (told,) = model.answer([{"n": 2}], "grid")
    assert Image.open(io.BytesIO(base64.b64decode(told["png"]))).size == (128, 2 * 24)
    with pytest.raises(UsageError, match="makes waveform, of which there are no pictures"):
        model.answer([{"n": 2}], "png")


def test_another_process_samples_the_same_without_the_experiment(swept: Swept, tmp_path: Path) -> None:
    swept.run("sample", swept.sweep, "-n", "3", "-o", str(tmp_path / "here"))
    words = ["sample", swept.sweep, "-n", "3", "-o", str(tmp_path / "there"), "--home", str(swept.folder / "home")]
    code = f"import sys; sys.argv[1:] = {words!r}; from aigc_lab import cli; cli.main()"
    (swept.folder / FILE.name).rename(swept.folder / "away.py")
    try:
        root = str(Path(aigc_lab.__file__).parent.parent)
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": root}, cwd=tmp_path)
    finally:
        (swept.folder / "away.py").rename(swept.folder / FILE.name)
    one, other = ((tmp_path / place / "samples.npy").read_bytes() for place in ("here", "there"))
    assert one == other


def test_the_report_shows_it(swept: Swept, tmp_path: Path) -> None:
    swept.run("report", swept.sweep, "-o", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "spectrum_error" in page and page.count("data:image/png;base64") >= 2
    pictures = sorted((swept.folder / "home" / "artifacts").rglob("samples/*.png"))
    assert {Image.open(path).size for path in pictures} == {(128, 8 * 24)} and len(pictures) == 2 * 3


def test_it_is_scored_and_judged_without_a_sweep(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept.folder)
    kind = plugins.find(Dataset, str(swept.folder / FILE.name))  # type: ignore[type-abstract]
    dataset = kind(kind.Config(), Path())
    real, silence = dataset.load("reference").values.numpy(), np.zeros((200, 32), np.float32)
    (good,) = evaluate(real[:200], (dataset, "holdout"), metrics=["./waveform.py"], cache=swept.folder / "cache")
    (bad,) = evaluate(silence, (dataset, "holdout"), metrics=["./waveform.py"], cache=swept.folder / "cache")
    assert good.value < SILENCE / 4 and bad.value == pytest.approx(SILENCE, rel=0.1)
    assert judge(silence, (dataset, "holdout"), cache=swept.folder / "cache").verdict == "TOTAL"
    run = f"{swept.sweep}.{swept.rows[0]['trial']}.0"
    told = swept.run("evaluate", "--generated", run, "--metrics", "./waveform.py", "--json")
    assert [row["name"] for row in json.loads(told.output)] == ["spectrum_error"]


def test_the_contracts_are_kept(swept: Swept) -> None:
    """Those of the dataset, the system and the metric of the file."""
    file = str(swept.folder / FILE.name)
    told = command("check", file, "--data", file, "--home", str(swept.folder / "home"))
    assert told.code == 0, told.output


def test_its_trivial_sampler_is_a_gaussian_of_the_training_samples(swept: Swept) -> None:
    kind = plugins.find(Dataset, str(swept.folder / FILE.name))  # type: ignore[type-abstract]
    train = kind(kind.Config(), Path()).load("train")
    made = modality_of(train).trivial(train, 5000)
    assert type(made) is type(train) and made.values.shape == (5000, 32)
    assert (made.values.T.cov() - train.values.T.cov()).abs().max() < 0.1


# ---- names


def test_a_name_of_a_users_own_is_a_modality_as_good_as_those_that_ship() -> None:
    wave = Modality("waveform")
    assert wave is Modality("waveform") and wave == "waveform" and wave not in list(Modality)
    shape = Shape(wave, (32,))
    assert Shape.load(json.loads(json.dumps(shape.dump()))) == shape and str(shape) == "waveform 32"


@pytest.mark.parametrize("name", ["", "Waveform", "wave form", "../images", 3, None])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="is not a valid Modality"):
        Modality(name)


def test_a_modality_that_nobody_defines_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="modality.*imagse.*images"):
        modality("imagse")


def test_the_name_of_one_that_ships_is_taken() -> None:
    class Mine(Samples):
        modality = Modality.IMAGES

    with pytest.raises(ValueError, match="the modality images ships with the package"):

        class Kind(ModalityKind):
            samples = Mine


@pytest.mark.parametrize("name", list(Modality))
def test_each_modality_that_ships_is_a_file_of_its_name(name: Modality) -> None:
    assert name in plugins.names("modalities")
    assert modality(name).samples.modality == name
