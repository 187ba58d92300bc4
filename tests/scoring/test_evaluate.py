"""Scores without a sweep: whatever the samples come as, what is said of bad ones, and that each measure moves as it
should when real samples are damaged.
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SCORE_KEYS, Judged
from networks_of_users import MINE
from PIL import Image
from scipy.linalg import sqrtm

from aigc_lab import cli, load, noise, plugins, train
from aigc_lab.data.digits import Digits
from aigc_lab.data.mnist_5k import MNIST5k
from aigc_lab.data.ring import Ring
from aigc_lab.display import tables, terminal
from aigc_lab.errors import UsageError
from aigc_lab.evaluate import evaluate, judge
from aigc_lab.experiment.protocol import Protocol
from aigc_lab.extractors.base import Extractor
from aigc_lab.extractors.random import Random
from aigc_lab.host.settings import Settings
from aigc_lab.host.weights import PUBLISHED
from aigc_lab.metrics import fd
from aigc_lab.metrics.base import Metric, Score
from aigc_lab.metrics.shared import manifolds
from aigc_lab.modalities.base import modality_of
from aigc_lab.pictures import drawing
from aigc_lab.samples import Images, Points
from aigc_lab.scoring import neighbours_picture
from aigc_lab.scoring.evaluator import Evaluator
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.serving import sample_files
from aigc_lab.statistics import neighbours

OWN_METRIC = '''"""A metric."""

from aigc_lab.config import Strict
from aigc_lab.metrics.base import Metric, Score


class Mine(Metric):
    class Config(Strict):
        pass

    @property
    def gives(self):
        return {"NAME": "lower"}

    def check(self, dataset, samples):
        pass

    def scores(self, evidence):
        signature = self.signature(evidence)
        floor = self.of_real(evidence, signature, lambda: FLOOR)
        return [Score("NAME", 0.0, 0.0, 0.0, len(evidence.generated), floor, signature, "lower")]
'''


def digits(split: Any, first: int = 0, last: int | None = None) -> Images:
    return Digits(Digits.Config(), Path()).load(split).take(slice(first, last))


def written(images: Images, folder: Path, mode: str = "L", side: int | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, values in enumerate(images.values):
        picture = Image.fromarray(values[0].numpy()).convert(mode)
        if side is not None and index % 2:
            picture = picture.resize((side, side), Image.Resampling.NEAREST)
        picture.save(folder / f"{index:05d}.png")
    return folder


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Score]]:
    """`evaluate` with a cache of its own, and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIGC_LAB_WEIGHTS_DIR", str(tmp_path / "no weights"))

    def score(*given: Any, **options: Any) -> list[Score]:
        chosen: dict[str, Any] = {"cache": tmp_path / "cache", "device": "cpu", "features": "random"} | options
        return evaluate(*given, **chosen)

    return score


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command `evaluate` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIGC_LAB_WEIGHTS_DIR", str(tmp_path / "no weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["aigc-lab", "evaluate", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), told.out, told.err

    return run


# ---- what may be given


def test_the_same_pixels_score_the_same_whatever_they_come_as(scored: Any, tmp_path: Path) -> None:
    made, real = digits("train", 0, 150), digits("holdout", 0, 200)
    pixels = made.values.numpy()
    np.savez(tmp_path / "made.npz", samples=pixels, labels=np.zeros(150, int))
    np.save(tmp_path / "made.npy", pixels[:, 0])  # [N, H, W]
    given = {
        "samples": made,
        "tensor": made.values,
        "floats": made.values.float() / 255,
        "channels last": pixels.transpose(0, 2, 3, 1),
        "folder": written(made, tmp_path / "grey"),
        "npz": tmp_path / "made.npz",
        "npy": str(tmp_path / "made.npy"),
    }
    names = ["fd", "kid"]
    scores = {how: scored(each, real, metrics=names) for how, each in given.items()}
    assert all(found == scores["samples"] for found in scores.values())
    colour = scored(written(made, tmp_path / "rgb", "RGB"), real, metrics=names)
    assert [s.value for s in colour] == pytest.approx([s.value for s in scores["samples"]], rel=1e-6)
    assert "grey:rgb" in colour[0].signature and "grey:rgb" not in scores["samples"][0].signature


def test_the_distance_is_that_of_the_definition(scored: Any) -> None:
    made, real = digits("train", 0, 300), digits("holdout", 0, 300)
    (score,) = scored(made, real, metrics=["fd"])
    network = Random()
    moments = []
    for images in (made, real):
        with torch.no_grad():
            rows = network(images.values)[0].double().numpy()
        moments.append((rows.mean(0), np.cov(rows, rowvar=False)))
    (m, a), (n, b) = moments
    truth = ((m - n) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert score.value == pytest.approx(truth, rel=1e-4)
    assert (score.name, score.n, score.better) == ("fd_rand", 300, "lower")
    assert score.low < score.value < score.high and score.floor > 0
    assert scored(real, real, metrics=["fd"])[0].value == pytest.approx(0, abs=1e-9)


def test_mixed_sizes_are_named_in_the_signature(scored: Any, tmp_path: Path) -> None:
    mixed = written(digits("train", 0, 120), tmp_path / "mixed", side=32)
    (score,) = scored(mixed, digits("holdout", 0, 120), metrics=["fd"])
    assert "resize:16:crop-bicubic" in score.signature
    (larger,) = scored(mixed, digits("holdout", 0, 120), metrics=["fd"], size=24)
    assert "resize:24:crop-bicubic" in larger.signature


def converted(images: Images, folder: Path, kind: str) -> Path:
    """Grey images as files that must be converted: 16 bits that hold 12, or half of each transparent."""
    folder.mkdir(parents=True)
    for index, (grey,) in enumerate(images.values.numpy()):
        if kind == "deep":
            picture = Image.fromarray(grey.astype(np.uint16) * 16)
        else:
            alpha = np.full_like(grey, 255)
            alpha[:8] = 0
            picture = Image.fromarray(np.dstack([grey, alpha]), "LA")
        picture.save(folder / f"{index:05d}.png")
    return folder


@pytest.mark.parametrize(
    ("kind", "word", "mark"), [("deep", "16-bit", "deep:scale"), ("la", "transparent", "alpha:white")]
)
def test_conversions_are_said_and_part_of_the_signature(
    scored: Any, tmp_path: Path, kind: str, word: str, mark: str
) -> None:
    made, real = digits("train", 0, 100), Images(digits("holdout", 0, 100).values)
    plain, changed = written(made, tmp_path / "plain"), converted(made, tmp_path / kind, kind)
    said: list[str] = []
    for sets in ((changed, real), (plain, written(real, tmp_path / "real"))):
        (score,) = scored(*sets, metrics=["fd"], say=said.append)
        assert (f"|{mark}|" in score.signature) == (sets[0] == changed)
    (score,) = scored(real, changed, metrics=["fd"])
    assert f"|{mark}|" in score.signature  # of the reference too
    key = mark.replace(":", "=")
    assert [note for note in said if "converted" in note] == [f"{changed}: converted images: 100 {word} ({key})"]
    assert any("above 4095" in note for note in said) == (kind == "deep")
    judged: list[str] = []
    judge(changed, plain, features="random", say=judged.append, cache=tmp_path / "cache", device="cpu")
    assert f"{changed}: converted images: 100 {word} ({key})" in judged


def test_what_is_not_read_of_a_folder_is_said(scored: Any, tmp_path: Path) -> None:
    made, real = written(digits("train", 0, 110), tmp_path / "made"), digits("holdout", 0, 100)
    (made / "notes.txt").write_text("x")
    (made / "photo.heic").write_text("x")
    Image.fromarray(np.zeros((90, 90), np.uint8)).save(made / "grid.png")
    (made / "samples.json").write_text(json.dumps({"note": {}, "files": ["grid.png"], "images": 110}))
    (made / "00003.png").write_bytes(b"not a picture")
    said: list[str] = []
    (score,) = scored(made, real, metrics=["fd"], skip_broken=True, say=said.append)
    assert score.n == 109
    assert any(note.startswith(f"{made}: 1 broken images left out: 00003.png") for note in said)
    (unread,) = [note for note in said if "not read" in note]
    assert unread.startswith(f"{made}: 3 other files not read (1 ")
    assert all(f"1 {what}" in unread for what in (".txt", ".heic", "grid.png"))
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.heic").write_text("x")
    with pytest.raises(UsageError, match=r"none: holds no image but 1 other files \(1 .heic\)"):
        scored(tmp_path / "none", real)


def test_what_sample_wrote_is_scored_whatever_it_is_of(scored: Any, tmp_path: Path) -> None:
    """Its note says what are samples: the overview is none, and a file of the user's by the same name is one."""
    note = {"n": 200, "seed": 0, "aigc_lab": "0.1.0"}
    images, points = digits("train", 0, 200), Ring(Ring.Config(), Path()).load("train").take(slice(0, 200))
    for kind, samples, seen in (("images", images, "grid.png"), ("points", points, "scatter.png")):
        place = tmp_path / kind
        how = modality_of(samples)
        sample_files.write(place, how, [how.array(samples)], 200, note)
        assert (place / seen).is_file()
        metric = {"images": "fd", "points": "modes"}[kind]
        real = {"images": digits("holdout", 0, 100), "points": "ring"}[kind]
        options: dict[str, Any] = {"metrics": [metric]} | ({"features": None} if kind == "points" else {})
        assert scored(place, real, **options) == scored(samples, real, **options)
    (tmp_path / "images" / "samples.json").unlink()
    (score,) = scored(tmp_path / "images", digits("holdout", 0, 100), metrics=["fd"], size=16)
    assert score.n == 201


def test_a_dataset_by_its_name(scored: Any) -> None:
    made = digits("train", 0, 200)
    (named,) = scored(made, "digits", metrics=["fd"])
    (holdout,) = scored(made, "digits:holdout", metrics=["fd"])
    (reference,) = scored(made, "digits:reference", metrics=["fd"])
    assert named == holdout and "ref:holdout:" in holdout.signature
    assert "ref:reference:" in reference.signature and reference.value != holdout.value
    (few,) = scored(made, "digits", metrics=["fd"], samples=150)
    assert few.n == 150 and "n:150" in few.signature


def test_a_dataset_has_the_size_of_what_is_compared_with_it(scored: Any) -> None:
    small = MNIST5k(MNIST5k.Config(size=16), Path())
    made, said = small.load("train").take(slice(0, 300)), list[str]()
    (named,) = scored(made, "mnist_5k", metrics=["fd"], say=said.append)
    (meant,) = scored(made, (small, "holdout"), metrics=["fd"])
    assert named == meant
    assert "mnist_5k:holdout: read at 16×16 pixels, as what is compared with it" in said
    assert scored(made, "mnist_5k", metrics=["fd"], train="mnist_5k:train") == [named]
    with pytest.raises(UsageError, match="--size N"):  # it has no such size
        scored(torch.zeros(20, 1, 20, 20), "mnist_5k", metrics=["fd"])


def test_points_are_scored_too(scored: Any) -> None:
    ring = Ring(Ring.Config(), Path())
    points = ring.load("train").values[:2500]
    scores = {score.name: score for score in scored(points, "ring", features=None)}
    assert scores["modes"].value == 8 and scores["modes"].n == 2500
    collapsed = {score.name: score for score in scored(Points(points[:1].repeat(2500, 1)), "ring", features=None)}
    assert collapsed["modes"].value <= 1


@pytest.mark.usefixtures("without_mlflow")
def test_a_run_is_compared_with_its_own_dataset(typed: Any, tmp_path: Path) -> None:
    """Where no reference is named; the game of two numbers, whose position is scored and whose points can be drawn."""
    home = tmp_path / "home"
    changes = {"training.steps": 10, "training.evaluate_every": 10, "training.log_every": 10}
    row = train("dirac", changes=changes, home=home)
    code, told, said = typed("--generated", str(row["run"]), "--metrics", "equilibrium", "--home", str(home), "--json")
    assert code == 0, said
    (score,) = json.loads(told)
    assert score["name"] == "norm" and "ref:holdout:100" in score["signature"]
    assert score["value"] == pytest.approx(math.hypot(row["scalars"]["theta"], row["scalars"]["psi"]), rel=1e-12)
    model = load(str(row["run"]), home=home)
    assert drawing.scatter(model.system.generate(3).values, None).shape == (400, 400, 3)


@pytest.mark.usefixtures("without_mlflow")
def test_another_dataset_than_the_one_that_was_learned_is_said(typed: Any, tmp_path: Path) -> None:
    home = tmp_path / "home"
    changes = {"training.steps": 2, "training.evaluate_every": 2, "training.log_every": 2}
    run = str(train("dirac", changes=changes, home=home)["run"])
    drawn: dict[str, Any] = {"labels": None, "checkpoint": "last", "device": "cpu", "force": False}
    sample_files.sample(run, Settings.load(home), n=30, seed=0, place=tmp_path / "drawn", **drawn)
    other = ("--reference", "ring", "--metrics", "vendi", "--home", str(home))
    for given in (run, "drawn"):
        _, _, said = typed("--generated", given, *other)
        (line,) = [line for line in said.splitlines() if "was trained on dirac" in line]
        assert line.startswith(run) and "and is compared with ring: " in line
    own = ("--reference", "dirac", "--metrics", "vendi", "--home", str(home))
    for given in (run, "drawn"):
        assert "was trained on" not in typed("--generated", given, *own)[2]


def test_a_protocol_and_features_of_ones_own(scored: Any, tmp_path: Path) -> None:
    made, real = digits("train", 0, 400), digits("holdout", 0, 400)
    by_protocol = scored(made, real, protocol="folder", features=None)
    assert by_protocol == scored(made, real, metrics=["fd", "kid"], features="lite0")
    assert [score.name for score in by_protocol] == ["fd_lite0", "kid_lite0"]
    left_out: dict[str, str] = {}
    (kid,) = scored(made, real.take(slice(0, 60)), protocol="folder", features=None, leave=left_out.__setitem__)
    assert kid.name.startswith("kid") and list(left_out) == ["fd"]
    (tmp_path / "mine.py").write_text(MINE.replace("SEED", "1"))
    (own,) = scored(made, real, metrics=["fd"], features="./mine.py")
    assert own.name == "fd_mine" and own.signature.startswith("mine:")


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("return self.network(", "return self.network(images.double(), ", r"mine\.py:\d+: TypeError"),
        (
            "def __init__(self) -> None:",
            "def __init__(self) -> None:\n        1 / 0",
            r"mine\.py:\d+: ZeroDivisionError",
        ),
    ],
)
def test_what_a_users_features_raise_names_their_line(
    scored: Any, tmp_path: Path, good: str, bad: str, said: str
) -> None:
    assert good in MINE
    (tmp_path / "mine.py").write_text(MINE.replace("SEED", "1").replace(good, bad))
    with pytest.raises(UsageError, match=said + ".*'aigc-lab check' tests the file"):
        scored(digits("train", 0, 120), digits("holdout", 0, 120), metrics=["fd"], features="./mine.py")


# ---- the cache


def test_real_features_are_computed_once(scored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[int] = []
    extract = Extractor.extract

    def counted(self: Extractor, images: Images, *given: Any, **options: Any) -> Any:
        passed.append(len(images))
        return extract(self, images, *given, **options)

    monkeypatch.setattr(Extractor, "extract", counted)
    made, real = digits("train", 0, 130), digits("holdout", 0, 200)
    first = scored(made, real, metrics=["fd", "kid", "prdc"])
    assert sorted(passed) == [130, 200]  # one pass for all metrics, and none for the two halves of the reference
    passed.clear()
    assert scored(made, real, metrics=["fd", "kid", "prdc"]) == first
    assert passed == [130]
    values = real.values.clone()
    values[7, 0, 3, 3] ^= 1
    passed.clear()
    (other, *_) = scored(made, Images(values), metrics=["fd", "kid", "prdc"])
    assert 200 in passed and other.signature != first[0].signature
    said: list[str] = []
    for path in (tmp_path / "cache" / "features").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert scored(made, real, metrics=["fd", "kid", "prdc"], say=said.append) == first
    assert sum("damaged; they are computed again" in line for line in said) == 1


def test_a_sweep_computes_what_real_samples_score_once(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    true = neighbours.manifolds

    def counted(made: torch.Tensor, *given: Any, **options: Any) -> Any:
        calls.append(len(made))
        return true(made, *given, **options)

    monkeypatch.setattr(manifolds, "manifolds", counted)
    kind = plugins.find(Metric, "prdc")  # type: ignore[type-abstract]
    store = FeatureStore(judged.dataset, cache=judged.cache, weights=PUBLISHED, device="cpu")
    protocol = Protocol(name="mine", samples=200, metrics=["prdc"])
    evaluator = Evaluator(protocol, [kind(kind.Config())], judged.dataset, store)
    first, second, other = (digits("train", start, start + 200) for start in (0, 200, 400))
    scores = [evaluator.evaluate(samples, "holdout") for samples in (first, second, other, first)]
    assert len(calls) == 4 + 5  # a floor is a mean over five draws
    assert scores[0] == scores[3] and scores[0][0].value != scores[1][0].value
    assert len({score.floor for each in scores for score in each[:1]}) == 1
    reference = evaluator.evaluate(first, "reference")
    assert len(calls) == 9 + 6 and reference[0].signature != scores[0][0].signature
    fewer = evaluator.evaluate(first.take(slice(0, 150)), "holdout")
    assert len(calls) == 15 + 6 and fewer[0].n == 150  # another n has another floor


# ---- each measure moves as it should


def test_damage_is_seen_and_copies_are_told(judged: Judged) -> None:
    names = ["fd", "kid", "prdc", "vendi", "memorisation"]
    train, more, n = judged.dataset.load("train"), judged.dataset.load("reference"), 400
    assert train.labels is not None and more.labels is not None
    known = train.take(slice(0, 590))
    fresh = Images(torch.cat([train.values[590:], more.values]), torch.cat([train.labels[590:], more.labels]))
    assert fresh.labels is not None
    real = fresh.take(slice(0, n))
    without = fresh.take((fresh.labels >= 3).nonzero().flatten()[:n])
    one = fresh.take((fresh.labels == 7).nonzero().flatten())
    static = noise.draw(noise.Draw((n, 1, 16, 16)), "damage")
    sets = {
        "real": real,
        "without": without,
        "one": one.take(torch.arange(n) % len(one)),
        "noise": Images((real.unit() + 0.4 * static).clamp(0, 1)),
        "copies": known.take(slice(0, n)),
    }
    found: dict[str, dict[str, Score]] = {}
    for name, images in sets.items():
        scores = evaluate(
            images, "digits", metrics=names, features="classifier", train=known, cache=judged.cache, device="cpu"
        )
        found[name] = {score.name: score for score in scores}
        for score in scores:
            assert score.low <= score.value <= score.high and score.n == n and np.isfinite(score.floor), score

    def values(name: str) -> list[float]:
        return [found[which][name].value for which in ("real", "without", "one")]

    for name in ("fd_clf", "kid_clf"):
        assert values(name) == sorted(values(name)), name
        assert found["noise"][name].value > 3 * found["real"][name].value, name
    for name in ("recall_clf", "coverage_clf", "vendi_clf"):
        assert values(name) == sorted(values(name), reverse=True), name
    assert found["one"]["precision_clf"].value > 0.8 > 0.5 > found["noise"]["precision_clf"].value
    assert found["copies"]["auth_pct_clf"].value == 0 and found["real"]["auth_pct_clf"].value > 40
    assert found["copies"]["fd_gap_clf"].value < found["real"]["fd_gap_clf"].value
    assert found["copies"]["fd_clf"].value < found["without"]["fd_clf"].value
    # What is real is near what real samples score.
    floor = found["real"]["coverage_clf"].floor
    assert found["real"]["coverage_clf"].low <= floor <= found["real"]["coverage_clf"].high


# ---- the picture of the neighbours


def test_copies_are_drawn_beside_what_they_copy(scored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = digits("train", 0, 300)
    made = Images(torch.cat([digits("holdout", 0, 100).values, train.values[40:45]]))
    path = tmp_path / "new" / "neighbours.png"
    options = {"metrics": ["memorisation"], "train": train, "neighbours": path}
    scored(made, digits("reference", 0, 200), **options)
    pixels = np.asarray(Image.open(path))
    tile, gap = 48, 2  # 16 pixels, three times as large
    assert pixels.shape == (10 * (tile + gap) + gap, 6 * (tile + gap) + gap, 3)
    tiles = pixels[gap:, gap:, 0].reshape(10, tile + gap, 6, tile + gap)[:, :tile:3, :, :tile:3].transpose(0, 2, 1, 3)
    same = [bool((row[0] == row[1]).all()) for row in tiles]
    assert same == [True] * 5 + [False] * 5
    assert {row[0].tobytes() for row in tiles[:5]} == {values.numpy().tobytes() for values in train.values[40:45, 0]}
    monkeypatch.setattr(fd.FD, "keeps", 40)  # of the training samples, whatever a metric keeps, all are looked at
    path.unlink()
    scored(made, digits("reference", 0, 200), **(options | {"metrics": ["fd"]}))
    assert np.array_equal(np.asarray(Image.open(path)), pixels)
    (tmp_path / "file").touch()
    for change, said in (
        ({"train": train.take(slice(0, 5)), "metrics": ["fd"]}, "5 neighbours are drawn, and there are 5 training"),
        ({"neighbours": tmp_path / "file" / "a.png"}, r"a\.png: no picture can be written there"),
        ({"neighbours": tmp_path / "a.jpg"}, r"a\.jpg: .* ends in \.png"),
        ({"metrics": ["fd"], "train": None}, r"not known here: name them \(train\)"),
    ):
        with pytest.raises(UsageError, match=said):
            scored(made, digits("reference", 0, 200), **(options | change))


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metrics": ["fdd"]}, "unknown metric 'fdd'; did you mean fd"),
        ({"metrics": ["fd"], "protocol": "folder"}, "--metrics and --protocol say the same"),
        ({"metrics": ["cas"]}, "labels|labelled|classes"),
        ({"metrics": ["ms_ssim"]}, "metric ms_ssim: .*161"),
        ({"metrics": ["memorisation"]}, "metric memorisation: needs what the generator was trained on"),
        ({"metrics": ["reconstruction"], "train": digits("train", 0, 100)}, "metric reconstruction: needs .*encodes"),
        ({"metrics": ["fid"], "features": None}, "Inception"),
        ({"metrics": ["fd"], "samples": 500}, "500 samples are to be scored, and 120 are given"),
        ({"metrics": ["fd"], "size": 4}, "--size 4: images are brought to 8 to 1024 pixels"),
        ({"metrics": ["fd"], "features": "randon"}, "did you mean random"),
        ({"metrics": ["fd_debiased"]}, "metric fd_debiased: .*256 samples on: 120"),
    ],
)
def test_what_cannot_be_scored_is_explained(scored: Any, offline: None, options: dict[str, Any], said: str) -> None:
    made = digits("train", 0, 120)
    with pytest.raises(UsageError, match=said):
        scored(Images(made.values), Images(digits("holdout", 0, 150).values), **options)


def test_too_few_samples_are_counted(scored: Any) -> None:
    real = Images(digits("holdout", 0, 150).values)
    with pytest.raises(UsageError, match=r"metric prdc: .*at least 100 samples, not 60"):
        scored(digits("train", 0, 60).values, real, metrics=["prdc"])
    said: list[str] = []
    scores = scored(digits("train", 0, 60).values, real, say=said.append)  # what nobody asked for is left out
    assert {score.name for score in scores} == {"kid_rand", "vendi_rand"}
    assert any(line.startswith("prdc is left out: ") for line in said)
    with pytest.raises(UsageError, match="nothing can be scored: fd is left out"):
        scored(digits("train", 0, 9).values, real)


PANEL = ("fd", "kid", "prdc", "vendi", "memorisation", "fd_debiased", "improved_precision_recall")


@pytest.mark.parametrize("count", [2, 3, 9, 10, 49, 50, 59, 60, 99, 100, 200, 255, 256])
def test_a_reference_is_as_large_as_a_metric_needs(scored: Any, count: int) -> None:
    """Each metric gives finite numbers, or is refused with the set's name, its n and the n that is needed."""
    needs = {"kid": 10, "vendi": 50, "fd_debiased": 256, "improved_precision_recall": 60}
    made, real = Images(digits("train", 0, 300).values), Images(digits("train", 300, 300 + count).values)
    options: dict[str, Any] = {"train": Images(digits("train", 600, 900).values)}
    for name in PANEL:
        least = needs.get(name, 100)
        if count >= least:
            for score in scored(made, real, metrics=[name], **options):
                assert all(map(math.isfinite, (score.value, score.low, score.high, score.floor)))
        else:
            with pytest.raises(UsageError, match=rf"metric {name}: reference set: .*\b{least}\b.*\b{count}\b"):
                scored(made, real, metrics=["kid", name] if count >= 10 else [name], **options)
    left_out: dict[str, str] = {}
    if count < 10:
        with pytest.raises(UsageError, match="nothing can be scored: fd is left out: reference set"):
            scored(made, real, **options)
        return
    scores = scored(made, real, leave=left_out.__setitem__, **options)
    assert left_out.keys() == {each for each in PANEL[:-1] if count < needs.get(each, 100)}
    assert "kid_rand" in {score.name for score in scores}


def test_training_samples_are_counted_too(scored: Any) -> None:
    made, real = digits("train", 0, 150), Images(digits("holdout", 0, 150).values)
    with pytest.raises(UsageError, match=r"metric memorisation: train set: .* 100 samples, not 2"):
        scored(made, real, metrics=["memorisation"], train=Images(digits("train", 200, 202).values))


def test_features_that_turn_out_to_be_wide_cost_no_other_score(scored: Any, tmp_path: Path) -> None:
    """A file of features need not say how many dimensions they have: `fd_debiased` learns late that n is too small."""
    (tmp_path / "mine.py").write_text(MINE.replace("SEED", "1").replace("Conv2d(3, 8,", "Conv2d(3, 40,"))
    made, real = digits("train", 0, 110), Images(digits("holdout", 0, 110).values)
    left_out: dict[str, str] = {}
    scores = scored(made, real, features="./mine.py", leave=left_out.__setitem__)
    assert "only from 160 samples on" in left_out["fd_debiased"]
    assert {"fd_mine", "kid_mine"} <= {score.name for score in scores}


def test_what_is_left_out_is_in_the_json_with_its_reason(typed: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "made.npy", digits("train", 0, 300).values.numpy())
    np.save(tmp_path / "real.npy", digits("holdout", 0, 200).values.numpy())
    code, out, err = typed("--generated", "made.npy", "--reference", "real.npy", "--features", "random", "--json")
    rows = json.loads(out)
    scores, left_out = ([row for row in rows if ("left_out" in row) == there] for there in (False, True))
    assert code == 0 and {"fd_rand", "kid_rand", "vendi_rand"} <= {row["name"] for row in scores}
    assert [row["name"] for row in left_out] == ["fd_debiased", "memorisation"]
    assert "256 samples on: 200" in left_out[0]["left_out"] and left_out[0]["value"] is None
    assert err.count("fd_debiased is left out: reference set: ") == 1
    code, out, _ = typed("--generated", "made.npy", "--reference", "real.npy", "--features", "random")
    assert code == 0 and "fd_rand" in out and "fd_debiased" not in out


# ---- the command


def test_the_command_prints_scores_and_leaves_no_home(typed: Any, tmp_path: Path) -> None:
    written(digits("train", 0, 150), tmp_path / "made")
    written(digits("holdout", 0, 200), tmp_path / "real")
    words = ["--generated", "made", "--reference", "real", "--features", "random", "--metrics", "fd, kid"]
    code, out, _ = typed(*words, "--json")
    rows = json.loads(out)
    assert code == 0 and [list(row) for row in rows] == [[*SCORE_KEYS]] * 2
    assert [row["name"] for row in rows] == ["fd_rand", "kid_rand"]
    code, out, _ = typed(*words)
    assert code == 0 and out.index("kid_rand ↓") < out.index("fd_rand ↓")  # 150 samples are too few for 64 dimensions
    assert "fd_rand: 150 samples are fewer than four for each of 64 dimensions" in out.replace("\n", " ")
    assert rows[0]["signature"] in out.replace("\n", "")
    assert not (tmp_path / ".aigc-lab").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--generated", "nothing", "--reference", "made"], "nothing: no such file, folder or dataset"),
        (["--generated", "made"], "--reference: what shall made be compared with?"),
        (["--generated", "empty", "--reference", "made"], "empty: holds no image"),
        (["--generated", "made", "--reference", "digits:tests"], "digits:tests: unknown split 'tests'"),
        (["--generated", "made", "--reference", "one", "--metrics", "fd"], "one sample is no reference"),
        (["--generated", "broken", "--reference", "made"], "broken: 1 of 20 images cannot be read: 00003.png"),
        (["--generated", "nan.npy", "--reference", "made"], "nan.npy: "),
        (["--generated", "wide.npy", "--reference", "made"], "may mean several things"),
        (["--generated", "made", "--reference", "made", "--weights", "absent.pth"], "absent.pth"),
        (["--generated", "made", "--reference", "made", "--device", "gpu"], "gpu"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    typed: Any, tmp_path: Path, offline: None, words: list[str], said: str
) -> None:
    some = digits("train", 0, 20)
    for name, count in (("made", 20), ("one", 1), ("broken", 20)):
        written(some.take(slice(0, count)), tmp_path / name)
    (tmp_path / "empty").mkdir()
    cut = tmp_path / "broken" / "00003.png"
    cut.write_bytes(cut.read_bytes()[:60])
    floats = some.values.float() / 255
    np.save(tmp_path / "wide.npy", floats * 2 - 0.7)
    floats[3, 0, 2, 2] = float("nan")
    np.save(tmp_path / "nan.npy", floats)
    code, out, errors = typed(*words)
    assert code == 2 and out == ""
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: ") and said in last
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_broken_image_may_be_left_out(typed: Any, tmp_path: Path) -> None:
    written(digits("train", 0, 101), tmp_path / "made")
    (tmp_path / "made" / "00003.png").write_bytes(b"not a picture")
    words = ["--generated", "made", "--reference", "digits", "--features", "random", "--metrics", "fd", "--skip-broken"]
    code, out, _ = typed(*words, "--json")
    assert code == 0 and json.loads(out)[0]["n"] == 100


def test_a_picture_that_cannot_be_written_costs_no_score(
    scored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(neighbours_picture, "write_atomically", full)
    said: list[str] = []
    train, real = digits("train", 0, 300), digits("reference", 0, 200)
    options = {"metrics": ["fd"], "train": train, "neighbours": tmp_path / "a.png", "say": said.append}
    assert scored(digits("holdout", 0, 100), real, **options)[0].name == "fd_rand"
    assert "No space left on device" in said[-1]


def test_two_metrics_of_one_name_have_floors_of_their_own(scored: Any, tmp_path: Path) -> None:
    for name, floor in (("a", 1.0), ("b", 2.0)):
        (tmp_path / f"{name}.py").write_text(OWN_METRIC.replace("FLOOR", str(floor)).replace("NAME", name))
    found = scored(digits("train", 0, 120), digits("holdout", 0, 200), metrics=["./a.py", "./b.py"], features=None)
    assert [(score.name, score.floor) for score in found] == [("a", 1.0), ("b", 2.0)]


def test_the_table_leads_with_what_can_be_trusted() -> None:
    about = {"low": 0.0, "high": 2.0, "floor": 0.1, "better": "lower"}
    fid = {"name": "fid", "value": 1.0, "n": 8191, "signature": "inception|d:2048|se:x"} | about
    kid = {"name": "kid", "value": 1.0, "n": 8191, "signature": "inception|pairs:all"} | about

    def text(*rows: dict[str, Any]) -> str:
        console = terminal.console()
        with console.capture() as capture:
            console.print(tables.scores_table(rows), soft_wrap=True)
        return capture.get()

    few, many = text(fid, kid), text(fid | {"n": 8192}, kid | {"n": 8192})
    assert few.index("kid ↓") < few.index("fid ↓") and "fid: 8,191 samples are fewer than four" in few
    assert many.index("fid ↓") < many.index("kid ↓") and "fewer than four" not in many
    small = fid | {"n": 50_000, "signature": "inception|d:2048|se:x|data:given:1|ref:set:500|n:50000"}
    assert "fid: 500 samples are fewer than four" in text(small) and "--metrics kid has none" in text(small)
