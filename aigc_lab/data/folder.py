"""Your own images: any folder of them, in any formats and sizes, with class folders or without."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from aigc_lab.data import base
from aigc_lab.data.shared.image_files import (
    File,
    Reading,
    Store,
    abbreviated,
    decode,
    find_images,
    look,
    most_common,
    reading_notes,
)
from aigc_lab.errors import UsageError
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape

# Names of top folders that say which split they hold, as published sets use them.
_SPLIT_OF: dict[str, base.Split] = {
    "train": "train",
    "training": "train",
    "val": "reference",
    "valid": "reference",
    "validation": "reference",
    "reference": "reference",
    "test": "holdout",
    "holdout": "holdout",
}


# Part of the key of a decoded copy: changes when other facts are kept beside it.
_FACTS = 3
# Sides that systems of this package take.
_SIDES = (16, 32, 64)


class Folder(base.Dataset):
    """Images of all files below `path`, decoded once to `size`×`size` and kept in `<data_dir>/decoded` until a file,
    its size, its time of change or a key changes.

    Splits: images are ordered by the hash of their pixels, and the first shares of that order are the holdout and the
    reference. A new file then moves at most one image at each border, names and the order on disk do not matter, and
    equal images are never in two splits. With `splits: auto`, top folders that are all named train, val(id), test, …
    are the splits instead. A missing one is taken from train, and an image in two of them stays in the one that is
    scored.

    Labels: the class is the first folder below `path` (or below train, test, …). `auto` uses them if every image lies
    in one and there are at least two.
    """

    fixed = False

    class Config(Reading):
        path: str | None = Field(None, description="the folder; from the working directory where it is relative")
        labels: Literal["auto", "folders", "none"] = "auto"
        splits: Literal["auto", "shares"] = "auto"
        reference: float = Field(0.15, gt=0, lt=0.5, description="share of the images")
        holdout: float = Field(0.15, gt=0, lt=0.5, description="share of the images")
        skip_broken: bool = Field(False, description="leave broken files out, and say how many")

    @property
    def shape(self) -> Shape:
        size = (self.config.channels, self.config.size, self.config.size)
        names = self._classes or None
        return Shape(Modality.IMAGES, size, classes=len(self._classes) or None, class_names=names and tuple(names))

    @cached_property
    def _root(self) -> Path:
        if self.config.path is None:
            raise UsageError("data.path: name your folder of images, like --set data.path=~/pictures")
        root = Path(self.config.path).expanduser().absolute()
        if not root.is_dir():
            what = "is a file, not a folder of images" if root.is_file() else "there is no such folder"
            raise UsageError(f"data.path: {root}: {what}; name a folder of images")
        return root

    @cached_property
    def _files(self) -> tuple[list[File], Counter[str]]:
        files, others = find_images(self._root)
        if len(files) < 3:
            has = f"{len(files) or 'no'} image{'s' * (len(files) != 1)}"
            besides = f" and {others.total()} other files ({most_common(others)})" if others else ""
            raise UsageError(
                f"data.path: {self._root} holds {has}{besides}; name a folder with more: "
                "train, reference and holdout need one image each at the very least"
            )
        return files, others

    @cached_property
    def _split_folders(self) -> bool:
        if self.config.splits == "shares":
            return False
        tops = {_top(file.name, 0).lower() for file in self._files[0]}
        return "train" in {_SPLIT_OF.get(top) for top in tops} and len(tops) > 1 and tops <= _SPLIT_OF.keys()

    @cached_property
    def _classes(self) -> list[str]:
        """Sorted names of the classes; none without labels."""
        if self.config.labels == "none":
            return []
        tops = {self._class_of(file.name) for file in self._files[0]}
        if "" not in tops and len(tops) > 1:
            return sorted(tops)
        if self.config.labels == "folders":
            loose = next((file.name for file in self._files[0] if not self._class_of(file.name)), None)
            why = f"{loose} lies in none" if loose else f"there is only {next(iter(tops))}"
            raise UsageError(
                f"data.labels: {self._root} should have a folder for each class, and {why}; "
                "move the files, or set data.labels to none"
            )
        return []

    def _class_of(self, name: str) -> str:
        return _top(name, 1 if self._split_folders else 0)

    @cached_property
    def _stored(self) -> tuple[torch.Tensor, dict[str, Any]]:
        files, _ = self._files
        config = self.config.model_dump(exclude={"path"})
        key = [[file.name, file.size, file.modified] for file in files]
        store = Store(self.data_dir / "decoded", "folder", f"facts:{_FACTS}", config, key)
        stored = store.read()
        if stored is None:
            self._decode(store)
            stored = store.read()
        assert stored is not None
        return stored

    def _decode(self, store: Store) -> None:
        """Decodes every file, decides the splits, and stores train, reference and holdout one after the other."""
        names = [file.name for file in self._files[0]]
        good: list[str] = []
        hashes: list[bytes] = []
        broken: list[str] = []
        remarks = Counter[str]()
        with store.scratch((len(names), *self.shape.size)) as rows:
            for each in decode(self._root, names, self.config):
                if each.pixels is None:
                    broken.append(f"{each.name} ({each.remarks[0]})")
                    continue
                rows[len(good)] = each.pixels
                good.append(each.name)
                hashes.append(hashlib.sha256(each.pixels.tobytes()).digest())
                remarks.update(each.remarks)
            if broken and not self.config.skip_broken:
                raise UsageError(
                    f"data.path: {len(broken)} of {len(names):,} images in {self._root} cannot be read: "
                    f"{abbreviated(broken)}; mend or remove them, or leave them out with --skip-broken"
                )
            splits, doubles = self._split(good, hashes)
            sizes = {split: len(members) for split, members in splits.items()}
            if not all(sizes.values()):
                raise UsageError(
                    f"data.path: {self._root} has {len(set(hashes))} different images, too few for three splits: "
                    f"{', '.join(f'{size} {split}' for split, size in sizes.items())}; add images"
                )
            order = [row for split in base.SPLITS for row in splits[split]]
            classes = {name: number for number, name in enumerate(self._classes)}
            labels = [classes[self._class_of(good[row])] for row in order] if classes else None
            facts = {
                "sizes": sizes,
                "labels": labels,
                "broken": broken,
                "remarks": dict(sorted(remarks.items())),
                "equal": len(hashes) - len(set(hashes)),
                "doubles": doubles,
                "looks": _looks(self._root, good),
            }
            store.write(rows, order, facts)

    def _split(self, names: Sequence[str], hashes: Sequence[bytes]) -> tuple[dict[base.Split, list[int]], int]:
        """Rows of each split, and the number of images left out because a scored split has them too."""
        by_hash = sorted(range(len(names)), key=lambda row: (hashes[row], names[row]))
        splits: dict[base.Split, list[int]] = {split: [] for split in base.SPLITS}
        if self._split_folders:
            for row in by_hash:
                splits[_SPLIT_OF[_top(names[row], 0).lower()]].append(row)
        else:
            splits["train"] = by_hash
        seen: set[bytes] = set()
        doubles = 0
        for split in ("holdout", "reference"):
            if not splits[split]:
                count = round(getattr(self.config, split) * len(names)) or 1
                splits[split], splits["train"] = _cut(splits["train"], count, hashes)
        for split in reversed(base.SPLITS):
            members = [row for row in splits[split] if hashes[row] not in seen]
            doubles += len(splits[split]) - len(members)
            seen |= {hashes[row] for row in members}
            splits[split] = members
        return splits, doubles

    @property
    def by_shares(self) -> bool:
        """Whether the scored splits are shares of the images, and no folders of their own."""
        return not self._split_folders

    @property
    def exchangeable(self) -> bool:  # type: ignore[override]
        """False if folders are the splits, and if images occur twice, because equal ones are kept in one split."""
        return not self._split_folders and not self._stored[1]["equal"]

    @property
    def notes(self) -> list[str]:
        facts, others = self._stored[1], self._files[1]
        sizes = ", ".join(f"{size:,} {split}" for split, size in facts["sizes"].items())
        by = "as its folders say" if self._split_folders else "by the hash of the pixels"
        classes = f"{len(self._classes)} classes by folder" if self._classes else "without labels"
        notes = [f"{self._root}: {sizes} ({by}), {classes}"]
        if facts["broken"]:
            notes.append(f"{len(facts['broken'])} broken images left out: {abbreviated(facts['broken'])}")
        if facts["equal"]:
            left_out = f"; {facts['doubles']} left out, a scored split has them" if facts["doubles"] else ""
            notes.append(f"{facts['equal']} images are copies of others: equal ones are in one split{left_out}")
        thin = self._thin_classes()
        if thin:
            notes.append(
                f"{len(thin)} classes have too few images to be in every split: {abbreviated(thin)}; "
                "data.labels=none does without classes"
            )
        if changed := self._changed(facts["looks"]):
            notes.append(changed)
        return [*notes, *reading_notes(Counter(facts["remarks"]), others, self.config, "data.")]

    def _changed(self, looks: list[tuple[int, int, bool, int]]) -> str:
        """A sentence on pictures that are enlarged, and on grey ones that become RGB; "" without any. Shrinking is what
        `size` is for.
        """
        side = self.config.size
        total = sum(count for *_, count in looks)
        small = sum(count for height, width, _, count in looks if min(height, width) < side)
        grey = sum(count for _, _, colour, count in looks if not colour) if self.config.channels == 3 else 0
        said = []
        if small:
            sides = {each for height, width, *_ in looks for each in (height, width)}
            (own,) = sides if len(sides) == 1 else (None,)
            keeps = f" (--set data.size={own} keeps them)" if own in _SIDES else ""
            said.append(f"{small:,} of {total:,} pictures are enlarged to {side}×{side}{keeps}")
        if grey:
            keeps = " (--set data.channels=1 keeps them)" if grey == total else ""
            said.append(f"{grey:,} of {total:,} {'' if small else 'pictures '}are grey, and become RGB{keeps}")
        return "; ".join(said)

    def _thin_classes(self) -> list[str]:
        present = [set(labels.tolist()) for s in self._splits.values() if (labels := s.labels) is not None]
        everywhere = set.intersection(*present) if present else set(range(len(self._classes)))
        return [name for number, name in enumerate(self._classes) if number not in everywhere]

    def load(self, split: base.Split) -> Images:
        return self._splits[split]

    @cached_property
    def _splits(self) -> dict[base.Split, Images]:
        values, facts = self._stored
        labels = None if facts["labels"] is None else torch.tensor(facts["labels"], dtype=torch.int64)
        every, first, splits = Images(values, labels), 0, {}
        for split in base.SPLITS:
            last = first + facts["sizes"][split]
            splits[split], first = every.take(slice(first, last)), last
        return splits


def _looks(root: Path, names: Sequence[str]) -> list[tuple[int, int, bool, int]]:
    """Height, width, whether in colour, and the number of images that are so."""
    looks = Counter(each for each in look(root, names) if each is not None)
    return [(*each, count) for each, count in sorted(looks.items())]


def _top(name: str, level: int) -> str:
    """Folder at this level of a file's name, or ""."""
    folders = name.split("/")[:-1]
    return folders[level] if len(folders) > level else ""


def _cut(rows: list[int], count: int, hashes: Sequence[bytes]) -> tuple[list[int], list[int]]:
    """First `count` rows and the rest; rows of equal images stay together."""
    while 0 < count < len(rows) and hashes[rows[count]] == hashes[rows[count - 1]]:
        count += 1
    return rows[:count], rows[count:]
