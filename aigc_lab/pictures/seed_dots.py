"""Every seed as a dot, a row a configuration: the median, its interval, and the floor."""

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from aigc_lab.errors import UsageError
from aigc_lab.pictures import rows
from aigc_lab.pictures.style import (
    INK,
    SMALL,
    SOFT,
    WIDTH,
    blank,
    direction,
    footnote,
    is_wide,
    logarithmic,
    whole_ticks,
)
from aigc_lab.registry.seed_runs import SeedGroup
from aigc_lab.registry.standings import median_interval

# Heights of dots in a row, the first free one is taken.
_HEIGHTS = (0.0, -0.08, 0.08, -0.16, 0.16, -0.24, 0.24, -0.32, 0.32)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def seed_dots(groups: Sequence[SeedGroup]) -> "Figure":
    """The last score of each run, best row first, a panel for each signature. Raises `UsageError` without scores."""
    measured = {group.signature for group in groups if any(map(math.isfinite, rows.values(group)))}
    if not measured:
        raise UsageError("--kind seeds: no run has finished with a score yet; it takes one")
    scored = [group for group in groups if group.ended and group.signature in measured]
    parts = rows.panels(scored)[: rows.PANELS]
    shown = [rows.best_first(part)[: rows.ROWS] for part in parts]
    names = [rows.names(part) for part in shown]
    tall = [max(0.6 + sum(0.2 + 0.13 * (1 + name.count("\n")) for name in of_part), 1.4) for of_part in names]
    figure, grid = blank(len(shown), 1, (WIDTH, sum(tall)), height_ratios=tall)
    look = rows.Look(groups)
    for (axes,), part, of_part in zip(grid, shown, names, strict=True):
        _panel(axes, part, of_part, look)
        if len(shown) > 1:
            axes.set_title(rows.title(part[0]), fontsize=SMALL + 1, color=SOFT, loc="left")
    every = [group for part in shown for group in part]
    total = sum(map(len, rows.panels(scored)))
    footnote(
        figure,
        [
            *_notes(every),
            rows.of_system(every),
            rows.alike(every),
            rows.left_out(total, len(every), "rows"),
            *rows.signature_lines(every),
        ],
    )
    return figure


def _panel(axes: "Axes", groups: Sequence[SeedGroup], names: Sequence[str], look: rows.Look) -> None:
    every = [rows.values(group) for group in groups]
    finite = [value for of_group in every for value in of_group if math.isfinite(value)]
    floors = sorted({run.floor for group in groups for run in group.runs if run.floor is not None})
    low, high, log = _scale([*finite, *floors[:1]])
    axes.set_xlim(low, high)
    if log:
        logarithmic(axes, "x")
    else:
        whole_ticks(axes, "x", finite)
    worst = high if groups[0].better == "lower" else low
    for place, (group, values) in enumerate(zip(groups, every, strict=True)):
        _row(axes, place, values, worst, look.colour(group.system), look.marker(group.system))
    if floors:
        axes.axvline(median(floors), color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set_yticks(range(len(groups)), names)
    axes.tick_params(axis="y", length=0, labelsize=SMALL + 0.5)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlabel(direction(groups[0].objective, groups[0].better))


def _scale(values: Sequence[float]) -> tuple[float, float, bool]:
    """Ends of an axis with room beside the values, and whether it is logarithmic."""
    low, high = min(values), max(values)
    if is_wide(values):
        room = (high / low) ** 0.06
        return low / room, high * room, True
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room, False


def _row(axes: "Axes", place: int, values: Sequence[float], worst: float, colour: str, marker: str) -> None:
    finite = sorted(value for value in values if math.isfinite(value))
    heights = [place + height for height in _swarm([_place(axes, value) for value in finite])]
    axes.plot(finite, heights, marker, color=colour, markersize=3.8, markerfacecolor="none", markeredgewidth=1.0)
    if lost := len(values) - len(finite):
        axes.plot([worst], [place], marker="x", color=INK, markersize=6, clip_on=False, zorder=5, markeredgewidth=1.5)
        text = f"{lost} diverged"
        left = axes.get_xlim()[0] == worst
        axes.annotate(
            text, (worst, place), xytext=(6 if left else -6, 4), textcoords="offset points", fontsize=SMALL,
            ha="left" if left else "right", va="bottom",
        )  # fmt: skip
    middle = median(values)
    if math.isfinite(middle) and len(values) > 1:
        axes.plot([middle, middle], [place - 0.3, place + 0.3], color=INK, linewidth=2, solid_capstyle="butt", zorder=4)
    if len(values) > 1:
        low, high, _ = median_interval(values)
        ends = [min(max(each, axes.get_xlim()[0]), axes.get_xlim()[1]) for each in (low, high)]
        axes.plot(ends, [place, place], color=colour, linewidth=6, alpha=0.28, solid_capstyle="butt", zorder=2)


def _place(axes: "Axes", value: float) -> float:
    """The place of a value between the ends of the axis, 0 to 1."""
    low, high = axes.get_xlim()
    if axes.get_xscale() == "log":
        low, high, value = (math.log(each) for each in (low, high, value))
    return (value - low) / (high - low)


def _swarm(places: Sequence[float]) -> list[float]:
    """Heights at which dots at these places (0 to 1, ascending) do not hide each other, as far as there is room."""
    heights: list[float] = []
    for place, at in enumerate(places):
        near = [heights[other] for other in range(place) if at - places[other] < 0.011]
        free = [height for height in _HEIGHTS if all(abs(height - taken) > 0.05 for taken in near)]
        heights.append(free[0] if free else _HEIGHTS[place % len(_HEIGHTS)])
    return heights


def _notes(groups: Sequence[SeedGroup]) -> list[str]:
    counts = sorted({len(group.ended) for group in groups})
    kinds = [f"{median_interval([0.0] * n)[2]:.0%} of {n} seeds".replace("%", " %") for n in counts if n > 1]
    several = kinds if len(kinds) <= 4 else [kinds[0], "…", kinds[-1]]
    lost = any(not math.isfinite(value) for group in groups for value in rows.values(group))
    notes = [
        f"Dots: seeds (n = {rows.span(counts)} a row){'; stroke: their median' if counts[-1] > 1 else ''}"
        f"{'; cross at the edge: diverged, counted as the worst' if lost else ''}."
    ]
    if kinds:
        notes.append(f"Bar: interval of the median by order statistics, {', '.join(several)}. Dashed: floor.")
    if any(group.confirmed for group in groups):
        notes.append("Of confirmed trials the fresh seeds alone.")
    return notes
