"""1,797 handwritten digits of 8×8 pixels that ship inside scikit-learn (Alpaydin & Kaynak 1998), at 16×16."""

import gzip
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from aigc_lab import noise
from aigc_lab.config import Strict
from aigc_lab.data import base
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape


class Digits(base.Dataset):
    """Grey images, bilinearly enlarged to 16×16: 997 digits train, 400 are the reference and 400 the holdout."""

    source = "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits"

    class Config(Strict):
        pass

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, 16, 16), classes=10)

    @cached_property
    def _all(self) -> Images:
        # The file that sklearn.datasets.load_digits reads; importing scikit-learn for it would take seconds.
        package = find_spec("sklearn")
        assert package is not None and package.origin is not None
        with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz") as file:
            table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.float32))
        grey = table[:, :64].reshape(-1, 1, 8, 8) / 16
        large = F.interpolate(grey, size=(16, 16), mode="bilinear", align_corners=False)
        # The file is ordered by writer: a seeded shuffle gives every split all of them.
        order = torch.randperm(len(grey), generator=noise.generator("digits", "splits"))
        labels = table[:, 64].long()
        return Images((large * 255).round().to(torch.uint8), labels).take(order)

    def load(self, split: base.Split) -> Images:
        first, last = {"train": (0, 997), "reference": (997, 1397), "holdout": (1397, 1797)}[split]
        return self._all.take(slice(first, last))
