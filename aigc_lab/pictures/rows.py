"""What the rows of figures share: their order, names, colours and panels."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from aigc_lab.pictures.style import COLOURS, MARKERS, line_look, short
from aigc_lab.registry.seed_runs import SeedGroup

# Panels, and rows of a panel, that a page can show.
PANELS, ROWS = 6, 40


def panels(groups: Sequence[SeedGroup]) -> list[list[SeedGroup]]:
    """The groups of each objective and signature, those with most runs first."""
    keys = dict.fromkeys((group.objective, group.signature) for group in groups)
    parts = [[group for group in groups if (group.objective, group.signature) == key] for key in keys]
    return sorted(parts, key=lambda part: -sum(len(group.runs) for group in part))


def values(group: SeedGroup) -> list[float]:
    """The last score of each run that ended; one without a score is the worst possible."""
    worst = math.inf if group.better == "lower" else -math.inf
    return [worst if run.last is None or math.isnan(run.last) else run.last for run in group.ended]


def best_first(groups: Sequence[SeedGroup]) -> list[SeedGroup]:
    """By the median over the runs; groups without a run that ended last."""
    sign = 1 if not groups or groups[0].better == "lower" else -1
    return sorted(groups, key=lambda group: sign * median(values(group)) if group.ended else math.inf)


def names(groups: Sequence[SeedGroup]) -> list[str]:
    """A name for each group: its system, trial and sweep as far as they tell it from the others, and below it the
    values in which the groups differ.
    """
    several_sweeps = len({sweep for group in groups for sweep in group.sweeps}) > 1
    systems = [group.system for group in groups]
    varying = _varying([group.config for group in groups])
    alone = len(groups) > 1 and len(set(systems)) == 1  # one system needs no telling: `of_system` names it
    found = []
    for group in groups:
        many = systems.count(group.system) > 1
        first = "" if alone else group.system or "several systems"
        if group.trial is not None and many:
            first = f"trial {group.trial}" if alone else f"{first} {group.trial}"
        if several_sweeps and group.sweep is not None:
            sweep = group.sweep.rpartition("-")[0] or group.sweep
            first = f"{first}, {sweep}" if first else sweep
        chosen = " ".join(f"{key}={_text(group.config[key])}" for key in varying if key in group.config)
        lines = [first, chosen if many or len(systems) == 1 else ""]
        found.append("\n".join(short(line) for line in lines if line) or "all")
    return found


def _varying(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len(configs) == 1 or len({_text(config.get(key)) for config in configs}) > 1]


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Look:
    """Colour and mark of each system, the same in all figures of the same sweeps: `groups` are all groups of their
    runs, whichever of them a figure draws. Systems are ordered by name, as a report orders them.
    """

    def __init__(self, groups: Sequence[SeedGroup]) -> None:
        systems = sorted({run.system for group in groups for run in group.runs})
        self._place = {system: place for place, system in enumerate(systems)}

    def colour(self, system: str | None) -> str:
        return COLOURS[self._place.get(system or "", 0) % len(COLOURS)]

    def marker(self, system: str | None) -> str:
        return MARKERS[self._place.get(system or "", 0) % len(MARKERS)]

    def lines(self, systems: Sequence[str | None]) -> list[dict[str, Any]]:
        """Colour and dash of the curves of a panel, by the system of each: the colour of a system, and a dash for each
        of its curves. Where that would make two alike, and for several curves of one system, by their place.
        """
        by_place = [line_look(place) for place in range(len(systems))]
        if None in systems or len(set(systems)) == 1 < len(systems):
            return by_place
        earlier = [systems[:place].count(system) for place, system in enumerate(systems)]
        looks = [
            line_look(self._place.get(system or "", 0), further)
            for system, further in zip(systems, earlier, strict=True)
        ]
        return looks if all(look not in looks[:place] for place, look in enumerate(looks)) else by_place


def count(number: int, noun: str) -> str:
    """`1 run`, `12 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def span(counts: Sequence[int]) -> str:
    """`6`, or `6 to 10`."""
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def of_system(groups: Sequence[SeedGroup]) -> str:
    """Whose rows they are, where `names` leaves it out."""
    systems = {group.system for group in groups}
    return f"All of {next(iter(systems))}." if len(groups) > 1 and len(systems) == 1 and None not in systems else ""


def alike(groups: Sequence[SeedGroup]) -> str:
    """What intervals over runs leave out where these are of several trials."""
    pooled = any(group.trials > 1 for group in groups)
    return "Runs of one trial are alike: over other trials the intervals are wider." if pooled else ""


def title(group: SeedGroup) -> str:
    """What a panel is of, where there are several."""
    datasets = dict.fromkeys(run.dataset for run in group.runs)
    return short(f"{group.objective} on {', '.join(datasets)}", 90)


def signature_lines(groups: Sequence[SeedGroup]) -> list[str]:
    """The signature, or where there are several that of each panel."""
    signatures = {group.signature: group for group in reversed(groups) if group.signature}
    if len(signatures) <= 1:
        return [f"signature: {signature}" for signature in signatures]
    lines = [f"signature of {title(group)}: {signature}" for signature, group in reversed(signatures.items())]
    return ["Panels have different signatures: their numbers do not compare.", *lines]


def left_out(total: int, shown: int, noun: str) -> str:
    return f"{total - shown} further {noun} are left out." if total > shown else ""
