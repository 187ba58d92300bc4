"""Whole distributions of scores over runs and datasets, each with its uncertainty (Agarwal et al. 2021)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_REPLICATES = 2000


@dataclass(frozen=True)
class Profile:
    """Share of runs whose value is at most `at`, and a band that holds all of the true profile at once."""

    at: Array
    share: Array
    low: Array
    high: Array


def performance_profile(datasets: Sequence[Sequence[float]], confidence: float = 0.95) -> Profile:
    """Mean over datasets of the share of runs with a value of at most τ, at every value that occurs. Lower is better;
    a run that diverged has ∞ and is never counted.

    The band is ±ε: for one dataset the Dvoretzky–Kiefer–Wolfowitz inequality with Massart's constant (1990), for
    several that of Bretagnolle (1980) for values of different laws, or where the datasets have unlike numbers of runs
    the mean of their own bands. Raises `ValueError` for a dataset without values and for NaN.

    >>> profile = performance_profile([[1.0, 2.0, 2.0, float("inf")]])
    >>> profile.at.tolist(), profile.share.tolist()
    ([1.0, 2.0], [0.25, 0.75])
    """
    runs = [np.sort(np.array([*each], dtype=float)) for each in datasets]
    if not runs or any(not len(each) or np.isnan(each).any() for each in runs):
        raise ValueError("every dataset needs values, and none may be NaN")
    pooled = np.concatenate(runs)
    at = np.unique(pooled[np.isfinite(pooled)])
    share = np.mean([np.searchsorted(each, at, side="right") / len(each) for each in runs], axis=0)
    half = band_width([len(each) for each in runs], confidence)
    return Profile(at, share, np.maximum(share - half, 0.0), np.minimum(share + half, 1.0))


def band_width(runs: Sequence[int], confidence: float = 0.95) -> float:
    """Half width ε of a simultaneous band around the mean profile of datasets with so many runs each.

    >>> round(band_width([10]), 3), round(band_width([10, 10, 10]), 3)
    (0.429, 0.28)
    """
    risk = 1 - confidence
    if len(runs) == 1:
        return math.sqrt(math.log(2 / risk) / (2 * runs[0]))
    union = sum(math.sqrt(math.log(2 * len(runs) / risk) / (2 * n)) for n in runs) / len(runs)
    if len(set(runs)) > 1:
        return union
    return min(union, math.sqrt((1 + math.log(2 / risk)) / (2 * sum(runs))))


def interquartile_mean(values: Sequence[float]) -> float:
    """Mean without the best and the worst quarter of the values, rounded down; ∞ while a run that diverged is left.

    >>> interquartile_mean([1.0, 2.0, 3.0, 4.0, 100.0])
    3.0
    """
    x = np.sort(np.array([*values], dtype=float))
    if not len(x):
        raise ValueError("the mean of no values is not defined")
    cut = len(x) // 4
    return float(x[cut : len(x) - cut].mean())


def interquartile_mean_interval(
    datasets: Sequence[Sequence[float]], confidence: float = 0.95
) -> tuple[float, float, float]:
    """The interquartile mean over all runs, and its interval: percentiles of the bootstrap that draws the runs of each
    dataset anew (stratified, 2,000 replicates, always the same ones).

    >>> value, low, high = interquartile_mean_interval([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]])
    >>> value, low < value < high
    (5.5, True)
    """
    source = np.random.default_rng(0)
    runs = [np.array([*each], dtype=float) for each in datasets]
    drawn = np.concatenate([each[source.integers(len(each), size=(_REPLICATES, len(each)))] for each in runs], axis=1)
    drawn.sort(axis=1)
    cut = drawn.shape[1] // 4
    means = drawn[:, cut : drawn.shape[1] - cut].mean(axis=1)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    # A percentile that is one of the values: between a finite and an infinite one there is nothing to interpolate.
    low, high = np.quantile(means, tails, method="inverted_cdf")
    return interquartile_mean(np.concatenate(runs).tolist()), float(low), float(high)
