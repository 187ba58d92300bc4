"""The statistics behind scores: pure functions of float64 tensors, with their standard errors."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from aigc_lab import noise

Z95 = 1.959963984540054


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [d] and covariance [d, d] (ddof = 1) of features [N, d], in float64."""
    rows = features.double()
    return rows.mean(0), torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1])


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)) @ vectors.mT
    return root


def _trace_of_root(root: Tensor, covariance: Tensor) -> Tensor:
    """Tr (Σ₁Σ₂)^½ from Σ₁^½: the eigenvalues of Σ₁^½ Σ₂ Σ₁^½ are those of Σ₁Σ₂, and this matrix is symmetric."""
    trace: Tensor = torch.linalg.eigvalsh(root @ covariance @ root).clamp_min(0).sqrt().sum(-1)
    return trace


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) between Gaussians fitted to [N, d] and [M, d].

    Float64 throughout, and no ε on the diagonal. With fewer rows than dimensions the trace is the sum of the singular
    values of X₁X₂ᵀ, centred: the same number from a matrix of the samples' size.
    """
    (mean_a, covariance_a), (mean_b, covariance_b) = moments(a), moments(b)
    if min(len(a), len(b)) < a.shape[1]:
        x, y = a.double() - mean_a, b.double() - mean_b
        trace = torch.linalg.svdvals(x @ y.T).sum() / math.sqrt((len(a) - 1) * (len(b) - 1))
    else:
        trace = _trace_of_root(_root(covariance_a), covariance_b)
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * trace
    return max(float(distance), 0.0)


def frechet_standard_error(a: Tensor, b: Tensor, *, replicates: int, chunk: int = 50) -> float:
    """Bootstrap standard error of `frechet_distance`, both sets resampled.

    The replicates' spread is used and not their quantiles: resampling adds bias, so percentile intervals of a Fréchet
    distance never cover it, while FD_N ± 1.96·SE covers E[FD_N].
    """

    def resampled(rows: Tensor, count: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        total = len(rows)
        picks = torch.randint(total, (count, total), generator=source)
        weights = torch.zeros(count, total, dtype=torch.float64).scatter_add_(
            1, picks, torch.ones_like(picks, dtype=torch.float64)
        )
        mean = weights @ rows / total
        second = torch.einsum("kn,nd,ne->kde", weights, rows, rows)
        return mean, (second - total * mean.unsqueeze(2) * mean.unsqueeze(1)) / (total - 1)

    source = noise.generator("bootstrap")
    # Centred on one point: covariances as differences of second moments lose no digits.
    centre = b.double().mean(0)
    x, y = a.double().cpu() - centre.cpu(), b.double().cpu() - centre.cpu()
    chunk = max(1, min(chunk, 2**24 // x.shape[1] ** 2))
    distances = []
    for first in range(0, replicates, chunk):
        count = min(chunk, replicates - first)
        (mean_x, covariance_x), (mean_y, covariance_y) = resampled(x, count, source), resampled(y, count, source)
        trace = _trace_of_root(_root(covariance_x), covariance_y)
        traces = (covariance_x + covariance_y).diagonal(dim1=1, dim2=2).sum(1)
        distances.append((mean_x - mean_y).square().sum(1) + traces - 2 * trace)
    return torch.cat(distances).std().item()


def bootstrap_standard_error(statistic: Callable[[Tensor], float], rows: int, *, replicates: int) -> float:
    """Standard error of a statistic of resampled row indices [rows]."""
    source = noise.generator("bootstrap")
    values = [statistic(torch.randint(rows, (rows,), generator=source)) for _ in range(replicates)]
    return torch.tensor(values, dtype=torch.float64).std().item()


def clopper_pearson(successes: int, trials: int, alpha: float = 0.05) -> tuple[float, float]:
    """The exact two-sided interval of a proportion at confidence 1 − α (Clopper & Pearson 1934)."""
    from scipy.stats import beta

    low = beta.ppf(alpha / 2, successes, trials - successes + 1) if successes > 0 else 0.0
    high = beta.ppf(1 - alpha / 2, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)
