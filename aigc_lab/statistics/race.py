"""Race of candidates: seed after seed for those that may still be the best, until one is left or the runs are spent.

Who is worse than the leader by an exact rank test leaves (Maron & Moore 1994; F-Race, Birattari et al. 2002). A race is
replayed from the values of the runs that have ended, round by round, so neither their order in time nor an interruption
changes what is run next.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import NamedTuple

from aigc_lab.statistics.rank_test import FEWEST, LEVEL, favours_lower, rank_sum_p

# The share of the error that is left which a look may spend, unless it is the last.
_SHARE = 1 / 3

Values = Mapping[tuple[int, int], float | None]


def first_block(candidates: int) -> int:
    """The seeds of each that a race of so many begins with: the fewest after which anybody can be dropped.

    >>> first_block(2), first_block(3), first_block(12)
    (4, 5, 6)
    """
    seeds = FEWEST
    while _smallest(seeds) > _SHARE * LEVEL / (candidates - 1):
        seeds += 1
    return seeds


def levels(candidates: int, seeds: int) -> dict[int, float]:
    """Seeds of each -> the level of the one-sided tests after so many, for a race of at most `seeds` of each.

    Over all looks and rivals they sum to LEVEL at most, so that the best of the candidates is dropped no more often,
    whoever leads and however the looks depend on one another. A look at which no order of values is rare enough spends
    nothing.
    """
    left, spent = LEVEL / (candidates - 1), {}
    for n in range(FEWEST, seeds + 1):
        share = left if n == seeds else _SHARE * left
        if _smallest(n) <= share:
            spent[n] = share
            left -= share
    return spent


def _smallest(n: int) -> float:
    """The one-sided p-value of n and n values that do not overlap."""
    return 1 / math.comb(2 * n, n)


class Dropped(NamedTuple):
    """A candidate that left the race after so many seeds, by a two-sided p-value; None where all its runs failed."""

    candidate: int
    seeds: int
    p: float | None


@dataclass(frozen=True)
class Standing:
    """How far a race is. `missing` are the runs (candidate, place of the seed) of the round under way, none once it is
    over; then `leader` is the first of the `contenders` that are left, None if none has a value. `taken` counts the
    runs of the rounds that are over, and `seeds` those of each contender.
    """

    missing: list[tuple[int, int]]
    contenders: list[int]
    leader: int | None
    dropped: list[Dropped]
    taken: int
    seeds: int

    @property
    def over(self) -> bool:
        return not self.missing


@dataclass(frozen=True)
class Race:
    """The rules: `candidates` in the order that breaks ties, at most `seeds` of each, and at most `budget` runs of all.
    One that is not `racing` gives each of them all its seeds.
    """

    candidates: Sequence[int]
    seeds: int
    lower_is_better: bool
    racing: bool = True
    budget: int | None = None

    @property
    def runs_of_fixed_seeds(self) -> int:
        """The runs that it takes to give each candidate all its seeds."""
        return len(self.candidates) * self.seeds

    @property
    def most_runs(self) -> int:
        return self.runs_of_fixed_seeds if self.budget is None else min(self.budget, self.runs_of_fixed_seeds)

    @cached_property
    def looks(self) -> int:
        """After how many rounds the candidates may be compared; 1 of fixed seeds."""
        return self._last - self._first + 1

    @property
    def _first(self) -> int:
        """The seeds of each in the first round."""
        several = self.racing and len(self.candidates) > 1
        return min(first_block(len(self.candidates)), self.seeds) if several else self.seeds

    @cached_property
    def _last(self) -> int:
        """The most seeds that a candidate can have: if all but two leave after the first round."""
        return min(self.seeds, self._first + max(self.most_runs - self._first * len(self.candidates), 0) // 2)

    @cached_property
    def _levels(self) -> dict[int, float]:
        several = self.racing and len(self.candidates) > 1
        return levels(len(self.candidates), self._last) if several else {}

    def replay(self, ended: Values) -> Standing:
        """The standing after the runs that have `ended`: (candidate, place of its seed, from 0) -> its value, ±∞ for
        one that diverged, None for one that failed. Runs of later rounds count for nothing.
        """
        contenders: list[int] = list(self.candidates)
        dropped: list[Dropped] = []
        seeds, taken = 0, 0
        while True:
            upto = self._first if seeds == 0 else seeds + 1
            asked = [(each, place) for each in contenders for place in range(seeds, upto)]
            missing = [run for run in asked if run not in ended]
            if missing:
                return Standing(missing, contenders, None, dropped, taken, seeds)
            seeds, taken = upto, taken + len(asked)
            values = {each: self._values(ended, each, seeds) for each in contenders}
            leader = self._leader(values)
            lost = self._lost(values, leader, seeds)
            dropped += lost
            contenders = [each for each in contenders if each not in {loser.candidate for loser in lost}]
            if leader is None or not self._goes_on(contenders, seeds, taken):
                return Standing([], contenders, leader, dropped, taken, seeds)

    def _goes_on(self, contenders: Sequence[int], seeds: int, taken: int) -> bool:
        return len(contenders) > 1 and seeds < self._last and taken + len(contenders) <= self.most_runs

    def _values(self, ended: Values, candidate: int, seeds: int) -> list[float]:
        values = [ended[candidate, place] for place in range(seeds)]
        return [value for value in values if value is not None]

    def _leader(self, values: Mapping[int, list[float]]) -> int | None:
        """Who has the best median."""
        sign = 1 if self.lower_is_better else -1
        medians = {each: sign * median(own) for each, own in values.items() if own}
        return min(medians, key=lambda each: medians[each], default=None)

    def _lost(self, values: Mapping[int, list[float]], leader: int | None, seeds: int) -> list[Dropped]:
        """Who is worse than the leader at the level of this look, and in a race whoever has no value at all."""
        if not self.racing or leader is None:
            return []
        level, lost = self._levels.get(seeds, 0.0), []
        for each, own in values.items():
            if not own:
                lost.append(Dropped(each, seeds, None))
            elif each != leader and favours_lower(values[leader], own) == self.lower_is_better:
                p = rank_sum_p(values[leader], own)
                if p / 2 <= level:  # of one side
                    lost.append(Dropped(each, seeds, p))
        return lost
