"""A folder of image files as a set of samples."""

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aigc_lab.data.shared import sample_note
from aigc_lab.data.shared.image_files import (
    MAPPED_FROM,
    Look,
    Reading,
    abbreviated,
    conversions,
    decode,
    find_images,
    look,
    most_common,
    reading_notes,
)
from aigc_lab.errors import UsageError
from aigc_lab.modalities.shared.inputs import Input, numbered
from aigc_lab.modality import Modality
from aigc_lab.samples import Images


class ImageFolder(Input):
    """Every image below a folder. Its classes are its first level of folders, where every image lies in one."""

    modality = Modality.IMAGES

    def __init__(self, root: Path, skip_broken: bool) -> None:
        files, self._others = find_images(root)
        if not files:
            besides = f" but {self._others.total():,} other files ({most_common(self._others)})" if self._others else ""
            raise UsageError(f"{root}: holds no image{besides}; name a folder with images")
        self.name, self._root, self._skip = str(root), root, skip_broken
        self._names = [file.name for file in files]
        self._loaded = self._names
        self._looks = look(root, self._names)
        self.channels = 3 if any(each.colour for each in self._whole) else 1
        sizes = Counter((each.height, each.width) for each in self._whole)
        self.sides = next(iter(sizes)) if len(sizes) == 1 else None

    @cached_property
    def _whole(self) -> list[Look]:
        return [each for each in self._looks if each is not None]

    def called(self, place: int) -> str:
        return self._loaded[place]

    @property
    def common(self) -> int:
        sides = Counter(min(each.height, each.width) for each in self._whole)
        return min(side for side, count in sides.items() if count == max(sides.values())) if sides else 32

    def load(self, channels: int, side: int | None) -> Images:
        size = (side, side) if side else self.sides or (self.common, self.common)
        shape = (len(self._names), channels, *size)
        how = Reading(size=side or 32, channels=3 if channels == 3 else 1)
        rows = _room(shape)
        names: list[str] = []
        broken: list[str] = []
        remarks = Counter[str]()
        # Images of one size stay as they are.
        for each in decode(self._root, self._names, how, as_is=self.sides == size):
            if each.pixels is None:
                broken.append(f"{each.name} ({each.remarks[0]})")
            else:
                rows[len(names)] = each.pixels
                names.append(each.name)
                remarks.update(each.remarks)
        if broken and not (self._skip and names):
            raise UsageError(
                f"{self._root}: {len(broken)} of {len(self._names):,} images cannot be read: {abbreviated(broken)}; "
                "mend or remove them, or leave them out with --skip-broken"
            )
        self._loaded = names
        self.conversions = conversions(remarks, how)
        notes = reading_notes(remarks, self._others, how)
        if broken:
            notes.insert(0, f"{len(broken):,} broken images left out: {abbreviated(broken)}")
        self.notes = [f"{self._root}: {note}" for note in notes]
        labels, self.classes = _labels(names) if (drawn := _sampled(self._root, names)) is None else numbered(drawn)
        return Images(torch.from_numpy(rows[: len(names)]), labels)


def _room(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """An uninitialised array in memory, or a large one in a file without a name, which goes with its last user."""
    if int(np.prod(shape)) <= MAPPED_FROM:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _sampled(root: Path, names: Sequence[str]) -> list[str] | None:
    """The class that each image of a conditional system was drawn of, by the number in its name and the note beside it;
    None for other images.
    """
    numbers = [re.match(r"(\d{5,})(-.*)?\.png$", name) for name in names]
    whole = [int(number[1]) for number in numbers if number is not None]
    return sample_note.classes_of(sample_note.read_note(root / sample_note.NAME), whole) if all(numbers) else None


def _labels(names: Sequence[str]) -> tuple[Tensor | None, Sequence[str] | None]:
    """The class of each image, by its first folder: its number where all folders are numbers, else its place, and then
    the folders' names too.
    """
    tops = [name.split("/")[0] if "/" in name else "" for name in names]
    classes = sorted(set(tops))
    if "" in classes or len(classes) < 2:
        return None, None
    return numbered(tops)
