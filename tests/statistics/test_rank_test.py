"""The exact rank test beside SciPy's and beside counting every way to part the values."""

import itertools
import math
import random

import pytest
from scipy.stats import mannwhitneyu

from aigc_lab.statistics.rank_test import (
    FEWEST,
    LEVEL,
    favours_lower,
    rank_sum_p,
    smallest_p,
    values_lacking,
)


def counted(first: list[float], second: list[float]) -> float:
    """Twice the share of partings whose mean rank is as extreme, by going through all of them."""
    values = [*first, *second]
    ranks = [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]
    seen = sum(ranks[: len(first)])
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, len(first))]
    return min(1.0, 2 * min(sum(s <= seen for s in sums), sum(s >= seen for s in sums)) / len(sums))


@pytest.mark.parametrize("sizes", [(1, 1), (2, 2), (3, 4), (4, 4), (5, 7), (8, 3)])
def test_the_p_value_is_that_of_counting_and_of_scipy(sizes: tuple[int, int]) -> None:
    draw = random.Random(sum(sizes))
    for _ in range(20):
        first, second = ([draw.gauss(0, 1) for _ in range(size)] for size in sizes)
        p = rank_sum_p(first, second)
        assert p == pytest.approx(counted(first, second), abs=1e-12)
        assert p == pytest.approx(mannwhitneyu(first, second, method="exact").pvalue, abs=1e-12)
        tied = [float(round(value)) for value in first], [float(round(value)) for value in second]
        assert rank_sum_p(*tied) == pytest.approx(counted(*tied), abs=1e-12)


def test_many_values_are_counted_too() -> None:
    draw = random.Random(0)
    first, second = ([draw.gauss(shift, 1) for _ in range(30)] for shift in (0.0, 0.5))
    assert rank_sum_p(first, second) == pytest.approx(mannwhitneyu(first, second, method="exact").pvalue, rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.7])
def test_beyond_what_is_counted_the_normal_approximation_is_scipys_and_close(shift: float) -> None:
    draw = random.Random(1)
    first, second = [draw.gauss(0, 1) for _ in range(31)], [draw.gauss(shift, 1) for _ in range(40)]
    p = rank_sum_p(first, second)
    assert p == pytest.approx(mannwhitneyu(first, second, method="asymptotic").pvalue, rel=1e-9)
    assert p == pytest.approx(mannwhitneyu(first, second, method="exact").pvalue, rel=0.1)
    tied = [round(value) for value in first], [round(value) for value in second]
    assert rank_sum_p(*tied) == pytest.approx(mannwhitneyu(*tied, method="asymptotic").pvalue, rel=1e-9)
    assert rank_sum_p([1.0] * 31, [1.0] * 31) == 1


def test_a_seed_that_diverged_is_the_worst_value() -> None:
    worst = math.inf
    assert rank_sum_p([1, 2, 3, 4], [5, 6, worst, worst]) == 2 / 70
    assert rank_sum_p([worst, worst], [worst, worst]) == 1
    assert favours_lower([1, 2, worst], [3, 4, worst]) and not favours_lower([-worst, 3], [-worst, 2])


@pytest.mark.parametrize("values", [([], [1.0]), ([1.0], []), ([math.nan], [1.0])])
def test_nothing_and_nan_are_refused(values: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="NaN"):
        rank_sum_p(*values)


def test_the_fewest_values_are_the_first_that_can_reach_the_level() -> None:
    for size in range(1, 8):
        apart = [float(value) for value in range(size)], [float(value) for value in range(size, 2 * size)]
        assert smallest_p(size, size) == pytest.approx(counted(*apart))
        assert (counted(*apart) <= LEVEL) == (size >= FEWEST)


@pytest.mark.parametrize(
    ("first", "second", "more"), [(1, 1, 3), (2, 2, 2), (3, 3, 1), (3, 4, 1), (2, 1, 3), (4, 4, 0)]
)
def test_so_many_more_and_no_fewer_reach_the_level(first: int, second: int, more: int) -> None:
    assert values_lacking(first, second) == more
    for added in range(more + 1):
        n, m = first + added, second + added
        apart = [float(value) for value in range(n)], [float(value) for value in range(n, n + m)]
        assert (counted(*apart) <= LEVEL) == (added == more)


def test_seeds_that_do_not_count_are_lacking() -> None:
    assert values_lacking(0, 4) == 3  # 2 / C(8, 2) = 0.07 is too much, 2 / C(10, 3) = 0.02 is not
