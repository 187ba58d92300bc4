"""Three MNIST digits as red, green and blue (Metz et al. 2017): 1,000 modes that a classifier can count."""

import math
from collections.abc import Mapping
from functools import cached_property, lru_cache

import torch
from pydantic import Field

from aigc_lab import noise
from aigc_lab.config import Count, Strict
from aigc_lab.data import base
from aigc_lab.data.shared.published_files import read_mnist
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape


class StackedMNIST(base.Dataset):
    """Stacks of three digits, drawn with replacement from their own split's digits: 50,000 of MNIST's training images
    for `train`, the other 10,000 for `holdout`, the test images for `reference`. The label of digits a, b, c is 100a +
    10b + c. 26,000 generated stacks are the customary number (Lin et al. 2018).
    """

    exchangeable = False
    source = "http://yann.lecun.com/exdb/mnist/"

    class Config(Strict):
        stacks: Count = Field(50_000, description="size of the train split")
        scored: Count = Field(26_000, description="size of the reference and of the holdout split, each")

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (3, 32, 32), classes=1000)

    @cached_property
    def _train(self) -> Images:
        order = torch.randperm(60_000, generator=noise.generator("stacked_mnist", "splits"))
        return read_mnist("MNIST", self.data_dir, self.name, train=True).take(order)

    def _digits(self, split: base.Split) -> Images:
        if split == "reference":
            return read_mnist("MNIST", self.data_dir, self.name, train=False)
        return self._train.take(slice(0, 50_000) if split == "train" else slice(50_000, 60_000))

    def memory(self) -> Mapping[str, int]:
        return {key: 2 * math.prod(self.shape.size) * getattr(self.config, key) for key in ("stacks", "scored")}

    @lru_cache(maxsize=3)  # noqa: B019 -- a dataset lives as long as its sweep
    def load(self, split: base.Split) -> Images:
        digits = self._digits(split)
        assert digits.labels is not None
        count = self.config.stacks if split == "train" else self.config.scored
        picks = torch.randint(len(digits), (count, 3), generator=noise.generator("stacked_mnist", split))
        labels = (digits.labels[picks] * torch.tensor([100, 10, 1])).sum(1)
        return Images(digits.values[picks, 0], labels)
