"""A set of samples that a user gives to be scored, before it is loaded."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor

from aigc_lab.data.base import Dataset, Split
from aigc_lab.errors import UsageError
from aigc_lab.modality import Modality
from aigc_lab.samples import Samples

#: what the numbers of a float array mean
Range = Literal["unit", "signed", "byte"]

_Some = TypeVar("_Some", bound=Samples)


class Input(ABC):
    """A set of samples that was given. `name` is what the user called it; `sides` are height and width of its images,
    None where they are mixed; samples of other kinds have neither sides nor channels.
    """

    name: str
    modality: Modality
    channels: int = 0
    sides: tuple[int, int] | None = None
    #: the dataset and the split that it is, where it is one
    split: tuple[Dataset, Split] | None = None
    #: the names of its classes once it is loaded, where these are no numbers
    classes: Sequence[str] | None = None
    #: once it is loaded: what was done to its pixels as they were read, `key:value` each, for signatures
    conversions: Sequence[str] = ()
    #: once it is loaded: what a user should know of how its files were read, a sentence each
    notes: Sequence[str] = ()

    @property
    def common(self) -> int:
        """The shorter side, in pixels, that most of its images have."""
        assert self.sides is not None
        return min(self.sides)

    def called(self, place: int) -> str:
        """What a user knows one of its samples by."""
        return f"sample {place}"

    @abstractmethod
    def load(self, channels: int, side: int | None) -> Samples:
        """The samples with so many channels; images as they are, or `side`×`side` where that is given."""


def numbered(labels: Sequence[str]) -> tuple[Tensor, Sequence[str] | None]:
    """Names of classes as int64 numbers [n]: their own where all are numbers; else places among the sorted names, which
    are returned too.
    """
    classes = sorted(set(labels))
    if all(each.isdecimal() for each in classes):
        return torch.tensor([int(each) for each in labels]), None
    places = {each: at for at, each in enumerate(classes)}
    return torch.tensor([places[each] for each in labels]), classes


def check_finite(samples: _Some, name: str) -> _Some:
    """The samples. Raises `UsageError` for NaN and infinity in what a user calls `name`."""
    try:
        samples.check()
    except ValueError as error:
        raise UsageError(f"{name}: {error}; leave them out") from None
    return samples
