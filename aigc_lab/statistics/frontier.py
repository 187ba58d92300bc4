"""A point of diversity and quality beside curves of another model, at the same diversity.

Of diversity less is more diverse, as of Self-BLEU; of quality more is better. A curve is a polyline, which may turn
back: it then has several qualities at one diversity, and a point that lies between them is neither better nor worse.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from aigc_lab.statistics.intervals import Z95, jackknife_error

# Places between two measured points of a curve: so many chords are the curve, to a hundredth of its bend.
_FINE = 8


class Point(NamedTuple):
    """Diversity, of which less is more diverse, and quality, of which more is better."""

    diversity: float
    quality: float


Line = Sequence[Point]


@dataclass(frozen=True)
class Measured:
    """Points of one model, and the same `without` each group of its samples: replicates of a delete-group jackknife."""

    points: Line
    without: Sequence[Line]

    def error(self, statistic: Callable[[Line], float]) -> float:
        """Standard error of a statistic of the points."""
        import numpy as np

        return jackknife_error(np.array([statistic(points) for points in self.without]))


class Bound(NamedTuple):
    """A difference, its standard error, and the degrees of freedom of this."""

    value: float
    error: float
    freedom: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Interval of this confidence, by Student's t."""
        from scipy.special import stdtrit  # scipy.stats says the same, and takes seconds to import

        margin = float(stdtrit(self.freedom, (1 + level) / 2)) * self.error if self.error else 0.0
        return self.value - margin, self.value + margin


@dataclass(frozen=True)
class Difference:
    """Quality beside the curves at the same diversity: over the best that they have there, and over the worst.

    `too_diverse` says that the point may be more diverse than the curves reach, `too_narrow` that it may be less so:
    there the end of a curve stands for it, and nothing is extrapolated.
    """

    over_best: Bound
    over_worst: Bound
    too_diverse: bool
    too_narrow: bool


def smooth(places: Sequence[float], line: Line) -> list[Point]:
    """The line with places in between, on cubics through its points: both coordinates are functions of `places`, such
    as the logarithm of a temperature. Slopes at the points are those of parabolas through three neighbours.
    """
    if len(line) < 3:
        return list(line)
    slopes = [[_slope(places, [each[axis] for each in line], at) for axis in (0, 1)] for at in range(len(line))]
    points = []
    for at in range(len(line) - 1):
        width = places[at + 1] - places[at]
        for step in range(_FINE):
            t = step / _FINE
            rise = t * t * (3 - 2 * t)
            ends = width * t * (1 - t) ** 2, width * t * t * (t - 1)
            points.append(
                Point(
                    *(
                        (1 - rise) * line[at][axis]
                        + rise * line[at + 1][axis]
                        + ends[0] * slopes[at][axis]
                        + ends[1] * slopes[at + 1][axis]
                        for axis in (0, 1)
                    )
                )
            )
    return [*points, line[-1]]


def _slope(places: Sequence[float], values: Sequence[float], at: int) -> float:
    """Slope at a place of the parabola through it and its neighbours, at an end through the nearest three."""
    middle = min(max(at, 1), len(values) - 2)
    before, after = places[middle] - places[middle - 1], places[middle + 1] - places[middle]
    left, right = (values[middle] - values[middle - 1]) / before, (values[middle + 1] - values[middle]) / after
    bend = (right - left) / (before + after)
    return left + bend * before + 2 * bend * (places[at] - places[middle])


def qualities(curve: Line, diversity: float, also: Sequence[int] = ()) -> list[float]:
    """Qualities of the curve at this diversity, one for each time that it passes there, and those of its points of the
    numbers `also`. Beyond its range, that of the end of the range.

    >>> curve = [Point(0.4, 0.8), Point(0.2, 0.6), Point(0.4, 0.1)]
    >>> [round(quality, 2) for quality in qualities(curve, 0.3)], qualities(curve, 0.1, also=[2])
    ([0.7, 0.35], [0.1, 0.6, 0.6])
    """
    place = min(max(diversity, min(curve).diversity), max(curve).diversity)
    found = [curve[number].quality for number in also]
    for first, second in pairwise(curve):
        low, high = sorted((first, second))
        if low.diversity <= place <= high.diversity:
            width = high.diversity - low.diversity
            share = (place - low.diversity) / width if width else 0.0
            found += [low.quality + share * (high.quality - low.quality)]
            found += [] if width else [high.quality]
    return found or [point.quality for point in curve]


def beside(points: Sequence[Measured], curves: Sequence[Measured]) -> Difference:
    """The mean over `points`, one for each seed of a model, of their quality less that of curves at their diversity,
    the mean over `curves`, one for each seed of the other model.

    Ends of a curve, and turns, that are no farther from a point than its error count as if the curve passed there: the
    true point may be before them.
    """
    also = [[_near_turns(point, curve) for curve in curves] for point in points]
    pairs = [(point, curve) for point in points for curve in curves]
    return Difference(
        _bound(points, curves, also, max),
        _bound(points, curves, also, min),
        any(_beyond(point, curve, min, -1) for point, curve in pairs),
        any(_beyond(point, curve, max, 1) for point, curve in pairs),
    )


def _near_turns(point: Measured, curve: Measured) -> list[int]:
    """Numbers of the points of a curve that are its ends, or at which its diversity turns back, and near the point."""
    line, ends = curve.points, (0, len(curve.points) - 1)
    steps = [after.diversity - before.diversity for before, after in pairwise(line)]
    turns = {*ends, *(number + 1 for number, (one, other) in enumerate(pairwise(steps)) if one * other <= 0)}
    own, error = point.points[0].diversity, point.error(lambda made: made[0].diversity)
    place = min(max(own, min(line).diversity), max(line).diversity)

    def is_near(number: int) -> bool:
        of_turn = curve.error(lambda points: points[number].diversity)
        return abs(line[number].diversity - place) <= Z95 * math.hypot(error, of_turn)

    return [number for number in sorted(turns) if is_near(number)]


def _beyond(point: Measured, curve: Measured, end: Callable[[Line], Point], sign: int) -> bool:
    """Whether a point is beyond an end of the range of a curve, or may be by its own error and the end's."""
    error = math.hypot(point.error(lambda line: line[0].diversity), curve.error(lambda line: end(line).diversity))
    return sign * (point.points[0].diversity - end(curve.points).diversity) + Z95 * error >= 0


def _bound(
    points: Sequence[Measured],
    curves: Sequence[Measured],
    also: Sequence[Sequence[Sequence[int]]],
    chosen: Callable[[list[float]], float],
) -> Bound:
    """The difference from the `chosen` one of the qualities of each curve at a diversity.

    Its error is that of both sides: over several seeds their spread, or the sampling error of one where that is larger,
    and of one seed its sampling error, by the jackknife of the whole difference, which is how the point's error in
    diversity and the slope of the curve enter. The degrees of freedom are Welch and Satterthwaite's.
    """

    def of_point(number: int, point: Point) -> float:
        lines = zip(curves, also[number], strict=True)
        return point.quality - _mean([chosen(qualities(each.points, point.diversity, near)) for each, near in lines])

    def of_curve(number: int, line: Line) -> float:
        made = [(each.points[0], near[number]) for each, near in zip(points, also, strict=True)]
        return _mean([point.quality - chosen(qualities(line, point.diversity, near)) for point, near in made])

    def part(models: Sequence[Measured], statistic: Callable[[int, Line], float]) -> tuple[float, float]:
        values = [statistic(number, each.points) for number, each in enumerate(models)]
        errors = [each.error(partial(statistic, number)) for number, each in enumerate(models)]
        return _variance(values, errors, len(models[0].without))

    value = _mean([of_point(number, each.points[0]) for number, each in enumerate(points)])
    parts = part(points, lambda number, line: of_point(number, line[0])), part(curves, of_curve)
    total = sum(variance for variance, _ in parts)
    shares = sum(variance**2 / freedom for variance, freedom in parts)
    return Bound(value, math.sqrt(total), total**2 / shares if shares else math.inf)


def _variance(values: Sequence[float], errors: Sequence[float], groups: int) -> tuple[float, float]:
    """Variance of the mean of values with their own standard errors, and its degrees of freedom."""
    n = len(values)
    sampling = _mean([error**2 for error in errors]) / n
    spread = sum((value - _mean(values)) ** 2 for value in values) / (n - 1) / n if n > 1 else 0.0
    return (spread, n - 1) if spread > sampling else (sampling, n * (groups - 1))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
