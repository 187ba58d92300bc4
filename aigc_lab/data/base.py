"""Where real samples come from: disjoint train, reference and holdout splits, and what is known of their structure."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from aigc_lab import plugins
from aigc_lab.config import Strict
from aigc_lab.samples import Samples
from aigc_lab.shape import Shape
from aigc_lab.text.likelihood import Likelihood

Split = Literal["train", "reference", "holdout"]
SPLITS: tuple[Split, ...] = ("train", "reference", "holdout")


@dataclass(frozen=True)
class Modes:
    """A mixture of equally likely, isotropic Gaussians: `centres` [K, D], and the `sigma` they share."""

    centres: Tensor
    sigma: float


class Dataset(ABC):
    """Systems train on `train`; `reference` scores them on the way and chooses what ranks first and is promoted;
    `holdout` says what that is worth, and chooses nothing.

    `data_dir` is where files are looked for and downloaded to; a dataset that makes its samples ignores it. Building
    one touches no file, so that a configuration can be checked before anything is loaded.

    >>> import torch
    >>> from aigc_lab.samples import Points
    >>> from aigc_lab.shape import Modality
    >>> class Line(Dataset):  # points on a line
    ...     class Config(Strict):
    ...         points: int = 100
    ...
    ...     @property
    ...     def shape(self):
    ...         return Shape(Modality.POINTS, (1,))
    ...
    ...     def load(self, split):
    ...         first = SPLITS.index(split) * self.config.points
    ...         return Points(torch.arange(first, first + self.config.points).float()[:, None])
    >>> line = Line(Line.Config(points=3), Path())
    >>> line.load("reference").values.flatten().tolist()
    [3.0, 4.0, 5.0]
    """

    Config: ClassVar[type[Strict]]
    #: where the data is published, or None for samples that are made
    source: ClassVar[str | None] = None
    #: whether name and configuration say what the samples are; if not, their content is a part of a sweep's identity
    fixed: ClassVar[bool] = True
    #: whether reference and holdout are random parts of one set: not where authors published them as two
    exchangeable: bool = True
    #: whether no two of its samples are the same: those of a point mass are, and what an oracle says may be
    distinct: ClassVar[bool] = True

    def __init__(self, config: Any, data_dir: Path) -> None:
        self.config = config
        self.data_dir = data_dir

    @property
    def name(self) -> str:
        return plugins.name_of(type(self))

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """What every sample looks like; known without loading."""

    @property
    def modes(self) -> Modes | None:
        """The true mixture, where it is known."""
        return None

    @property
    def class_names(self) -> Sequence[str] | None:
        """What its classes are called, in the order of their numbers; None where these are their names."""
        return None

    @property
    def likelihood(self) -> Likelihood | None:
        """What made the sentences, where that is known: it gives each word's probability."""
        return None

    @property
    def notes(self) -> list[str]:
        """What a user should know of the loaded data before a run, one sentence each; it may load the data."""
        return []

    def memory(self) -> Mapping[str, int]:
        """About how many bytes loading takes, by the key of `Config` that says how many samples are made. Empty for
        what is read: a file is as large as it is.
        """
        return {}

    @abstractmethod
    def load(self, split: Split) -> Samples:
        """The split in its stored form (uint8 images, float32 points, int64 words), always in the same order and on
        the host.

        Raises `UsageError` naming the file and the remedy when the data cannot be had.
        """

    @cached_property
    def digest(self) -> str:
        """sha256 over the content of all splits: two datasets of one digest hold the same samples."""
        return hashlib.sha256("".join(self.load(split).digest() for split in SPLITS).encode()).hexdigest()
