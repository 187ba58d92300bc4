"""From runs to ranks: the median over the seeds, its interval, and who comes first. Pure functions, no database.

A seed that diverged counts as the worst possible value: leaving it out would reward a configuration for failing.
Scores are ranked only among those of one signature: numbers that were computed differently do not compare.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from aigc_lab.registry.states import State

Row = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """A run as far as ranking cares. A run that has no such score has None from `name` on."""

    role: str
    state: str
    name: str | None
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    floor: float | None
    signature: str | None
    better: str | None
    seconds: float | None = None

    @property
    def scored(self) -> bool:
        return self.state == State.FINISHED and self.name is not None


@dataclass
class Configuration:
    """A trial and its runs."""

    sweep: str
    trial: int
    system: str
    config: dict[str, Any]
    state: str
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass(frozen=True)
class Group:
    """The rows that may be ranked together: `rows` many, one name, one direction, one signature."""

    name: str
    better: str
    signature: str
    rows: int


@dataclass(frozen=True)
class Comparison:
    """Rows in the order to show them: group after group, then those without a score. `note` is "" for one group."""

    rows: list[Row]
    groups: list[Group]
    note: str


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


def rank(configurations: Iterable[Configuration]) -> Comparison:
    """One row for each configuration (and signature, should its runs have been scored in different ways)."""
    rows = [row for configuration in configurations for row in _rows(configuration)]
    members: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["score"] is not None:
            members[row["score"]["name"], row["score"]["better"], row["score"]["signature"]].append(row)
    groups = [Group(*key, rows=len(found)) for key, found in members.items()]
    groups.sort(key=lambda group: (-group.rows, group.name, group.signature))
    ranked = [row for group in groups for row in _ranked(members[group.name, group.better, group.signature])]
    unranked = [row for row in rows if row["score"] is None]
    unranked.sort(key=lambda row: row["state"] != State.DIVERGED)
    return Comparison(ranked + unranked, groups, _note(groups))


def _ranked(rows: list[Row]) -> list[Row]:
    """Within a sweep confirmed rows come first: a value that was selected as the best of many flatters. Rows of several
    sweeps were not selected from one another, and rank by value alone. Equal values share a rank.
    """
    several = len({row["sweep"] for row in rows}) > 1

    def key(row: Row) -> tuple[bool, float]:
        value = row["score"]["value"]
        return not (row["confirmed"] or several), value if row["score"]["better"] == "lower" else -value

    rows = sorted(rows, key=key)
    for place, row in enumerate(rows):
        tied = place > 0 and key(rows[place - 1]) == key(row)
        row["rank"] = rows[place - 1]["rank"] if tied else place + 1
    return rows


def _rows(configuration: Configuration) -> list[Row]:
    """Fresh seeds, once there are any, replace those that the search selected by."""
    confirming = [outcome for outcome in configuration.outcomes if outcome.role == "confirm"]
    confirmed = any(outcome.state in (State.FINISHED, State.DIVERGED) for outcome in confirming)
    used = confirming if confirmed else [outcome for outcome in configuration.outcomes if outcome.role != "confirm"]
    states = Counter(outcome.state for outcome in used)
    by_signature: dict[str | None, list[Outcome]] = defaultdict(list)
    for outcome in used:
        if outcome.scored:
            by_signature[outcome.signature].append(outcome)
    rows = []
    for scored in by_signature.values() or [[]]:
        score = _score(scored, states[State.DIVERGED]) if scored else None
        hopeless = score is None and bool(scored or states[State.DIVERGED])
        rows.append(
            {
                "rank": None,
                "sweep": configuration.sweep,
                "trial": configuration.trial,
                "system": configuration.system,
                "config": configuration.config,
                "seeds": len(scored) if scored else states[State.FINISHED],
                "states": {state.value: states[state] for state in State if states[state]},
                "state": _state(configuration, hopeless, score is not None).value,
                "confirmed": confirmed,
                "seconds": sum(outcome.seconds or 0.0 for outcome in configuration.outcomes),
                "score": score,
            }
        )
    return rows


def _score(outcomes: list[Outcome], diverged: int) -> dict[str, Any] | None:
    """The median over the seeds; None when it is not finite."""
    first = outcomes[0]
    worst = math.inf if first.better == "lower" else -math.inf
    values = [worst if outcome.value is None else outcome.value for outcome in outcomes] + [worst] * diverged
    value = median(values)
    if not math.isfinite(value):
        return None
    low: float | None
    high: float | None
    confidence: float | None
    if len(values) == 1:
        low, high = first.low, first.high  # the sampling interval of the run itself
        confidence = 0.95 if low is not None and high is not None else None
    else:
        low, high, confidence = median_interval(values)
        low, high = (bound if math.isfinite(bound) else None for bound in (low, high))
    floors = [outcome.floor for outcome in outcomes if outcome.floor is not None]
    return {
        "name": first.name,
        "value": value,
        "low": low,
        "high": high,
        "n": first.n,
        "floor": median(floors) if floors else None,
        "signature": first.signature,
        "confidence": confidence,
        "better": first.better,
    }


def _state(configuration: Configuration, hopeless: bool, scored: bool) -> State:
    """One word for a trial: work that goes on, else what became of it."""
    present = {outcome.state for outcome in configuration.outcomes}
    told = State(configuration.state)
    given_up = told in (State.PRUNED, State.FAILED, State.KILLED)
    if hopeless:
        return State.DIVERGED
    if State.RUNNING in present:
        return State.RUNNING
    if State.QUEUED in present and not given_up:
        return State.QUEUED
    if scored or State.FINISHED in present:
        return State.FINISHED
    if given_up or not present:
        return told
    return next((state for state in (State.PRUNED, State.FAILED, State.KILLED) if state in present), told)


def _note(groups: list[Group]) -> str:
    """What the reader must know before comparing ranks."""
    if len(groups) < 2:
        return ""
    parts = [[group.name, *(part for part in re.split(r"[|;\s]+", group.signature) if part)] for group in groups]
    common = set(parts[0]).intersection(*parts[1:])
    differing = [" ".join(dict.fromkeys(part for part in own if part not in common)) or "(nothing)" for own in parts]
    shown = " / ".join(differing[:4]) + (" / …" if len(differing) > 4 else "")
    return f"{len(groups)} signatures are present and differ in {shown}; ranks restart in each group."
