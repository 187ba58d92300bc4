"""The exact rank-sum test of two small samples: whether one is better than the other by more than chance."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import count

# Beyond this probability an order of values is taken for chance.
LEVEL = 0.05

# The fewest values on each side of which any order is rarer than LEVEL: 2 / C(8, 4) = 0.029. Of three and three the
# rarest, all of one side below all of the other, has 2 / C(6, 3) = 0.1.
FEWEST = 4

# Up to so many pairs of values the test counts: 30 values each take some 10 ms, 100 each 2 seconds.
_EXACT_PAIRS = 900


def rank_sum_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p-value of the exact permutation test on the rank sum (Wilcoxon 1945; Mann & Whitney 1947): twice the
    share of all ways to part the values that are at least as extreme, at most 1. Equal values share their mean rank,
    ±∞ are values like others. Of more than 30 values each the normal approximation stands for the exact count.

    Raises `ValueError` for an empty side or NaN.

    >>> rank_sum_p([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]) == 2 / 70
    True
    """
    if not first or not second or any(math.isnan(value) for value in (*first, *second)):
        raise ValueError("both sides need values, and none may be NaN")
    first, second = sorted((first, second), key=len)  # what is counted are choices of the shorter side
    ranks, n = double_ranks([*first, *second]), len(first)
    if n * len(second) > _EXACT_PAIRS:
        return _normal_p(ranks, n)
    # ways[k] counts the choices of k ranks by their sum s, as the digit at place s of one long integer: a digit has
    # room for every count. So a rank is added to all choices at once, by a shift.
    digit = len(ranks) + 1
    ways = [1] + [0] * n
    for rank in ranks:
        for k in range(n, 0, -1):
            ways[k] += ways[k - 1] << (digit * rank)
    seen = sum(ranks[:n])
    below = _digit_sum(ways[n] & ((1 << digit * (seen + 1)) - 1), digit)
    above = _digit_sum(ways[n] >> digit * seen, digit)
    return min(1.0, 2 * min(below, above) / math.comb(len(ranks), n))


def _normal_p(double: Sequence[int], n: int) -> float:
    """The same for long samples, from the first n of twice the ranks: normal, with corrections for equal values and
    for continuity.
    """
    total = len(double)
    mean = (total + 1) / 2
    variance = n * (total - n) / (total * (total - 1)) * sum((rank / 2 - mean) ** 2 for rank in double)
    away = abs(sum(double[:n]) / 2 - n * mean) - 0.5
    return 1.0 if away <= 0 else math.erfc(away / math.sqrt(2 * variance))


def _digit_sum(number: int, digit: int) -> int:
    """The sum of the digits of `digit` bits, which must be less than 2^digit − 1: as casting out nines gives it."""
    return number % ((1 << digit) - 1)


def favours_lower(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the values of the first have the smaller mean rank."""
    ranks = double_ranks([*first, *second])
    return sum(ranks[: len(first)]) * len(second) < sum(ranks[len(first) :]) * len(first)


def smallest_p(first: int, second: int) -> float:
    """The p-value of so many values each that do not overlap: no order of them has a smaller one.

    >>> round(smallest_p(3, 3), 3), round(smallest_p(4, 4), 3)
    (0.1, 0.029)
    """
    return min(1.0, 2 / math.comb(first + second, first))


def values_lacking(first: int, second: int, level: float = LEVEL) -> int:
    """How many more values each it takes until values that do not overlap reach the level.

    >>> values_lacking(1, 1), values_lacking(2, 2), values_lacking(4, 4)
    (3, 2, 0)
    """
    return next(more for more in count() if smallest_p(first + more, second + more) <= level)


def double_ranks(values: Sequence[float]) -> list[int]:
    """Twice the mean rank of each value, from 2.

    >>> double_ranks([5.0, 1.0, 5.0])
    [5, 2, 5]
    """
    ranks, below = {}, 0
    for value, equal in sorted(Counter(values).items()):
        ranks[value] = 2 * below + equal + 1
        below += equal
    return [ranks[value] for value in values]
