"""Share of runs that have not failed by a step: Kaplan–Meier curves with their intervals and the runs at risk."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_lab.errors import UsageError
from aigc_lab.pictures import rows
from aigc_lab.pictures.style import SMALL, SOFT, WIDTH, blank, footnote, legend, short
from aigc_lab.registry.seed_runs import SeedGroup
from aigc_lab.verdicts.seeds import Survival, kaplan_meier, time_to_failure
from aigc_lab.verdicts.stability import StabilityVerdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Bands of more curves hide each other, and more curves cannot be told apart.
_BANDS, _CURVES = 4, 12
_TICKS = 6
# Where the table of runs at risk begins below the axis, and the height of its lines, in points.
_TABLE, _LINE = 26, 10
# A run may fail at the last step: what is left then needs some room to be seen.
_BEYOND = 1.04


def times(group: SeedGroup) -> list[tuple[float, bool]]:
    """Step until which each run was watched, and whether it failed there. Pruned runs are left out: a pruner stops
    those that are about to fail, which Kaplan and Meier assume that nobody does.
    """
    told = [StabilityVerdict.of(run.stability | run.stability["evidence"]) for run in group.ended if run.stability]
    return [time_to_failure(each) for each in told if each.alarm_step is not None or each.last is not None]


def curve(group: SeedGroup) -> Survival | None:
    """The survival of the runs of a group; None where none was judged."""
    watched = times(group)
    return kaplan_meier([time for time, _ in watched], [failed for _, failed in watched]) if watched else None


def survival(groups: Sequence[SeedGroup]) -> "Figure":
    """A curve a group, a panel for each signature. Raises `UsageError` where no run has a stability verdict."""
    judged = [group for group in groups if times(group)]
    if not judged:
        raise UsageError(
            "--kind survival: no run that ended by itself has a stability verdict; sweeps with evaluations on the way "
            "(training.evaluate_every) have them"
        )
    parts = [part[:_CURVES] for part in rows.panels(judged)[: rows.PANELS]]
    tall = [2.6 + 0.15 * (len(part) + 1) for part in parts]
    figure, grid = blank(len(parts), 1, (WIDTH, sum(tall)), height_ratios=tall)
    look = rows.Look(groups)
    for (axes,), part in zip(grid, parts, strict=True):
        _panel(axes, part, look.lines([group.system for group in part]), several=len(parts) > 1)
    shown = [group for part in parts for group in part]
    counts = [len(times(group)) for group in shown]
    pruned = sum(group.pruned for group in shown)
    footnote(
        figure,
        [
            f"Kaplan–Meier, n = {rows.span(counts)} runs a curve. A run fails at the alarm of its stability "
            "verdict (all but STABLE and WITHHELD); a stroke marks a run that was watched so far and had not failed.",
            "Band: pointwise 95 % interval, Greenwood's error on the log(−log) scale."
            if any(len(part) <= _BANDS for part in parts)
            else f"Intervals of more than {_BANDS} curves would hide each other: judge seeds lists them.",
            f"{rows.count(pruned, 'pruned run')} left out: nobody saw whether they would have failed."
            if pruned
            else "",
            rows.alike(shown),
            rows.of_system(shown),
            rows.left_out(len(judged), len(shown), "curves"),
            *rows.signature_lines(shown),
        ],
    )
    return figure


def _panel(axes: "Axes", groups: Sequence[SeedGroup], looks: Sequence[dict[str, Any]], *, several: bool) -> None:
    names = [name.replace("\n", " ") for name in rows.names(groups)]
    end = max(time for group in groups for time, _ in times(group))
    curves = [(group, curve(group)) for group in groups]
    # Curves that coincide would hide each other: each is moved by less than its line is wide.
    shift = np.linspace(-0.006, 0.006, len(groups)) if len(groups) > 1 else np.zeros(1)
    for place, (group, told) in enumerate(curves):
        if told is not None:
            name, band = short(names[place], 30), len(groups) <= _BANDS
            _curve(axes, group, told, end, float(shift[place]), looks[place], name, band=band)
    axes.set_ylim(-0.03, 1.06)
    axes.set_xlim(0, end * _BEYOND)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylabel("runs not failed")
    axes.set_xlabel("training step")
    _at_risk(axes, groups, names, [look["color"] for look in looks], end)
    if several:
        axes.set_title(rows.title(groups[0]), fontsize=SMALL + 1, color=SOFT, loc="left")
    legend(axes, loc="upper left", bbox_to_anchor=(1.01, 1), handlelength=3)


def _curve(
    axes: "Axes",
    group: SeedGroup,
    told: Survival,
    end: float,
    shift: float,
    look: dict[str, Any],
    name: str,
    *,
    band: bool,
) -> None:
    x = np.concatenate([[0.0], told.times, [end * _BEYOND]])
    y = np.concatenate([[1.0], told.survival, told.survival[-1:] if len(told.times) else [1.0]])
    axes.step(x, y + shift, where="post", label=name, linewidth=1.8, **look)
    if band and len(told.times):
        low, high = (np.concatenate([each, each[-1:]]) for each in (told.low, told.high))
        axes.fill_between(x[1:], low, high, step="post", color=look["color"], alpha=0.13, linewidth=0)
    for time in sorted({time for time, failed in times(group) if not failed}):
        axes.plot([time], [told.at(time) + shift], marker="|", color=look["color"], markersize=8, markeredgewidth=1.4)


def _at_risk(
    axes: "Axes", groups: Sequence[SeedGroup], names: Sequence[str], colours: Sequence[str], end: float
) -> None:
    """The table below the axis: how many runs were still watched at its ticks."""
    from matplotlib.ticker import MaxNLocator

    ticks = [tick for tick in MaxNLocator(_TICKS, integer=True).tick_values(0, end) if 0 <= tick <= end]
    axes.set_xticks(ticks)

    def write(at: float, down: float, text: str, colour: str, align: str) -> None:
        # In points below the axis: a share of its height would move while the layout is found.
        axes.annotate(
            text, (at, 0), xycoords=("data", "axes fraction"), xytext=(0, -down), textcoords="offset points",
            fontsize=SMALL, color=colour, ha=align, va="top", annotation_clip=False,
        )  # fmt: skip

    write(end * 1.06, _TABLE, "at risk", SOFT, "left")
    for place, group in enumerate(groups):
        down, colour = _TABLE + _LINE * (place + 1), colours[place]
        for tick in ticks:
            write(tick, down, str(sum(time >= tick for time, _ in times(group))), colour, "center")
        write(end * 1.06, down, short(names[place], 24), colour, "left")
