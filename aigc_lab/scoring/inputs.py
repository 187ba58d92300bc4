"""The samples that a user gives to be scored: folders of images, array files, tensors, splits of datasets.

Two sets are brought to one form before anything is measured. What is done to their pixels is part of the signature of
every score.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from torch import Tensor

from aigc_lab import noise, plugins
from aigc_lab.data.base import SPLITS, Dataset, Split
from aigc_lab.data.shared import sample_note
from aigc_lab.errors import UsageError
from aigc_lab.host.content import unknown_name
from aigc_lab.modalities.base import ModalityKind, modality, modality_of
from aigc_lab.modalities.shared.inputs import Input, Range, numbered
from aigc_lab.samples import Samples
from aigc_lab.shape import Modality, Shape

Array = npt.NDArray[Any]
#: anything that may be scored, or compared with
Source = "str | Path | Samples | Tensor | Array"


class _Loaded(Input):
    """Samples that are in memory."""

    def __init__(
        self,
        samples: Samples,
        name: str,
        split: tuple[Dataset, Split] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        if not len(samples):
            raise UsageError(f"{name}: holds no samples")
        self.name, self._samples, self.split, self.classes = name, samples, split, classes
        self.modality = samples.modality
        self.channels, self.sides = modality_of(samples).extent(samples)

    def load(self, channels: int, side: int | None) -> Samples:
        return modality_of(self).in_form(self._samples, channels, side)


def read_input(
    source: Any,
    *,
    data_dir: Path,
    name: str = "array",
    numbers: Range | None = None,
    skip_broken: bool = False,
    like: str | None = None,
) -> Input:
    """The samples of a `source`: a folder, of images or as `sample` wrote it; a `.npy` or `.npz` file; `dataset` or
    `dataset:split`; a dataset with the name of a split; samples, a tensor or an array. A folder or an array that
    samples of the modality `like` are held against is of that modality, where it reads such; else a folder holds
    images, and an array images or points.

    Raises `UsageError` for what is none of these, and for what cannot be read as samples.
    """
    if isinstance(source, Samples):
        return _Loaded(source, name)
    if isinstance(source, torch.Tensor | np.ndarray):
        return _Loaded(_of_array(source, name, numbers, like), name)
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], Dataset):
        dataset, split = source
        return _Loaded(dataset.load(split), f"{dataset.name}:{split}", (dataset, split))
    if not isinstance(source, str | Path):
        raise UsageError(
            f"{name}: a {type(source).__name__} is no set of samples; give an array or tensor, a path, or the name of "
            "a dataset (sentences: a text file, or aigc_lab.commands.sentences)"
        )
    path = Path(source).expanduser()
    if path.is_dir():
        path = sample_note.whole_file(path) or path
    if path.is_dir():
        return _of_folders(like).read_folder(path, skip_broken=skip_broken)
    if path.is_file():
        samples, classes = _of_file(path, numbers, like)
        return _Loaded(samples, str(source), classes=classes)
    return _of_dataset(str(source), data_dir)


def _of_dataset(text: str, data_dir: Path) -> _Loaded:
    name, _, split = text.partition(":")
    if name not in plugins.names("data"):
        if "/" in text or "." in text:
            raise UsageError(f"{text}: no such file or folder")
        raise UsageError(f"{text}: no such file or folder; {unknown_name('dataset', name, plugins.names('data'))}")
    splits: dict[str, Split] = {each: each for each in SPLITS}
    if split and split not in splits:
        raise UsageError(f"{text}: {unknown_name('split', split, list(splits))}")
    kind = plugins.find(Dataset, name)  # type: ignore[type-abstract]
    dataset, name_of_split = kind(kind.Config(), data_dir), splits.get(split, "holdout")
    return _Loaded(dataset.load(name_of_split), f"{name}:{name_of_split}", (dataset, name_of_split))


def of_size(given: Input, side: int | None) -> Input:
    """A dataset's split with pictures of `side`×`side`, where the dataset has a key `size` that takes so many pixels;
    anything else as it was given.
    """
    if given.split is None or side is None or given.sides in (None, (side, side)):
        return given
    dataset, split = given.split
    try:
        config = type(dataset.config).model_validate(dataset.config.model_dump() | {"size": side})
    except ValidationError:  # it has no such key, or no such size
        return given
    resized = type(dataset)(config, dataset.data_dir)
    return _Loaded(resized.load(split), given.name, (resized, split))


def _of_folders(like: str | None) -> ModalityKind:
    kind = None if like is None else modality(like)
    return kind if kind is not None and kind.reads_folders else modality(Modality.IMAGES)


# ---- arrays

_REMEDY = "give uint8, or say what the numbers mean: unit (0 to 1), signed (-1 to 1) or byte (0 to 255)"


def _of_file(path: Path, numbers: Range | None, like: str | None) -> tuple[Samples, Sequence[str] | None]:
    """The samples of a `.npy` or `.npz` file, which is never unpickled, and the names of their classes where these are
    no numbers. Raises `UsageError`.
    """
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
    samples = _of_array(arrays[candidates[0]], str(path), numbers, like)
    if labels is None:
        note = sample_note.note_of_array(path) if path.suffix == ".npy" else _note(arrays)
        drawn = sample_note.classes_of(note, range(len(samples)))
        if drawn is None:
            return samples, None
        places, classes = numbered(drawn)
        return replace(samples, labels=places), classes
    if labels.shape != (len(samples),) or labels.dtype.kind not in "iu":
        raise UsageError(f"{path}: labels are {list(labels.shape)} {labels.dtype}, and not {len(samples)} integers")
    return replace(samples, labels=torch.from_numpy(labels.astype(np.int64))), None


def _note(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """The note that `sample` wrote beside an archive's arrays; empty where there is none."""
    try:
        note = json.loads(str(arrays["note"]))
    except (KeyError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _of_array(array: Any, name: str, numbers: Range | None, like: str | None) -> Samples:
    if isinstance(array, np.ndarray) and (array.dtype.kind not in "uif" or array.dtype.itemsize > 8):
        raise UsageError(f"{name}: an array of {array.dtype} is no samples; {_REMEDY}")
    values = torch.from_numpy(np.array(array)) if isinstance(array, np.ndarray) else array.detach().cpu()
    kinds = [modality(each) for each in ([] if like is None else [like]) + [Modality.POINTS]]
    kind = next((each for each in kinds if values.ndim in each.array_dimensions), modality(Modality.IMAGES))
    return kind.read_array(values, name, numbers)


# ---- two sets in one form


class Pair:
    """Generated and reference samples in one form. `rule` says what was done to their pixels, for the signature;
    `notes` say how they were read, for the user. Raises `UsageError` for sets that cannot be compared.
    """

    def __init__(self, generated: Input, reference: Input, side: int | None = None) -> None:
        if generated.modality != reference.modality:
            raise UsageError(
                f"{generated.name} holds {generated.modality}, and {reference.name} {reference.modality}: "
                "there is nothing to compare"
            )
        self._given = (generated, reference)
        kind = modality_of(generated)
        self._channels, self._side, rule = kind.common_form(generated, reference, side)
        drawn = generated.load(self._channels, self._side)
        self.reference = reference.load(self._channels, None if reference.split else self._side)
        self._strangers: list[str] = []
        self.generated = replace(drawn, labels=self._by_reference(drawn.labels))
        done = dict.fromkeys([*generated.conversions, *reference.conversions])
        self.rule = "|".join(filter(None, [rule, *done]))
        fault = kind.mismatch(self.generated, self.reference, (generated.name, reference.name))
        if fault is not None:
            raise UsageError(fault)

    @property
    def notes(self) -> list[str]:
        return list(dict.fromkeys([note for each in self._given for note in each.notes] + self._strangers))

    def _by_reference(self, labels: Tensor | None) -> Tensor | None:
        """Classes of the generated samples [n] by the numbers of the reference's; None, and a note, where some are
        named as none of its own are.
        """
        given, reference = self._given
        if labels is None or given.classes is None:
            return labels
        names = reference.split[0].class_names if reference.split else reference.classes
        other = next((name for name in given.classes if name not in (names or ())), None)
        if other is not None:
            said = f"{given.name}: its labels are left out, since {other} is no class of {reference.name}"
            self._strangers = [said] if self.reference.labels is not None else []
            return None
        return torch.tensor([list(names or ()).index(name) for name in given.classes])[labels]

    @property
    def asked(self) -> Tensor | None:
        """Classes of the generated samples [n] by the numbers of the reference's; None where there are none, or where
        the reference names its classes and they are numbers.
        """
        given, reference = self._given
        return None if given.classes is None and reference.classes is not None else self.generated.labels

    def another(self, other: Input) -> Samples:
        """A further set in the form of the pair. Raises `UsageError` for another size."""
        samples = other.load(self._channels, None if other.split else self._side)
        if samples.values.shape[1:] != self.reference.values.shape[1:]:
            has, needed = list(samples.values.shape[1:]), list(self.reference.values.shape[1:])
            raise UsageError(f"{other.name} holds {has}, and {self._given[1].name} {needed}")
        return samples


class GivenDataset(Dataset):
    """A reference set in the place of a dataset, identified by its content. Its `train` split is a part of the set that
    was put aside for a classifier; its classes may have `names`.
    """

    fixed = False

    def __init__(
        self,
        reference: Samples,
        classes: int | None,
        train: Samples | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self._reference, self._classes, self._train, self._names = reference, classes, train, names

    @property
    def name(self) -> str:
        return "given"

    @property
    def class_names(self) -> Sequence[str] | None:
        return self._names

    @property
    def learns_apart(self) -> bool:
        """Whether a part of the set was put aside for a classifier."""
        return self._train is not None

    @property
    def shape(self) -> Shape:
        return self._reference.shape(self._classes)

    def load(self, split: Split) -> Samples:
        return self._train if split == "train" and self._train is not None else self._reference

    @cached_property
    def digest(self) -> str:
        parts = [self._reference.digest(), *([] if self._train is None else [self._train.digest()])]
        return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def parted(samples: Samples, count: int) -> tuple[Tensor, Tensor]:
    """The row numbers of `count` samples, a seeded choice, and those of the rest."""
    order = torch.randperm(len(samples), generator=noise.generator("parted"))
    return order[:count], order[count:]
