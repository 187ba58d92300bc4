"""What a user gives to be scored or compared with: folders of images, array files, tensors, splits of datasets.

Two sets are brought to one form before anything is measured, and whatever was done to their pixels is a part of the
scores' signature.
"""

import hashlib
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aigc_lab import noise, plugins
from aigc_lab.data.base import SPLITS, Dataset, Split
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
from aigc_lab.host.content import unknown_name
from aigc_lab.samples import Images, Points, Samples, Text
from aigc_lab.shape import Modality, Shape

Array = npt.NDArray[Any]
#: what the numbers of a float array mean
Range = Literal["unit", "signed", "byte"]
#: anything that may be scored, or compared with
Source = "str | Path | Samples | Tensor | Array"


class Input(ABC):
    """A set of samples that was given. `name` is what the user called it; `sides` are height and width of its images,
    None where they are mixed; points have neither sides nor channels.
    """

    name: str
    modality: Modality = Modality.IMAGES
    channels: int = 0
    sides: tuple[int, int] | None = None
    #: which dataset and which of its splits it is, where it is one
    split: tuple[Dataset, Split] | None = None
    #: the names of its classes once it is loaded, where these are no numbers
    classes: Sequence[str] | None = None
    #: once it is loaded: what was done to its pixels as they were read, `key:value` each, for signatures
    conversions: Sequence[str] = ()
    #: once it is loaded: what a user should know of how its files were read, a sentence each
    notes: Sequence[str] = ()

    @property
    def common(self) -> int:
        """The shorter side that most of its images have."""
        assert self.sides is not None
        return min(self.sides)

    def called(self, place: int) -> str:
        """What a user knows one of its samples by."""
        return f"sample {place}"

    @abstractmethod
    def load(self, channels: int, side: int | None) -> Samples:
        """The samples with so many channels; images as they are, or `side`×`side` where that is given."""


class _Folder(Input):
    """Every image below a folder. Its classes are its first level of folders, where every image lies in one."""

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
        kept: list[str] = []
        broken: list[str] = []
        remarks = Counter[str]()
        # Images of one size stay as they are.
        for each in decode(self._root, self._names, how, as_is=self.sides == size):
            if each.pixels is None:
                broken.append(f"{each.name} ({each.remarks[0]})")
            else:
                rows[len(kept)] = each.pixels
                kept.append(each.name)
                remarks.update(each.remarks)
        if broken and not (self._skip and kept):
            raise UsageError(
                f"{self._root}: {len(broken)} of {len(self._names):,} images cannot be read: {abbreviated(broken)}; "
                "mend or remove them, or leave them out with --skip-broken"
            )
        self._loaded = kept
        self.conversions = conversions(remarks, how)
        notes = reading_notes(remarks, self._others, how)
        if broken:
            notes.insert(0, f"{len(broken):,} broken images left out: {abbreviated(broken)}")
        self.notes = [f"{self._root}: {note}" for note in notes]
        labels, self.classes = _labels(kept)
        return Images(torch.from_numpy(rows[: len(kept)]), labels)


def _room(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """An array in memory, or a large one on disk: the file has no name and goes with its last user."""
    if int(np.prod(shape)) <= MAPPED_FROM:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _labels(names: Sequence[str]) -> tuple[Tensor | None, Sequence[str] | None]:
    """The class of each image, by its first folder: its number where all folders are numbers, else its place, and then
    the folders' names too.
    """
    tops = [name.split("/")[0] if "/" in name else "" for name in names]
    classes = sorted(set(tops))
    if "" in classes or len(classes) < 2:
        return None, None
    return numbered(tops)


def numbered(labels: Sequence[str]) -> tuple[Tensor, Sequence[str] | None]:
    """Names of classes as numbers: their own where all are numbers; else places among the names, which come too."""
    classes = sorted(set(labels))
    if all(each.isdecimal() for each in classes):
        return torch.tensor([int(each) for each in labels]), None
    places = {each: at for at, each in enumerate(classes)}
    return torch.tensor([places[each] for each in labels]), classes


class _Loaded(Input):
    """Samples that are in memory."""

    def __init__(self, samples: Samples, name: str, split: tuple[Dataset, Split] | None = None) -> None:
        if not len(samples):
            raise UsageError(f"{name}: holds no samples")
        self.name, self._samples, self.split = name, samples, split
        self.modality = samples.modality
        if isinstance(samples, Images):
            _, self.channels, height, width = samples.values.shape
            self.sides = (height, width)

    def load(self, channels: int, side: int | None) -> Samples:
        samples = self._samples
        if not isinstance(samples, Images):
            return samples
        values = samples.values
        if values.shape[1] != channels:
            values = values.expand(-1, 3, -1, -1) if channels == 3 else _luma(samples)
        if side is not None and tuple(values.shape[2:]) != (side, side):
            values = _resized(Images(values), side)
        return Images(values, samples.labels)


def _luma(images: Images) -> Tensor:
    """BT.601, as Pillow turns colours into grey."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    return (images.canonical().values.float() * weights[:, None, None]).sum(1, keepdim=True).round().to(torch.uint8)


def _resized(images: Images, side: int) -> Tensor:
    """The middle square by Pillow's bicubic filter: what becomes of a folder's images."""
    from PIL import Image

    values = images.canonical().values
    _, channels, height, width = values.shape
    cut = min(height, width)
    top, left = (height - cut) // 2, (width - cut) // 2
    values = values[:, :, top : top + cut, left : left + cut]
    rows = torch.empty(len(values), channels, side, side, dtype=torch.uint8)
    for index, each in enumerate(values.permute(0, 2, 3, 1).numpy()):
        picture = Image.fromarray(each[..., 0] if channels == 1 else each)
        pixels = np.array(picture.resize((side, side), Image.Resampling.BICUBIC))
        rows[index] = torch.from_numpy(pixels.reshape(side, side, channels)).permute(2, 0, 1)
    return rows


def read_input(
    source: Any, *, data_dir: Path, name: str = "array", numbers: Range | None = None, skip_broken: bool = False
) -> Input:
    """What `source` is: a folder, a `.npy` or `.npz` file, `dataset` or `dataset:split`, a dataset with the name of a
    split, samples, a tensor or an array.

    Raises `UsageError` for what is none of these, and for what cannot be read as samples.
    """
    if isinstance(source, Samples):
        return _Loaded(source, name)
    if isinstance(source, torch.Tensor | np.ndarray):
        return _Loaded(_of_array(source, name, numbers), name)
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], Dataset):
        dataset, split = source
        return _Loaded(dataset.load(split), f"{dataset.name}:{split}", (dataset, split))
    if not isinstance(source, str | Path):
        raise UsageError(
            f"{name}: a {type(source).__name__} is no set of samples; give an array or tensor, a path, or the name of "
            "a dataset (sentences: a text file, or aigc_lab.scoring.text)"
        )
    path = Path(source).expanduser()
    if path.is_dir():
        return _Folder(path, skip_broken)
    if path.is_file():
        return _Loaded(_of_file(path, numbers), str(source))
    return _of_dataset(str(source), data_dir)


def _of_dataset(text: str, data_dir: Path) -> _Loaded:
    name, _, split = text.partition(":")
    if name not in plugins.names("data"):
        if "/" in text or "." in text:
            raise UsageError(f"{text}: no such file or folder")
        raise UsageError(f"{text}: no such file or folder; {unknown_name('dataset', name, plugins.names('data'))}")
    known: dict[str, Split] = {each: each for each in SPLITS}
    if split and split not in known:
        raise UsageError(f"{text}: {unknown_name('split', split, list(known))}")
    kind = plugins.find(Dataset, name)  # type: ignore[type-abstract]
    dataset, wanted = kind(kind.Config(), data_dir), known.get(split, "holdout")
    return _Loaded(dataset.load(wanted), f"{name}:{wanted}", (dataset, wanted))


# ---- arrays

_REMEDY = "give uint8, or say what the numbers mean: unit (0 to 1), signed (-1 to 1) or byte (0 to 255)"


def _of_file(path: Path, numbers: Range | None) -> Samples:
    """The samples of a `.npy` or `.npz` file; never unpickles."""
    if path.suffix not in (".npy", ".npz"):
        raise UsageError(f"{path}: a set of samples is a folder of images, a .npy or a .npz file")
    try:
        loaded = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
        arrays = {"samples": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = (
            "it holds objects, which are never unpickled"
            if "pickle" in str(error) or "objects" in str(error)
            else str(error)
        )
        raise UsageError(f"{path}: cannot be read as an array ({reason}); write it again with numpy.save") from None
    labels = arrays.pop("labels", None)
    candidates = [key for key in ("samples", "images", "arr_0") if key in arrays]
    candidates = candidates or [key for key, array in arrays.items() if array.ndim >= 2]
    if not candidates:
        raise UsageError(
            f"{path}: holds no array of samples; name one 'samples' ({', '.join(arrays) or 'it is empty'})"
        )
    samples = _of_array(arrays[candidates[0]], str(path), numbers)
    if labels is None:
        return samples
    if labels.shape != (len(samples),) or labels.dtype.kind not in "iu":
        raise UsageError(f"{path}: labels are {list(labels.shape)} {labels.dtype}, and not {len(samples)} integers")
    return type(samples)(samples.values, torch.from_numpy(labels.astype(np.int64)))


def _of_array(array: Any, name: str, numbers: Range | None) -> Samples:
    """Images [N, H, W], [N, C, H, W] or [N, H, W, C], or points [N, D]."""
    if isinstance(array, np.ndarray) and (array.dtype.kind not in "uif" or array.dtype.itemsize > 8):
        raise UsageError(f"{name}: an array of {array.dtype} is no samples; {_REMEDY}")
    values = torch.from_numpy(np.array(array)) if isinstance(array, np.ndarray) else array.detach().cpu()
    if values.ndim == 2:
        samples: Samples = Points(values.float())
        _check(samples, name)
        return samples
    if values.ndim == 3:
        values = values.unsqueeze(1)
    if values.ndim != 4 or 0 in values.shape:
        raise UsageError(f"{name}: images are [N, H, W], [N, C, H, W] or [N, H, W, C], not {list(values.shape)}")
    first, last = values.shape[1] in (1, 3), values.shape[3] in (1, 3)
    if first == last:
        why = "could be channels first or last" if first else "has 1 or 3 channels neither first nor last"
        raise UsageError(f"{name}: {list(values.shape)} {why}; give [N, C, H, W] with 1 or 3 channels")
    values = values if first else values.permute(0, 3, 1, 2)
    _check(Images(values), name)
    return Images(_canonical(values, name, numbers))


def _check(samples: Samples, name: str) -> None:
    try:
        samples.check()
    except ValueError as error:
        raise UsageError(f"{name}: {error}; leave them out") from None


def _canonical(values: Tensor, name: str, numbers: Range | None) -> Tensor:
    """uint8, or float32 in [0, 1]. Refuses numbers whose meaning would have to be guessed."""
    if values.dtype == torch.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    has = f"{name}: {str(values.dtype).removeprefix('torch.')} numbers from {low:.4g} to {high:.4g}"
    if numbers is None:
        if not values.is_floating_point() and low >= 0 and high <= 255 and high > 1:
            numbers = "byte"
        elif values.is_floating_point() and low >= 0 and high <= 1:
            numbers = "unit"
        else:
            raise UsageError(f"{has} may mean several things; {_REMEDY} (--range)")
    limits = {"unit": (0.0, 1.0), "signed": (-1.0, 1.0), "byte": (0.0, 255.0)}[numbers]
    if low < limits[0] - 1e-3 or high > limits[1] + 1e-3:
        raise UsageError(f"{has} are not {numbers} ({limits[0]:g} to {limits[1]:g}); {_REMEDY}")
    unit = (values.float() - limits[0]) / (limits[1] - limits[0])
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8)


# ---- two sets in one form


class Pair:
    """Generated and reference samples that can be compared. `rule` is what was done to their pixels, for the signature;
    `notes` are what a user should know of how they were read.
    """

    def __init__(self, generated: Input, reference: Input, side: int | None = None) -> None:
        if generated.modality != reference.modality:
            raise UsageError(
                f"{generated.name} holds {generated.modality}, and {reference.name} {reference.modality}: "
                "there is nothing to compare"
            )
        self.rule = ""
        self._given = (generated, reference)
        self._channels, self._side = 0, side
        if generated.modality == Modality.IMAGES:
            self._fit(generated, reference, side)
        self.generated = generated.load(self._channels, self._side)
        self.reference = reference.load(self._channels, None if reference.split else self._side)
        done = dict.fromkeys([*generated.conversions, *reference.conversions])
        self.rule = "|".join(filter(None, [self.rule, *done]))
        if isinstance(self.generated, Text) and isinstance(self.reference, Text):
            if self.generated.vocabulary != self.reference.vocabulary:
                raise UsageError(
                    f"{generated.name} and {reference.name} have different vocabularies; compare them as text: "
                    "aigc-lab sample RUN -o samples.txt, and --generated samples.txt"
                )
            return
        if self.generated.values.shape[1:] != self.reference.values.shape[1:]:
            made, real = (list(each.values.shape[1:]) for each in (self.generated, self.reference))
            remedy = (
                "--size N brings both to N×N" if generated.modality == Modality.IMAGES else "compare like with like"
            )
            raise UsageError(f"{generated.name} holds {made}, and {reference.name} {real}; {remedy}")

    @property
    def notes(self) -> list[str]:
        return list(dict.fromkeys(note for each in self._given for note in each.notes))

    def another(self, other: Input) -> Samples:
        """A further set in the same form."""
        samples = other.load(self._channels, None if other.split else self._side)
        if samples.values.shape[1:] != self.reference.values.shape[1:]:
            has, wanted = list(samples.values.shape[1:]), list(self.reference.values.shape[1:])
            raise UsageError(f"{other.name} holds {has}, and {self._given[1].name} {wanted}")
        return samples

    def _fit(self, generated: Input, reference: Input, side: int | None) -> None:
        """Grey becomes RGB where the other set has colours; what generates for a dataset takes on its form."""
        self._channels = reference.channels if reference.split else max(generated.channels, reference.channels)
        mixed = [each for each in (generated, reference) if each.sides is None]
        if side is None and mixed:
            even = reference if reference.sides is not None else generated if generated.sides is not None else None
            self._side = reference.common if even is None else even.common
        if self._side is not None and not 8 <= self._side <= 1024:
            raise UsageError(f"--size {self._side}: images are brought to 8 to 1024 pixels")
        if self._side is not None:
            self.rule = f"resize:{self._side}:crop-bicubic"
        if self._channels not in {generated.channels} & {reference.channels}:
            self.rule = "|".join(filter(None, [self.rule, "grey:rgb" if self._channels == 3 else "rgb:luma"]))


class GivenDataset(Dataset):
    """A reference set that was given, in the place of a dataset: its content is its identity. A part of it may be set
    aside to `train` what judges by the rest.
    """

    fixed = False

    def __init__(self, reference: Samples, classes: int | None, train: Samples | None = None) -> None:
        self._reference, self._classes, self._train = reference, classes, train

    @property
    def name(self) -> str:
        return "given"

    @property
    def shape(self) -> Shape:
        modality = Modality.IMAGES if isinstance(self._reference, Images) else Modality.POINTS
        return Shape(modality, tuple(self._reference.values.shape[1:]), self._classes)

    def load(self, split: Split) -> Samples:
        return self._train if split == "train" and self._train is not None else self._reference

    @cached_property
    def digest(self) -> str:
        parts = [self._reference.digest(), *([] if self._train is None else [self._train.digest()])]
        return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def parted(samples: Samples, count: int) -> tuple[Tensor, Tensor]:
    """The rows of `count` of the samples, a seeded choice, and of the rest."""
    order = torch.randperm(len(samples), generator=noise.generator("parted"))
    return order[:count], order[count:]
