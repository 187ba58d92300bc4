"""Coders that read the class of a sample beside it: metrics give them the labels of real samples here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aigc_lab.metrics.base import Coder
from aigc_lab.text.likelihood import is_conditional

if TYPE_CHECKING:
    from torch import Tensor

    from aigc_lab.samples import Samples

C = TypeVar("C", bound=Coder)


@dataclass(frozen=True)
class _OfClasses:
    """A conditional coder of samples whose labels [N] are known, as a coder of the samples alone."""

    system: Any
    labels: Tensor

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.system.encode(images, labels=self.labels)
        return mean, log_variance

    def decode(self, latents: Tensor) -> Tensor:
        decoded: Tensor = self.system.decode(latents, labels=self.labels)
        return decoded

    def log_likelihood(self, images: Tensor, latents: Tensor) -> Tensor:
        nats: Tensor = self.system.log_likelihood(images, latents, labels=self.labels)
        return nats


def given_labels(system: C, samples: Samples, repeated: int = 1) -> C:
    """The system as a coder of these samples, each `repeated` times in a row: a conditional one gets their labels, any
    other is returned as it is. Raises `ValueError` for samples without labels that a conditional one would encode.
    """
    if not is_conditional(system):
        return system
    if samples.labels is None:
        raise ValueError(f"{type(system).__name__} encodes a sample with its class, and these come without labels")
    return cast("C", _OfClasses(system, samples.labels.repeat_interleave(repeated)))


def conditions(system: object) -> tuple[str, ...]:
    """What scores of codes or likelihoods are given, for signatures: log p(x|y) is never ranked with log p(x)."""
    return ("given:class",) if is_conditional(system) else ()
