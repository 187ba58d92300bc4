"""STL-10 (Coates, Lee & Ng 2011): 113,000 colour photographs of 96×96 pixels, shrunk; most of them unlabelled."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from aigc_lab import noise
from aigc_lab.config import Strict
from aigc_lab.data import base
from aigc_lab.data.shared.image_files import Store
from aigc_lab.data.shared.published_files import may_download
from aigc_lab.errors import UsageError
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape

# The file of each split, and how many pictures it holds.
FILES: dict[base.Split, tuple[str, int]] = {
    "train": ("unlabeled_X.bin", 100_000),
    "reference": ("test_X.bin", 8_000),
    "holdout": ("train_X.bin", 5_000),
}
_SIDE = 96
_BLOCK = 1000


class STL10(base.Dataset):
    """Unlabelled images: the 100,000 unlabelled ones train, as in Miyato et al. 2018; the 8,000 test images are the
    reference, the 5,000 labelled training images the holdout. Each split is shuffled by key, and labels are not used.
    The unlabelled images come from more classes, so real samples of the splits differ a little: read scores beside
    their floor.

    Files are read from `<data_dir>/stl10_binary` as torchvision lays them out, downloaded (2.6 GB) only when absent,
    and verified by their md5 before they are resized into `<data_dir>/decoded`, which is memory-mapped.
    """

    exchangeable = False
    source = "https://cs.stanford.edu/~acoates/stl10/"

    class Config(Strict):
        size: int = Field(64, ge=8, le=_SIDE, description="pixels of a side; systems of this package take 16, 32 or 64")

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (3, self.config.size, self.config.size))

    @cached_property
    def _all(self) -> Images:
        from torchvision.datasets import STL10 as Files

        folder = self.data_dir / Files.base_folder
        sums = dict(Files.train_list + Files.test_list)
        try:
            written = [
                [(folder / file).stat().st_size, (folder / file).stat().st_mtime_ns] for file, _ in FILES.values()
            ]
        except OSError:
            written = []
        store = Store(self.data_dir / "decoded", "stl10", "shuffled", self.config.model_dump(), sums, written)
        stored = store.read() if written else None
        if stored is None:
            self._verify(Files, folder)
            self._shrink(store, folder)
            stored = store.read()
        assert stored is not None
        return Images(stored[0])

    def _verify(self, files: Any, folder: Path) -> None:
        from torchvision.datasets.utils import check_integrity, download_and_extract_archive

        sums = files.train_list + files.test_list
        try:
            if may_download() and not all((folder / file).is_file() for file, _ in sums):
                download_and_extract_archive(files.url, str(self.data_dir), filename=files.filename, md5=files.tgz_md5)
            bad = [file for file, md5 in sums if not check_integrity(folder / file, md5)]
            if bad:
                raise ValueError(f"{', '.join(bad)}: not the published content")
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"stl10: no usable files in {folder} and none downloaded ({str(error).partition(chr(10))[0]}); unpack "
                f"{files.filename} there, or point AIGC_LAB_DATA_DIR at a folder with stl10_binary/"
            ) from None

    def _shrink(self, store: Store, folder: Path) -> None:
        total, row, order = sum(count for _, count in FILES.values()), 0, []
        with store.scratch((total, *self.shape.size)) as rows:
            for split in base.SPLITS:
                # Pictures are stored column by column.
                count = FILES[split][1]
                shuffled = torch.randperm(count, generator=noise.generator("stl10", split)) + row
                order += shuffled.tolist()
                stored = np.memmap(folder / FILES[split][0], np.uint8, "r").reshape(-1, 3, _SIDE, _SIDE)
                for first in range(0, len(stored), _BLOCK):
                    block = torch.from_numpy(stored[first : first + _BLOCK].swapaxes(2, 3).copy())
                    if self.config.size < _SIDE:
                        size = (self.config.size, self.config.size)
                        block = F.interpolate(block, size, mode="bilinear", antialias=True, align_corners=False)
                    rows[row : row + len(block)] = block.numpy()
                    row += len(block)
            store.write(rows, order, {})

    def load(self, split: base.Split) -> Images:
        return self._splits[split]

    @cached_property
    def _splits(self) -> dict[base.Split, Images]:
        first, splits = 0, {}
        for split in base.SPLITS:
            last = first + FILES[split][1]
            splits[split], first = self._all.take(slice(first, last)), last
        return splits
