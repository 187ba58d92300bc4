"""Reconstruction error of held-out images through the mean of the code (Kingma & Welling 2014): encode, decode."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from aigc_lab.config import Count, Strict
from aigc_lab.data.base import Dataset
from aigc_lab.errors import NotFinite
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.conditioning import conditions, given_labels
from aigc_lab.samples import Images
from aigc_lab.shape import Modality


@torch.inference_mode()
def squared_errors(system: base.Coder, images: Images, block: int = 256) -> Tensor:
    """Mean squared error of each image, float64 [n], for pixels in [0, 1]. Raises `NotFinite` for NaN or infinity."""
    images.check()
    device, parts = base.device_of(system), []
    for first in range(0, len(images), block):
        part = images.take(slice(first, first + block)).to(device)
        coder, pixels = given_labels(system, part), part.unit()
        error = coder.decode(coder.encode(pixels)[0]) - pixels
        parts.append(error.double().square().flatten(1).mean(1).cpu())
    errors = torch.cat(parts)
    bad = int((~errors.isfinite()).sum())
    if bad:
        raise NotFinite(f"{bad} of {len(errors)} samples are reconstructed as NaN or infinity")
    return errors


class Reconstruction(base.Metric):
    """Score of a system, not of its samples: mean squared error for pixels in [0, 1], ± 1.96 standard errors over n
    real images, a seeded choice. The floor is the error of as many training images.

    A decoder that ignores its code does best with the mean image, whose error is the mean variance of a pixel: 0.044 on
    the digits, 0.052 on MNIST. An error that is no lower means posterior collapse.
    """

    needs: ClassVar[frozenset[base.Need]] = frozenset({"codes", "reconstructions", "train"})

    version: ClassVar[int] = 2  # a seeded choice of the split, not its first

    class Config(Strict):
        limit: Count = Field(5000, ge=100, description="real samples that are reconstructed, at most")

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"reconstruction_mse": "lower"}

    def check(self, dataset: Dataset, samples: int) -> None:
        base.check_autoencoded(dataset, samples, "a reconstruction error", Modality.IMAGES)

    def meaningless(self, evidence: base.Evidence) -> dict[str, str]:
        return dict.fromkeys(self.gives, base.SEEN) if base.seen(evidence) else {}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        system, reference, train = base.autoencoded(evidence, self.config.limit)
        assert isinstance(reference, Images) and isinstance(train, Images)
        value, low, high = base.mean_interval(squared_errors(system, reference))
        floor = base.Floor.measured(squared_errors(system, train))
        signature = self.signature(evidence, f"scored:{len(reference)}≤{self.config.limit}", *conditions(system))
        return [base.Score("reconstruction_mse", value, low, high, len(reference), floor, signature, "lower")]
