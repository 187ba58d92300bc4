"""Intervals and standard errors of scores: pure functions of float64 values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

Z95 = 1.959963984540054


def error_of(low: float | None, high: float | None) -> float:
    """Standard error behind a 95 % interval, NaN if an end is missing or infinite."""
    if low is None or high is None or not math.isfinite(high - low):
        return math.nan
    return (high - low) / (2 * Z95)


def difference_interval(
    value: float, low: float, high: float, other: float, other_low: float, other_high: float
) -> tuple[float, float]:
    """95 % interval of value − other, of two independent values with their own 95 % intervals, which need not be
    symmetric (Zou & Donner 2008, "Construction of confidence limits about effect measures"). NaN where an end is.

    >>> difference_interval(10.0, 7.0, 13.0, 5.0, 1.0, 9.0)  # 5 ± √(3² + 4²)
    (0.0, 10.0)
    """
    difference = value - other
    below = math.hypot(value - low, other_high - other)
    above = math.hypot(high - value, other - other_low)
    return difference - below, difference + above


def bootstrap_standard_error(statistic: Callable[[Tensor], float], rows: int, *, replicates: int) -> float:
    """Bootstrap standard error of a statistic of row indices [rows], drawn with replacement `replicates` times."""
    import torch

    from aigc_lab import noise

    source = noise.generator("bootstrap")
    values = [statistic(torch.randint(rows, (rows,), generator=source)) for _ in range(replicates)]
    return torch.tensor(values, dtype=torch.float64).std().item()


def clopper_pearson(successes: int, trials: int, alpha: float = 0.05) -> tuple[float, float]:
    """Exact two-sided interval of a proportion at confidence 1 − α (Clopper & Pearson 1934).

    >>> low, high = clopper_pearson(0, 10)  # no hit in ten: at most 1 − (α/2)^⅒
    >>> low, round(high, 6), round(1 - 0.025**0.1, 6)
    (0.0, 0.308497, 0.308497)
    """
    from scipy.special import betaincinv  # scipy.stats says the same, and takes seconds to import

    low = betaincinv(successes, trials - successes + 1, alpha / 2) if successes > 0 else 0.0
    high = betaincinv(successes + 1, trials - successes, 1 - alpha / 2) if successes < trials else 1.0
    return float(low), float(high)


def binomial_tail(hits: Tensor, trials: int, chances: Tensor) -> Tensor:
    """P(X ≥ hits) of a binomial X, float64, elementwise; 1 for 0 hits."""
    import torch
    from scipy.special import betainc

    some = hits.clamp_min(1).double().numpy()
    tail = torch.from_numpy(betainc(some, trials - some + 1, chances.double().numpy()))
    return torch.where(hits > 0, tail, 1.0)


def captured_interval(hits: list[int], n: int) -> tuple[int, int]:
    """Number of modes proved to have more than a quarter of their share, and of modes not proved to have less, at 95 %
    over all.
    """
    bounds = [clopper_pearson(hit, n, 0.05 / len(hits)) for hit in hits]
    quarter = 0.25 / len(hits)
    return sum(low > quarter for low, _ in bounds), sum(high >= quarter for _, high in bounds)


def reverse_kl(nearest: Tensor, count: int) -> float:
    """KL(generated ‖ uniform) over the modes, in nats: 0 when all are equally likely, ln K when only one is left."""
    import torch

    share = torch.bincount(nearest, minlength=count).double() / len(nearest)
    return float(torch.special.xlogy(share, share * count).sum())


GROUPS = 20
# Student's 97.5 % quantile with 19 degrees of freedom: a jackknife of 20 groups knows its own error that well.
T95_OF_GROUPS = 2.093024054408263


def groups(count: int) -> Tensor:
    """Group 0 … 19 of each of `count` rows [count], a seeded choice: sizes differ by at most one."""
    import torch

    from aigc_lab import noise

    order = torch.randperm(count, generator=noise.generator("groups", count))
    return order % GROUPS


def jackknife_error(replicates: Tensor | npt.NDArray[np.float64]) -> float:
    """Standard error of a statistic from its values without each of the groups [G].

    >>> import numpy as np
    >>> jackknife_error(np.array([1.0, 2.0, 3.0]))  # √(2/3 · Σ(xᵢ − 2)²)
    1.1547005383792515
    """
    count = len(replicates)
    return math.sqrt(float(((replicates - replicates.mean()) ** 2).sum()) * (count - 1) / count)
