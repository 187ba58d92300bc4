"""Pictures: every pixel of a grid where it belongs, every known point at its place."""

import math

import numpy as np
import pytest
import torch

from aigc_lab.data.base import Modes
from aigc_lab.modalities.base import modality_of
from aigc_lab.pictures import drawing
from aigc_lab.pictures.drawing import grid, scatter
from aigc_lab.samples import Images, Points, Samples


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (5, 2, 3), (6, 2, 3), (7, 3, 3), (64, 8, 8)]
)
def test_a_grid_is_about_square(count: int, rows: int, columns: int) -> None:
    canvas = grid(Images(torch.zeros(count, 3, 48, 48, dtype=torch.uint8)))
    assert canvas.dtype == np.uint8
    assert canvas.shape == (rows * 50 + 2, columns * 50 + 2, 3)


def test_every_pixel_lies_where_it_belongs() -> None:
    """Five colour pictures of 3×2 pixels, enlarged 24 times, checked one pixel at a time."""
    values = torch.randint(0, 256, (5, 3, 3, 2), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    canvas = grid(Images(values))
    expected = np.full((2 * (72 + 2) + 2, 3 * (48 + 2) + 2, 3), 40, np.uint8)
    for index in range(5):
        top, left = 2 + (index // 3) * 74, 2 + (index % 3) * 50
        for y in range(72):
            for x in range(48):
                expected[top + y, left + x] = values[index, :, y // 24, x // 24].numpy()
    np.testing.assert_array_equal(canvas, expected)


def test_grey_becomes_three_equal_channels_and_floats_become_bytes() -> None:
    canvas = grid(Images(torch.tensor([0.0, 1.0, 0.5, 2.0]).reshape(1, 1, 2, 2)))
    assert (canvas[2:50, 2:50] == canvas[2:50, 2:50, :1]).all()
    assert canvas[[2, 2, 49, 49], [2, 49, 2, 49], 0].tolist() == [0, 255, 128, 255]


def place(canvas: drawing.Pixels, colour: tuple[int, int, int]) -> set[tuple[int, int]]:
    return {(int(row), int(column)) for row, column in np.argwhere((canvas == colour).all(2))}


def test_points_stand_at_their_places() -> None:
    """Without centres the longer side fills 1/1.35 of the square: ±2 stands 148.1 pixels from the middle."""
    points = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 0.0]])
    canvas = scatter(points, None)
    assert canvas.shape == (400, 400, 3)
    far, near = round(200 / 1.35), round(100 / 1.35)
    # Rows count downwards: what is higher on the plane has the smaller row.
    truth = {(200, 200 - far), (200, 200 + far), (200 - near, 200), (200 + near, 200), (200, 200)}
    assert place(canvas, drawing._DOT) == truth


def test_the_frame_is_that_of_the_centres_and_strays_are_cut() -> None:
    modes = Modes(torch.tensor([[-1.0, 3.0], [1.0, 5.0]]), 0.1)
    canvas = scatter(torch.tensor([[-1.0, 3.0], [1.0, 5.0], [100.0, 4.0], [0.0, -1e6]]), modes)
    off = round(200 / 1.35)
    assert place(canvas, drawing._DOT) == {(200 + off, 200 - off), (200 - off, 200 + off)}


@pytest.mark.parametrize(("sigma", "radius"), [(0.1, 0.3 / 1.35 * 200), (1e-4, 6)])
def test_every_centre_has_its_circle(sigma: float, radius: float) -> None:
    modes = Modes(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), sigma)
    canvas = scatter(torch.tensor([[0.0, 0.0]]), modes)
    middles = [200 - 200 / 1.35, 200 + 200 / 1.35]
    ring = place(canvas, drawing._RING)
    distances = [[math.hypot(column - x, row - 200) for x in middles] for row, column in ring]
    assert all(abs(min(pair) - radius) < 1 for pair in distances)
    # Both are drawn, all the way round.
    for x in middles:
        for row, column in ((200 - radius, x), (200 + radius, x), (200, x - radius), (200, x + radius)):
            assert any(math.hypot(row - r, column - c) < 3 for r, c in ring)


def test_one_point_alone_is_drawn_in_the_middle() -> None:
    assert place(scatter(torch.tensor([[7.0, -3.0]]), None), drawing._DOT) == {(200, 200)}


def test_a_picture_is_a_grid_or_a_plane() -> None:
    def picture(samples: Samples) -> drawing.Pixels:
        pixels = modality_of(samples).picture(samples)
        assert pixels is not None
        return pixels

    assert picture(Images(torch.zeros(4, 1, 16, 16))).shape == (102, 102, 3)
    assert picture(Points(torch.zeros(4, 3))).shape == (400, 400, 3)
    with pytest.raises(ValueError, match="1 of 2 samples"):
        picture(Points(torch.tensor([[0.0, math.nan], [0.0, 0.0]])))
