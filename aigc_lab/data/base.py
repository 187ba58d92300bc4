"""Datasets: disjoint train, reference and holdout splits of real samples, and what is known of their structure."""

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
    """Mixture of equally likely, isotropic Gaussians: `centres` [K, D], and the standard deviation `sigma`
    they share.
    """

    centres: Tensor
    sigma: float


@dataclass(frozen=True)
class Factors:
    """True factors of variation of N samples: `values`, float64 [N, F], and for each factor its name and its number of
    values, None for a continuous one. A factor of k values is given as their numbers 0 … k − 1; `nominal` names those
    whose numbers have no order.
    """

    values: Tensor
    names: tuple[str, ...]
    sizes: tuple[int | None, ...]
    nominal: frozenset[str] = frozenset()


class Dataset(ABC):
    """Base class of datasets with three splits. Systems train on `train`. `reference` scores them during training and
    decides the ranking and the promotion. `holdout` gives the final scores and decides nothing.

    Files are looked for in `data_dir` and downloaded to it; datasets that draw their samples ignore it. Construction
    touches no file, so that a configuration can be checked before anything is loaded.

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

    #: its knobs; none unless a subclass has some
    Config: ClassVar[type[Strict]] = Strict
    #: where the data is published, or None for samples that are drawn
    source: ClassVar[str | None] = None
    #: whether name and configuration determine the samples; if not, their content is a part of a sweep's identity
    fixed: ClassVar[bool] = True
    #: whether reference and holdout are random parts of one set; not if authors published them as two
    exchangeable: bool = True
    #: whether no two of its samples are equal: those of a point mass are, those of an oracle may be
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
        """Shape of every sample; known without loading."""

    @property
    def modes(self) -> Modes | None:
        """True mixture, or None if it is not known."""
        return None

    @property
    def class_names(self) -> Sequence[str] | None:
        """Names of the classes in the order of their numbers; None if the numbers are their names."""
        return self.shape.class_names

    @property
    def likelihood(self) -> Likelihood | None:
        """Model that the sentences were drawn from, or None if it is not known."""
        return None

    @property
    def factor_names(self) -> Sequence[str] | None:
        """Names of the factors that the samples were drawn from, known without loading; None if they are not known."""
        return None

    def factors(self, split: Split) -> Factors | None:
        """Factors of a split's samples, in the order of `load`; None if they are not known."""
        return None

    @property
    def notes(self) -> list[str]:
        """Remarks on the loaded data for the user, one sentence each; may load the data."""
        return []

    def memory(self) -> Mapping[str, int]:
        """Approximate bytes of memory for loading, by the key of `Config` that sets the number of drawn samples. Empty
        for data read from files.
        """
        return {}

    @abstractmethod
    def load(self, split: Split) -> Samples:
        """Samples of a split in their stored form (uint8 images, float32 points, int64 words), always in the same order
        and on the host.

        Raises `UsageError` naming the file and the remedy if the data cannot be had.
        """

    @cached_property
    def digest(self) -> str:
        """sha256 over the content of all splits: datasets of one digest hold the same samples."""
        return hashlib.sha256("".join(self.load(split).digest() for split in SPLITS).encode()).hexdigest()
