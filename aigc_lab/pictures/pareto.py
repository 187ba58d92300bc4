"""Two scores against each other, such as quality and diversity, with the Pareto front of the medians."""

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Literal, NamedTuple

from aigc_lab.config import Better
from aigc_lab.errors import UsageError
from aigc_lab.host.content import unknown_name
from aigc_lab.pictures import rows
from aigc_lab.pictures.style import (
    INK,
    SMALL,
    WIDTH,
    blank,
    direction,
    footnote,
    is_wide,
    legend,
    logarithmic,
    short,
    whole_ticks,
)
from aigc_lab.registry.pareto import front
from aigc_lab.registry.seed_runs import SeedGroup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Scores of diversity that protocols give, the one that is taken first.
DIVERSITY = ("coverage", "recall", "self_bleu_4", "self_bleu", "vendi", "modes")
# More points than this are not numbered.
_NUMBERED = 24
# Where a number may stand, in points beside its point; the first that is free is taken.
_PLACES = ((6, 4), (6, -4), (-6, 4), (-6, -4), (6, 14), (6, -14), (-6, -14), (6, -24), (-6, -24))
# The least size of the axes in points, whatever stands beside them, and half of a large mark as a share of it.
_AXES, _MARK = (300, 210), 0.015
_Box = tuple[float, float, float, float]
# Systems that a legend names.
_NAMED = 40


class Point(NamedTuple):
    """The medians of a group in two scores, and those of its runs."""

    group: SeedGroup
    x: float
    y: float
    runs: list[tuple[float, float]]


class Plane(NamedTuple):
    """Two scores with their directions, and the points of one signature each."""

    x: str
    y: str
    directions: tuple[Better, Better]
    points: list[Point]
    signatures: tuple[str, str]
    others: int


def plane(groups: Sequence[SeedGroup], x: str | None, y: str | None) -> Plane:
    """The points of the groups in the scores `x` (by default one of diversity) and `y` (by default the objective), of
    the signatures that most runs share. Raises `UsageError` for a score that no run has.
    """
    names = sorted({name for group in groups for run in group.ended for name in run.scores})
    if not names:
        raise UsageError("--kind pareto: no run has finished with scores yet; it takes two")
    up = y or groups[0].objective
    across = x or _diversity(names, up)
    for option, name in (("--x", across), ("--y", up)):
        if name not in names:
            raise UsageError(f"{option} {name}: {unknown_name('score', name, names)}")
    if across == up:
        raise UsageError(f"--x and --y are both {up}; name two of {', '.join(names)}")
    first, second = (_signature(groups, name) for name in (across, up))
    ways: dict[str, Better] = {
        name: run.scores[name]["better"]
        for group in groups
        for run in group.ended
        for name in (across, up)
        if name in run.scores
    }
    points, total = [], 0
    for group in groups:
        pairs = [
            (run.scores[across]["value"], run.scores[up]["value"])
            for run in group.ended
            if across in run.scores
            and up in run.scores
            and (run.scores[across]["signature"], run.scores[up]["signature"]) == (first, second)
        ]
        pairs = [pair for pair in pairs if all(value is not None and math.isfinite(value) for value in pair)]
        total += bool(group.ended) and not pairs
        if pairs:
            points.append(Point(group, median(pair[0] for pair in pairs), median(pair[1] for pair in pairs), pairs))
    if not points:
        raise UsageError(f"--kind pareto: no run has both {across} and {up}; name two of {', '.join(names)}")
    return Plane(across, up, (ways[across], ways[up]), points, (first, second), total)


def _diversity(names: Sequence[str], besides: str) -> str:
    found = next((name for name in DIVERSITY if name in names and name != besides), None)
    if found is None:
        raise UsageError(
            f"--kind pareto: none of these scores is known to be one of diversity; name it with --x, of "
            f"{', '.join(name for name in names if name != besides) or 'another protocol'}"
        )
    return found


def _signature(groups: Sequence[SeedGroup], name: str) -> str:
    told = [run.scores[name]["signature"] for group in groups for run in group.ended if name in run.scores]
    return str(max(dict.fromkeys(told), key=told.count))


def pareto(groups: Sequence[SeedGroup], x: str | None = None, y: str | None = None) -> "Figure":
    """A point a group, its runs small beside it, and the front."""
    told = plane(groups, x, y)
    systems = len({point.group.system for point in told.points})
    figure, ((axes,),) = blank(1, 1, (WIDTH, max(3.9, 0.4 + 0.16 * min(systems, _NAMED))))
    look = rows.Look(groups)
    fronts = front([(point.x, point.y) for point in told.points], told.directions)
    on = [place for place, is_on in enumerate(fronts) if is_on]
    lost = _draw(axes, told, look, set(on))
    _front_line(axes, told, [told.points[place] for place in on])
    for scale, which in ((axes.set_xlabel, 0), (axes.set_ylabel, 1)):
        scale(direction((told.x, told.y)[which], told.directions[which]))
    legend(axes, loc="upper left", bbox_to_anchor=(1.01, 1))
    several = rows.span([len(point.runs) for point in told.points])
    numbered = any(point.group.trial is not None for point in told.points) and len(told.points) <= _NUMBERED
    footnote(
        figure,
        [
            f"Large: {rows.count(len(told.points), 'median')} over runs (n = {several} each); small: the runs"
            f"{'; numbers: trials' if numbered else ''}. Filled and joined: the Pareto front of the medians, which no "
            "other beats in both scores; it has no interval, the small dots show how far runs spread.",
            f"{rows.count(lost, 'trial')} without a number, for want of room." if lost else "",
            f"{rows.count(told.others, 'row')} without both scores of these signatures left out."
            if told.others
            else "",
            f"signature of {told.x}: {told.signatures[0]}",
            f"signature of {told.y}: {told.signatures[1]}",
        ],
    )
    return figure


def _draw(axes: "Axes", told: Plane, look: rows.Look, on: set[int]) -> int:
    """Draws the points, and returns how many of them have no number for want of room."""
    named: set[str | None] = set()
    for place, point in enumerate(told.points):
        system = point.group.system
        colour, marker = look.colour(system), look.marker(system)
        if len(point.runs) > 1:
            axes.plot(
                *zip(*point.runs, strict=True), marker, color=colour, markersize=2.6, alpha=0.45, linestyle="none"
            )
        axes.plot(
            [point.x], [point.y], marker, markersize=8, markeredgecolor=colour, markeredgewidth=1.5, linestyle="none",
            markerfacecolor=colour if place in on else "white", zorder=4,
            label=None if system in named or len(named) >= _NAMED else f" {short(system or 'several', 28)}",
        )  # fmt: skip
        named.add(system)
    for which, numbers in (
        ("x", [pair[0] for point in told.points for pair in point.runs]),
        ("y", [pair[1] for point in told.points for pair in point.runs]),
    ):
        if is_wide(numbers):
            logarithmic(axes, which)
        else:
            whole_ticks(axes, which, numbers)
    return _numbers(axes, told) if len(told.points) <= _NUMBERED else 0


def _numbers(axes: "Axes", told: Plane) -> int:
    """The trials beside their points; those that coincide stand in one text. A text that would stand upon another in
    every place around its point is left out: of so many points.
    """
    axes.autoscale_view()
    together: list[tuple[float, float, list[Point]]] = []
    at = [axes.transAxes.inverted().transform(axes.transData.transform((point.x, point.y))) for point in told.points]
    for point, (x, y) in zip(told.points, at, strict=True):
        near = next((points for left, up, points in together if abs(x - left) < 0.05 and abs(y - up) < 0.05), None)
        if near is None:
            together.append((x, y, [point]))
        else:
            near.append(point)
    taken: list[_Box] = []
    marks = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in at]
    lost = 0
    for x, y, points in together:
        trials = [str(point.group.trial) for point in points if point.group.trial is not None]
        text = ", ".join(trials if len(trials) <= 4 else [*trials[:3], f"… ({len(trials)})"])
        places = [(place, box) for place in _PLACES if _free(box := _box(x, y, place, text), taken)]
        if not text or not places:
            lost += len(trials)
            continue
        place, box = next((each for each in places if _apart(each[1], marks)), places[0])
        taken.append(box)
        axes.annotate(
            text, (points[0].x, points[0].y), xytext=place, textcoords="offset points", fontsize=SMALL,
            ha="left" if place[0] > 0 else "right", va="bottom" if place[1] > 0 else "top",
        )  # fmt: skip
    return lost


def _box(x: float, y: float, place: tuple[int, int], text: str) -> _Box:
    """The shares of the axes that a text takes which stands so many points beside a point."""
    wide, high = len(text) * SMALL * 0.62 / _AXES[0], SMALL * 1.3 / _AXES[1]
    left, low = x + place[0] / _AXES[0], y + place[1] / _AXES[1]
    left, low = left - (wide if place[0] < 0 else 0), low - (high if place[1] < 0 else 0)
    return left, low, left + wide, low + high


def _free(box: _Box, taken: Sequence[_Box]) -> bool:
    """Whether a box is on the axes, but for a little above, and upon no other."""
    return box[0] >= 0 and box[1] >= 0 and box[2] <= 1.01 and box[3] <= 1.06 and _apart(box, taken)


def _apart(box: _Box, others: Sequence[_Box]) -> bool:
    return all(box[2] <= each[0] or each[2] <= box[0] or box[3] <= each[1] or each[3] <= box[1] for each in others)


def _front_line(axes: "Axes", told: Plane, best: Sequence[Point]) -> None:
    """The steps between the points of the front: what lies behind them is beaten."""
    ordered = sorted(best, key=lambda point: point.x)
    # Corners are on the beaten side, so that no step promises what no point reached.
    where: Literal["post", "pre"] = "post" if told.directions[0] == "lower" else "pre"
    axes.step(
        [point.x for point in ordered], [point.y for point in ordered], where=where, color=INK, linewidth=1.2,
        linestyle=(0, (4, 2)), zorder=3,
    )  # fmt: skip
