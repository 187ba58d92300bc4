"""Importance of parameters as bars, beside what a parameter without influence would get."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from aigc_lab.pictures import rows
from aigc_lab.pictures.style import INK, SMALL, SOFT, WIDTH, blank, footnote, short
from aigc_lab.registry.comparison import BLIND
from aigc_lab.registry.seed_runs import SeedRun, group_runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Importance(NamedTuple):
    """How much of the differences between the trials of one system each parameter explains: `shares`, by name. What a
    share must exceed is `chance`: 95 % of those that come out when the scores are dealt to the trials at random.
    """

    system: str
    trials: int
    objective: str
    shares: Mapping[str, float]
    chance: Mapping[str, float]
    signature: str | None


_BARS = 12


def importance(told: Sequence[Importance], runs: Sequence[SeedRun]) -> "Figure":
    """A panel a system, its parameters by importance; `runs` are all of the sweeps."""
    shown = [sorted(each.shares, key=lambda name: -each.shares[name])[:_BARS] for each in told]
    tall = [0.62 + 0.27 * max(len(names), 2) for names in shown]
    figure, grid = blank(len(told), 1, (WIDTH, sum(tall)), height_ratios=tall, sharex=True)
    look = rows.Look(group_runs(runs))
    for (axes,), each, names in zip(grid, told, shown, strict=True):
        colour = look.colour(each.system)
        for place, name in enumerate(names):
            share, chance = each.shares[name], each.chance[name]
            clear = share > chance
            axes.barh(
                place, share, height=0.62, color=colour if clear else "white", edgecolor=colour, linewidth=1.2,
                hatch=None if clear else "////",
            )  # fmt: skip
            axes.plot([chance, chance], [place - 0.42, place + 0.42], color=INK, linewidth=1.8)
            text = f"{100 * share:.0f} % (by chance {100 * chance:.0f} %)"
            axes.text(1.02, place, text, fontsize=SMALL, va="center", color=INK if clear else SOFT)
        axes.set_yticks(range(len(names)), [short(name) for name in names])
        axes.set_ylim(max(len(names), 2) - 0.4, -0.6)
        axes.set_xlim(0, 1.0)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_title(short(f"{each.system}, {each.trials} trials"), fontsize=SMALL + 1, color=SOFT, loc="left")
    grid[-1][0].set_xlabel(f"share of the differences in {short(told[0].objective)} that a parameter explains")
    sizes = ", ".join(str(each.trials) for each in told)
    signatures = list(dict.fromkeys(each.signature for each in told if each.signature))
    footnote(
        figure,
        [
            f"fANOVA (Hutter et al. 2014) on the ranks of n = {sizes} trials, each the median of its seeds on the "
            "reference split; one that diverged ranks last.",
            "Stroke: 95 % of the shares that come out when the scores are dealt to the trials at random; hatched bars "
            "do not exceed it, so they may be chance.",
            _learned(runs),
            rows.left_out(max(len(each.shares) for each in told), max(map(len, shown)), "parameters"),
            f"signature: {signatures[0]}" if len(signatures) == 1 else "",
        ],
    )
    return figure


def _learned(runs: Sequence[SeedRun]) -> str:
    """What the shares are of, where a sampler chose trials by the scores of earlier ones."""
    samplers = sorted({run.sampler for run in runs} - set(BLIND))
    if not samplers:
        return ""
    return (
        f"The search ({', '.join(samplers)}) learned from its trials: the shares are of the region that it looked at."
    )
