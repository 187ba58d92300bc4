"""What every file in `data/` must do, found by name; and what is known of the samples that it should hold."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aigc_lab import plugins
from aigc_lab.contracts.base import Contract
from aigc_lab.contracts.datasets import DATASET, Case
from aigc_lab.data.base import SPLITS, Dataset, Split
from aigc_lab.data.mnist import MNIST
from aigc_lab.data.ring import Ring
from aigc_lab.errors import UsageError
from aigc_lab.samples import Points, Samples

every_dataset = pytest.mark.parametrize("name", plugins.names("data"))
every_split = pytest.mark.parametrize("split", SPLITS)

MNIST_FILES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}


def idx(values: "np.typing.NDArray[np.uint8]") -> bytes:
    """The IDX format: zero, zero, 8 for bytes, the number of dimensions, the sizes as big-endian int32, the bytes."""
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user would have downloaded: files laid out as the published MNIST, of random pixels and labels."""
    folder = tmp_path_factory.mktemp("data")
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for file, shape in MNIST_FILES.items():
        values = random.integers(0, 10 if "labels" in file else 256, shape, np.uint8)
        (raw / file).write_bytes(idx(values))
    return folder


@pytest.fixture(scope="session")
def case(data_dir: Path) -> Any:
    """Name -> the dataset with its defaults, built once: nothing here may change it."""
    return cache(lambda name: Case(plugins.find(Dataset, name), data_dir))  # type: ignore[type-abstract]


@pytest.fixture(scope="session")
def built(case: Any) -> Any:
    """Name -> the dataset itself."""
    return lambda name: case(name).dataset


@pytest.mark.parametrize("contract", DATASET, ids=lambda contract: contract.name.replace(" ", "_"))
@every_dataset
def test_a_dataset_keeps_its_contracts(name: str, contract: Contract[Case], case: Any) -> None:
    contract.check(case(name))


@every_dataset
@every_split
@pytest.mark.parametrize("what", ["value", "label", "order"])
def test_the_digest_knows_every_sample(name: str, split: Split, what: str, built: Any) -> None:
    true: Dataset = built(name)

    class Touched(type(true)):  # type: ignore[misc]
        def load(self, wanted: Split) -> Samples:
            samples = true.load(wanted)
            if wanted != split:
                return samples
            values, labels = samples.values.clone(), None if samples.labels is None else samples.labels.clone()
            if what == "value":
                values[-1].view(-1)[0] += 1
            elif what == "order":
                values[:2] = values[:2].flip(0)
            elif labels is not None:
                labels[-1] = (labels[-1] + 1) % (true.shape.classes or 1)
            return replace(samples, values=values, labels=labels)

    assert Touched(true.config, true.data_dir).digest != true.digest


def test_the_ring_is_the_mixture_that_it_declares() -> None:
    ring = Ring(Ring.Config(modes=5, radius=2.0, sigma=0.1, points=20_000), Path())
    centres = ring.modes.centres.double()
    assert ring.modes.sigma == 0.1
    angles = [2 * math.pi * mode / 5 for mode in range(5)]
    truth = torch.tensor([[2 * math.cos(a), 2 * math.sin(a)] for a in angles], dtype=torch.float64)
    torch.testing.assert_close(centres, truth, rtol=0, atol=1e-6)
    for split, count in (("train", 20_000), ("reference", 10_000), ("holdout", 10_000)):
        points = ring.load(split)
        assert isinstance(points, Points) and points.labels is not None and len(points) == count
        error = (points.values.double() - centres[points.labels]) / 0.1
        # Mean 0, variance 1, no correlation: each within four and a half standard errors.
        assert error.mean(0).abs().max() < 4.5 / math.sqrt(count)
        assert (error.square().mean(0) - 1).abs().max() < 4.5 * math.sqrt(2 / count)
        assert error.prod(1).mean().abs() < 4.5 / math.sqrt(count)
        shares = torch.bincount(points.labels, minlength=5) / count
        assert (shares - 0.2).abs().max() < 4.5 * math.sqrt(0.2 * 0.8 / count)


def test_the_digits_are_those_of_scikit_learn(built: Any) -> None:
    from sklearn.datasets import load_digits

    truth = load_digits()
    splits = [built("digits").load(split) for split in SPLITS]
    assert [len(samples) for samples in splits] == [997, 400, 400]
    labels = torch.cat([samples.labels for samples in splits])
    assert torch.equal(torch.bincount(labels), torch.bincount(torch.from_numpy(truth.target)))
    # Averaged over 2×2, the enlarged picture is a blur of the original: each finds its own among all.
    large = torch.nn.functional.avg_pool2d(torch.cat([samples.unit() for samples in splits]), 2)
    grey = torch.from_numpy(truth.images).float() / 16
    found = torch.cdist(large[:50].flatten(1), grey.flatten(1)).argmin(1)
    assert torch.equal(torch.from_numpy(truth.target)[found], labels[:50])
    assert large.mean().item() == pytest.approx(grey.mean().item(), abs=0.01)


def test_mnist_is_the_files_padded_to_32(built: Any, data_dir: Path) -> None:
    raw = data_dir / "MNIST" / "raw"
    images = np.frombuffer((raw / "t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer((raw / "t10k-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    test = built("mnist").load("reference")
    np.testing.assert_array_equal(test.values[:, 0, 2:-2, 2:-2], images)
    np.testing.assert_array_equal(test.labels, labels)
    assert test.values.sum().item() == images.sum(dtype=np.int64), "the border is black"
    sizes = {split: len(built("mnist").load(split)) for split in SPLITS}
    assert sizes == {"train": 50_000, "reference": 10_000, "holdout": 10_000}
    # Train and holdout are the training files, each image once and with its own label.
    flat = np.frombuffer((raw / "train-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 784)
    labels = np.frombuffer((raw / "train-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    truth = {image.tobytes(): label for image, label in zip(flat, labels, strict=True)}
    for split in ("train", "holdout"):
        samples = built("mnist").load(split)
        for image, label in zip(samples.values[:, 0, 2:-2, 2:-2].numpy(), samples.labels.tolist(), strict=True):
            assert truth.pop(image.tobytes()) == label
    assert not truth


def refused(folder: Path, split: Split) -> str:
    with pytest.raises(UsageError) as caught:
        MNIST(MNIST.Config(), folder).load(split)
    message = str(caught.value)
    assert str(folder / "MNIST" / "raw") in message and "AIGC_LAB_DATA_DIR" in message
    assert "\n" not in message
    return message


@every_split
@pytest.mark.usefixtures("offline")
def test_mnist_says_where_its_files_go(split: Split, tmp_path: Path) -> None:
    refused(tmp_path, split)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("file", MNIST_FILES)
@pytest.mark.parametrize("damage", ["absent", "truncated", "empty", "header", "other", "short"])
def test_a_damaged_mnist_file_is_refused(file: str, damage: str, data_dir: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for whole in MNIST_FILES:
        (raw / whole).symlink_to(data_dir / "MNIST" / "raw" / whole)
    content = (raw / file).read_bytes()
    (raw / file).unlink()
    if damage != "absent":
        broken = {
            "truncated": content[: len(content) // 2],
            "empty": b"",
            "header": content[:3],
            "short": idx(np.zeros((5, 28, 28) if "images" in file else (5,), np.uint8)),
            "other": b"<html><body>404 not found</body></html>" * 10,
        }
        (raw / file).write_bytes(broken[damage])
    refused(tmp_path, "train" if file.startswith("train") else "reference")
