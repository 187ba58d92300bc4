"""Trials by the runs that count: the median over the seeds, its interval, and its state. Pure functions, no database.

A seed that diverged counts as the worst possible value: leaving it out would reward a configuration for failing. So
does one that FAILED by NaN or infinity of its own, and none that failed for any other reason.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from aigc_lab.registry.marks import NOT_CONFIRMED
from aigc_lab.registry.records import Role
from aigc_lab.registry.roles import ROLES, counted_role, is_fresh
from aigc_lab.registry.states import RunState

Row = dict[str, Any]

# As the registry writes them: a hundred thousand times the way through the enumeration is long.
_FINISHED, _DIVERGED = RunState.FINISHED.value, RunState.DIVERGED.value


_UNUSED = (None,) * 5  # low, high, n, floor and its spread, of an outcome that is only ranked


class SeedOutcome(NamedTuple):
    """A run as far as ranking cares. A run that has no such score has None from `name` on. `value` is that on the
    holdout, and `reference` that on the reference split: None where it was scored on one split only, NaN where it is
    not finite. The `state` of one that FAILED by NaN of its own (`nan_failure`) is DIVERGED.
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
    nan_failure: bool = False

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
        nan_failure: bool = False,
    ) -> "SeedOutcome":
        """An outcome with only what a rank depends on; the rest is None."""
        named = None if signature is None else name
        return cls(role, state, named, value, *_UNUSED, signature, better, None, reference, nan_failure)

    @property
    def scored(self) -> bool:
        return self.state == _FINISHED and self.name is not None


@dataclass(slots=True)
class Configuration:
    """A trial and its runs. `config` are the values that were chosen, where these are asked for."""

    sweep: str
    trial: int
    system: str
    state: str
    outcomes: list[SeedOutcome] = field(default_factory=list)
    config: Row = field(default_factory=dict)
    violates: bool = False  # a constraint of its sweep

    @property
    def key(self) -> tuple[str, int]:
        return self.sweep, self.trial


class Member(NamedTuple):
    """A trial that a row is of, by its runs of one role."""

    sweep: str
    trial: int
    role: Role


class Standing(NamedTuple):
    """A configuration and those of its runs that count, and of these the ones that were scored in the same way, with
    their median (`value`) and that on the reference split (`chosen`).
    """

    configuration: Configuration
    used: list[SeedOutcome]
    scored: list[SeedOutcome]
    role: Role
    value: float | None
    chosen: float

    @property
    def confirmed(self) -> bool:
        return is_fresh(self.role)

    @property
    def violates(self) -> bool:
        return self.configuration.violates

    @property
    def group(self) -> tuple[str, str, str]:
        name, better, signature = self.scored[0].name, self.scored[0].better, self.scored[0].signature
        assert name is not None and better is not None and signature is not None
        return name, better, signature

    @property
    def members(self) -> list[Member]:
        return [Member(*self.configuration.key, self.role)]

    @property
    def values(self) -> list[float]:
        return [] if self.value is None else _values(self.scored, self.used)

    @property
    def seeds(self) -> int:
        """The number of runs that the score is of; without one, of those that finished."""
        return len(self.scored) if self.scored else sum(outcome.state == _FINISHED for outcome in self.used)

    @property
    def state(self) -> RunState:
        """One word for a trial: work that goes on, else what became of it."""
        used, configuration = self.used, self.configuration
        if self.value is None and (self.scored or any(each.state == _DIVERGED for each in used)):
            return RunState.DIVERGED
        present = {outcome.state for outcome in configuration.outcomes}
        recorded = RunState(configuration.state)
        given_up = recorded in (RunState.PRUNED, RunState.FAILED, RunState.KILLED)
        if RunState.RUNNING in present:
            return RunState.RUNNING
        if RunState.QUEUED in present and not given_up:
            return RunState.QUEUED
        if self.value is not None or RunState.FINISHED in present:
            return RunState.FINISHED
        if given_up or not present:
            return recorded
        endings = (RunState.PRUNED, RunState.FAILED, RunState.KILLED)
        return next((state for state in endings if state in present), recorded)

    def row(self, rank: int | None, flatters: bool) -> Row:
        configuration, values = self.configuration, self.values
        return {
            "rank": rank,
            "sweep": configuration.sweep,
            "trial": configuration.trial,
            "system": configuration.system,
            "config": configuration.config,
            "seeds": self.seeds,
            "unit": "seed",
            "units": len(values),
            "adaptive": False,
            "nan_failures": sum(outcome.nan_failure for outcome in self.used),
            "states": counted_states(outcome.state for outcome in self.used),
            "state": self.state.value,
            "confirmed": self.confirmed,
            "role": self.role,
            "marks": [NOT_CONFIRMED] if flatters else [],
            "seconds": sum(outcome.seconds or 0.0 for outcome in configuration.outcomes),
            "score": None if self.value is None else score_of(self.scored, values, self.value, self.chosen),
        }


def counted_states(states: Iterable[str]) -> dict[str, int]:
    """How many there are of each state that is present, in the order of the states."""
    counts = Counter(states)
    return {state.value: counts[state] for state in RunState if counts[state]}


def standings_of(configuration: Configuration) -> Iterator[Standing]:
    """Fresh seeds, once there are any, replace those that were chosen by: `counted_role` says which."""
    used, role = configuration.outcomes, ROLES[0]
    if fresh := [outcome for outcome in used if outcome.role != role]:
        role = counted_role((outcome.role, outcome.state) for outcome in fresh)
        used = [outcome for outcome in used if outcome.role == role]
    by_signature: dict[str | None, list[SeedOutcome]] = {}
    for outcome in used:
        if outcome.name is not None and outcome.state == _FINISHED:  # `scored`, without a call
            by_signature.setdefault(outcome.signature, []).append(outcome)
    for scored in by_signature.values() or [[]]:
        value = median(_values(scored, used)) if scored else math.nan
        chosen = median(_references(scored, used)) if scored else math.nan
        yield Standing(configuration, used, scored, role, value if math.isfinite(value) else None, chosen)


def _values(scored: Sequence[SeedOutcome], used: Sequence[SeedOutcome]) -> list[float]:
    """The values that the median is of: a seed that diverged, and a value that is not finite, is the worst possible."""
    return _with_worst([outcome.value for outcome in scored], scored, used)


def _references(scored: Sequence[SeedOutcome], used: Sequence[SeedOutcome]) -> list[float]:
    """The same on the reference split, where they were scored there."""
    return _with_worst([each.value if each.reference is None else each.reference for each in scored], scored, used)


def _with_worst(
    values: Sequence[float | None], scored: Sequence[SeedOutcome], used: Sequence[SeedOutcome]
) -> list[float]:
    worst = worst_value(scored[0].better)
    finite = [worst if value is None or value != value else value for value in values]  # NaN alone is not itself
    return finite + [worst for outcome in used if outcome.state == _DIVERGED]


def worst_value(better: str | None) -> float:
    """What a value counts as that is not finite."""
    return math.inf if better == "lower" else -math.inf


def score_of(outcomes: Sequence[SeedOutcome], values: Sequence[float], value: float, chosen: float) -> Row:
    """The median of the values, its interval, and what it was computed from."""
    first = outcomes[0]
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
        "value": value,
        "reference": chosen if twice and math.isfinite(chosen) else None,
        "low": low,
        "high": high,
        "n": first.n,
        "floor": median(floors) if floors else None,
        "floor_sd": median(spreads) if spreads else None,
        "signature": first.signature,
        "confidence": confidence,
        "better": first.better,
    }


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(low, high, confidence) of the median of whatever the values are drawn from, with no further assumption.

    The j-th smallest and j-th largest of k values enclose the median unless fewer than j values fall on one side of it:
    confidence 1 - 2 P(Binomial(k, 1/2) < j). Takes the narrowest pair of at least 95 %; up to 5 values there is none,
    so it takes the extremes and says how little they promise: 50 % for two values, 75 % for three.
    """
    ordered, k = sorted(values), len(values)
    outside, j = 2, 1  # 2^k times the probability of missing the median, for the extremes
    ways, all_ways = k, 2**k  # ways is C(k, j), from that of the j before: of thousands of values it is a long number
    while 2 * (j + 1) <= k + 1 and 20 * (outside + 2 * ways) <= all_ways:
        outside, j = outside + 2 * ways, j + 1
        ways = ways * (k - j + 1) // j
    return ordered[j - 1], ordered[k - j], 1 - outside / all_ways
