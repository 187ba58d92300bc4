"""Whether one small sample is better than another: probability, interval, exact test, and the seeds that are lacking.

Seeds are never paired: two configurations that share a seed number share no evidence by it.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from aigc_lab.config import Better
from aigc_lab.statistics.intervals import Z95
from aigc_lab.statistics.rank_test import FEWEST, LEVEL, double_ranks, rank_sum_p, smallest_p

# Up to so many pairs of values the interval is exact; beyond, its approximation covers as well (8 values each).
_EXACT_PAIRS = 64

# More seeds than these are not recommended: so small a difference is none to speak of.
MOST_SEEDS = 100
POWER = 0.8


@dataclass(frozen=True)
class Superiority:
    """How n values of A stand to m values of B. `probability` is that a value of A is better than one of B, equal
    values counted half: U / (n m). `low` and `high` are its 95 % interval, `p` is that of the exact rank-sum test.
    """

    n: int
    m: int
    probability: float
    low: float
    high: float
    p: float

    @property
    def testable(self) -> bool:
        """Whether both sides have values enough for any claim."""
        return min(self.n, self.m) >= FEWEST


def superiority(first: Sequence[float], second: Sequence[float], better: Better) -> Superiority:
    """A = first beside B = second. A run that diverged is ±∞, the worst value.

    The test is of equal distributions (Mann & Whitney 1947). Of two equally good ones whose spreads differ, it tells
    more than 5 in 100 apart: up to 8 where one spreads four times as much, 10 where ten times (simulated, normal, 4 to
    20 values each). The interval then covers some 90 in 100.

    Raises `ValueError` for an empty side or NaN.

    >>> superiority([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], "lower").probability
    1.0
    """
    p, n, m = rank_sum_p(first, second), len(first), len(second)
    below = _twice_below(first, second)
    wins = below if better == "lower" else 2 * n * m - below
    low, high = interval(wins, n, m)
    return Superiority(n, m, wins / (2 * n * m), low, high, p)


def _twice_below(first: Sequence[float], second: Sequence[float]) -> int:
    """Twice the number of pairs whose first value is below the second; equal ones count half."""
    n, m = len(first), len(second)
    return 2 * n * m + n * (n + 1) - sum(double_ranks([*first, *second])[:n])


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order of their own: to reject those of at most α errs anywhere with α (Holm 1979).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(ps), 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = highest
    return adjusted


# ---- the interval


@lru_cache(4096)
def interval(wins: int, n: int, m: int) -> tuple[float, float]:
    """95 % interval of P(A better than B), from twice the number of the n m pairs in which A is better.

    Of few values it holds every probability that an exact test of U does not reject, for proportional hazards (Lehmann
    1953): so it leaves out 1/2 where the rank-sum test of values without ties has p < 0.05, and there alone (Fay &
    Malinovsky 2018 demand this of it). Of many it is method 5 of Newcombe (2006), of the same hazards' variance.

    >>> [round(bound, 2) for bound in interval(18, 3, 3)], [round(bound, 2) for bound in interval(32, 4, 4)]
    ([0.41, 1.0], [0.56, 1.0])
    """
    if n * m > _EXACT_PAIRS:
        return _newcombe_low(wins, n, m), 1 - _newcombe_low(2 * n * m - wins, n, m)
    # Hazards of A or of B may be the basis: the wider of the two, so that it does not matter which side is A.
    bounds = [
        (_exact_low(wins // 2, *sides), _exact_low((2 * n * m - wins) // 2, *sides[::-1])) for sides in _ways(n, m)
    ]
    return min(low for low, _ in bounds), 1 - min(high for _, high in bounds)


def _ways(n: int, m: int) -> list[tuple[int, int]]:
    return [(n, m)] if n == m else [(n, m), (m, n)]


def _exact_low(wins: int, n: int, m: int) -> float:
    """The probability at which `wins` pairs or more have a chance of 2.5 %."""
    losses = n * m - wins
    return _root(lambda chance: _at_most(losses, n, m, chance) - 0.025, 0.0, 1.0, -0.025, 0.975) if wins else 0.0


def _at_most(losses: int, n: int, m: int, chance: float) -> float:
    """P(B is better than A in at most so many of the n m pairs), where P(A better than B) = chance.

    From the best value to the worst, the next is one of the a that are left of A with probability a / (a + k b), for
    hazards of 1 and k. If it is one of B, it is better than these a.
    """
    if 2 * losses >= n * m:  # the shorter count
        return 1 - _at_most(n * m - losses - 1, m, n, 1 - chance)
    k = (1 - chance) / chance
    # At [b] of step a: the probability of each number of losses when a of A and b of B are left.
    before: list[list[float]] = []
    for a in range(n, -1, -1):
        row: list[list[float]] = []
        for b in range(m, -1, -1):
            state = [1.0] + [0.0] * losses if a == n and b == m else [0.0] * (losses + 1)
            if a < n and (share := (a + 1) / (a + 1 + k * b)):
                state = [each + share * one for each, one in zip(state, before[m - b], strict=True)]
            if b < m:
                share = k * (b + 1) / (a + k * (b + 1))
                moved = ([0.0] * a + row[-1])[: losses + 1]
                state = [each + share * one for each, one in zip(state, moved, strict=True)]
            row.append(state)
        before = row
    return sum(before[m])


def _newcombe_low(wins: int, n: int, m: int) -> float:
    """The probability below the observed one from which this is 1.96 standard errors away."""
    observed = wins / (2 * n * m)

    def nearer(chance: float) -> float:
        return Z95 * math.sqrt(_variance(chance, n, m)) - (observed - chance)

    high = min(observed, 1 - 1e-6)  # at 1 the variance is 0
    return _root(nearer, 0.0, high, -observed, nearer(high)) if wins else 0.0


def _variance(chance: float, n: int, m: int) -> float:
    """Variance of U / (n m) for proportional hazards (Hanley & McNeil 1982), the mean over either basis."""
    more = (n + m) / 2 - 1
    return chance * (1 - chance) / (n * m) * (1 + more * ((1 - chance) / (2 - chance) + chance / (1 + chance)))


def _root(function: Callable[[float], float], low: float, high: float, at_low: float, at_high: float) -> float:
    """Where a function is zero, to 1e-6 of its value, between a place where it is negative and one where it is not: by
    false position, halving the value of an end that stays twice (Dowell & Jarratt 1971).
    """
    side = 0
    for _ in range(100):
        place = (low * at_high - high * at_low) / (at_high - at_low)
        value = function(place)
        if abs(value) < 1e-6:
            break
        if value < 0:
            low, at_low, at_high, side = place, value, at_high / (2 if side < 0 else 1), -1
        else:
            high, at_high, at_low, side = place, value, at_low / (2 if side > 0 else 1), 1
    return place


# ---- how many seeds


def seeds_to_tell(
    first: Sequence[float],
    second: Sequence[float],
    level: float = LEVEL,
    *,
    power: float = POWER,
    most: int = MOST_SEEDS,
) -> int | None:
    """About how many more values each the rank-sum test needs to tell the two apart at this level with this power, if
    the overlap of those that are there is right; None where that is more than `most`. As Noether (1987) counts them,
    with the variance under the alternative too.

    >>> seeds_to_tell([1.0, 2.0, 3.0, 6.0], [4.0, 5.0, 7.0, 8.0])
    6
    """
    n, m = len(first), len(second)
    wins = _twice_below(first, second) / 2
    # Half a pair is added to each side: a few values that do not overlap prove no certainty.
    chance = (max(wins, n * m - wins) + 0.5) / (n * m + 1)
    rare, powerful = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(power)

    def enough(more: int) -> bool:
        sizes = n + more, m + more
        if min(sizes) < FEWEST or smallest_p(*sizes) > level:
            return False
        equal = math.sqrt((sum(sizes) + 1) / (12 * math.prod(sizes)))
        return chance - 0.5 >= rare * equal + powerful * math.sqrt(_variance(chance, *sizes))

    return bisect_left(range(most), True, lo=1, key=enough) if enough(most) else None
