"""Networks that turn images into the features that metrics compare; each is addressed by the hash of its weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.data.base import Dataset
from aigc_lab.frechet import Gaussian, Moments
from aigc_lab.samples import Images


@dataclass(frozen=True)
class Features:
    """What an extractor makes of `count` samples: float32 `vectors` [k, d], and `logits` [k, classes] where it
    classifies; on the host. k is `count`, or of more samples than were to be kept a seeded choice: then `whole` has the
    moments of all.
    """

    vectors: Tensor
    logits: Tensor | None = None
    whole: Gaussian | None = None

    @property
    def count(self) -> int:
        """How many samples there were."""
        return len(self.vectors) if self.whole is None else self.whole.count

    @cached_property
    def gaussian(self) -> Gaussian:
        """Mean and covariance of all samples."""
        return self.whole or Gaussian.of(self.vectors)

    @property
    def rows(self) -> Tensor:
        """Which of the samples the vectors are of [k]."""
        return torch.arange(self.count) if self.whole is None else choice(self.count, len(self.vectors))

    def take(self, index: Tensor | slice) -> "Features":
        """Those of the kept samples at `index`."""
        return Features(self.vectors[index], None if self.logits is None else self.logits[index])

    def some(self, count: int) -> "Features":
        """Those of `count` of the kept samples, a seeded choice without repetition; of all where there are no more.

        The choice is of all samples: how many vectors another metric made to be kept changes nothing.
        """
        if count >= len(self.vectors):
            return self
        return self.take(torch.searchsorted(self.rows, choice(self.count, count)))


def choice(total: int, count: int) -> Tensor:
    """`count` of the rows 0 … total − 1 without repetition, in order, the same every time."""
    picked: Tensor = torch.randperm(total, generator=noise.generator("choice", total))[:count].sort().values
    return picked


class Extractor(ABC):
    """`identity` names the weights and the preprocessing: features of one identity may be compared and cached."""

    #: how scores name it: `fd_<short>`
    short: ClassVar[str]
    identity: str
    network: nn.Module

    @classmethod
    @abstractmethod
    def check(cls, dataset: Dataset, weights_dir: Path | None) -> None:
        """Raises `UsageError` when it cannot serve this dataset here. Loads nothing."""

    @classmethod
    @abstractmethod
    def prepare(
        cls, dataset: Dataset, *, cache: Path, weights_dir: Path | None, device: str, say: Callable[[str], None]
    ) -> Self:
        """The extractor, ready on the device; a stored one is made first where it is missing, and `say` tells so."""

    @abstractmethod
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Vectors and logits of uint8 images [N, C, H, W] on the device."""

    @torch.inference_mode()
    def extract(self, images: Images, block: int = 256, keep: int | None = None) -> Features:
        """Features of any number of images, in blocks. Of more than `keep` images the vectors of a seeded choice are
        kept, with the moments of all: memory does not grow with the count.

        Raises `ValueError` for images that it turns into NaN or infinity.
        """
        images.check()
        count = len(images)
        kept = None if keep is None or count <= keep else choice(count, keep)
        device, moments = next(self.network.parameters()).device, Moments()
        parts: list[tuple[Tensor, Tensor | None]] = []
        for first in range(0, count, block):
            # Canonical by blocks: float images of a run take four times the room of their bytes.
            values = images.take(slice(first, first + block)).canonical().values
            vectors, logits = self(values.to(device))
            vectors = vectors.float()
            if not torch.isfinite(vectors).all():
                raise ValueError(f"{self.identity} turns images into NaN or infinity: its weights are damaged")
            rows: Tensor | slice = slice(None)
            if kept is not None:
                moments.add(vectors)
                rows = kept[(kept >= first) & (kept < first + len(vectors))].to(device) - first
            parts.append((vectors[rows].cpu(), None if logits is None else logits[rows].float().cpu()))
        classes = [part for _, part in parts if part is not None]
        return Features(
            torch.cat([part for part, _ in parts]),
            torch.cat(classes) if classes else None,
            None if kept is None else moments.done(),
        )
