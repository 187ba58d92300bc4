"""Diversity within each class (Odena et al. 2017) by the Vendi score (Friedman & Dieng 2023), beside real samples'."""

import math

import torch
from torch import Tensor

from aigc_lab.extractors.base import choice
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.classes import ByClass, Estimate
from aigc_lab.statistics.diversity import scale_of, similarities, vendi_of
from aigc_lab.statistics.intervals import T95_OF_GROUPS, Z95, groups, jackknife_error

# Vectors of a class that are compared, at most: more cost the cube of their number and say little else.
_MOST = 200


class ClassDiversity(ByClass):
    """Ratio of two Vendi scores within a class: of the samples that were asked for as that class, and of as many real
    ones; the mean over classes, and the least varied class. 1 is the diversity of real samples, and one sample repeated
    has 1 over the effective number of real ones.

    The kernel is Gaussian and a quarter as wide as real members of the class lie apart, as in the verdict on collapse:
    inside a class all cosines are near 1. Odena et al. compare the mean MS-SSIM of pairs within a class, which needs
    pictures of 162 pixels a side, and which two samples that are repeated in turn pass. Intervals are of a jackknife of
    20 groups on the ratio's logarithm, and cover the expected ratio at this n. It measures diversity alone: noise, and
    samples of other classes, may have more than real samples.
    """

    score = "class_diversity"
    direction: base.Better = "higher"
    tells = "collapse"
    draws = 5

    def of_class(self, generated: Tensor, real: Tensor) -> Estimate:
        first, second = (_log_vendi(kernel) for kernel in _kernels(generated, real))
        ratio = math.exp(first.value - second.value)
        return Estimate(ratio, ratio * math.hypot(first.error, second.error))

    def value(self, generated: Tensor, real: Tensor) -> float:
        first, second = (_entropy(kernel) for kernel in _kernels(generated, real))
        return math.exp(first - second)

    def interval(self, estimate: Estimate, deviations: float) -> tuple[float, float]:
        # Student's quantile for the normal one: an error of 20 groups is not known better.
        factor = math.exp(T95_OF_GROUPS / Z95 * deviations * estimate.error / estimate.value)
        return estimate.value / factor, estimate.value * factor


def _kernels(generated: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Similarities [k, k] of equally many vectors of both sets, a seeded choice."""
    count, scale = min(len(generated), len(real), _MOST), scale_of(real.double())
    generated, real = (each[choice(len(each), count)].double() for each in (generated, real))
    return similarities(generated, scale), similarities(real, scale)


def _entropy(kernel: Tensor) -> float:
    """Logarithm of the Vendi score."""
    return float(vendi_of(kernel).log())


def _log_vendi(kernel: Tensor) -> Estimate:
    """Logarithm of the Vendi score, and its standard error."""
    part = groups(len(kernel))
    without = [kernel[part != group][:, part != group] for group in range(int(part.max()) + 1)]
    error = jackknife_error(torch.tensor([_entropy(each) for each in without], dtype=torch.float64))
    return Estimate(_entropy(kernel), error)
