"""Eight Gaussians on a circle (Metz et al. 2017; Srivastava et al. 2017): the classic test of mode collapse."""

import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from pydantic import Field

from aigc_lab import noise
from aigc_lab.config import Count, Few, Positive, Strict
from aigc_lab.data import base
from aigc_lab.samples import Points
from aigc_lab.shape import Modality, Shape


class Ring(base.Dataset):
    """Mixture of `modes` equally likely Gaussians at equal angles; a point's label is its mode."""

    class Config(Strict):
        modes: Few = Field(8, ge=2)
        radius: Positive = 1.0
        sigma: Positive = Field(0.01, description="standard deviation of every Gaussian")
        points: Count = Field(100_000, description="size of the train split; the others hold 10,000 each")

    @property
    def shape(self) -> Shape:
        return Shape(Modality.POINTS, (2,), classes=self.config.modes)

    @property
    def modes(self) -> base.Modes:
        angles = torch.arange(self.config.modes, dtype=torch.float64) * (2 * math.pi / self.config.modes)
        centres = self.config.radius * torch.stack([angles.cos(), angles.sin()], dim=1)
        return base.Modes(centres.float(), self.config.sigma)

    def memory(self) -> Mapping[str, int]:
        return {"points": 48 * self.config.points}  # two numbers, their noise, their centre, a label and a place

    @lru_cache(maxsize=3)  # noqa: B019 -- a dataset lives as long as its sweep
    def load(self, split: base.Split) -> Points:
        count = self.config.points if split == "train" else 10_000
        source = noise.generator("ring", split)
        labels = torch.randint(self.config.modes, (count,), generator=source)
        noisy = torch.randn((count, 2), generator=source) * self.config.sigma
        return Points(self.modes.centres[labels] + noisy, labels)
