"""Classes that a conditional system is asked for where its samples are compared with real ones.

Samples of all classes in turn hold equally many of each; beside data that do not, a system that draws every class as it
is would be far from them. It is asked for the classes of its training data, in their proportions: its samples are then
those of p(class) p(sample | class), as an unconditional system's are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aigc_lab import noise

if TYPE_CHECKING:
    from aigc_lab.data.base import Dataset
    from aigc_lab.noise import Key
    from aigc_lab.samples import Samples


def apportioned(counts: Tensor, n: int) -> Tensor:
    """`n` shared out in proportion to int64 counts [K], by largest remainders (Hamilton's method); of equal ones the
    first get more.

    >>> apportioned(torch.tensor([50, 30, 20]), 9)
    tensor([4, 3, 2])
    """
    total = int(counts.sum())
    if total == 0:
        raise ValueError("there is nothing that n could be shared out in proportion to")
    seats, rest = counts * n // total, counts * n % total
    seats[rest.argsort(descending=True, stable=True)[: n - int(seats.sum())]] += 1
    return seats


def labels_like(train: Samples, classes: int, n: int) -> Tensor:
    """Classes of `n` samples, int64 [n], in the proportions of labelled training samples: all in turn where these hold
    equally many of each, else in an order that depends on n alone.
    """
    assert train.labels is not None
    counts = torch.bincount(train.labels.cpu(), minlength=classes)
    if bool((counts == counts[0]).all()):
        return torch.arange(n) % classes
    labels = torch.repeat_interleave(torch.arange(len(counts)), apportioned(counts, n))
    return labels[torch.randperm(n, generator=noise.generator("classes", n))]


def labels_for(system: Any, dataset: Dataset | None, n: int) -> Tensor | None:
    """Classes that a system is asked for, int64 [n]: those of the dataset that it was trained on, in their proportions.
    None for a system that is not conditional, and where the dataset or its labels are not known.
    """
    if dataset is None or not system.conditional or system.shape.classes is None:
        return None
    train = dataset.load("train")
    return None if train.labels is None else labels_like(train, system.shape.classes, n)


def generate_like(system: Any, dataset: Dataset | None, n: int, *key: Key) -> Samples:
    """`n` samples of a system, keyed by `key` as by `System.generate`, of the classes of `labels_for`; all in turn of
    a conditional system where these are not known.
    """
    samples: Samples = system.generate(n, *key, labels=labels_for(system, dataset, n))
    return samples
