"""Best of a random search by its budget, with an exact band."""

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from aigc_lab.errors import UsageError
from aigc_lab.pictures import rows
from aigc_lab.pictures.style import (
    WIDTH,
    blank,
    direction,
    footnote,
    is_wide,
    legend,
    logarithmic,
)
from aigc_lab.registry.seed_runs import SeedGroup, SeedRun, group_runs
from aigc_lab.statistics.budget import Budget, best_of_budget
from aigc_lab.statistics.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Trials below which no curve says anything.
FEWEST = 5
_CURVES = 6


class Search(NamedTuple):
    """The random search of one system: its name, the runs of its trials, and what each budget would have found."""

    name: str
    groups: list[SeedGroup]
    told: Budget


def searches(runs: Sequence[SeedRun]) -> list[Search]:
    """The random search of each system of each sweep, by the median over the seeds of a trial on the reference split.
    Raises `UsageError` for other samplers and for too few trials.
    """
    samplers = sorted({run.sampler for run in runs} - {"random"})
    drawn = [run for run in runs if run.drawn and run.state not in ("QUEUED", "RUNNING", "KILLED", "FAILED")]
    if samplers and not drawn:
        raise UsageError(
            f"--kind budget: the sampler was {' and '.join(samplers)}, whose trials are no independent draws, so the "
            "best of k of them is not what a search of k would find; sweep with search.sampler=random"
        )
    trials = [group for group in group_runs(drawn) if group.runs]
    keys = dict.fromkeys((group.sweep, group.system, group.signature) for group in trials)
    parts = [[group for group in trials if (group.sweep, group.system, group.signature) == key] for key in keys]
    enough = [part for part in parts if len(part) >= FEWEST]
    if not enough:
        most = max(map(len, parts), default=0)
        raise UsageError(
            f"--kind budget: a system has {rows.count(most, 'trial')} that the random search drew and that ended (the "
            f"first of a system has its paper's defaults and is none); it takes {FEWEST}; raise search.trials"
        )
    several = len({part[0].sweep for part in enough}) > 1
    return [Search(_name(part[0], several), part, _budget(part)) for part in enough]


def _name(group: SeedGroup, several: bool) -> str:
    return f"{group.system}, {(group.sweep or '').rpartition('-')[0]}" if several else str(group.system)


def _budget(trials: Sequence[SeedGroup]) -> Budget:
    """A trial that diverged or was pruned never is the best. By the reference split is chosen, the holdout is shown."""
    better = trials[0].better
    worst = math.inf if better == "lower" else -math.inf
    chosen, shown = [], []
    for trial in trials:
        chosen.append(median([_value(run, worst) for run in trial.ended] or [worst]))
        shown.append(median([worst if run.last is None else run.last for run in trial.ended] or [worst]))
    return best_of_budget(chosen, shown, better=better)


def _value(run: SeedRun, worst: float) -> float:
    value = run.last if run.reference is None else run.reference
    return worst if value is None or math.isnan(value) else value


def budget(runs: Sequence[SeedRun]) -> "Figure":
    """A curve a system, a panel a signature. Raises `UsageError` where there is no random search of enough trials."""
    every = searches(runs)
    shown = every[:_CURVES]
    keys = list(dict.fromkeys((each.groups[0].objective, each.groups[0].signature) for each in shown))
    figure, grid = blank(len(keys), 1, (WIDTH, 3.1 * len(keys)))
    look = rows.Look(group_runs(runs))
    for (axes,), key in zip(grid, keys, strict=True):
        part = [each for each in shown if (each.groups[0].objective, each.groups[0].signature) == key]
        _panel(axes, part, look)
    groups = [group for each in shown for group in each.groups]
    seeds = rows.span([len(group.ended) for group in groups])
    lost = sum(not any(run.last is not None for run in group.ended) for group in groups)
    sizes = ", ".join(f"{len(each.groups)}" for each in shown)
    footnote(
        figure,
        [
            f"n = {sizes} trials that the random search drew, each the median of {seeds} "
            "seeds on the reference split, by which it chooses.",
            "Line: half of all searches of k trials find a best at least so good; band: its exact 95 % interval (order "
            "statistics), open where so few trials cannot bound it.",
            "Dotted: the mean of the best over all choices of k among the n trials.",
            *[_holdout(each) for each in shown],
            f"{rows.count(lost, 'trial')} diverged or pruned, never the best." if lost else "",
            rows.left_out(len(every), len(shown), "systems"),
            *rows.signature_lines(groups),
        ],
    )
    return figure


def _holdout(search: Search) -> str:
    """What the best of all trials has on the split that it was not chosen by."""
    told = search.told
    if not told.chosen or not math.isfinite(told.chosen[-1]):
        return ""
    return (
        f"{search.name}: the best of all {len(search.groups)} has {number(told.median[-1])}, and on the holdout, which "
        f"chooses nothing, {number(told.chosen[-1])}."
    )


def _panel(axes: "Axes", searches: Sequence[Search], looks: rows.Look) -> None:
    from matplotlib.ticker import MaxNLocator

    finite = [value for each in searches for value in (*each.told.median, *each.told.expected) if math.isfinite(value)]
    log = is_wide(finite)
    low, high = min(finite), max(finite)
    room = (high / low) ** 0.08 if log else 0.06 * (high - low) or 1.0
    ends = (low / room, high * room) if log else (low - room, high + room)
    systems = [each.groups[0].system for each in searches]
    for each, system, look in zip(searches, systems, looks.lines(systems), strict=True):
        told = each.told
        many = len(told.trials) > 25
        axes.plot(
            told.trials, _drawn(told.median), **look, linewidth=1.9, label=each.name,
            marker=None if many else looks.marker(system), markersize=4,
        )  # fmt: skip
        axes.plot(told.trials, _drawn(told.expected), color=look["color"], linewidth=1.1, linestyle=":")
        lower = [ends[0] if value is None else max(value, ends[0]) for value in told.low]
        upper = [ends[1] if value is None else min(value, ends[1]) for value in told.high]
        axes.fill_between(told.trials, lower, upper, color=look["color"], alpha=0.13, linewidth=0)
    if log:
        logarithmic(axes, "y")
    axes.set_ylim(*ends)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("budget k (trials)")
    group = searches[0].groups[0]
    axes.set_ylabel(direction(group.objective, group.better))
    if len(searches) > 1:
        legend(axes, loc="upper right")


def _drawn(values: Sequence[float]) -> list[float]:
    return [value if math.isfinite(value) else math.nan for value in values]
