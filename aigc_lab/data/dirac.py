"""A point mass at 0 on a line: the data of the Dirac-GAN (Mescheder, Geiger & Nowozin 2018)."""

from collections.abc import Mapping

import torch
from pydantic import Field

from aigc_lab.config import Count, Strict
from aigc_lab.data import base
from aigc_lab.samples import Points
from aigc_lab.shape import Modality, Shape


class Dirac(base.Dataset):
    """Samples that are all 0, in every split: the one dataset whose splits are equal."""

    distinct = False

    class Config(Strict):
        points: Count = Field(100, description="size of every split")

    @property
    def shape(self) -> Shape:
        return Shape(Modality.POINTS, (1,))

    def memory(self) -> Mapping[str, int]:
        return {"points": 3 * 12 * self.config.points}

    def load(self, split: base.Split) -> Points:
        return Points(torch.zeros(self.config.points, 1))
