"""P(A better than B), its interval and the seeds lacking, beside SciPy, statsmodels, counting and simulation."""

import itertools
import math
import random
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from statsmodels.stats.multitest import multipletests

from aigc_lab.statistics.rank_test import LEVEL, rank_sum_p, smallest_p
from aigc_lab.statistics.superiority import holm, interval, seeds_to_tell, superiority


@pytest.mark.parametrize("sizes", [(1, 1), (3, 4), (5, 5), (6, 9)])
def test_the_probability_is_u_over_all_pairs_and_the_p_value_scipys(sizes: tuple[int, int]) -> None:
    draw = random.Random(sum(sizes))
    for _ in range(20):
        first, second = ([draw.gauss(0, 1) for _ in range(size)] for size in sizes)
        scipys = mannwhitneyu(first, second, method="exact")
        lower, higher = superiority(first, second, "lower"), superiority(first, second, "higher")
        assert higher.probability == pytest.approx(scipys.statistic / math.prod(sizes))  # pairs whose first is larger
        assert lower.probability == pytest.approx(1 - higher.probability)
        assert (lower.low, lower.high) == pytest.approx((1 - higher.high, 1 - higher.low))
        assert lower.p == higher.p == pytest.approx(scipys.pvalue)


def test_equal_values_count_half_and_a_diverged_seed_is_the_worst() -> None:
    draw = random.Random(0)
    for _ in range(50):
        first, second = ([float(draw.randrange(4)) for _ in range(5)] for _ in range(2))
        first[0] = math.inf
        pairs = [(x < y) + (x == y) / 2 for x, y in itertools.product(first, second)]
        assert superiority(first, second, "lower").probability == pytest.approx(sum(pairs) / 25)
    worst = math.inf
    assert superiority([1, worst], [worst, worst], "lower").probability == 0.75
    assert superiority([1, -worst], [-worst, -worst], "higher").probability == 0.75


def test_holms_correction_is_that_of_statsmodels() -> None:
    draw = random.Random(0)
    for size in (1, 2, 6, 15):
        ps = [draw.random() ** 3 for _ in range(size)] + [0.01, 0.01]
        assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])
    assert holm([]) == []


# ---- the interval


def exponential_tail(u: int, n: int, m: int, chance: float) -> float:
    """P(U ≥ u) of n values with hazard 1 and m with k, by going through all orders: each has the probability that one
    draw after another, without replacement and in proportion to its hazard, gives (Plackett 1975).
    """
    k, total = (1 - chance) / chance, 0.0
    for places in itertools.combinations(range(n + m), n):
        a, b, pairs, p = n, m, 0, 1.0
        for place in range(n + m):
            if place in places:
                p, a, pairs = p * a / (a + k * b), a - 1, pairs + b
            else:
                p, b = p * k * b / (a + k * b), b - 1
        total += p if pairs >= u else 0.0
    return total


@pytest.mark.parametrize("sizes", [(3, 3), (4, 4), (5, 5), (3, 6), (6, 3)])
def test_at_its_lower_end_what_was_seen_has_a_chance_of_a_fortieth(sizes: tuple[int, int]) -> None:
    n, m = sizes
    for u in range(1, n * m + 1, 2):
        low, high = interval(2 * u, n, m)
        tails = exponential_tail(u, n, m, low), exponential_tail(u, m, n, low)
        assert max(tails) == pytest.approx(0.025, abs=2e-4)
        assert high == pytest.approx(1 - interval(2 * (n * m - u), n, m)[0])
    assert interval(0, n, m)[0] == 0 and interval(2 * n * m, n, m)[1] == 1


@pytest.mark.parametrize("sizes", [(3, 3), (4, 4), (5, 6), (8, 8)])
def test_it_leaves_out_a_half_where_the_test_rejects_and_there_alone(sizes: tuple[int, int]) -> None:
    n, m = sizes
    for order in itertools.islice(itertools.combinations(range(n + m), n), 0, None, 1 + n * m // 3):
        second = [float(place) for place in range(n + m) if place not in order]
        found = superiority([float(place) for place in order], second, "lower")
        assert (found.low > 0.5 or found.high < 0.5) == (found.p < 0.05)


_SHAPES: dict[str, Callable[[np.random.Generator, Any, float], Any]] = {
    "normal": lambda draw, size, gap: draw.normal(gap, 1, size),
    "lognormal": lambda draw, size, gap: np.exp(draw.normal(gap, 1, size)),
    "outliers": lambda draw, size, gap: draw.normal(10 + gap, 1, size) * np.where(draw.random(size) < 0.1, 4, 1),
    "diverged": lambda draw, size, gap: np.where(draw.random(size) < 0.1, np.inf, draw.normal(gap, 1, size)),
}


@pytest.mark.parametrize("shape", _SHAPES)
@pytest.mark.parametrize("sizes", [(4, 4), (5, 5), (5, 8), (10, 10)])
def test_it_covers_the_truth_in_95_of_100_cases(sizes: tuple[int, int], shape: str) -> None:
    draw, sample, times = np.random.default_rng(1), _SHAPES[shape], 1000
    for gap in (0.0, 1.0, 2.0):
        a, b = np.sort(sample(draw, 50_000, 0.0)), sample(draw, 50_000, gap)
        truth = (np.searchsorted(a, b, "left") + np.searchsorted(a, b, "right")).mean() / (2 * len(a))
        first, second = sample(draw, (times, sizes[0], 1), 0.0), sample(draw, (times, 1, sizes[1]), gap)
        wins = (2 * (first < second) + (first == second)).sum((1, 2)).astype(int)
        bounds = np.array([interval(int(each), *sizes) for each in wins])
        covered = np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1]))
        assert covered > 0.95 - 3 * (0.95 * 0.05 / times) ** 0.5, gap


# ---- how many seeds


def _pilot(gap: float, n: int) -> tuple[list[float], list[float]]:
    """Two samples that overlap as two normal distributions do: their quantiles."""
    values = [NormalDist().inv_cdf((place + 0.5) / n) for place in range(n)]
    return values, [value + gap for value in values]


@lru_cache
def _power(n: int, gap: float, level: float) -> float:
    draw, times = np.random.default_rng(0), 600
    first, second = draw.normal(0, 1, (times, n)), draw.normal(gap, 1, (times, n))
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    return sum(rank_sum_p(*pair) <= level for pair in pairs) / times


@pytest.mark.parametrize("level", [LEVEL, LEVEL / 6])
@pytest.mark.parametrize(("gap", "had"), [(2.0, 4), (1.5, 6), (1.0, 8)])
def test_with_as_many_seeds_as_it_says_the_difference_is_told_in_four_of_five_cases(
    gap: float, had: int, level: float
) -> None:
    more = seeds_to_tell(*_pilot(gap, had), level)
    assert more is not None
    assert 0.74 < _power(had + more, gap, level) < 0.95
    assert _power(2 * (had + more) // 3, gap, level) < 0.74


def test_what_a_few_seeds_recommend_is_enough_on_the_average() -> None:
    """Pilots of five seeds that the test does not tell, each continued by as many seeds as it asks for."""
    draw, told, of = np.random.default_rng(0), 0, 0
    for _ in range(400):
        first, second = draw.normal(0, 1, 5).tolist(), draw.normal(1.5, 1, 5).tolist()
        more = seeds_to_tell(first, second) if rank_sum_p(first, second) > LEVEL else None
        if more is not None and more <= 25:
            first, second = first + draw.normal(0, 1, more).tolist(), second + draw.normal(1.5, 1, more).tolist()
            told, of = told + (rank_sum_p(first, second) <= LEVEL), of + 1
    assert told / of > 0.8


def test_no_fewer_seeds_are_asked_for_than_can_reach_the_level() -> None:
    for n, level, power in itertools.product((2, 3, 4), (0.05, 0.05 / 6, 0.001), (0.01, 0.8)):
        more = seeds_to_tell(list(range(n)), list(range(n, 2 * n)), level, power=power)
        assert more is not None and smallest_p(n + more, n + more) <= level and n + more >= 4


def test_of_equal_values_no_number_of_seeds_would_tell() -> None:
    assert seeds_to_tell([1.0, 4.0, 5.0, 8.0], [2.0, 3.0, 6.0, 7.0]) is None
    assert seeds_to_tell([math.inf] * 5, [math.inf] * 5) is None


def test_more_power_and_a_smaller_level_ask_for_more() -> None:
    pilot = _pilot(1.0, 8)
    asked = [seeds_to_tell(*pilot), seeds_to_tell(*pilot, LEVEL / 6), seeds_to_tell(*pilot, LEVEL / 6, power=0.95)]
    counts = [each for each in asked if each is not None]
    assert len({*counts}) == 3 and counts == sorted(counts)
    assert seeds_to_tell(*pilot, most=2) is None
