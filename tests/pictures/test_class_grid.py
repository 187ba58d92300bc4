"""Grids by class: the images are those of the plain grid, and each name stands beside its own row."""

import numpy as np
import pytest
import torch

from aigc_lab.pictures.class_grid import _GROUND, class_grid
from aigc_lab.pictures.drawing import Pixels, grid
from aigc_lab.samples import Images

IMAGES = Images(torch.randint(0, 256, (12, 3, 32, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8))


def strip(canvas: Pixels, columns: int) -> Pixels:
    """What stands left of the images, of tiles 48 pixels wide."""
    return canvas[:, : canvas.shape[1] - columns * 50 - 2]


def written(part: Pixels) -> int:
    """How many pixels are not those of the ground."""
    return int((part != _GROUND).any(2).sum())


def test_rows_are_classes_and_the_images_are_those_of_the_plain_grid() -> None:
    canvas = class_grid(IMAGES, ["cat", "dog", "bird"])
    assert canvas.dtype == np.uint8 and canvas.shape[0] == 3 * 66 + 2
    # Image 5 of 12 in 3 classes is the second of the second class.
    left = canvas.shape[1] - 4 * 50 - 2
    tile = IMAGES.values[5].permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1)
    assert np.array_equal(canvas[2 + 66 : 2 + 66 + 64, left + 52 : left + 100], tile)
    assert np.array_equal(canvas[:, left:], grid(IMAGES, columns=4))


def test_each_name_stands_beside_its_own_row() -> None:
    names = ["i", "mmmm", "i", "mm", "", "i"]
    rows = np.array_split(strip(class_grid(IMAGES, names), 2), 6)
    marks = [written(row) for row in rows]
    assert marks[0] == marks[2] == marks[5] > 0 and marks[4] == 0
    assert marks[1] == pytest.approx(2 * marks[3], rel=0.1) and marks[3] > marks[0]
    # In the middle of its row: a name does not reach into the gap above or below.
    assert all(written(row[:20]) == written(row[-20:]) == 0 for row in rows)


def test_a_long_name_is_cut_and_one_of_another_script_is_written() -> None:
    short, long = (strip(class_grid(IMAGES, [name, "b"]), 6) for name in ("a", "a" * 400))
    assert short.shape[1] < 40 < long.shape[1] < 180
    # Whatever would move a cursor is written as its escape, on the line of the class.
    torn = strip(class_grid(IMAGES, ["a\nb", "b"]), 6)
    assert np.array_equal(torn, strip(class_grid(IMAGES, [r"a\nb", "b"]), 6))
    greek, cyrillic = (
        written(strip(class_grid(IMAGES, [name, ""]), 6)) for name in ("\u03b3\u03b1\u03c4\u03b1", "\u043a\u043e\u0442")
    )
    boxes = written(strip(class_grid(IMAGES, ["\ue000\ue000\ue000", ""]), 6))
    assert len({greek, cyrillic, boxes}) == 3 and min(greek, cyrillic) > 0


@pytest.mark.parametrize("names", [[], ["a"] * 5, ["a"] * 13])
def test_images_that_are_no_rows_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match=f"12 images are no rows of {len(names)} classes"):
        class_grid(IMAGES, names)
