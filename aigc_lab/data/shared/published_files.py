"""Published image sets as torchvision lays out and downloads their files: a train part and a test part each.

Files that are there are used; absent ones are downloaded, and torchvision checks the published md5 sums: of the
archives it downloads (the MNIST family) or of the files themselves before it opens them (CIFAR).
"""

from abc import abstractmethod
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from aigc_lab import noise
from aigc_lab.data import base
from aigc_lab.errors import UsageError
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape

# The published test part of all of them, and what is kept back of the train part.
_HELD = 10_000


class TrainAndTest(base.Dataset):
    """A keyed shuffle of the published train part gives `train` and, its last 10,000, `holdout`; the published test
    part is the `reference`, shuffled by key too: MNIST's lies in the order of its writers.
    """

    exchangeable = False

    #: images in the published train part
    published: ClassVar[int]

    @abstractmethod
    def _read(self, train: bool) -> Images:
        """One published part, in the order of its files."""

    @cached_property
    def _train(self) -> Images:
        order = torch.randperm(self.published, generator=noise.generator(self.name, "splits"))
        return self._read(train=True).take(order)

    @lru_cache(maxsize=3)  # noqa: B019 -- a dataset lives as long as its sweep
    def load(self, split: base.Split) -> Images:
        if split == "reference":
            test = self._read(train=False)
            return test.take(torch.randperm(len(test), generator=noise.generator(self.name, "test")))
        kept = self.published - _HELD
        return self._train.take(slice(0, kept) if split == "train" else slice(kept, None))


class MNISTLike(TrainAndTest):
    """50,000 train, 10,000 reference and 10,000 holdout grey images of 28×28 pixels, padded with black to 32×32."""

    published = 60_000
    #: torchvision's class, whose name is also the folder's
    files: ClassVar[str]

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, 32, 32), classes=10)

    def _read(self, train: bool) -> Images:
        return read_mnist(self.files, self.data_dir, self.name, train=train)


class CIFARLike(TrainAndTest):
    """40,000 train, 10,000 reference and 10,000 holdout colour images of 32×32 pixels.

    The published files are Python pickles. torchvision compares the md5 of every one with the published sum before it
    opens any, so nothing is ever unpickled but what the authors made; a file that differs is refused.
    """

    published = 50_000
    files: ClassVar[str]
    classes: ClassVar[int]

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (3, 32, 32), classes=self.classes)

    def _read(self, train: bool) -> Images:
        kind = _kind(self.files)
        found = _opened(
            kind, self.data_dir, self.name, self.data_dir / kind.base_folder, f"the files of {kind.filename}", train
        )
        values = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
        return Images(values, torch.tensor(found.targets, dtype=torch.int64))


def read_mnist(files: str, data_dir: Path, name: str, *, train: bool) -> Images:
    """One part of a set in MNIST's own format (IDX), padded to 32×32. Raises `UsageError` naming folder and remedy."""
    folder, count = data_dir / files / "raw", 60_000 if train else _HELD
    found = _opened(_kind(files), data_dir, name, folder, "the four published *-ubyte files", train, count)
    return Images(F.pad(found.data[:, None], (2, 2, 2, 2)).to(torch.uint8), found.targets.long())


def _kind(files: str) -> Any:
    import torchvision

    return getattr(torchvision.datasets, files)


def _opened(
    kind: Any, data_dir: Path, name: str, folder: Path, wanted: str, train: bool, count: int | None = None
) -> Any:
    try:
        found = kind(str(data_dir), train=train, download=True)
        if count is not None and not len(found.data) == len(found.targets) == count:
            raise ValueError(f"{len(found.data):,} images and {len(found.targets):,} labels, not {count:,}")
    # torchvision asserts the format of the files.
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0] or "a file is not in the IDX format"
        raise UsageError(
            f"{name}: no usable files in {folder} and none downloaded ({reason}); put {wanted} there, or point "
            "AIGC_LAB_DATA_DIR at a folder that has them"
        ) from None
    return found
