"""Fréchet distance within each class, intra-FID (Miyato & Koyama 2018), named by its features: `class_fd_clf`."""

from torch import Tensor

from aigc_lab.metrics import base
from aigc_lab.metrics.shared.classes import ByClass, Estimate
from aigc_lab.statistics.frechet import Gaussian, distance, standard_error


class ClassFD(ByClass):
    """FD_N of the samples that were asked for as a class to the real ones of that class: the mean over classes, and
    that of the farthest class. A generator whose classes are exchanged has an FD near the floor, and a large class FD.

    As that of `fd`, intervals cover the expectation at this n, and not the distance at n = ∞: of a few dozen samples
    of a class most of the value is the bias of FD_N, which real samples have too. Compare it with the floor. Miyato and
    Koyama take 5,000 samples of each class, and Inception's features.
    """

    score = "class_fd"
    direction: base.Better = "lower"

    def of_class(self, generated: Tensor, real: Tensor) -> Estimate:
        a, b = Gaussian.of(generated), Gaussian.of(real)
        return Estimate(distance(a, b), standard_error(a, generated, b, real))

    def value(self, generated: Tensor, real: Tensor) -> float:
        return distance(Gaussian.of(generated), Gaussian.of(real))

    def interval(self, estimate: Estimate, deviations: float) -> tuple[float, float]:
        margin = deviations * estimate.error
        return max(estimate.value - margin, 0.0), estimate.value + margin
