"""Is a text GAN better than maximum likelihood at the same diversity? Its point at temperature 1 beside the curve of a
language model over temperatures (Caccia et al. 2020), by n-grams and by language models.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aigc_lab.statistics.frontier import Difference, Line, Measured, Point, beside, smooth
from aigc_lab.statistics.intervals import jackknife_error
from aigc_lab.statistics.planes import PLANES, Plane

Curve = Mapping[str, Any]  # as `scoring.temperature_curve.curve` gives it
LEVEL = 0.95


class Answer(StrEnum):
    """Whether it is better than maximum likelihood at the same diversity."""

    YES = "yes"
    NO = "no"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class OnPlane:
    """A point on a plane: by how much its `quality` is better than maximum likelihood's at its `diversity`, with its
    interval. The intervals of both planes hold together with 95 % (Bonferroni).
    """

    plane: Plane
    diversity: float
    quality: float
    better_by: float
    low: float
    high: float
    answer: Answer
    why: str = ""  # nothing could be told, whatever the interval says


@dataclass(frozen=True)
class Beside:
    """The answer of both planes."""

    answer: Answer
    planes: tuple[OnPlane, ...]


def is_measured(curve: Curve) -> bool:
    """Whether a curve has what an interval takes: earlier versions kept none, and of two sentences there is none."""
    return all(isinstance(point.get("without"), Mapping) for point in curve["points"])


def standard_error(without: Sequence[float]) -> float:
    """Standard error of a score by its values without each group of sentences."""
    import numpy as np

    return jackknife_error(np.array(without))


def judge(points: Sequence[Curve], curves: Sequence[Curve]) -> Beside:
    """The runs of one text GAN, by their curves, beside runs of one language model. Both answer by the same number of
    sentences, against the same real ones.

    A plane says yes or no where its interval lies on one side of 0, and not beyond the end of the curve that could tell
    another story. Yes where one plane says yes and the other not no; no likewise; else nothing can be told.
    """
    planes = tuple(_on_plane(plane, points, curves) for plane in PLANES)
    answers = {each.answer for each in planes} - {Answer.CANNOT_TELL}
    return Beside(answers.pop() if len(answers) == 1 else Answer.CANNOT_TELL, planes)


def _on_plane(plane: Plane, points: Sequence[Curve], curves: Sequence[Curve]) -> OnPlane:
    made = [_measured(plane, curve, own=True) for curve in points]
    found = beside(made, [_measured(plane, curve) for curve in curves])
    level = 1 - (1 - LEVEL) / len(PLANES)
    best, worst = found.over_best.interval(level), found.over_worst.interval(level)
    # Between two branches of a curve that turns back, the nearer one.
    above = abs(found.over_best.value) <= abs(found.over_worst.value)
    value, (low, high) = (found.over_best.value, best) if above else (found.over_worst.value, worst)
    answer, why = _answer(found, best[0], worst[1], curves, plane)
    if answer == Answer.CANNOT_TELL and not why and (low > 0 or high < 0):
        why = _beyond(found, curves, plane) or "between two temperatures of maximum likelihood that are as diverse"
    own = [each.points[0] for each in made]
    diversity, quality = (math.fsum(values) / len(own) for values in zip(*own, strict=True))
    return OnPlane(plane, diversity, plane.sign * quality, value, low, high, answer, why)


def _answer(
    found: Difference, over_best: float, over_worst: float, curves: Sequence[Curve], plane: Plane
) -> tuple[Answer, str]:
    """Yes where it is better than the best of maximum likelihood at this diversity, no where it is worse than the
    worst. What is more diverse than the whole curve and better is better, what is less diverse and worse is worse; the
    other way round, another temperature might show the opposite.
    """
    if (over_best > 0 and found.too_narrow) or (over_worst < 0 and found.too_diverse):
        return Answer.CANNOT_TELL, _beyond(found, curves, plane)
    if over_best > 0 or over_worst < 0:
        return Answer.YES if over_best > 0 else Answer.NO, ""
    return Answer.CANNOT_TELL, ""


def _beyond(found: Difference, curves: Sequence[Curve], plane: Plane) -> str:
    """Why the curves may not reach the diversity of the point; empty where they do."""
    if found.too_narrow:
        coldest = min(point["temperature"] for curve in curves for point in curve["points"])
        return f"less diverse than the curve reaches: add temperatures below {coldest:g}"
    return _too_diverse(curves, plane) if found.too_diverse else ""


def _too_diverse(curves: Sequence[Curve], plane: Plane) -> str:
    """Why what lies beyond the most diverse point of the curves cannot be worse: at the hottest, there is a remedy."""
    hottest = max(point["temperature"] for curve in curves for point in curve["points"])
    ends = [min(curve["points"], key=lambda point: point[plane.diversity])["temperature"] for curve in curves]
    if all(end < hottest for end in ends):
        return "more diverse than maximum likelihood at any temperature"
    return f"more diverse than the curve reaches: add temperatures above {hottest:g}"


def _measured(plane: Plane, curve: Curve, own: bool = False) -> Measured:
    """The points of a curve on a plane in the order of temperature; of its `own` temperature alone, 1."""
    chosen = [point for point in curve["points"] if not own or point["temperature"] == 1]
    places = [math.log(point["temperature"]) for point in chosen]

    def line(values: Sequence[Mapping[str, Any]]) -> Line:
        return smooth(
            places, [Point(float(each[plane.diversity]), plane.sign * float(each[plane.quality])) for each in values]
        )

    replicates = [
        [{name: point["without"][name][group] for name in (plane.diversity, plane.quality)} for point in chosen]
        for group in range(len(chosen[0]["without"][plane.quality]))
    ]
    return Measured(line(chosen), [line(points) for points in replicates])
