"""Performance profiles and interquartile means, against scipy and simulated laws."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from aigc_lab.statistics.profiles import (
    band_width,
    interquartile_mean,
    interquartile_mean_interval,
    performance_profile,
)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 10, 11, 23])
def test_the_interquartile_mean_is_scipys(n: int) -> None:
    values = np.random.default_rng(n).lognormal(size=n)
    assert interquartile_mean(values.tolist()) == pytest.approx(stats.trim_mean(values, 0.25))


def test_runs_that_diverged_are_trimmed_while_they_are_few() -> None:
    values = [float(value) for value in range(1, 9)]
    assert interquartile_mean([*values[:6], math.inf, math.inf]) == interquartile_mean(values)
    value, _, high = interquartile_mean_interval([[*values[:5], math.inf, math.inf, math.inf]])
    assert math.isinf(value) and math.isinf(high)


def test_the_interval_of_an_interquartile_mean_covers_it() -> None:
    source = np.random.default_rng(0)
    truth = stats.trim_mean(source.lognormal(size=400_000), 0.25)
    hits = 0
    for _ in range(200):
        _, low, high = interquartile_mean_interval([source.lognormal(size=20).tolist()])
        hits += low <= truth <= high
    assert 0.88 <= hits / 200 <= 0.99  # percentiles of so few values cover a little less than they say


def test_a_profile_is_the_mean_over_datasets_of_the_share_below() -> None:
    profile = performance_profile([[1.0, 3.0], [2.0, math.inf]])
    assert profile.at.tolist() == [1.0, 2.0, 3.0]
    assert profile.share.tolist() == [0.25, 0.5, 0.75]
    assert (profile.low >= 0).all() and (profile.high <= 1).all()
    with pytest.raises(ValueError, match="every dataset needs values"):
        performance_profile([[1.0], []])


LAWS: tuple[Callable[[float], float], ...] = (lambda t: t, lambda t: t**3, lambda t: 1 - (1 - t) ** 2)
INVERSES: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda u: u,
    lambda u: u ** (1 / 3),
    lambda u: 1 - np.sqrt(1 - u),
)


@pytest.mark.parametrize(("runs", "least"), [((10,), 0.95), ((40,), 0.95), ((5, 5, 5), 0.95), ((4, 8, 12), 0.95)])
def test_the_band_holds_the_whole_true_profile(runs: tuple[int, ...], least: float) -> None:
    """Of simulated sweeps, at least 95 % of the true profiles lie inside at every τ at once; with one dataset the band
    is no wider than it must be.
    """
    source, rounds, inside = np.random.default_rng(0), 1500, 0
    grid = np.linspace(0, 1, 401)
    truth = np.mean([[law(t) for t in grid] for law in LAWS[: len(runs)]], axis=0)
    half = band_width(runs)
    for _ in range(rounds):
        drawn = [np.sort(INVERSES[place](source.uniform(size=n))) for place, n in enumerate(runs)]
        # Just before a step as well as on it: the distance is the largest there.
        share = np.mean([np.searchsorted(each, grid, side="right") / len(each) for each in drawn], axis=0)
        inside += bool((np.abs(share - truth) <= half).all())
    assert inside / rounds >= least
    if len(runs) == 1:
        assert inside / rounds < 0.985


def test_the_band_of_one_dataset_is_massarts_and_of_several_is_wider() -> None:
    assert band_width([10]) == pytest.approx(math.sqrt(math.log(40) / 20))
    assert band_width([10, 10, 10]) > band_width([30])
    assert band_width([10, 10, 11]) >= band_width([10, 10, 10])
