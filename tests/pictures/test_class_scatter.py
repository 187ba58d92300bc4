"""Scatter plots by class: every point in the colour of its class, and each name in it beside the plot."""

import numpy as np
import pytest
import torch

from aigc_lab.pictures.class_scatter import class_scatter
from aigc_lab.pictures.drawing import _DOT, scatter

STEPS = range(-2, 3)  # a dot is 5 pixels wide
POINTS = torch.tensor([[-2.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, -1.0]])


@pytest.mark.parametrize("names", [["cat", "dog"], ["a", "b", "c", "d"]])
def test_points_are_where_the_plain_plot_has_them_in_their_own_colours(names: list[str]) -> None:
    canvas, plain = class_scatter(POINTS, names)[:, :400], scatter(POINTS, None)
    places = np.argwhere((plain == _DOT).all(2))
    inked = np.argwhere((canvas != 255).any(2))
    squares = {(row + down, column + right) for row, column in places for down in STEPS for right in STEPS}
    assert {(row, column) for row, column in inked} == squares and len(places) == 4 and len(inked) == 4 * 25
    # By rows from the top: point 1, then 0 and 2 from the left, then 3.
    above, left, right, below = (tuple(canvas[row, column].tolist()) for row, column in places)
    assert len({above, left, right, below}) == len(names)
    assert (left == above != right == below) if len(names) == 2 else True


@pytest.mark.parametrize("count", [1, 6, 7, 200])
def test_there_is_a_colour_and_a_line_for_each_class(count: int) -> None:
    names = ["name"] * count
    legend = class_scatter(torch.zeros(count, 2), names)[:, 400:]
    # In the middle of a line letters have the colour itself.
    lines = [legend[18 * line : 18 * line + 18].reshape(-1, 3) for line in range(22)]
    inked = [line[line.sum(1) < 700] for line in lines]
    assert [len(ink) > 0 for ink in inked] == [line < count for line in range(22)]
    shades = {tuple(ink[ink.sum(1).argmin()].tolist()) for ink in inked[:21] if len(ink)}
    assert len(shades) >= min(count, 20) * 0.9


def test_points_that_are_not_as_many_of_each_class_are_refused() -> None:
    for names in ([], ["a"] * 3):
        with pytest.raises(ValueError, match=f"4 points are not as many of each of {len(names)} classes"):
            class_scatter(POINTS, names)


def test_many_points_are_small_dots() -> None:
    canvas = class_scatter(POINTS.repeat(200, 1), ["a"])[:, :400]
    assert int((canvas != 255).any(2).sum()) == 4 * 9
