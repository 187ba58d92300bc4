"""Rows of several trials: all of one system, of one sweep, or with one value of a parameter.

The values of such a row are its trials, each the median over its seeds: seeds of one trial are no draws of the row's
configurations. Of a row with one trial they are its seeds. A trial that diverged is the worst value of its row.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

from aigc_lab.registry.marks import NOT_CONFIRMED, VIOLATES
from aigc_lab.registry.ranking import Comparison, Keep, arranged, grouped, in_order
from aigc_lab.registry.records import Role
from aigc_lab.registry.roles import ROLES, is_fresh
from aigc_lab.registry.standings import Configuration, Member, Row, Standing, counted_states, score_of, worst_value
from aigc_lab.registry.states import RunState


class By(NamedTuple):
    """What the rows are of: `values` of a trial are one, or none where it lacks the column. `adaptive` are the sweeps
    whose sampler looked at scores before it chose.
    """

    column: str
    values: Callable[[Configuration], Sequence[Any]]
    adaptive: frozenset[str] = frozenset()


class Pool(NamedTuple):
    """The trials of one row: `units` that count, which have a score or diverged, and `others` that do not."""

    by: By
    of: Sequence[Any]
    units: list[Standing]
    others: list[Standing]
    values: list[float]
    value: float | None
    chosen: float

    @classmethod
    def of_trials(cls, by: By, of: Sequence[Any], units: list[Standing], others: list[Standing]) -> "Pool":
        better = next((each.scored[0].better for each in units if each.scored), None)
        if better is None:  # none has a score
            return cls(by, of, units, others, [], None, math.nan)
        worst = worst_value(better)
        medians = [worst if each.value is None else each.value for each in units]
        chosen = median(worst if each.chosen != each.chosen else each.chosen for each in units)
        value = median(medians)
        finite = value if math.isfinite(value) else None
        values = [] if finite is None else units[0].values if len(units) == 1 else medians
        return cls(by, of, units, others, values, finite, chosen)

    @property
    def every(self) -> list[Standing]:
        return self.units + self.others

    @property
    def role(self) -> Role:
        """The role that says least of its trials'."""
        return min((each.role for each in self.units), key=ROLES.index, default=ROLES[0])

    @property
    def confirmed(self) -> bool:
        return is_fresh(self.role)

    @property
    def violates(self) -> bool:
        return bool(self.units) and all(each.violates for each in self.units)

    @property
    def group(self) -> tuple[str, str, str]:
        return next(each for each in self.units if each.scored).group

    @property
    def members(self) -> list[Member]:
        return [member for each in self.every for member in each.members]

    @property
    def sweeps(self) -> list[str]:
        return list(dict.fromkeys(each.configuration.sweep for each in self.every))

    @property
    def state(self) -> RunState:
        """One word for all trials: work that goes on, else what became of them."""
        if self.value is None and self.units:
            return RunState.DIVERGED
        present = {each.state for each in self.every}
        order = (RunState.RUNNING, RunState.QUEUED, RunState.FINISHED, RunState.PRUNED, RunState.FAILED)
        return next((state for state in order if state in present), RunState.KILLED)

    @property
    def adaptive(self) -> bool:
        """Whether its trials are no random draw: an adaptive sampler chose them, or a pruner left some out."""
        if len(self.units) < 2:
            return False
        pruned = any(each.state == RunState.PRUNED for each in self.others)
        return pruned or any(each.configuration.sweep in self.by.adaptive for each in self.units)

    def row(self, rank: int | None, flatters: bool) -> Row:
        sweeps, systems = self.sweeps, {each.configuration.system for each in self.every}
        used = [outcome for each in self.every for outcome in each.used]
        scored = [outcome for each in self.units for outcome in each.scored]
        several = self.violates and len(self.units) > 1  # what one trial violates is said of it
        return {
            "rank": rank,
            "by": self.by.column,
            "by_value": self.of[0] if self.of else None,
            "sweep": sweeps[0] if len(sweeps) == 1 else None,
            "sweeps": sweeps,
            "trial": self.units[0].configuration.trial if len(self.units) == 1 else None,
            "trials": len(self.units),
            "system": systems.pop() if len(systems) == 1 else None,
            "config": _shared([each.configuration.config for each in self.every]),
            "seeds": sum(each.seeds for each in self.units),
            "unit": "seed" if len(self.units) == 1 else "trial",
            "units": len(self.values),
            "adaptive": self.adaptive,
            "nan_failures": sum(outcome.nan_failure for outcome in used),
            "states": counted_states(outcome.state for outcome in used),
            "state": self.state.value,
            "confirmed": self.confirmed,
            "role": self.role,
            "marks": [NOT_CONFIRMED] * flatters + [f"{VIOLATES}a constraint in all {len(self.units)} trials"] * several,
            "seconds": sum(run.seconds or 0.0 for each in self.every for run in each.configuration.outcomes),
            "score": None if self.value is None else score_of(scored, self.values, self.value, self.chosen),
        }


def rank_pools(
    configurations: Iterable[Configuration], by: By, most: int | None = None, keep: Keep | None = None
) -> Comparison:
    """One row for each value of `by` and signature, of the trials that `keep` is true of. Trials without the column are
    a row of their own.
    """
    members, unranked, trials, filtered = grouped(configurations, keep)
    pools = _pools(members, unranked, by)
    scored: dict[tuple[str, str, str], list[Pool]] = defaultdict(list)
    rest: list[Pool] = []
    for pool in pools:
        (rest if pool.value is None else scored[pool.group]).append(pool)

    def lucky(pool: Pool) -> bool:
        return len(pool.values) == 1 or (len(pool.units) == 1 and trials[pool.sweeps[0]] > 1)

    def ranked(entries: list[Pool], better: str) -> Iterator[tuple[Pool, int, bool]]:
        one_sweep = len({sweep for pool in entries for sweep in pool.sweeps}) == 1
        return in_order(entries, better, one_sweep and all(len(pool.units) == 1 for pool in entries), lucky)

    comparison = arranged(scored, rest, ranked, most, lambda shown: shown)
    variants = _variants(pools) if by.column == "system" else {}
    return replace(comparison, filtered=filtered, by=by.column, variants=variants)


def _variants(pools: Sequence[Pool]) -> dict[str, list[str]]:
    """The keys, by system, whose words differ between trials of one pool; numbers, which a search draws, tell no
    variants apart (see `display.wording.titles`).
    """
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for pool in pools:
        configs = [each.configuration.config for each in pool.every]
        shared = _shared(configs)
        words = {key: None for each in configs for key, value in each.items() if isinstance(value, str | bool)}
        found[pool.every[0].configuration.system] |= {key: None for key in words if key not in shared}
    return {system: list(keys) for system, keys in found.items() if keys}


def _pools(members: Mapping[tuple[str, str, str], list[Standing]], unranked: list[Standing], by: By) -> list[Pool]:
    """The pools of each group, then those of trials that belong to none. A trial without a score belongs to each group
    that its sweep has scores in.
    """
    units: dict[Any, list[Standing]] = defaultdict(list)
    others: dict[Any, list[Standing]] = defaultdict(list)
    values: dict[Any, Sequence[Any]] = {}
    groups_of_sweep: dict[str, dict[Any, None]] = defaultdict(dict)

    def place(group: Any, standing: Standing, counts: bool) -> None:
        of = by.values(standing.configuration)
        key = group, _key(of)
        values.setdefault(key, of)
        (units if counts else others)[key].append(standing)

    for group, standings in members.items():
        for standing in standings:
            groups_of_sweep[standing.configuration.sweep][group] = None
            place(group, standing, True)
    for standing in unranked:
        own = [standing.group] if standing.scored else list(groups_of_sweep[standing.configuration.sweep]) or [None]
        for group in own:
            place(group, standing, standing.state == RunState.DIVERGED)
    return [Pool.of_trials(by, of, units[key], others[key]) for key, of in values.items()]


def _key(of: Sequence[Any]) -> Any:
    """What equal values share, and True does not with 1."""
    if not of:
        return ()
    (value,) = of
    return (isinstance(value, bool), value) if isinstance(value, str | int | float | None) else json.dumps(value)


def _shared(configs: Sequence[Row]) -> Row:
    """The values that all of them have."""
    shared = dict(configs[0])
    for config in configs[1:]:
        shared = {name: value for name, value in shared.items() if name in config and config[name] == value}
        if not shared:
            break
    return shared
