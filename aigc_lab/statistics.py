"""The statistics behind scores: pure functions of float64 tensors, with their standard errors."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.frechet import Gaussian, distance

Z95 = 1.959963984540054


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [d] and covariance [d, d] (ddof = 1) of features [N, d], in float64."""
    rows = features.double()
    return rows.mean(0), torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1])


def _root(covariance: Tensor) -> Tensor:
    """Some L with LLᵀ = Σ: Cholesky's, or where Σ is singular the symmetric one (at d = 2048, twenty times slower)."""
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed.any():
        values, vectors = torch.linalg.eigh(covariance)
        factor = (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)) @ vectors.mT
    return factor


def _trace_of_root(root: Tensor, covariance: Tensor) -> Tensor:
    """Tr (Σ₁Σ₂)^½ from LLᵀ = Σ₁: the eigenvalues of Lᵀ Σ₂ L are those of Σ₁Σ₂, and this matrix is symmetric."""
    trace: Tensor = torch.linalg.eigvalsh(root.mT @ covariance @ root).clamp_min(0).sqrt().sum(-1)
    return trace


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance between Gaussians fitted to vectors [N, d] and [M, d]: see `frechet.distance`."""
    return distance(Gaussian.of(a), Gaussian.of(b))


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
    distances: list[Tensor] = []
    # Resampling leaves 63 % of the rows: up to 1.6 d of them, the matrices of their size are the smaller ones.
    if min(len(x), len(y)) < 1.6 * x.shape[1]:
        products = x @ y.T
        for _ in range(replicates):
            picks_x = torch.randint(len(x), (len(x),), generator=source)
            picks_y = torch.randint(len(y), (len(y),), generator=source)
            distances.append(_distance_of_picks(x, y, products, picks_x, picks_y))
        return torch.stack(distances).std().item()
    chunk = max(1, min(chunk, 2**24 // x.shape[1] ** 2))
    for first in range(0, replicates, chunk):
        count = min(chunk, replicates - first)
        (mean_x, covariance_x), (mean_y, covariance_y) = resampled(x, count, source), resampled(y, count, source)
        trace = _trace_of_root(_root(covariance_x), covariance_y)
        traces = (covariance_x + covariance_y).diagonal(dim1=1, dim2=2).sum(1)
        distances.append((mean_x - mean_y).square().sum(1) + traces - 2 * trace)
    return torch.cat(distances).std().item()


def _distance_of_picks(x: Tensor, y: Tensor, products: Tensor, picks_x: Tensor, picks_y: Tensor) -> Tensor:
    """`frechet_distance(x[picks_x], y[picks_y])` from `products` = XYᵀ, in matrices of the samples' size.

    A row picked k times stands once with weight k, and about a third of the rows are not picked at all. The singular
    values come from the smaller Gram matrix: their small digits, lost there, do not matter to a standard error.
    """
    n, m = len(picks_x), len(picks_y)
    weights_x = torch.bincount(picks_x, minlength=len(x)).double()
    weights_y = torch.bincount(picks_y, minlength=len(y)).double()
    mean_x, mean_y = weights_x @ x / n, weights_y @ y / m
    trace_x = (weights_x @ x.square().sum(1) - n * mean_x.square().sum()) / (n - 1)
    trace_y = (weights_y @ y.square().sum(1) - m * mean_y.square().sum()) / (m - 1)
    rows, columns = weights_x.nonzero().flatten(), weights_y.nonzero().flatten()
    weights_x, weights_y = weights_x[rows], weights_y[columns]
    inner = products[rows][:, columns]
    # (x − x̄)·(y − ȳ) for every pair, each weighted by the root of how often it was picked.
    over_x, over_y = weights_x @ inner / n, inner @ weights_y / m
    inner = inner - over_x - over_y.unsqueeze(1) + over_x @ weights_y / m
    inner = inner * weights_x.sqrt().unsqueeze(1) * weights_y.sqrt()
    gram = inner @ inner.T if len(rows) <= len(columns) else inner.T @ inner
    trace = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().sum() / math.sqrt((n - 1) * (m - 1))
    distance: Tensor = (mean_x - mean_y).square().sum() + trace_x + trace_y - 2 * trace
    return distance


def bootstrap_standard_error(statistic: Callable[[Tensor], float], rows: int, *, replicates: int) -> float:
    """Standard error of a statistic of resampled row indices [rows]."""
    source = noise.generator("bootstrap")
    values = [statistic(torch.randint(rows, (rows,), generator=source)) for _ in range(replicates)]
    return torch.tensor(values, dtype=torch.float64).std().item()


def clopper_pearson(successes: int, trials: int, alpha: float = 0.05) -> tuple[float, float]:
    """The exact two-sided interval of a proportion at confidence 1 − α (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv  # scipy.stats says the same, and takes seconds to import

    low = betaincinv(successes, trials - successes + 1, alpha / 2) if successes > 0 else 0.0
    high = betaincinv(successes + 1, trials - successes, 1 - alpha / 2) if successes < trials else 1.0
    return float(low), float(high)


def binomial_tail(hits: Tensor, trials: int, chances: Tensor) -> Tensor:
    """P(X ≥ hits) for X of a binomial distribution, float64, elementwise: 1 where no hit is asked for."""
    from scipy.special import betainc

    some = hits.clamp_min(1).double().numpy()
    tail = torch.from_numpy(betainc(some, trials - some + 1, chances.double().numpy()))
    return torch.where(hits > 0, tail, 1.0)


def captured_interval(hits: list[int], n: int) -> tuple[int, int]:
    """Modes proved to have more than a quarter of their share, and modes not proved to have less."""
    bounds = [clopper_pearson(hit, n, 0.05 / len(hits)) for hit in hits]
    quarter = 0.25 / len(hits)
    return sum(low > quarter for low, _ in bounds), sum(high >= quarter for _, high in bounds)


def reverse_kl(nearest: Tensor, count: int) -> float:
    """KL(generated ‖ uniform) over the modes, in nats: 0 when all are equally likely, ln K when only one is left."""
    share = torch.bincount(nearest, minlength=count).double() / len(nearest)
    return float(torch.special.xlogy(share, share * count).sum())


GROUPS = 20
# Student's 97.5 % quantile with 19 degrees of freedom: a jackknife of 20 groups knows its own error that well.
T95_OF_GROUPS = 2.093024054408263


def groups(count: int) -> Tensor:
    """The group 0 … 19 of each of `count` rows: of equal sizes up to one, a seeded choice."""
    order = torch.randperm(count, generator=noise.generator("groups", count))
    return order % GROUPS


def jackknife_error(replicates: Tensor) -> float:
    """Standard error of a statistic from its values without each of the groups."""
    count = len(replicates)
    return math.sqrt(float((replicates - replicates.mean()).square().sum()) * (count - 1) / count)
