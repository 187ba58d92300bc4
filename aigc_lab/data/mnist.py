"""MNIST (LeCun et al. 1998): 70,000 handwritten digits of 28×28 pixels, padded to 32×32; the published files."""

from functools import cached_property

import torch
import torch.nn.functional as F

from aigc_lab import noise
from aigc_lab.config import Strict
from aigc_lab.data import base
from aigc_lab.errors import UsageError
from aigc_lab.samples import Images, Modality, Shape


class MNIST(base.Dataset):
    """50,000 of the training images train and 10,000 are the holdout; the 10,000 test images are the reference.

    Files are read from `<data_dir>/MNIST/raw` as torchvision lays them out, and downloaded only when absent
    (torchvision checks the archives' md5).
    """

    source = "http://yann.lecun.com/exdb/mnist/"

    class Config(Strict):
        pass

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, 32, 32), classes=10)

    def _read(self, train: bool) -> Images:
        from torchvision.datasets import MNIST as Files

        raw, count = self.data_dir / "MNIST" / "raw", 60_000 if train else 10_000
        try:
            files = Files(str(self.data_dir), train=train, download=True)
            if not len(files.data) == len(files.targets) == count:
                raise ValueError(f"{len(files.data):,} images and {len(files.targets):,} labels, not {count:,}")
        # torchvision asserts the format of the files.
        except (OSError, RuntimeError, ValueError, AssertionError) as error:
            reason = str(error).partition("\n")[0] or "a file is not in the IDX format"
            raise UsageError(
                f"mnist: no usable files in {raw} and none downloaded ({reason}); put the four published *-ubyte files "
                "there, or point AIGC_LAB_DATA_DIR at a folder that has them"
            ) from None
        return Images(F.pad(files.data[:, None], (2, 2, 2, 2)).to(torch.uint8), files.targets.long())

    @cached_property
    def _train(self) -> Images:
        order = torch.randperm(60_000, generator=noise.generator("mnist", "splits"))
        return self._read(train=True).take(order)

    def load(self, split: base.Split) -> Images:
        if split == "reference":
            return self._read(train=False)
        return self._train.take(slice(0, 50_000) if split == "train" else slice(50_000, 60_000))
