"""Intervals as small pictures in a table: a dot, its whisker and the floor, all rows on one scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aigc_lab.display.wording import Row, unbounded
from aigc_lab.statistics.wording import number

# Beyond this ratio of the largest to the smallest value a linear scale shows the small ones as one.
_LOG_FROM = 20.0


@dataclass(frozen=True)
class Whisker:
    """Places of dot and whisker from 0 (left) to 1 (right); an arrow marks an infinite bound, of a diverged seed."""

    dot: float
    low: float
    high: float
    floor: float | None
    arrow_low: bool
    arrow_high: bool
    seeds: tuple[float, ...] = ()  # of each finite value that the dot is the median of


@dataclass(frozen=True)
class Scale:
    """A scale on which `low` is at 0 and `high` at 1, both finite."""

    low: float
    high: float
    logarithmic: bool

    def place(self, value: float) -> float:
        low, high, at = (
            map(math.log, (self.low, self.high, value)) if self.logarithmic else (self.low, self.high, value)
        )
        return 0.5 if high == low else (at - low) / (high - low)

    def __str__(self) -> str:
        return f"{number(self.low)} to {number(self.high)}{', logarithmic' if self.logarithmic else ''}"


def scale(rows: Sequence[Row], seeds: Sequence[float] = ()) -> Scale:
    """The range of every value, bound and floor, and of the seeds' values; logarithmic where it spans a factor of 20
    and all are positive.
    """
    scores = [row["score"] for row in rows]
    values = [score[key] for score in scores for key in ("value", "low", "high", "floor") if score[key] is not None]
    values += filter(math.isfinite, seeds)
    low, high = min(values), max(values)
    return Scale(low, high, low > 0 and high / low >= _LOG_FROM)


def whisker(row: Row, on: Scale, values: Sequence[float] = ()) -> Whisker:
    """The picture of one row that has a score, the median of `values`."""
    score, infinite = row["score"], unbounded(row)
    lower, upper, floor = score["low"], score["high"], score["floor"]
    arrow_low, arrow_high = (infinite and bound is None for bound in (lower, upper))
    dot = on.place(score["value"])
    return Whisker(
        dot,
        low=0.0 if arrow_low else dot if lower is None else on.place(lower),
        high=1.0 if arrow_high else dot if upper is None else on.place(upper),
        floor=None if floor is None else on.place(floor),
        # A score without any interval has none to lose.
        arrow_low=arrow_low and upper is not None,
        arrow_high=arrow_high and lower is not None,
        seeds=tuple(map(on.place, filter(math.isfinite, values))) if len(values) > 1 else (),
    )
