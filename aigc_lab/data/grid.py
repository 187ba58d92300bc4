"""25 Gaussians on a square grid (Dumoulin et al. 2017; Srivastava et al. 2017): modes far apart, many of them."""

from collections.abc import Mapping
from functools import lru_cache

import torch
from pydantic import Field

from aigc_lab import noise
from aigc_lab.config import Count, Few, Positive, Strict
from aigc_lab.data import base
from aigc_lab.samples import Points
from aigc_lab.shape import Modality, Shape


class Grid(base.Dataset):
    """Mixture of equally likely Gaussians at {−4, −2, 0, 2, 4}²; a point's label is its mode, row by row."""

    class Config(Strict):
        side: Few = Field(5, ge=2, description="modes along one side of the square")
        spacing: Positive = Field(2.0, description="distance between neighbouring modes")
        sigma: Positive = Field(0.05, description="standard deviation of every Gaussian")
        points: Count = Field(100_000, description="size of the train split; the others hold 10,000 each")

    @property
    def shape(self) -> Shape:
        return Shape(Modality.POINTS, (2,), classes=self.config.side**2)

    @property
    def modes(self) -> base.Modes:
        axis = (torch.arange(self.config.side) - (self.config.side - 1) / 2) * self.config.spacing
        return base.Modes(torch.cartesian_prod(axis, axis).float(), self.config.sigma)

    def memory(self) -> Mapping[str, int]:
        return {"points": 48 * self.config.points}  # two numbers, their noise, their centre, a label and a place

    @lru_cache(maxsize=3)  # noqa: B019 -- a dataset lives as long as its sweep
    def load(self, split: base.Split) -> Points:
        count = self.config.points if split == "train" else 10_000
        source = noise.generator("grid", split)
        labels = torch.randint(self.config.side**2, (count,), generator=source)
        noisy = torch.randn((count, 2), generator=source) * self.config.sigma
        return Points(self.modes.centres[labels] + noisy, labels)
