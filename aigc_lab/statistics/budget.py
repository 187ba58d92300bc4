"""What a random search of k trials would have found, from the n trials that were run: exact, without resampling.

Only independent draws tell: of a sampler that learns from its trials (TPE), the first k are no sample of the others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aigc_lab.config import Better

Array = npt.NDArray[np.float64]

# Points of a curve: with more trials than this, budgets are spaced geometrically.
_POINTS = 100


@dataclass(frozen=True)
class Budget:
    """Best of k trials, for each k in `trials`.

    `median` is the value that half of all searches of k trials reach, [low, high] its exact interval: None where so few
    trials cannot bound it. `expected` is the mean of the best over all choices of k among the n trials, and `chosen`
    that of another score of the trial that is the best by this one; not finite while all k may have diverged.
    """

    trials: list[int]
    median: list[float]
    low: list[float | None]
    high: list[float | None]
    expected: list[float]
    chosen: list[float] | None


def best_of_budget(
    values: Sequence[float],
    others: Sequence[float] | None = None,
    *,
    better: Better = "lower",
    confidence: float = 0.95,
) -> Budget:
    """The best of k independent trials with these values; ±∞ is one that diverged, the worst. `others` is another score
    of each trial, such as the one on a split that nothing was chosen by.

    The expectation is unbiased (Dodge et al. 2021, "Expected validation performance and estimation of a random
    variable's maximum"); the interval is that of a quantile, by order statistics: no law of the values is assumed.
    Raises `ValueError` for no values, and for NaN.

    >>> told = best_of_budget([3.0, 1.0, 2.0])
    >>> told.trials, [round(value, 3) for value in told.expected]
    ([1, 2, 3], [2.0, 1.333, 1.0])
    """
    sign = 1.0 if better == "lower" else -1.0
    x = sign * np.array([*values], dtype=float)
    if not len(x) or np.isnan(x).any():
        raise ValueError(f"{len(x)} values; at least one is needed, and none may be NaN")
    order, n = np.argsort(x, kind="stable"), len(x)
    x, budgets = x[order], _budgets(n)
    weights = [choice_weights(n, k) for k in budgets]
    other = None if others is None else sign * np.array([*others], dtype=float)[order]
    bounds = [_interval(x, 1 - 0.5 ** (1 / k), confidence) for k in budgets]

    def signed(value: float | None) -> float | None:
        return None if value is None or not math.isfinite(value) else sign * value

    lows, highs = ([signed(each[end]) for each in bounds] for end in (0, 1))
    return Budget(
        budgets,
        [sign * float(x[int(np.searchsorted(np.cumsum(each), 0.5 - 1e-12))]) for each in weights],
        lows if sign > 0 else highs,
        highs if sign > 0 else lows,
        [sign * _mean(each, x) for each in weights],
        None if other is None else [sign * _mean(each, other) for each in weights],
    )


def choice_weights(n: int, k: int) -> Array:
    """Probability that the i-th best of n is the best of k of them, drawn without replacement [n]:
    C(n − 1 − i, k − 1) / C(n, k).

    >>> choice_weights(3, 2).round(3).tolist()
    [0.667, 0.333, 0.0]
    """
    better = np.arange(n - 1)
    ratios = np.maximum(n - k - better, 0) / (n - 1 - better)
    return k / n * np.concatenate([[1.0], np.cumprod(ratios)])


def share_within(
    values: Sequence[float], *, better: Better = "lower", factor: float = 1.2, best: float | None = None
) -> tuple[int, int]:
    """How many of the values lie within `factor` × the best (of them, unless it is given), and how many there are.
    Values that diverged (±∞) count, and lie outside.

    Raises `ValueError` for a best that is not positive, of which there is no multiple, and for no finite value.

    >>> share_within([10.0, 11.0, 12.0, 13.0, float("inf")])
    (3, 5)
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        raise ValueError("there is no finite value")
    top = best if best is not None else min(finite) if better == "lower" else max(finite)
    if top <= 0:
        raise ValueError(f"the best is {top:.4g}; a multiple of it says nothing")
    if better == "lower":
        return sum(value <= top * factor for value in finite), len(values)
    return sum(value >= top / factor for value in finite), len(values)


def _budgets(n: int) -> list[int]:
    if n <= _POINTS:
        return list(range(1, n + 1))
    return sorted({round(k) for k in np.geomspace(1, n, _POINTS)})


def _mean(weights: Array, values: Array) -> float:
    """The weighted mean; a value without weight may be infinite."""
    used = weights > 0
    return float((weights[used] * values[used]).sum())


def _interval(ordered: Array, share: float, confidence: float) -> tuple[float | None, float | None]:
    """Interval of the `share` quantile of the law that the values are drawn from: the narrowest pair of order
    statistics of which each end fails in at most half of 1 − confidence.
    """
    n, tail = len(ordered), (1 - confidence) / 2
    # Chance that at most j values lie below the quantile, j = 0 … n − 1.
    below = np.cumsum([math.exp(_log_binomial(n, j, share)) for j in range(n)])
    first = int(np.searchsorted(below, tail, side="right"))  # so many of the smallest can be left out
    last = int(np.searchsorted(below, 1 - tail, side="left"))
    return (float(ordered[first - 1]) if first else None, float(ordered[last]) if last < n else None)


def _log_binomial(n: int, j: int, share: float) -> float:
    """Logarithm of the chance of j hits in n; the chance itself is below the smallest float for many."""
    ways = math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1)
    return ways + j * math.log(share) + (n - j) * math.log1p(-share)
