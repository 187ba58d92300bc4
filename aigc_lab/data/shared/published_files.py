"""Published image sets in torchvision's layout, with a train part and a test part each.

Existing files are used; absent ones are downloaded, and torchvision checks the published md5 sums: of the archives it
downloads (the MNIST family) or of the files themselves before it opens them (CIFAR).
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
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


_downloading: ContextVar[bool] = ContextVar("downloading", default=True)


@contextmanager
def without_downloads() -> Iterator[None]:
    """Context in which published files that are absent are not downloaded: `load` raises `UsageError` for them."""
    before = _downloading.set(False)
    try:
        yield
    finally:
        _downloading.reset(before)


def may_download() -> bool:
    return _downloading.get()


class TrainAndTest(base.Dataset):
    """Dataset of a published train part and test part, each shuffled by key. The last 10,000 of the train part are the
    `holdout`, the others `train`; the test part is the `reference`. MNIST's test part lies in the order of its writers,
    so it is shuffled too.
    """

    exchangeable = False

    #: images in the published train part
    published: ClassVar[int]

    @abstractmethod
    def _read(self, train: bool) -> Images:
        """Images of one published part, in the order of its files."""

    @cached_property
    def _train(self) -> Images:
        order = torch.randperm(self.published, generator=noise.generator(self.name, "splits"))
        return self._read(train=True).take(order)

    @lru_cache(maxsize=3)  # noqa: B019 -- a dataset lives as long as its sweep
    def load(self, split: base.Split) -> Images:
        if split == "reference":
            test = self._read(train=False)
            return test.take(torch.randperm(len(test), generator=noise.generator(self.name, "test")))
        size = self.published - _HELD
        return self._train.take(slice(0, size) if split == "train" else slice(size, None))


class MNISTLike(TrainAndTest):
    """Grey images of 28×28 pixels, padded with black to 32×32: 50,000 train, 10,000 reference and 10,000 holdout."""

    published = 60_000
    #: torchvision's class, whose name is also the folder's
    files: ClassVar[str]
    #: names of the ten classes; None where they are the digits
    names: ClassVar[tuple[str, ...] | None] = None

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, 32, 32), classes=10, class_names=self.names)

    def _read(self, train: bool) -> Images:
        return read_mnist(self.files, self.data_dir, self.name, train=train)


class CIFARLike(TrainAndTest):
    """Colour images of 32×32 pixels: 40,000 train, 10,000 reference and 10,000 holdout.

    The published files are Python pickles. torchvision compares the md5 of every file with the published sum before it
    opens any, so only the authors' files are ever unpickled; a file that differs is refused.
    """

    published = 50_000
    files: ClassVar[str]
    classes: ClassVar[int]
    #: names of the classes, as the published files have them
    names: ClassVar[tuple[str, ...] | None] = None

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (3, 32, 32), classes=self.classes, class_names=self.names)

    def _read(self, train: bool) -> Images:
        kind = _kind(self.files)
        part = _opened(
            kind, self.data_dir, self.name, self.data_dir / kind.base_folder, f"the files of {kind.filename}", train
        )
        values = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
        return Images(values, torch.tensor(part.targets, dtype=torch.int64))


def read_mnist(files: str, data_dir: Path, name: str, *, train: bool) -> Images:
    """Images of one part of a set in MNIST's format (IDX), uint8 [N, 1, 32, 32]. Raises `UsageError` naming folder and
    remedy.
    """
    folder, count = data_dir / files / "raw", 60_000 if train else _HELD
    part = _opened(_kind(files), data_dir, name, folder, "the four published *-ubyte files", train, count)
    return Images(F.pad(part.data[:, None], (2, 2, 2, 2)).to(torch.uint8), part.targets.long())


def _kind(files: str) -> Any:
    import torchvision

    return getattr(torchvision.datasets, files)


def _opened(
    kind: Any, data_dir: Path, name: str, folder: Path, what: str, train: bool, count: int | None = None
) -> Any:
    try:
        part = kind(str(data_dir), train=train, download=may_download())
        if count is not None and not len(part.data) == len(part.targets) == count:
            raise ValueError(f"{len(part.data):,} images and {len(part.targets):,} labels, not {count:,}")
    # torchvision asserts the format of the files.
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0] or "a file is not in the IDX format"
        raise UsageError(
            f"{name}: no usable files in {folder} and none downloaded ({reason}); put {what} there, or point "
            "AIGC_LAB_DATA_DIR at a folder that has them"
        ) from None
    return part
