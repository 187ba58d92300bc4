"""Best of a budget, against enumeration and simulation."""

import itertools
import math
from statistics import mean

import numpy as np
import pytest

from aigc_lab.config import Better
from aigc_lab.statistics.budget import best_of_budget, choice_weights, share_within

VALUES = [7.0, 3.0, 9.5, 3.0, 1.25, 20.0, 4.0]
OTHERS = [6.0, 4.0, 8.0, 2.0, 2.5, 10.0, 5.0]


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_the_expectation_is_the_mean_over_all_subsets(better: Better) -> None:
    best = min if better == "lower" else max
    told = best_of_budget(VALUES, better=better)
    for k, expected in zip(told.trials, told.expected, strict=True):
        assert expected == pytest.approx(mean(best(each) for each in itertools.combinations(VALUES, k)))


def test_another_score_is_that_of_the_trial_that_was_chosen() -> None:
    values = [value + place / 100 for place, value in enumerate(VALUES)]  # no two are equal
    told = best_of_budget(values, OTHERS)
    assert told.chosen is not None
    for k, chosen in zip(told.trials, told.chosen, strict=True):
        subsets = itertools.combinations(range(len(values)), k)
        assert chosen == pytest.approx(mean(OTHERS[min(each, key=values.__getitem__)] for each in subsets))


def test_the_median_is_reached_by_half_of_all_subsets() -> None:
    told = best_of_budget(VALUES)
    for k, middle in zip(told.trials, told.median, strict=True):
        bests = sorted(min(each) for each in itertools.combinations(VALUES, k))
        assert sum(value <= middle for value in bests) >= len(bests) / 2
        assert sum(value < middle for value in bests) < len(bests) / 2


def test_the_interval_holds_the_median_of_the_law_however_skewed() -> None:
    """Exact at every budget: at most 5 % of searches miss, and not much fewer where an end exists on both sides."""
    source, n, rounds = np.random.default_rng(1), 30, 800
    missed: dict[int, int] = {}
    for _ in range(rounds):
        told = best_of_budget(np.exp(2 * source.normal(size=n)).tolist())
        for k in (1, 2, 5, 15, 30):
            truth = math.exp(2 * _normal_quantile(1 - 0.5 ** (1 / k)))
            low, high = told.low[k - 1], told.high[k - 1]
            missed[k] = missed.get(k, 0) + (low is not None and low > truth) + (high is not None and high < truth)
    assert all(count / rounds < 0.065 for count in missed.values())
    assert missed[1] / rounds > 0.02


def _normal_quantile(share: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(share)


def test_few_trials_cannot_bound_the_best_of_many() -> None:
    told = best_of_budget([float(value) for value in range(1, 13)])
    assert told.low[0] == 3.0 and told.high[0] == 10.0  # the interval of a median of 12
    assert told.low[-1] is None and told.high[-1] is not None
    upwards = best_of_budget([-float(value) for value in range(1, 13)], better="higher")
    assert (upwards.low[0], upwards.high[0]) == (-10.0, -3.0)
    assert upwards.low[-1] is not None and upwards.high[-1] is None


def test_diverged_trials_are_the_worst() -> None:
    told = best_of_budget([1.0, 2.0, math.inf, math.inf])
    assert [math.isfinite(value) for value in told.expected] == [False, False, True, True]
    assert told.expected[2] == pytest.approx((3 * 1 + 1 * 2) / 4)
    assert told.median[1] == 1.0
    with pytest.raises(ValueError, match="none may be NaN"):
        best_of_budget([math.nan])


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 5), (400, 7), (3000, 1500)])
def test_the_weights_are_probabilities(n: int, k: int) -> None:
    weights = choice_weights(n, k)
    assert weights.sum() == pytest.approx(1.0) and (weights >= 0).all()
    assert weights[0] == pytest.approx(k / n)


def test_many_trials_make_a_short_curve() -> None:
    told = best_of_budget([float(value) for value in range(2000)])
    assert len(told.trials) <= 100 and (told.trials[0], told.trials[-1]) == (1, 2000)


def test_the_share_within_a_factor_of_the_best() -> None:
    assert share_within([10.0, 12.0, 12.1, math.inf]) == (2, 4)
    assert share_within([10.0, 9.0, 8.0], better="higher") == (2, 3)
    assert share_within([11.0, 30.0], best=10.0) == (1, 2)
    for values in ([0.0, 1.0], [math.inf]):
        with pytest.raises(ValueError, match="says nothing|no finite"):
            share_within(values)
