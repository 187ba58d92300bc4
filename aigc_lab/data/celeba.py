"""CelebA (Liu et al. 2015): 202,599 aligned faces of celebrities, cropped and shrunk; files placed by hand."""

from functools import cached_property

import torch
from pydantic import Field

from aigc_lab import noise
from aigc_lab.config import Strict
from aigc_lab.data import base
from aigc_lab.data.shared.image_files import Reading, Store, decode
from aigc_lab.errors import UsageError
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape

# The published partition: md5 as torchvision has it, and how many files it names.
PARTITION_MD5 = "d32c9cbf5e040fd4025c592c306e6668"
IMAGES = 202_599
_NUMBER: dict[base.Split, str] = {"train": "0", "reference": "1", "holdout": "2"}


class CelebA(base.Dataset):
    """Images of the published partition: 162,770 train, the 19,867 of `valid` as the reference, the 19,962 of `test` as
    the holdout. They are unlabelled, and each split is shuffled by key. The middle square of `crop` pixels (148: Larsen
    et al. 2016) of the aligned 178×218 images is resized to `size`×`size`, decoded once into `<data_dir>/decoded` and
    memory-mapped from there.

    Files are expected as torchvision lays them out: `<data_dir>/celeba/img_align_celeba/*.jpg` and
    `list_eval_partition.txt`. Their host asks for a browser, so they are not downloaded. The partition's md5 is
    verified, and that every file it names is whole; the authors publish no checksums of single images.
    """

    exchangeable = False
    source = "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"

    class Config(Strict):
        size: int = Field(64, ge=8, le=148, description="pixels of a side; systems of this package take 16, 32 or 64")
        crop: int = Field(148, ge=8, le=178, description="side of the middle square that is shown")

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (3, self.config.size, self.config.size))

    @cached_property
    def _members(self) -> dict[base.Split, list[str]]:
        from torchvision.datasets.utils import check_integrity

        folder = self.data_dir / "celeba"
        partition = folder / "list_eval_partition.txt"
        if not check_integrity(partition, PARTITION_MD5) or not (folder / "img_align_celeba").is_dir():
            wrong = "is not the published file" if partition.is_file() else "is missing"
            lacks = f"{partition} {wrong}" if (folder / "img_align_celeba").is_dir() else "img_align_celeba is missing"
            raise UsageError(
                f"celeba: no usable files in {folder} ({lacks}); put list_eval_partition.txt and the unpacked "
                f"img_align_celeba.zip of {self.source} there, or point AIGC_LAB_DATA_DIR at a folder with celeba/"
            )
        rows = [line.split() for line in partition.read_text("utf-8").splitlines()]
        members = {split: [name for name, number in rows if number == code] for split, code in _NUMBER.items()}
        for split, names in members.items():  # the first of a split are no special ones
            order = torch.randperm(len(names), generator=noise.generator("celeba", split))
            members[split] = [names[place] for place in order.tolist()]
        assert sum(map(len, members.values())) == IMAGES
        return members

    @cached_property
    def _all(self) -> Images:
        members = self._members
        store = Store(self.data_dir / "decoded", "celeba", "shuffled", PARTITION_MD5, self.config.model_dump())
        stored = store.read()
        if stored is None:
            self._decode(store, [name for split in base.SPLITS for name in members[split]])
            stored = store.read()
        assert stored is not None
        return Images(stored[0])

    def _decode(self, store: Store, names: list[str]) -> None:
        folder = self.data_dir / "celeba" / "img_align_celeba"
        with store.scratch((len(names), *self.shape.size)) as rows:
            for row, each in enumerate(decode(folder, names, Reading(size=self.config.size), self.config.crop)):
                if each.pixels is None:
                    raise UsageError(f"celeba: {folder / each.name}: {each.remarks[0]}; unpack the published zip again")
                rows[row] = each.pixels
            store.write(rows, range(len(names)), {})

    def load(self, split: base.Split) -> Images:
        return self._splits[split]

    @cached_property
    def _splits(self) -> dict[base.Split, Images]:
        ends = torch.tensor([len(self._members[split]) for split in base.SPLITS]).cumsum(0).tolist()
        starts = [0, *ends]
        return {
            split: self._all.take(slice(first, last))
            for split, first, last in zip(base.SPLITS, starts, ends, strict=False)
        }
