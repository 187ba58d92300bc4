"""What systems emit and metrics eat: typed batches that know their value range."""

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar, Self

import torch
from torch import Tensor


class Modality(StrEnum):
    """What kind of thing a sample is."""

    IMAGES = "images"
    POINTS = "points"


@dataclass(frozen=True)
class Shape:
    """What every sample of a dataset looks like: all that a system needs to know to build its networks.

    `size` is (channels, height, width) for images and (dimensions,) for points; `classes` is None without labels.
    """

    modality: Modality
    size: tuple[int, ...]
    classes: int | None = None

    def __str__(self) -> str:
        return f"{self.modality} {'×'.join(map(str, self.size))}"


@dataclass(frozen=True)
class Samples:
    """N samples along dimension 0 of `values`, with int64 class labels [N] where they are known."""

    values: Tensor
    labels: Tensor | None = None

    modality: ClassVar[Modality]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Tensor | slice) -> Self:
        """The samples at `index`, in that order."""
        return replace(self, values=self.values[index], labels=None if self.labels is None else self.labels[index])

    def to(self, device: torch.device | str) -> Self:
        return replace(
            self, values=self.values.to(device), labels=None if self.labels is None else self.labels.to(device)
        )

    def check(self) -> None:
        """Raises `ValueError` for samples with NaN or infinity in them, with their count."""
        if self.values.is_floating_point() and not torch.isfinite(self.values).all():
            bad = int((~torch.isfinite(self.values)).flatten(1).any(1).sum())
            raise ValueError(f"{bad} of {len(self)} samples hold NaN or infinity")

    def canonical(self) -> Self:
        """The form that metrics and digests read; raises `ValueError` for values that no metric may see."""
        raise NotImplementedError

    def digest(self) -> str:
        """sha256 over the canonical values and labels: the identity of this content, in this order."""
        form = self.canonical()
        digest = hashlib.sha256(f"{form.modality} {form.values.dtype} {tuple(form.values.shape)}".encode())
        for tensor in (form.values, form.labels):
            # The buffer itself, not a copy: memory-mapped samples may be larger than memory.
            digest.update(b"-" if tensor is None else tensor.contiguous().cpu().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Images(Samples):
    """[N, C, H, W]: uint8 in 0…255 when stored, float in [0, 1] as systems emit them."""

    modality = Modality.IMAGES

    def __post_init__(self) -> None:
        if self.values.ndim != 4:
            raise ValueError(f"images are [N, C, H, W], not {list(self.values.shape)}")

    def unit(self) -> Tensor:
        """float32 in [0, 1]."""
        return self.values.float() / 255 if self.values.dtype == torch.uint8 else self.values

    def signed(self) -> Tensor:
        """float32 in [−1, 1]: the range of a generator that ends in tanh."""
        return self.values.float() / 127.5 - 1 if self.values.dtype == torch.uint8 else self.values * 2 - 1

    def canonical(self) -> "Images":
        """uint8 by round(clamp(x)·255)."""
        if self.values.dtype == torch.uint8:
            return self
        self.check()
        return replace(self, values=(self.values.clamp(0, 1) * 255).round().to(torch.uint8))


@dataclass(frozen=True)
class Points(Samples):
    """[N, D], float32, unbounded."""

    modality = Modality.POINTS

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise ValueError(f"points are [N, D], not {list(self.values.shape)}")

    def canonical(self) -> "Points":
        self.check()
        return replace(self, values=self.values.float())
