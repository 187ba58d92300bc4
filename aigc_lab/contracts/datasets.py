"""What every dataset must do, whoever wrote it."""

import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from aigc_lab.config import Strict
from aigc_lab.contracts.base import Broken, Contracts
from aigc_lab.data.base import SPLITS, Dataset, Split
from aigc_lab.modalities.base import modality_of
from aigc_lab.samples import Samples
from aigc_lab.shape import Shape


@dataclass(frozen=True)
class Case:
    """A dataset with some of its options, and the folder where its files are looked for."""

    kind: type[Dataset]
    data_dir: Path
    options: dict[str, Any] = field(default_factory=dict)

    def another(self, data_dir: Path | None = None) -> Dataset:
        return self.kind(self.kind.Config(**self.options), data_dir or self.data_dir)

    @cached_property
    def dataset(self) -> Dataset:
        """Built once: nothing here may change it."""
        return self.another()


DATASET: Contracts[Case] = Contracts()


@DATASET.add(once=True)
def unknown_keys_are_refused(case: Case) -> None:
    """A misspelt key of an experiment would be ignored, and the runs would see other data than the file says."""
    if not issubclass(case.kind.Config, Strict):
        raise Broken("Config is no aigc_lab.config.Strict: write class Config(Strict)")
    try:
        case.kind.Config.model_validate({**case.options, "no_such_knob": 1})
    except ValidationError as error:
        if any(each["loc"] == ("no_such_knob",) for each in error.errors()):
            return
    raise Broken("Config takes no_such_knob=1: leave model_config as Strict has it")


@DATASET.add(unknown_keys_are_refused)
def building_one_touches_no_file(case: Case) -> None:
    """An experiment is checked before anything is read or downloaded: shape and classes are known without."""
    with tempfile.TemporaryDirectory(prefix="aigc-lab-check-") as folder:
        absent = Path(folder) / "absent"
        dataset = case.another(absent)
        shape = dataset.shape
        if not isinstance(shape, Shape):
            raise Broken(f"shape is a {type(shape).__name__}: return Shape(Modality.IMAGES, (1, 28, 28), classes=10)")
        if shape.classes is not None and shape.classes < 2:
            raise Broken(f"shape declares {shape.classes} classes: None for samples without labels")
        if absent.exists():
            raise Broken("building it creates its data folder: leave that to load")


@DATASET.add(building_one_touches_no_file)
def samples_are_what_the_shape_declares(case: Case) -> None:
    """Networks are built from the shape alone; another range or type would train, and be wrong."""
    for split in SPLITS:
        check_split(case.dataset, split)


def check_split(dataset: Dataset, split: Split) -> None:
    samples, shape = dataset.load(split), dataset.shape
    if not isinstance(samples, Samples):
        raise Broken(f"{split}: load returns a {type(samples).__name__}: wrap it, as in Images(values, labels)")
    values = samples.values
    if len(samples) < 100:
        raise Broken(f"{split} holds {len(samples)} samples; scores need at least 100")
    if samples.modality != shape.modality or tuple(values.shape[1:]) != shape.size:
        raise Broken(f"{split} holds {samples.modality} {list(values.shape[1:])}, and the shape says {shape}")
    kind = modality_of(samples)
    wanted = kind.stored_dtype
    if values.dtype != wanted or values.device.type != "cpu":
        raise Broken(f"{split} is {values.dtype} on {values.device.type}: store {samples.modality} as {wanted} on cpu")
    fault = kind.fault_of_stored(split, samples, shape)
    if fault is not None:
        raise Broken(fault)


@DATASET.add(samples_are_what_the_shape_declares)
def every_class_is_there(case: Case) -> None:
    """A judge is trained on these labels: a class without samples makes its scores meaningless."""
    for split in SPLITS:
        check_labels(case.dataset, split)


def check_labels(dataset: Dataset, split: Split) -> None:
    samples, classes = dataset.load(split), dataset.shape.classes
    labels = samples.labels
    if classes is None or labels is None:
        if classes is not None or labels is not None:
            given = "no labels" if labels is None else "labels"
            raise Broken(f"{split} has {given}, and the shape declares {classes or 'no'} classes")
        return
    if labels.dtype != torch.int64 or tuple(labels.shape) != (len(samples),):
        raise Broken(f"{split}: labels are {labels.dtype} {list(labels.shape)}, not int64 [{len(samples)}]")
    label_values = sorted(set(labels.tolist()))
    if label_values != list(range(classes)):
        raise Broken(f"{split}: labels are {label_values[:12]}, and the shape declares 0 to {classes - 1}")


@DATASET.add(samples_are_what_the_shape_declares)
def no_sample_is_in_two_splits(case: Case) -> None:
    """Scores on data that was trained on reward memory: the winner of the sweep is whoever copies best."""
    if not case.dataset.distinct:
        return
    rows = {split: {row.tobytes() for row in case.dataset.load(split).values.numpy()} for split in SPLITS}
    for first, second in combinations(SPLITS, 2):
        shared = len(rows[first] & rows[second])
        if shared:
            raise Broken(f"{first} and {second} share {shared} samples: split by a seeded permutation, once")


@DATASET.add(samples_are_what_the_shape_declares)
def two_objects_hold_the_same_in_the_same_order(case: Case) -> None:
    """The digest is part of every score's signature: if it moves, no two scores may ever be compared."""
    first, second = case.dataset, case.another()
    for split in SPLITS:
        once, again, other = first.load(split), first.load(split), second.load(split)
        for what, samples in (("a second load", again), ("a second object", other)):
            if not torch.equal(once.values, samples.values) or (
                once.labels is not None and samples.labels is not None and not torch.equal(once.labels, samples.labels)
            ):
                raise Broken(f"{what} gives another {split} split: shuffle with noise.generator('a fixed name')")
    if first.digest != second.digest:
        raise Broken(f"two objects have the digests {first.digest[:8]} and {second.digest[:8]}")
