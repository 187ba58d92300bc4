"""Performance profiles: the share of runs that reach a score, with a band that holds at all scores at once."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from aigc_lab.errors import UsageError
from aigc_lab.pictures import rows
from aigc_lab.pictures.style import (
    SMALL,
    WIDTH,
    blank,
    direction,
    footnote,
    is_wide,
    legend,
    logarithmic,
    short,
)
from aigc_lab.registry.seed_runs import SeedGroup
from aigc_lab.statistics.profiles import band_width, interquartile_mean_interval, performance_profile
from aigc_lab.statistics.wording import number
from aigc_lab.verdicts.seeds import CLAIM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Datasets, and seeds on one dataset, from which a distribution is claimed.
DATASETS, SEEDS = 3, CLAIM
# Bands of more curves hide each other.
_CURVES, _BANDS = 8, 4


class Distribution(NamedTuple):
    """The values of one curve, those of each dataset apart, its name and its system (None for several). Lower is better
    in all of them.
    """

    name: str
    system: str | None
    datasets: list[list[float]]

    @property
    def runs(self) -> int:
        return sum(map(len, self.datasets))


def distributions(groups: Sequence[SeedGroup]) -> tuple[list[Distribution], str, int]:
    """What may be drawn, the title of its axis, and the sign by which its values were turned: over one signature the
    scores of groups with ten runs, over three datasets and more the ratio to the best median of each. Raises
    `UsageError` where the runs are too few.
    """
    parts = rows.panels([group for group in groups if group.ended])
    if len({run.dataset for group in groups for run in group.ended}) >= DATASETS:
        return _over_datasets(parts), "score / best median of the dataset", 1
    largest = max((len(group.ended) for group in groups), default=0)
    for part in parts:
        sign = 1 if part[0].better == "lower" else -1
        enough = [group for group in rows.best_first(part) if len(group.ended) >= SEEDS]
        names = dict(zip(map(id, enough), rows.names(enough), strict=True)) if enough else {}
        if enough:
            told = [
                Distribution(
                    names[id(group)].replace("\n", " "), group.system, [[sign * value for value in rows.values(group)]]
                )
                for group in enough
            ]
            return told, direction(part[0].objective, part[0].better), sign
    raise UsageError(
        f"--kind profile: a profile needs {SEEDS} runs of a system on one dataset, or {DATASETS} datasets; there are "
        f"{largest} runs of one at most; give search.seeds of {SEEDS} or more sweeps"
    )


def _over_datasets(parts: Sequence[Sequence[SeedGroup]]) -> list[Distribution]:
    """Ratios to the best median of each dataset, of the systems that were run on all of them."""
    ratios: dict[str, dict[str | None, list[float]]] = {}
    for part in parts:
        medians = [median(rows.values(group)) for group in part]
        finite = [value for value in medians if math.isfinite(value)]
        if not finite:
            continue
        lower = part[0].better == "lower"
        best = min(finite) if lower else max(finite)
        if best <= 0:
            raise UsageError(
                f"--kind profile: the best {part[0].objective} of {part[0].runs[0].dataset} is {number(best)}, of "
                "which there is no multiple; plot datasets with positive scores together"
            )
        for group in part:
            values = [_ratio(value, best, lower) for value in rows.values(group)]
            name = group.system or "several systems"
            ratios.setdefault(name, {}).setdefault(part[0].runs[0].dataset, []).extend(values)
    most = max(map(len, ratios.values()), default=0)
    whole: Mapping[str, dict[str | None, list[float]]] = {
        name: each for name, each in ratios.items() if len(each) == most
    }
    if most < DATASETS:
        raise UsageError(f"--kind profile: no system was run on {DATASETS} datasets; sweep one on all of them")
    return [Distribution(name, name, list(each.values())) for name, each in whole.items()]


def _ratio(value: float, best: float, lower: bool) -> float:
    if lower:
        return value / best
    return best / value if value > 0 and math.isfinite(value) else math.inf


def profile(groups: Sequence[SeedGroup]) -> "Figure":
    """A curve a system, with its band and its interquartile mean. Raises `UsageError` where the runs are too few."""
    every, title, sign = distributions(groups)
    shown = every[:_CURVES]
    figure, ((axes,),) = blank(1, 1, (WIDTH, 3.1))
    pooled = [value for each in shown for of_one in each.datasets for value in of_one if math.isfinite(value)]
    if not pooled:
        raise UsageError("--kind profile: every run diverged; there is no score to draw")
    log = is_wide([sign * value for value in pooled])
    low, high = min(pooled), max(pooled)
    room = 0.03 * (high - low) or 1.0
    ends = (low - room, high + room) if not log else (low / 1.1, high * 1.1) if sign > 0 else (low * 1.1, high / 1.1)
    looks = rows.Look(groups).lines([each.system for each in shown])
    for each, look in zip(shown, looks, strict=True):
        told = performance_profile(each.datasets)
        x = np.concatenate([[ends[0]], told.at, [ends[1]]])
        half = band_width([len(of_one) for of_one in each.datasets])
        y = np.concatenate([[0.0], told.share, [told.share[-1] if len(told.at) else 0.0]])
        axes.step(
            sign * x, y, where="post", linewidth=1.8, **look,
            label=f"{short(each.name, 24)}, IQM {_mean(each, sign)}",
        )  # fmt: skip
        if len(shown) <= _BANDS:
            below, above = np.maximum(y - half, 0), np.minimum(y + half, 1)
            axes.fill_between(sign * x, below, above, step="post", color=look["color"], alpha=0.12, lw=0)
    if log:
        logarithmic(axes, "x")
    axes.set_xlim(*sorted(sign * end for end in ends))
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel(title)
    axes.set_ylabel("runs that are as good")
    legend(axes, loc="upper left", bbox_to_anchor=(1.01, 1), handlelength=3)
    axes.tick_params(labelsize=SMALL + 1)
    _notes(figure, groups, every, shown)
    return figure


def _mean(each: Distribution, sign: int) -> str:
    ends = [sign * end for end in interquartile_mean_interval(each.datasets)]
    value, low, high = ends[0], *sorted(ends[1:])
    texts = [number(end) if math.isfinite(end) else "∞" for end in (value, low, high)]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _half(shown: Sequence[Distribution]) -> str:
    halves = sorted({round(100 * band_width([len(of_one) for of_one in each.datasets])) for each in shown})
    return f"{halves[0]} %" if len(halves) == 1 else f"{halves[0]} to {halves[-1]} %"


def _notes(
    figure: "Figure", groups: Sequence[SeedGroup], every: Sequence[Distribution], shown: Sequence[Distribution]
) -> None:
    datasets = max(len(each.datasets) for each in shown)
    n = rows.span([each.runs for each in shown])
    footnote(
        figure,
        [
            f"Share of runs that are at least as good as the score (n = {n} a curve"
            f"{f', over {datasets} datasets of equal weight' if datasets > 1 else ''}); one that diverged never is.",
            f"{'Band' if len(shown) <= _BANDS else 'Bands would hide each other and are not drawn'}: ±{_half(shown)}, "
            f"95 % of the whole curve at once "
            f"({'Bretagnolle, of laws that differ' if datasets > 1 else 'Dvoretzky–Kiefer–Wolfowitz, Massart'}).",
            "IQM: mean without the best and the worst quarter, with its 95 % bootstrap interval"
            f"{' within datasets' if datasets > 1 else ''} (Agarwal et al. 2021).",
            rows.alike(groups),
            rows.of_system(groups) if datasets == 1 else "",
            rows.left_out(len(every), len(shown), "systems"),
            *rows.signature_lines([group for group in groups if datasets > 1 or len(group.ended) >= SEEDS]),
        ],
    )
