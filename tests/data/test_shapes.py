"""Pictures drawn from known factors: what is seen in them is what the factors say."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from aigc_lab.data.base import SPLITS
from aigc_lab.data.shapes import FORMS, NAMES, Shapes, rendered

# Areas of the shapes whose circumscribed circle has the radius 1.
AREAS = {
    "ellipse": math.pi / 2,
    "rectangle": 1.6,
    "triangle": 1.7 * 0.7,
    "cross": 1.9 * 0.5 + 1.1 * 0.5 - 0.25,
}


def shapes(**keys: Any) -> Shapes:
    return Shapes(Shapes.Config(**{"train": 300, "reference": 200, "holdout": 200} | keys), Path())


def moments(pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Area in pixels, centroid (x, y) in sides and direction of the long axis in radians of grey pictures [N, H, H]."""
    size, mass = pictures.shape[-1], pictures.double()
    places = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    area = mass.sum((1, 2))
    x, y = (mass * places).sum((1, 2)) / area, (mass * places[:, None]).sum((1, 2)) / area
    right, up = places - x[:, None, None], y[:, None, None] - places[:, None]
    xx, yy, xy = ((mass * each).sum((1, 2)) / area for each in (right**2, up**2, right * up))
    return area, x, y, 0.5 * torch.atan2(2 * xy, xx - yy)


def test_a_picture_shows_its_factors() -> None:
    """Area, centroid and principal axis of the pixels against the factors, for the symmetric forms."""
    random = torch.Generator().manual_seed(0)
    for number, form in enumerate(FORMS):
        factors = torch.rand((200, 5), generator=random, dtype=torch.float64)
        factors[:, 3] = 0.05 + 0.9 * factors[:, 3]
        factors[:, 4] = 1.0  # white
        pictures = rendered(factors, torch.full((200,), number), 64, 1)[:, 0].double() / 255
        area, x, y, direction = moments(pictures)
        radius = 64 * (0.15 + 0.13 * factors[:, 2])
        torch.testing.assert_close(area, AREAS[form] * radius**2, rtol=0.03, atol=0)
        if form != "triangle":
            torch.testing.assert_close(x, 0.3 + 0.4 * factors[:, 0], rtol=0, atol=1e-3)
            torch.testing.assert_close(y, 0.3 + 0.4 * factors[:, 1], rtol=0, atol=1e-3)
        torch.testing.assert_close(direction, factors[:, 3] * math.pi / 2, rtol=0, atol=0.03)


def test_the_triangle_points_where_its_angle_says() -> None:
    """At 0° the apex is on the right, at 90° above: the centroid of a triangle is a third from its base."""
    factors = torch.tensor([[0.5, 0.5, 0.5, angle, 1.0] for angle in (0.0, 1.0)], dtype=torch.float64)
    pictures = rendered(factors, torch.full((2,), FORMS.index("triangle")), 64, 1)[:, 0]
    _, x, y, _ = moments(pictures)
    off = (1 / 3 * 1.7 - 0.7) * (0.15 + 0.28) / 2
    torch.testing.assert_close(x, torch.tensor([0.5 + off, 0.5], dtype=torch.float64), rtol=0, atol=2e-3)
    torch.testing.assert_close(y, torch.tensor([0.5, 0.5 - off], dtype=torch.float64), rtol=0, atol=2e-3)


def test_colours_are_hues_or_greys() -> None:
    """The brightest pixel is the colour: Python's colorsys says which."""
    import colorsys

    fractions = torch.full((11, 5), 0.5, dtype=torch.float64)
    fractions[:, 4] = torch.linspace(0, 1, 11, dtype=torch.float64)
    forms = torch.zeros(11, dtype=torch.long)
    colours = rendered(fractions, forms, 32, 3)[:, :, 16, 16].double()
    expected = [[255 * channel for channel in colorsys.hsv_to_rgb(5 / 6 * k / 10, 0.5, 1)] for k in range(11)]
    torch.testing.assert_close(colours, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0.51)
    assert colours.min() >= 127  # the form is in every channel
    greys = rendered(fractions, forms, 32, 1)[:, 0, 16, 16].tolist()
    assert greys == [round(255 * (0.4 + 0.06 * k)) for k in range(11)]


def test_no_shape_is_cut() -> None:
    images = shapes(size=64, train=2000).load("train").values
    assert images[..., 0].max() == images[..., -1].max() == images[:, :, 0].max() == images[:, :, -1].max() == 0


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_more_pictures_begin_with_the_same(kind: str) -> None:
    few, many = shapes(factors=kind), shapes(factors=kind, train=2500, reference=1001, holdout=1200)
    for split in SPLITS:
        count = len(few.load(split))
        assert torch.equal(few.load(split).values, many.load(split).values[:count])
        assert torch.equal(few.factors(split).values, many.factors(split).values[:count])


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_factors_are_uniform_independent_and_those_of_the_pictures(kind: str) -> None:
    dataset = shapes(factors=kind, train=20_000)
    images, factors = dataset.load("train"), dataset.factors("train")
    assert factors.names == tuple(dataset.factor_names) == NAMES
    assert images.labels is not None and torch.equal(images.labels.double(), factors.values[:, 0])
    correlations = torch.corrcoef(factors.values.T) - torch.eye(len(NAMES))
    assert correlations.abs().max() < 5 / math.sqrt(20_000)
    for values, size in zip(factors.values.T, factors.sizes, strict=True):
        if size is None:
            ordered = values.sort().values
            distance = (ordered - (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000).abs().max()
            assert distance < 2 / math.sqrt(20_000)  # Kolmogorov and Smirnov's, beyond 1 in 1,000
        else:
            counts = torch.bincount(values.long(), minlength=size).double()
            assert ((counts - 20_000 / size) ** 2 / (20_000 / size)).sum() < size + 5 * math.sqrt(2 * size)
    levels = torch.tensor([size or 2 for size in factors.sizes]) - 1
    fractions = (factors.values / levels)[:, 1:] if kind == "discrete" else factors.values[:, 1:]
    again = rendered(fractions[:500], images.labels[:500], 32, 3)
    assert torch.equal(again, images.values[:500])


def test_discrete_combinations_are_drawn_once_over_all_splits() -> None:
    """All of a grid's combinations but the last few that no five splits share evenly."""
    keys = {"positions": 4, "sizes": 2, "angles": 3, "colours": 3}
    dataset = shapes(factors="discrete", train=690, reference=230, holdout=230, **keys)
    rows = [tuple(row) for split in SPLITS for row in dataset.factors(split).values.tolist()]
    assert len(set(rows)) == len(rows) == 1150
    pictures = torch.cat([dataset.load(split).values for split in SPLITS])
    assert len({picture.numpy().tobytes() for picture in pictures}) == 1150
    with pytest.raises(ValidationError, match="train: 691 pictures, and of 1,152 combinations of discrete factors 690"):
        shapes(factors="discrete", train=691, **keys)
    with pytest.raises(ValidationError, match="at most 10,000,000"):
        shapes(factors="discrete", positions=1000)
    assert shapes(train=691, **keys).load("train").values.shape == (691, 3, 32, 32)
