"""From runs to ranks: the median over the seeds, its interval, and who comes first. Pure functions, no database.

Rows are ranked by the reference split, which the search saw too, and show the value on the holdout: nothing is chosen
by that, so what it says of the row that comes first is unbiased. (The best of 20 equal values flatters by 1.9 standard
errors.) A seed that diverged counts as the worst possible value: leaving it out would reward a configuration for
failing. Scores are ranked only among those of one signature: numbers that were computed differently do not compare.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any, NamedTuple

from aigc_lab.registry.marks import NOT_CONFIRMED
from aigc_lab.registry.states import RunState

Row = dict[str, Any]

# As the registry writes them: a hundred thousand times the way through the enumeration is long.
_FINISHED, _DIVERGED = RunState.FINISHED.value, RunState.DIVERGED.value


_UNUSED = (None,) * 5  # low, high, n, floor and its spread, of an outcome that is only ranked


class SeedOutcome(NamedTuple):
    """A run as far as ranking cares. A run that has no such score has None from `name` on. `value` is that on the
    holdout, and `reference` that on the reference split: None where it was scored on one split only, NaN where it is
    not finite.
    """

    role: str
    state: str
    name: str | None
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    floor: float | None
    floor_sd: float | None
    signature: str | None
    better: str | None
    seconds: float | None = None
    reference: float | None = None

    @classmethod
    def brief(
        cls,
        role: str,
        state: str,
        value: float | None,
        signature: str | None,
        better: str | None,
        name: str,
        reference: float | None = None,
    ) -> "SeedOutcome":
        """An outcome with only what a rank depends on; the rest is None."""
        named = None if signature is None else name
        return cls(role, state, named, value, *_UNUSED, signature, better, None, reference)

    @property
    def scored(self) -> bool:
        return self.state == _FINISHED and self.name is not None


@dataclass(slots=True)
class Configuration:
    """A trial and its runs."""

    sweep: str
    trial: int
    system: str
    state: str
    outcomes: list[SeedOutcome] = field(default_factory=list)
    violates: bool = False  # a constraint of its sweep

    @property
    def key(self) -> tuple[str, int]:
        return self.sweep, self.trial


@dataclass(frozen=True)
class Group:
    """The rows that may be ranked together: `rows` many, one name, one direction, one signature."""

    name: str
    better: str
    signature: str
    rows: int


@dataclass(frozen=True)
class Comparison:
    """Rows in the order to show them: group after group, then those without a score. There are `total` of them, of
    which `rows` may hold the first only; groups count all. `note` is "" for one group. `values` holds for each row what
    its score is the median of, ±∞ for a seed that diverged, and nothing for a row without a score.
    """

    rows: list[Row]
    groups: list[Group]
    note: str
    total: int
    values: list[list[float]]


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(low, high, confidence) of the median of whatever the values are drawn from, with no further assumption.

    The j-th smallest and j-th largest of k values enclose the median unless fewer than j values fall on one side of it:
    confidence 1 - 2 P(Binomial(k, 1/2) < j). Takes the narrowest pair of at least 95 %; up to 5 values there is none,
    so it takes the extremes and says how little they promise: 50 % for two values, 75 % for three.
    """
    ordered, k = sorted(values), len(values)
    outside, j = 2, 1  # 2^k times the probability of missing the median, for the extremes
    while 2 * (j + 1) <= k + 1 and 20 * (outside + 2 * math.comb(k, j)) <= 2**k:
        outside, j = outside + 2 * math.comb(k, j), j + 1
    return ordered[j - 1], ordered[k - j], 1 - outside / 2**k


class _Standing(NamedTuple):
    """What becomes one row: a configuration and those of its runs that count, and of these the ones that were scored
    in the same way, with their median (`value`) and that on the reference split, which ranks (`chosen`). Many are
    ranked, and few may be shown: the rest of a row is computed later.
    """

    configuration: Configuration
    used: list[SeedOutcome]
    scored: list[SeedOutcome]
    confirmed: bool
    value: float | None
    chosen: float

    @property
    def group(self) -> tuple[str, str, str]:
        """What it may be ranked among: name, direction and signature of its score."""
        name, better, signature = self.scored[0].name, self.scored[0].better, self.scored[0].signature
        assert name is not None and better is not None and signature is not None
        return name, better, signature


def rank(
    configurations: Iterable[Configuration],
    most: int | None = None,
    whole: Callable[[list[Configuration]], Iterable[Configuration]] | None = None,
) -> Comparison:
    """One row for each configuration (and signature, should its runs have been scored in different ways); only the
    first `most` of them, if that is given. The `config` of a row is left empty.

    Most of many are ranked and not shown, so their outcomes may be `SeedOutcome.brief`; then `whole` returns
    the configurations of its argument, in any order, with all that their rows show.
    """
    members: dict[tuple[str, str, str], list[_Standing]] = defaultdict(list)
    unranked: list[_Standing] = []
    for configuration in configurations:
        for standing in _standings(configuration):
            (unranked if standing.value is None else members[standing.group]).append(standing)
    groups = [Group(*key, rows=len(standings)) for key, standings in members.items()]
    groups.sort(key=lambda group: (-group.rows, group.name, group.signature))
    unranked.sort(key=lambda standing: _state(standing) != RunState.DIVERGED)

    def ordered() -> Iterator[tuple[_Standing, int | None, bool]]:
        for group in groups:
            yield from _ranked(members[group.name, group.better, group.signature], group.better)
        yield from ((standing, None, False) for standing in unranked)

    shown = list(islice(ordered(), most))
    if whole is not None:
        complete = {each.key: each for each in whole([standing.configuration for standing, _, _ in shown])}
        shown = [(_of(complete[each.configuration.key], each), place, flatters) for each, place, flatters in shown]
    total = len(unranked) + sum(group.rows for group in groups)
    values = [[] if each.value is None else _values(each.scored, each.used) for each, _, _ in shown]
    return Comparison([_row(*each) for each in shown], groups, _note(groups), total, values)


def _of(whole: Configuration, brief: _Standing) -> _Standing:
    """The standing of the whole configuration that is this brief one's."""
    signature = brief.scored[0].signature if brief.scored else None
    same = (each for each in _standings(whole) if (each.scored[0].signature if each.scored else None) == signature)
    return next(same)


def _ranked(standings: list[_Standing], better: str) -> Iterator[tuple[_Standing, int, bool]]:
    """Each with its rank, and whether it flatters: it is ahead of a confirmed row, and is itself one seed, or the best
    of several trials on the seeds that it was chosen by.

    Rows that violate a constraint of their sweep come last. Within a sweep confirmed rows come first: a value that was
    selected as the best of many flatters. Rows of several sweeps were not selected from one another, and rank by value
    alone. Equal values share a rank.
    """
    trials = Counter(standing.configuration.sweep for standing in standings)
    several, sign = len(trials) > 1, 1 if better == "lower" else -1

    def key(standing: _Standing) -> tuple[bool, bool, float]:
        return standing.configuration.violates, not (standing.confirmed or several), sign * standing.chosen

    standings.sort(key=key)
    last = max((place for place, standing in enumerate(standings, start=1) if standing.confirmed), default=0)
    rank, before = 0, None
    for place, standing in enumerate(standings, start=1):
        if key(standing) != before:
            rank, before = place, key(standing)
        lucky = len(standing.scored) == 1 or trials[standing.configuration.sweep] > 1
        yield standing, rank, place < last and lucky and not standing.confirmed


def _standings(configuration: Configuration) -> Iterator[_Standing]:
    """Fresh seeds, once there are any, replace those that the search selected by."""
    confirming = [outcome for outcome in configuration.outcomes if outcome.role == "confirm"]
    used, confirmed = configuration.outcomes, False
    if confirming:
        confirmed = any(outcome.state in (_FINISHED, _DIVERGED) for outcome in confirming)
        used = confirming if confirmed else [outcome for outcome in used if outcome.role != "confirm"]
    by_signature: dict[str | None, list[SeedOutcome]] = {}
    for outcome in used:
        if outcome.name is not None and outcome.state == _FINISHED:  # `scored`, without a call
            by_signature.setdefault(outcome.signature, []).append(outcome)
    for scored in by_signature.values() or [[]]:
        value = median(_values(scored, used)) if scored else math.nan
        chosen = median(_references(scored, used)) if scored else math.nan
        yield _Standing(configuration, used, scored, confirmed, value if math.isfinite(value) else None, chosen)


def _values(scored: Sequence[SeedOutcome], used: Sequence[SeedOutcome]) -> list[float]:
    """The values that the median is of: a seed that diverged, and a value that is not finite, is the worst possible."""
    return _with_worst([outcome.value for outcome in scored], scored, used)


def _references(scored: Sequence[SeedOutcome], used: Sequence[SeedOutcome]) -> list[float]:
    """The same on the reference split, where they were scored there."""
    return _with_worst([each.value if each.reference is None else each.reference for each in scored], scored, used)


def _with_worst(
    values: Sequence[float | None], scored: Sequence[SeedOutcome], used: Sequence[SeedOutcome]
) -> list[float]:
    worst = math.inf if scored[0].better == "lower" else -math.inf
    finite = [worst if value is None or value != value else value for value in values]  # NaN alone is not itself
    return finite + [worst for outcome in used if outcome.state == _DIVERGED]


def _row(standing: _Standing, rank: int | None, flatters: bool) -> Row:
    configuration, scored = standing.configuration, standing.scored
    states = Counter(outcome.state for outcome in standing.used)
    return {
        "rank": rank,
        "sweep": configuration.sweep,
        "trial": configuration.trial,
        "system": configuration.system,
        "config": {},
        "seeds": len(scored) if scored else states[RunState.FINISHED],
        "states": {state.value: states[state] for state in RunState if states[state]},
        "state": _state(standing).value,
        "confirmed": standing.confirmed,
        "marks": [NOT_CONFIRMED] if flatters else [],
        "seconds": sum(outcome.seconds or 0.0 for outcome in configuration.outcomes),
        "score": None if standing.value is None else _score(standing),
    }


def _score(standing: _Standing) -> dict[str, Any]:
    """The median over the seeds, its interval, and what it was computed from."""
    outcomes, first = standing.scored, standing.scored[0]
    values = _values(outcomes, standing.used)
    low: float | None
    high: float | None
    confidence: float | None
    if len(values) == 1:
        low, high = first.low, first.high  # the sampling interval of the run itself
        confidence = 0.95 if low is not None and high is not None else None
    else:
        low, high, confidence = median_interval(values)
        low, high = (bound if math.isfinite(bound) else None for bound in (low, high))
    twice = any(outcome.reference is not None for outcome in outcomes)
    floors = [outcome.floor for outcome in outcomes if outcome.floor is not None]
    spreads = [outcome.floor_sd for outcome in outcomes if outcome.floor_sd is not None]
    return {
        "name": first.name,
        "value": standing.value,
        "reference": standing.chosen if twice and math.isfinite(standing.chosen) else None,
        "low": low,
        "high": high,
        "n": first.n,
        "floor": median(floors) if floors else None,
        "floor_sd": median(spreads) if spreads else None,
        "signature": first.signature,
        "confidence": confidence,
        "better": first.better,
    }


def _state(standing: _Standing) -> RunState:
    """One word for a trial: work that goes on, else what became of it."""
    if standing.value is None and (standing.scored or any(each.state == RunState.DIVERGED for each in standing.used)):
        return RunState.DIVERGED
    present = {outcome.state for outcome in standing.configuration.outcomes}
    recorded = RunState(standing.configuration.state)
    given_up = recorded in (RunState.PRUNED, RunState.FAILED, RunState.KILLED)
    if RunState.RUNNING in present:
        return RunState.RUNNING
    if RunState.QUEUED in present and not given_up:
        return RunState.QUEUED
    if standing.value is not None or RunState.FINISHED in present:
        return RunState.FINISHED
    if given_up or not present:
        return recorded
    return next((state for state in (RunState.PRUNED, RunState.FAILED, RunState.KILLED) if state in present), recorded)


def _note(groups: list[Group]) -> str:
    """What the reader must know before comparing ranks."""
    if len(groups) < 2:
        return ""
    parts = [[group.name, *(part for part in re.split(r"[|;\s]+", group.signature) if part)] for group in groups]
    common = set(parts[0]).intersection(*parts[1:])
    differing = [" ".join(dict.fromkeys(part for part in own if part not in common)) or "(nothing)" for own in parts]
    shown = " / ".join(differing[:4]) + (" / …" if len(differing) > 4 else "")
    return f"{len(groups)} signatures are present and differ in {shown}; ranks restart in each group."
