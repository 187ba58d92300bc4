"""Folders, files, arrays and datasets become samples, and what would have to be guessed is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aigc_lab.errors import UsageError
from aigc_lab.metrics.base import Pool
from aigc_lab.samples import Images, Points
from aigc_lab.scoring.inputs import Pair, read_input


def source(what: Any, **options: Any) -> Any:
    return read_input(what, data_dir=Path("nowhere"), **options)


def pixels(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(folder: Path, name: str, array: np.ndarray[Any, Any]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def test_images_of_one_size_keep_their_pixels(tmp_path: Path) -> None:
    arrays = pixels(5, 10, 14, 3)
    for number, array in enumerate(arrays):
        write(tmp_path, f"{number}.png", array)
    given = source(tmp_path)
    assert given.sides == (10, 14) and given.channels == 3
    loaded = given.load(3, None)
    assert torch.equal(loaded.values, torch.from_numpy(arrays).permute(0, 3, 1, 2))
    pair = Pair(source(tmp_path), source(arrays))
    assert pair.rule == "" and torch.equal(pair.generated.values, pair.reference.values)


def test_mixed_sizes_are_brought_to_one_and_the_rule_is_named(tmp_path: Path) -> None:
    for number, side in enumerate((16, 16, 16, 40, 25)):
        write(tmp_path, f"{number}.png", pixels(side, side + 3, seed=number))
    pair = Pair(source(tmp_path), source(tmp_path))
    assert pair.rule == "resize:16:crop-bicubic" and pair.generated.values.shape == (5, 1, 16, 16)
    # The other set has one size: that is taken.
    pair = Pair(source(tmp_path), source(pixels(4, 24, 24, 1)))
    assert pair.rule == "resize:24:crop-bicubic" and pair.generated.values.shape == (5, 1, 24, 24)
    assert torch.equal(pair.reference.values, source(pixels(4, 24, 24, 1)).load(1, None).values)


def test_an_array_and_the_same_files_are_resized_alike(tmp_path: Path) -> None:
    arrays = pixels(3, 20, 26, 3)
    for number, array in enumerate(arrays):
        write(tmp_path, f"{number}.png", array)
    pair = Pair(source(tmp_path), source(arrays), 12)
    assert torch.equal(pair.generated.values, pair.reference.values)


def test_grey_meets_colour(tmp_path: Path) -> None:
    write(tmp_path, "a.png", pixels(9, 9))
    write(tmp_path, "b.png", pixels(9, 9, seed=1))
    pair = Pair(source(tmp_path), source(pixels(4, 9, 9, 3)))
    assert pair.rule == "grey:rgb" and pair.generated.values.shape == (2, 3, 9, 9)
    assert torch.equal(pair.generated.values[:, 0], pair.generated.values[:, 2])


def test_two_sizes_are_not_compared_in_silence() -> None:
    with pytest.raises(UsageError, match=r"\[1, 8, 8\].*\[1, 9, 9\].*--size"):
        Pair(source(pixels(3, 8, 8, 1)), source(pixels(3, 9, 9, 1)))
    assert Pair(source(pixels(3, 8, 8, 1)), source(pixels(3, 9, 9, 1)), 8).generated.values.shape == (3, 1, 8, 8)
    with pytest.raises(UsageError, match="points"):
        Pair(source(np.zeros((4, 2))), source(pixels(3, 9, 9, 1)))


@pytest.mark.parametrize("broken", [b"no image", b""])
def test_a_broken_image_is_named_or_left_out(tmp_path: Path, broken: bytes) -> None:
    for number in range(3):
        write(tmp_path, f"{number}.png", pixels(9, 9, seed=number))
    (tmp_path / "bad.png").write_bytes(broken)
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"2 of 5 images.*bad.png.*cut.png.*--skip-broken"):
        source(tmp_path).load(1, None)
    assert len(source(tmp_path, skip_broken=True).load(1, None)) == 3


def test_class_folders_are_labels(tmp_path: Path) -> None:
    for name in ("7/a.png", "10/a.png", "7/b.png"):
        write(tmp_path, name, pixels(8, 8))
    assert source(tmp_path).load(1, None).labels.tolist() == [10, 7, 7]
    write(tmp_path, "cat/a.png", pixels(8, 8))
    assert source(tmp_path).load(1, None).labels.tolist() == [0, 1, 1, 2]
    write(tmp_path, "loose.png", pixels(8, 8))
    assert source(tmp_path).load(1, None).labels is None


@pytest.mark.parametrize("shape", [(6, 3, 8, 8), (6, 8, 8, 3)])
def test_channels_may_come_first_or_last(shape: tuple[int, ...]) -> None:
    assert source(pixels(*shape)).load(3, None).values.shape == (6, 3, 8, 8)


@pytest.mark.parametrize(("numbers", "low", "high"), [("unit", 0.0, 1.0), ("signed", -1.0, 1.0), ("byte", 0.0, 255.0)])
def test_numbers_mean_what_is_said(numbers: Any, low: float, high: float) -> None:
    array = np.linspace(low, high, 4 * 64, dtype=np.float32).reshape(4, 1, 8, 8)
    values = source(array, numbers=numbers).load(1, None).values.flatten()
    assert values.dtype == torch.uint8 and (values[0], values[-1]) == (0, 255)
    assert torch.equal(values, torch.linspace(0, 255, 256).round().to(torch.uint8))


REFUSED = [
    (np.full((2, 1, 8, 8), np.nan), "2 of 2 samples hold NaN"),
    (np.linspace(-1, 1, 128).reshape(2, 1, 8, 8), "numbers from -1 to 1 may mean several things.*--range"),
    (np.linspace(0, 255, 128).reshape(2, 1, 8, 8), "may mean several things"),
    (np.full((2, 1, 8, 8), 300), "may mean several things"),
    (np.zeros((2, 3, 8, 3)), "channels first or last"),
    (np.zeros((2, 4, 8, 8)), "neither first nor last"),
    (np.zeros(5), "images are"),
    (np.zeros((0, 1, 8, 8), np.uint8), "images are"),
    (np.array([["a"]]), "is no samples"),
    ("nowhere/at/all", "no such file or folder"),
    ("mnistt", "did you mean .*mnist"),
    ("mnist:tset", "unknown split 'tset'"),
]


@pytest.mark.parametrize(("what", "said"), REFUSED, ids=[said[:20] for _, said in REFUSED])
def test_what_is_refused_is_explained(what: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        source(what)


def test_files_of_arrays(tmp_path: Path) -> None:
    array, labels = pixels(4, 8, 8, 3), np.array([1, 0, 2, 1])
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", samples=array, labels=labels, note="text")
    np.savez(tmp_path / "c.npz", array)
    np.save(tmp_path / "d.npy", np.array([{"a": 1}], dtype=object))
    (tmp_path / "e.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:200])
    np.savez(tmp_path / "f.npz", samples=array, labels=labels[:3])
    for name in ("a.npy", "b.npz", "c.npz"):
        assert torch.equal(source(tmp_path / name).load(3, None).values, source(array).load(3, None).values)
    assert source(tmp_path / "b.npz").load(3, None).labels.tolist() == labels.tolist()
    for name, said in (("d.npy", "never unpickled"), ("e.npz", "cannot be read"), ("f.npz", "4 integers")):
        with pytest.raises(UsageError, match=said):
            source(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no image"):
        source(tmp_path / "empty")


def test_the_floor_shares_nothing_with_what_it_is_compared_against() -> None:
    samples, other = Points(torch.arange(20.0).reshape(10, 2)), Points(torch.arange(20.0, 28.0).reshape(4, 2))
    pool = Pool((samples, other), 4, 10)
    draws = [pool.draw(number, 9) for number in range(5)]
    for floor, against in draws:
        assert (len(floor), len(against)) == (4, 10) == (len(floor.samples), len(against.samples))
        both = torch.cat([floor.samples.values, against.samples.values])
        assert torch.equal(both.flatten().sort().values, torch.arange(28.0))
    assert len({tuple(floor.samples.values[:, 0].tolist()) for floor, _ in draws}) == 5
    again = pool.draw(3, 9)[0].samples.values
    assert torch.equal(again, draws[3][0].samples.values)
    aside = Pool((other,), 3, against=samples)
    floor, against = aside.draw(0, 3)
    assert against.samples is samples and set(floor.samples.values[:, 0].tolist()) < {20.0, 22.0, 24.0, 26.0}


def test_a_set_of_samples_is_itself() -> None:
    images = Images(torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    assert torch.equal(source(images).load(1, None).values, images.values)


@pytest.mark.parametrize("source", [["a sentence", "another"], None, 3, ([[1.0]], "holdout")])
def test_what_is_no_set_of_samples_is_named(source: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"generated: a {type(source).__name__} is no set of samples; give an array"):
        read_input(source, data_dir=tmp_path, name="generated")
