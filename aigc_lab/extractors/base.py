"""Networks that turn images into the features that metrics compare; each is addressed by the hash of its weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from aigc_lab.data.base import Dataset
from aigc_lab.samples import Images


@dataclass(frozen=True)
class Features:
    """float32 `vectors` [N, d], and `logits` [N, classes] where the extractor classifies; both on the host."""

    vectors: Tensor
    logits: Tensor | None = None

    def take(self, count: int) -> "Features":
        """Those of the first `count` samples."""
        return Features(self.vectors[:count], None if self.logits is None else self.logits[:count])


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
    def extract(self, images: Images, block: int = 256) -> Features:
        """Features of any number of images, in blocks, so that memory does not grow with the count."""
        values = images.canonical().values
        device = next(self.network.parameters()).device
        parts = [self(values[first : first + block].to(device)) for first in range(0, len(values), block)]
        vectors = torch.cat([vectors.float().cpu() for vectors, _ in parts])
        logits = [logits.float().cpu() for _, logits in parts if logits is not None]
        return Features(vectors, torch.cat(logits) if logits else None)
