"""Pictures of one shape each, drawn from known factors, in the manner of dSprites (Matthey et al. 2017)."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from aigc_lab import noise
from aigc_lab.config import Count, Few, Strict
from aigc_lab.data import base
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape

FORMS = ("ellipse", "rectangle", "triangle", "cross")
NAMES = ("form", "x", "y", "size", "angle", "colour")
# Of the combinations of discrete factors, in fifths: no picture is in two splits.
_FIFTHS: dict[base.Split, tuple[int, ...]] = {"train": (0, 1, 2), "reference": (3,), "holdout": (4,)}
_MOST_COMBINATIONS = 10_000_000
# Positions and sizes in sides of the picture: the largest shape at the outermost place lies inside.
_PLACES, _RADII = (0.3, 0.7), (0.15, 0.28)
# A quarter turn, since half a turn gives the same ellipse: a code may be monotone in the angle.
_ANGLES = (0.0, math.pi / 2)
# Red, yellow, green, cyan, blue, magenta: red does not come twice. Half saturated, so that the form is in every channel
# (of full hues some are black there): the dataset's classifier sorts 98.4 % of the forms right, of full 88.8 %.
_HUES, _GREYS, _SATURATION = (0.0, 5 / 6), (0.4, 1.0), 0.5
# Pictures that are drawn together: part of the draws' key, so part of the pictures.
_BLOCK = 1000


class Shapes(base.Dataset):
    """Ellipses, rectangles, triangles and crosses on black, anti-aliased; the label is the form.

    Factors are independent and uniform: form, place of the centre (x to the right, y downwards), size (radius of the
    circle around the shape), angle (anticlockwise, 0 … 90°) and colour (hue, red to magenta, of saturation ½;
    brightness where `channels: 1`). Continuous ones differ in every picture. Discrete ones are on an even grid, and
    every split draws combinations of its own, none twice. More pictures of a split begin with the same ones.
    """

    class Config(Strict):
        size: Literal[16, 32, 64] = Field(32, description="pixels of a side")
        channels: Literal[1, 3] = Field(3, description="3: colour is a hue; 1: it is a brightness")
        factors: Literal["continuous", "discrete"] = "continuous"
        train: Count = Field(50_000, description="size of the train split")
        reference: Count = Field(10_000, description="size of the reference split")
        holdout: Count = Field(10_000, description="size of the holdout split")
        positions: Few = Field(16, ge=2, description="values of x, and of y; discrete factors only, as the next three")
        sizes: Few = Field(6, ge=2)
        angles: Few = Field(10, ge=2)
        colours: Few = Field(8, ge=2)

        @property
        def counts(self) -> tuple[int, ...]:
            """Number of values of each factor on the grid."""
            return len(FORMS), self.positions, self.positions, self.sizes, self.angles, self.colours

        @model_validator(mode="after")
        def _enough(self) -> Self:
            """Refuses a grid with fewer combinations than pictures, or more than are permuted in memory."""
            total = math.prod(self.counts)
            if self.factors == "continuous":
                return self
            if total > _MOST_COMBINATIONS:
                raise ValueError(f"{total:,} combinations of factors: at most {_MOST_COMBINATIONS:,}, or continuous")
            for split, fifths in _FIFTHS.items():
                most, count = len(fifths) * (total // 5), getattr(self, split)
                if count > most:
                    raise ValueError(
                        f"{split}: {count:,} pictures, and of {total:,} combinations of discrete factors {most:,} are "
                        "this split's: ask for fewer pictures, more values (positions, sizes, angles, colours), or "
                        "factors: continuous"
                    )
            return self

    @property
    def shape(self) -> Shape:
        size = (self.config.channels, self.config.size, self.config.size)
        return Shape(Modality.IMAGES, size, classes=len(FORMS), class_names=FORMS)

    @property
    def factor_names(self) -> tuple[str, ...]:
        return NAMES

    def memory(self) -> Mapping[str, int]:
        each = math.prod(self.shape.size) + 8 * (2 * len(NAMES) + 1)  # the pixels, two forms of the factors, a label
        return {split: each * getattr(self.config, split) for split in base.SPLITS}

    @lru_cache(maxsize=3)  # noqa: B019 -- a dataset lives as long as its sweep
    def load(self, split: base.Split) -> Images:
        fractions, forms = self._fractions(split)
        blocks = zip(torch.split(fractions, _BLOCK), torch.split(forms, _BLOCK), strict=True)
        pictures = [rendered(part, form, self.config.size, self.config.channels) for part, form in blocks]
        return Images(torch.cat(pictures), forms)

    @lru_cache(maxsize=3)  # noqa: B019
    def factors(self, split: base.Split) -> base.Factors:
        fractions, forms = self._fractions(split)
        sizes: tuple[int | None, ...] = self.config.counts
        if self.config.factors == "continuous":
            sizes = len(FORMS), *[None] * (len(NAMES) - 1)
        else:
            fractions = (fractions * (torch.tensor(self.config.counts[1:], dtype=torch.float64) - 1)).round()
        return base.Factors(torch.column_stack([forms.double(), fractions]), NAMES, sizes, frozenset({"form"}))

    def _fractions(self, split: base.Split) -> tuple[Tensor, Tensor]:
        """x, y, size, angle and colour of a split's pictures as fractions of their ranges, float64 [N, 5], and forms,
        int64 [N].
        """
        count = getattr(self.config, split)
        if self.config.factors == "continuous":
            draw = noise.Draw((_BLOCK, len(NAMES)), "unit")
            drawn = torch.cat([noise.draw(draw, "shapes", split, part) for part in range(-(-count // _BLOCK))])[:count]
            return drawn[:, 1:].double(), (drawn[:, 0] * len(FORMS)).long()
        order = torch.randperm(math.prod(self.config.counts), generator=noise.generator("shapes", "combinations"))
        whole = order[: len(order) // 5 * 5].reshape(-1, 5)
        combinations = whole[:, list(_FIFTHS[split])].flatten()[:count]
        levels = torch.stack(torch.unravel_index(combinations, self.config.counts), 1)
        steps = torch.tensor(self.config.counts[1:], dtype=torch.float64) - 1
        return levels[:, 1:] / steps, levels[:, 0]


def rendered(fractions: Tensor, forms: Tensor, size: int, channels: int) -> Tensor:
    """Pictures, uint8 [N, channels, size, size], of factors [N, 5] in [0, 1] and forms [N].

    A pixel's share of the shape is that of a straight edge at the distance of the shape's. In float64, so that machines
    that differ in the last bit round alike.
    """
    x, y, radius, angle = (
        (low + (high - low) * fractions[:, column])[:, None, None]
        for column, (low, high) in enumerate((_PLACES, _PLACES, _RADII, _ANGLES))
    )
    places = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    right, up = places[None, None, :] - x, y - places[None, :, None]
    along, across = (angle.cos() * right + angle.sin() * up) / radius, (angle.cos() * up - angle.sin() * right) / radius
    distances = torch.empty(len(fractions), size, size, dtype=torch.float64)
    for number, distance in enumerate((_ellipse, _rectangle, _triangle, _cross)):
        chosen = forms == number
        distances[chosen] = distance(along[chosen], across[chosen])
    cover = (0.5 - distances * radius * size).clamp(0, 1)
    colours = _colours(fractions[:, 4], channels)
    return (255 * colours[:, :, None, None] * cover[:, None]).round().to(torch.uint8)


def _colours(fractions: Tensor, channels: int) -> Tensor:
    """Brightness of each channel in [0, 1], [N, channels]: one grey, or a half saturated hue."""
    if channels == 1:
        return (_GREYS[0] + (_GREYS[1] - _GREYS[0]) * fractions)[:, None]
    hues = _HUES[0] + (_HUES[1] - _HUES[0]) * fractions
    offsets = torch.tensor([0.0, 2 / 3, 1 / 3], dtype=torch.float64)
    full = (((hues[:, None] + offsets) % 1 * 6 - 3).abs() - 1).clamp(0, 1)
    return 1 - _SATURATION * (1 - full)


# Distances from the edge, negative inside, of shapes in the unit circle; exact for straight edges, away from corners.


def _ellipse(along: Tensor, across: Tensor) -> Tensor:
    """Half axes 1 and 1/2; to first order in the distance."""
    level, slope = torch.hypot(along, 2 * across), torch.hypot(along, 4 * across)
    return level * (level - 1) / slope.clamp_min(1e-9)


def _box(along: Tensor, across: Tensor, length: float, width: float) -> Tensor:
    return torch.maximum(along.abs() - length, across.abs() - width)


def _rectangle(along: Tensor, across: Tensor) -> Tensor:
    return _box(along, across, 2 / math.sqrt(5), 1 / math.sqrt(5))


def _triangle(along: Tensor, across: Tensor) -> Tensor:
    """Isosceles: its apex at (1, 0), its base from (−0.7, −0.7) to (−0.7, 0.7)."""
    sides = (0.7 * (along - 1) + 1.7 * across.abs()) / math.hypot(0.7, 1.7)
    return torch.maximum(sides, -0.7 - along)


def _cross(along: Tensor, across: Tensor) -> Tensor:
    """One bar of length 1.9, one of length 1.1 across it, both of width 0.5."""
    return torch.minimum(_box(along, across, 0.95, 0.25), _box(along, across, 0.25, 0.55))
