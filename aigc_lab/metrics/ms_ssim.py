"""Diversity by mean MS-SSIM between generated images (Odena et al. 2017), with the weights of Wang et al. (2003)."""

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from aigc_lab import noise
from aigc_lab.config import Count, Strict
from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base
from aigc_lab.samples import Images, Samples
from aigc_lab.shape import Modality
from aigc_lab.statistics.intervals import Z95

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
#: the least side at which the window has room at a sixteenth of the size
SMALLEST = (_WINDOW - 1) * 2 ** (len(_WEIGHTS) - 1) + 1
_LEAST_PAIRS = 20
_BLOCK = 16


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """MS-SSIM [N] of pairs of images [N, C, H, W] in [0, 1]: contrast and structure at five scales, luminance at the
    coarsest.

    Computed as in torchmetrics: negative structure counts as 0, channels and positions are averaged before the product
    over scales, and contrast is taken where the window lies within the image. At the coarsest scale images are
    reflected at their borders; Wang et al. stay within the image there too.
    """
    positions = torch.arange(_WINDOW, dtype=a.dtype, device=a.device) - _WINDOW // 2
    window = (-positions.square() / (2 * _SIGMA**2)).exp()
    window = (window / window.sum()).expand(a.shape[1], 1, 1, _WINDOW)

    def blurred(images: Tensor) -> Tensor:
        across = F.conv2d(images, window, groups=images.shape[1])
        return F.conv2d(across, window.transpose(2, 3), groups=images.shape[1])

    product = a.new_ones(len(a))
    for scale, weight in enumerate(_WEIGHTS):
        last = scale == len(_WEIGHTS) - 1
        if last:
            a, b = (F.pad(images, (_WINDOW // 2,) * 4, mode="reflect") for images in (a, b))
        mean_a, mean_b, square_a, square_b, mixed = blurred(torch.cat([a, b, a * a, b * b, a * b])).chunk(5)
        spread = (square_a - mean_a**2).clamp_min(0) + (square_b - mean_b**2).clamp_min(0)
        value = (2 * (mixed - mean_a * mean_b) + _C2) / (spread + _C2)
        if last:
            value = value * (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
        product = product * value.flatten(1).mean(1).clamp_min(0) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return product


class MSSSIM(base.Metric):
    """Mean MS-SSIM over disjoint random pairs of one set: 1 if all images are equal. Lower is more diverse, and noise
    is the most diverse.

    Pairs share no image, so that ±1.96 standard errors of their mean are valid. Odena et al. pair images within one
    class; these pairs are of all classes.
    """

    tells = "collapse"
    draws = 3  # hundreds of pairs each

    class Config(Strict):
        pairs: Count = Field(500, ge=_LEAST_PAIRS, description="at most: half the samples, where that is less")

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"ms_ssim": "lower"}

    def check(self, dataset: Dataset, samples: int) -> None:
        if dataset.shape.modality != Modality.IMAGES:
            raise ValueError(f"MS-SSIM compares images, and dataset {dataset.name} holds {dataset.shape}")
        side = min(dataset.shape.size[1:])
        if side < SMALLEST:
            raise ValueError(
                f"MS-SSIM needs images of at least {SMALLEST} pixels a side, not {side}: at the coarsest of its "
                f"{len(_WEIGHTS)} scales, a sixteenth of the size, the window of {_WINDOW} pixels has no room"
            )
        if samples < 2 * _LEAST_PAIRS:
            raise ValueError(f"MS-SSIM needs {_LEAST_PAIRS} pairs, {2 * _LEAST_PAIRS} samples, not {samples}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        generated = evidence.generated.canonical()
        similarities = self._of_pairs(generated)
        value, margin = float(similarities.mean()), Z95 * float(similarities.std()) / math.sqrt(len(similarities))
        signature = self.signature(evidence, f"pairs:{self.config.pairs}", f"used:{len(similarities)}", "sigma:1.5")

        def of_one(part: base.Part) -> dict[str, float]:
            return {"ms_ssim": float(self._of_pairs(part.samples.canonical()).mean())}

        floor = self.floors_alone(evidence, signature, of_one)["ms_ssim"]
        low, high = max(value - margin, 0.0), min(value + margin, 1.0)
        low, high = min(low, value), max(high, value)  # of equal images rounding makes a little more than 1
        return [base.Score("ms_ssim", value, low, high, len(generated), floor, signature, "lower")]

    def _of_pairs(self, images: Samples) -> Tensor:
        """MS-SSIM of each pair, float64 [pairs]."""
        assert isinstance(images, Images)
        order = torch.randperm(len(images), generator=noise.generator("pairs", len(images)))
        count = min(self.config.pairs, len(images) // 2)
        values = []
        for first in range(0, count, _BLOCK):
            picks = order[2 * first : 2 * min(first + _BLOCK, count)]
            pairs = images.take(picks).unit()
            values.append(ms_ssim(pairs[0::2], pairs[1::2]))
        return torch.cat(values).double().cpu()
