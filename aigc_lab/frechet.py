"""The Fréchet distance between Gaussians (Dowson & Landau 1982) in float64, from moments that are computed once."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """What a Fréchet distance knows of a set of `count` vectors: the mean [d], and the covariance [d, d] (ddof = 1), or
    with fewer vectors than dimensions the centred `rows` [count, d] that say the same in less; all float64.
    """

    count: int
    mean: Tensor
    covariance: Tensor | None = None
    rows: Tensor | None = None

    @classmethod
    def of(cls, vectors: Tensor) -> "Gaussian":
        """Of vectors [N, d]."""
        rows = vectors.double()
        mean = rows.mean(0)
        if len(rows) < rows.shape[1]:
            return cls(len(rows), mean, rows=rows - mean)
        return cls(len(rows), mean, torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1]))

    @cached_property
    def trace(self) -> Tensor:
        """Tr Σ."""
        if self.covariance is not None:
            return self.covariance.trace()
        assert self.rows is not None
        return self.rows.square().sum() / (self.count - 1)

    @cached_property
    def root(self) -> Tensor:
        """Some L [d, k] with LLᵀ = Σ."""
        if self.covariance is None:
            assert self.rows is not None
            return self.rows.T / math.sqrt(self.count - 1)
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(self.covariance)
        if failed.any():  # singular: the symmetric root, at d = 2048 twenty times slower
            values, vectors = torch.linalg.eigh(self.covariance)
            factor = vectors * values.clamp_min(0).sqrt()
        return factor


class Moments:
    """Adds blocks of vectors up to their `Gaussian`: memory does not grow with their number."""

    def __init__(self) -> None:
        self._count = 0
        self._centre: Tensor | None = None  # of the first block: sums of differences from it lose no digits
        self._sum: Tensor | float = 0.0
        self._square: Tensor | float = 0.0

    def add(self, vectors: Tensor) -> None:
        rows = vectors.double()
        if self._centre is None:
            self._centre = rows.mean(0)
        rows = rows - self._centre
        self._count += len(rows)
        self._sum = self._sum + rows.sum(0)
        self._square = self._square + rows.T @ rows

    def done(self) -> Gaussian:
        assert self._centre is not None and isinstance(self._sum, Tensor) and isinstance(self._square, Tensor)
        shift = self._sum / self._count
        covariance = (self._square - self._count * torch.outer(shift, shift)) / (self._count - 1)
        return Gaussian(self._count, self._centre + shift, covariance)


def distance(a: Gaussian, b: Gaussian) -> float:
    """‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½): squared, as everybody quotes it. No ε is added to any diagonal.

    The singular values of L₁ᵀL₂ are the roots of the eigenvalues of Σ₁Σ₂.
    """
    trace = torch.linalg.svdvals(a.root.T @ b.root).sum()
    return max(float((a.mean - b.mean).square().sum() + a.trace + b.trace - 2 * trace), 0.0)
