"""What every file in `data/` must do, found by name; and what is known of the samples that it should hold."""

import hashlib
import math
import pickle
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from aigc_lab import plugins
from aigc_lab.contracts.base import Contract
from aigc_lab.contracts.datasets import DATASET, Case
from aigc_lab.data import celeba, stl10
from aigc_lab.data.base import SPLITS, Dataset, Split
from aigc_lab.data.grid import Grid
from aigc_lab.data.mnist import MNIST
from aigc_lab.data.ring import Ring
from aigc_lab.data.shared.published_files import CIFARLike
from aigc_lab.errors import UsageError
from aigc_lab.samples import Points, Samples, Text

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


# What a dataset is configured with here, where its defaults are too much for a test or nothing can be their value.
CONFIG: dict[str, dict[str, Any]] = {
    "stacked_mnist": {"stacks": 14_000, "scored": 14_000},
    "folder": {"path": "pictures"},
    "lines": {"path": "lines.tsv"},
    "oracle": {"words": 50, "length": 8, "train": 300, "scored": 150},
}
STL10_COUNTS = {"train": 300, "reference": 200, "holdout": 100}
CELEBA_COUNTS = {"0": 150, "1": 110, "2": 120}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a user would have downloaded: files laid out as the published ones, of random pixels and labels."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        raw = folder / name / "raw"
        raw.mkdir(parents=True)
        for file, shape in MNIST_FILES.items():
            values = random.integers(0, 10 if "labels" in file else 256, shape, np.uint8)
            (raw / file).write_bytes(idx(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind, count in ((torchvision.datasets.CIFAR10, 10), (torchvision.datasets.CIFAR100, 100)):
            _write_cifar(kind, folder, count, patch)
        _write_stl10(folder, patch)
        words = np.array(["a", "the", "dog", "cat", "sees", "red", "house", "on", "big", "."])
        (folder / "lines.tsv").write_text(
            "\n".join(f"{row % 3}\t{' '.join(random.choice(words, 8))}" for row in range(2000))
        )
        _write_celeba(folder, patch)
        for number in range(800):
            path = folder / "pictures" / "abc"[number % 3] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
        yield folder


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def _write_cifar(kind: Any, folder: Path, classes: int, patch: pytest.MonkeyPatch) -> None:
    """The published pickles' layout, and torchvision's table of their sums made to fit."""
    random, place = np.random.default_rng(classes), folder / kind.base_folder
    place.mkdir()

    def write(file: str, count: int, key: str) -> list[str]:
        labels = random.integers(0, classes, count).tolist()
        values = random.integers(0, 256, (count, 3072), np.uint8)
        (place / file).write_bytes(pickle.dumps({"data": values, key: labels}))
        return [file, _md5(place / file)]

    # A quarter of the published number: what is held back of the train part leaves 2,500.
    patch.setattr(CIFARLike, "published", 12_500)
    key, each = ("labels", 2_500) if classes == 10 else ("fine_labels", 12_500)
    patch.setattr(kind, "train_list", [write(file, each, key) for file, _ in kind.train_list])
    patch.setattr(kind, "test_list", [write(file, 2_500, key) for file, _ in kind.test_list])
    meta = place / kind.meta["filename"]
    meta.write_bytes(pickle.dumps({kind.meta["key"]: [str(number) for number in range(classes)]}))
    patch.setattr(kind, "meta", kind.meta | {"md5": _md5(meta)})


def _write_stl10(folder: Path, patch: pytest.MonkeyPatch) -> None:
    random, place, kind = np.random.default_rng(1), folder / "stl10_binary", torchvision.datasets.STL10
    place.mkdir()
    patch.setattr(stl10, "FILES", {split: (stl10.FILES[split][0], STL10_COUNTS[split]) for split in SPLITS})
    for file, count in stl10.FILES.values():
        dots = random.choice(np.array([0, 255], np.uint8), (count, 3, 6, 6)).repeat(16, 2).repeat(16, 3)
        dots.tofile(place / file)
    for file in ("train_y.bin", "test_y.bin"):
        (place / file).write_bytes(b"\1")
    for table in ("train_list", "test_list"):
        patch.setattr(kind, table, [[file, _md5(place / file)] for file, _ in getattr(kind, table)])


def _write_celeba(folder: Path, patch: pytest.MonkeyPatch) -> None:
    random, place, rows = np.random.default_rng(2), folder / "celeba", list[str]()
    (place / "img_align_celeba").mkdir(parents=True)
    for part, count in CELEBA_COUNTS.items():
        for _ in range(count):
            rows.append(f"{len(rows) + 1:06d}.jpg {part}")
            face = random.choice(np.array([0, 255], np.uint8), (14, 12)).repeat(16, 0).repeat(16, 1)[:218, :178]
            Image.fromarray(face).convert("RGB").save(place / "img_align_celeba" / rows[-1].split()[0])
    (place / "list_eval_partition.txt").write_text("\n".join(rows))
    patch.setattr(celeba, "PARTITION_MD5", _md5(place / "list_eval_partition.txt"))
    patch.setattr(celeba, "IMAGES", len(rows))


@pytest.fixture(scope="session")
def case(data_dir: Path) -> Any:
    """Name -> the dataset as configured here, built once: nothing here may change it."""
    return cache(lambda name: _case(name, data_dir))


@pytest.fixture(scope="session")
def built(case: Any) -> Any:
    """Name -> the dataset itself."""
    return lambda name: case(name).dataset


def _case(name: str, data_dir: Path, **config: Any) -> Case:
    return Case(plugins.find(Dataset, name), data_dir, CONFIG.get(name, {}) | config)  # type: ignore[type-abstract]


def another(name: str, data_dir: Path, **config: Any) -> Dataset:
    return _case(name, data_dir, **config).dataset


@pytest.mark.parametrize("contract", DATASET, ids=lambda contract: contract.name.replace(" ", "_"))
@every_dataset
def test_a_dataset_keeps_its_contracts(name: str, contract: Contract[Case], case: Any) -> None:
    contract.check(case(name))


@every_dataset
@every_split
@pytest.mark.parametrize("what", ["value", "label", "order"])
def test_the_digest_knows_every_sample(name: str, split: Split, what: str, built: Any) -> None:
    true: Dataset = built(name)
    if (what == "label" and true.shape.classes is None) or (what == "order" and not true.distinct):
        return

    class Touched(type(true)):  # type: ignore[misc]
        def load(self, wanted: Split) -> Samples:
            samples = true.load(wanted)
            if wanted != split:
                return samples
            values, labels = samples.values.clone(), None if samples.labels is None else samples.labels.clone()
            if what == "value":
                values[-1].view(-1)[0] += -1 if isinstance(samples, Text) else 1  # which is a word still
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


def paired(images: Any, labels: Any) -> list[tuple[bytes, int]]:
    """Each image with its label, whatever their order."""
    pairs = zip(images, np.asarray(labels).tolist(), strict=True)
    return sorted((np.ascontiguousarray(image).tobytes(), label) for image, label in pairs)


def test_mnist_is_the_files_padded_to_32(built: Any, data_dir: Path) -> None:
    raw = data_dir / "MNIST" / "raw"
    images = np.frombuffer((raw / "t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer((raw / "t10k-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    test = built("mnist").load("reference")
    # In an order by key: the files are sorted by writers.
    assert paired(test.values[:, 0, 2:-2, 2:-2].numpy(), test.labels) == paired(images, labels)
    assert not np.array_equal(test.labels, labels)
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


def test_the_grid_is_the_mixture_that_it_declares() -> None:
    grid = Grid(Grid.Config(), Path())
    truth = {(x, y) for x in (-4.0, -2.0, 0.0, 2.0, 4.0) for y in (-4.0, -2.0, 0.0, 2.0, 4.0)}
    assert {tuple(centre) for centre in grid.modes.centres.tolist()} == truth and grid.modes.sigma == 0.05
    points = grid.load("holdout")
    assert points.labels is not None
    error = (points.values - grid.modes.centres[points.labels]).double() / 0.05
    assert error.mean(0).abs().max() < 4.5 / 100 and (error.square().mean() - 1).abs() < 4.5 * math.sqrt(1 / 10_000)
    assert torch.bincount(points.labels, minlength=25).min() > 300  # 400 expected


def test_a_stack_is_three_digits_of_its_own_split(built: Any, data_dir: Path) -> None:
    stacks, digits = built("stacked_mnist").load("reference"), built("mnist").load("reference")
    label_of = {
        image.tobytes(): label for image, label in zip(digits.values.numpy(), digits.labels.tolist(), strict=True)
    }
    for stack, label in zip(stacks.values[:300].numpy(), stacks.labels[:300].tolist(), strict=True):
        assert [label_of[channel.tobytes()] for channel in stack] == [int(digit) for digit in f"{label:03d}"]
    shares = torch.bincount(stacks.labels // 100, minlength=10) / len(stacks)
    truth = torch.bincount(digits.labels, minlength=10) / len(digits)
    assert (shares - truth).abs().max() < 4.5 * math.sqrt(0.1 * 0.9 / len(stacks))
    channels = {split: built("stacked_mnist").load(split).values.flatten(0, 1)[:3000] for split in SPLITS}
    rows = {split: {row.tobytes() for row in channels[split].numpy()} for split in SPLITS}
    assert rows["train"].isdisjoint(rows["holdout"]), "not one digit is shared"


def test_binarised_digits_are_white_as_often_as_they_are_grey(built: Any, data_dir: Path) -> None:
    grey = built("mnist")._read(train=False).values[:, :, 2:-2, 2:-2]
    drawn = built("binarised_mnist")._read(train=False).values
    assert set(drawn.unique().tolist()) == {0, 255} and drawn[:, :, :2].max() == 0
    drawn = drawn[:, :, 2:-2, 2:-2]
    assert drawn[grey == 0].max() == 0 and drawn[grey == 255].min() == 255
    for level in (13, 100, 200):
        white = drawn[grey == level] == 255
        assert (white.double().mean() - level / 255).abs() < 4.5 * math.sqrt(0.25 / len(white))
    whole: Any = another("binarised_mnist", data_dir, how="threshold")
    cut = whole._read(train=False).values[:, :, 2:-2, 2:-2]
    assert torch.equal(cut == 255, grey >= 128)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_its_files(name: str, built: Any, data_dir: Path) -> None:
    file = {"cifar10": "cifar-10-batches-py/test_batch", "cifar100": "cifar-100-python/test"}[name]
    stored = pickle.loads((data_dir / file).read_bytes())
    test = built(name).load("reference")
    labels = stored["labels" if name == "cifar10" else "fine_labels"]
    assert paired(test.values.flatten(1).numpy(), test.labels) == paired(stored["data"], labels)
    assert [len(built(name).load(split)) for split in SPLITS] == [2_500, 2_500, 10_000]


@pytest.mark.usefixtures("offline")
def test_a_pickle_that_is_not_the_published_one_is_not_opened(data_dir: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    place = tmp_path / "cifar-10-batches-py"
    place.mkdir()
    for file in (data_dir / place.name).iterdir():
        (place / file.name).symlink_to(file)
    (place / "data_batch_3").unlink()
    (place / "data_batch_3").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UsageError, match="AIGC_LAB_DATA_DIR") as caught:
        another("cifar10", tmp_path).load("train")
    assert str(place) in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_stl10_turns_and_shrinks_its_files(built: Any, data_dir: Path) -> None:
    stored = np.fromfile(data_dir / "stl10_binary" / "test_X.bin", np.uint8).reshape(-1, 3, 96, 96)
    values = built("stl10").load("reference").values
    assert values.shape == (200, 3, 64, 64)
    # The dots of 16 pixels have flat middles, whatever shrinks them: 16 · 64/96 apart, rows where columns were.
    middles = torch.tensor([round((8 + 16 * dot) * 64 / 96) for dot in range(6)])
    seen = values[:, :, middles][:, :, :, middles].numpy()
    truth = np.ascontiguousarray(stored[:, :, 8::16, 8::16].swapaxes(2, 3))
    assert sorted(each.tobytes() for each in seen) == sorted(each.tobytes() for each in truth)
    assert not np.array_equal(seen, truth)


def test_celeba_is_the_published_partition_and_its_middle(built: Any, data_dir: Path) -> None:
    data = built("celeba")
    assert [len(data.load(split)) for split in SPLITS] == list(CELEBA_COUNTS.values())
    face = Image.open(data_dir / "celeba" / "img_align_celeba" / "000151.jpg")
    square = np.asarray(face.crop((15, 35, 163, 183)), np.float64).transpose(2, 0, 1)
    means = data.load("reference").values.double().mean((1, 2, 3))
    assert (means - square.mean()).abs().min() < 1


@pytest.mark.usefixtures("offline", "data_dir")
@every_split
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("fashion_mnist", "FashionMNIST/raw"),
        ("kmnist", "KMNIST/raw"),
        ("stacked_mnist", "MNIST/raw"),
        ("binarised_mnist", "MNIST/raw"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
        ("stl10", "stl10_binary"),
        ("celeba", "celeba"),
    ],
)
def test_absent_files_are_said_to_belong_somewhere(name: str, folder: str, split: Split, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="AIGC_LAB_DATA_DIR") as caught:
        another(name, tmp_path).load(split)
    message = str(caught.value)
    assert message.startswith(f"{name}: ") and str(tmp_path / folder) in message and "\n" not in message


def test_a_decoded_copy_is_used_again_and_made_again_when_it_is_damaged(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = another("celeba", data_dir).digest

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(celeba, "decode", refuse)
        assert another("celeba", data_dir).digest == truth
    for array in (data_dir / "decoded").glob("*.npy"):
        array.write_bytes(array.read_bytes()[:1000])
    assert another("celeba", data_dir).digest == truth


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
