"""From trials to ranks: who comes first, and among whom. Pure functions, no database.

Rows are ranked by the reference split, which the search saw too, and show the value on the holdout: nothing is chosen
by that, so what it says of the row that comes first is unbiased. (The best of 20 equal values flatters by 1.9 standard
errors.) Scores are ranked only among those of one signature: numbers that were computed differently do not compare.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from aigc_lab.registry.records import Role
from aigc_lab.registry.roles import ROLES
from aigc_lab.registry.standings import Configuration, Member, Row, Standing, standings_of
from aigc_lab.registry.states import RunState


@dataclass(frozen=True)
class Group:
    """The rows that may be ranked together: `rows` many, one name, one direction, one signature; of these `sweeps`."""

    name: str
    better: str
    signature: str
    rows: int
    sweeps: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Comparison:
    """Rows in the order to show them: group after group, then those without a score. There are `total` of them, of
    which `rows` may hold the first only; groups count all. `note` is "" for one group. `values` holds for each row what
    its score is the median of, ±∞ for one that diverged, and nothing for a row without a score; `members` its trials.
    `filtered` trials were left out by a condition, which may have gone `by_outcome`: by states or verdicts of runs.
    `variants` are the keys, by system, whose words tell variants of it apart that rows of whole systems pool.

    A row is a trial, and its values are its seeds (`unit`); or it is all trials of one value of `by`, where the values
    are the medians of these trials, unless there is but one. `adaptive` rows are of trials that are no random draw.
    """

    rows: list[Row]
    groups: list[Group]
    note: str
    total: int
    values: list[list[float]]
    members: list[list[Member]] = field(default_factory=list)
    filtered: int = 0
    by_outcome: bool = False
    by: str = "trial"
    variants: Mapping[str, list[str]] = field(default_factory=dict)


class Entry(Protocol):
    """What becomes one row of a comparison. Many are ranked, and few may be shown, so the rest is computed later."""

    @property
    def value(self) -> float | None:
        """Its score; None for one that has none to rank."""

    @property
    def chosen(self) -> float:
        """The value on the reference split, which ranks."""

    @property
    def role(self) -> Role:
        """The role of the runs that it is of."""

    @property
    def confirmed(self) -> bool:
        """Whether its seeds are fresh."""

    @property
    def violates(self) -> bool:
        """Whether it violates a constraint of its sweep."""

    @property
    def group(self) -> tuple[str, str, str]:
        """What it may be ranked among: name, direction and signature of its score."""

    @property
    def state(self) -> RunState: ...

    @property
    def members(self) -> list[Member]: ...

    @property
    def values(self) -> list[float]:
        """What its score is the median of."""

    def row(self, rank: int | None, flatters: bool) -> Row: ...


Keep = Callable[[Standing], bool]
Members = dict[tuple[str, str, str], list[Standing]]


def rank(
    configurations: Iterable[Configuration],
    most: int | None = None,
    whole: Callable[[list[Configuration]], Iterable[Configuration]] | None = None,
    keep: Keep | None = None,
) -> Comparison:
    """One row for each configuration (and signature, should its runs have been scored in different ways) that `keep`
    is true of; only the first `most` of them, if that is given. The `config` of a row is that of its configuration.

    Most of many are ranked and not shown, so their outcomes may be `SeedOutcome.brief`; then `whole` returns
    the configurations of its argument, in any order, with all that their rows show.
    """
    members, unranked, trials, filtered = grouped(configurations, keep)

    def complete(shown: list[Standing]) -> list[Standing]:
        if whole is None:
            return shown
        known = {each.key: each for each in whole([standing.configuration for standing in shown])}
        return [_of(known[each.configuration.key], each) for each in shown]

    def ranked(standings: list[Standing], better: str) -> Iterator[tuple[Standing, int, bool]]:
        several = len({standing.configuration.sweep for standing in standings}) > 1
        return in_order(standings, better, not several, lambda each: _lucky(each, trials))

    comparison = arranged(members, unranked, ranked, most, complete)
    return replace(comparison, filtered=filtered)


def _lucky(standing: Standing, trials: Mapping[str, int]) -> bool:
    """Whether it is one seed, or may be the best of several trials on the seeds that it was chosen by."""
    return len(standing.scored) == 1 or trials[standing.configuration.sweep] > 1


class Grouped(NamedTuple):
    """Standings that may be ranked together, those without a rank, the number of trials with a score of each sweep,
    kept or not, and the number of trials of which nothing was kept.
    """

    members: Members
    unranked: list[Standing]
    trials: Counter[str]
    filtered: int


def grouped(configurations: Iterable[Configuration], keep: Keep | None) -> Grouped:
    """The standings that `keep` is true of."""
    members: Members = defaultdict(list)
    unranked: list[Standing] = []
    trials: Counter[str] = Counter()
    filtered = 0
    for configuration in configurations:
        kept = False
        for standing in standings_of(configuration):
            if standing.value is not None:
                trials[configuration.sweep] += 1
            if keep is None or keep(standing):
                kept = True
                (unranked if standing.value is None else members[standing.group]).append(standing)
        filtered += not kept
    return Grouped(members, unranked, trials, filtered)


_Entry = TypeVar("_Entry", bound=Entry)
_Ordered = Iterator[tuple[_Entry, int, bool]]


def arranged(
    members: Mapping[tuple[str, str, str], list[_Entry]],
    unranked: list[_Entry],
    ranked: Callable[[list[_Entry], str], _Ordered[_Entry]],
    most: int | None,
    complete: Callable[[list[_Entry]], list[_Entry]],
) -> Comparison:
    """The largest group first, in each group as `ranked` says, then what has no rank, that which diverged first."""
    groups = [
        Group(*key, len(entries), frozenset(member.sweep for each in entries for member in each.members))
        for key, entries in members.items()
    ]
    groups.sort(key=lambda group: (-group.rows, group.name, group.signature))
    unranked.sort(key=lambda entry: entry.state != RunState.DIVERGED)

    def ordered() -> Iterator[tuple[_Entry, int | None, bool]]:
        for group in groups:
            yield from ranked(members[group.name, group.better, group.signature], group.better)
        yield from ((entry, None, False) for entry in unranked)

    shown = list(islice(ordered(), most))
    entries = complete([entry for entry, _, _ in shown])
    rows = [entry.row(place, flatters) for entry, (_, place, flatters) in zip(entries, shown, strict=True)]
    total = len(unranked) + sum(group.rows for group in groups)
    values = [entry.values for entry in entries]
    return Comparison(rows, groups, _note(groups), total, values, [entry.members for entry in entries])


def _of(whole: Configuration, brief: Standing) -> Standing:
    """The standing of the whole configuration that is this brief one's."""
    signature = brief.scored[0].signature if brief.scored else None
    same = (each for each in standings_of(whole) if (each.scored[0].signature if each.scored else None) == signature)
    return next(same)


def in_order(
    entries: list[_Entry], better: str, confirmed_first: bool, lucky: Callable[[_Entry], bool]
) -> _Ordered[_Entry]:
    """Each with its rank, and whether it flatters: it is ahead of a confirmed row, not confirmed itself, and `lucky`.

    Rows that violate a constraint of their sweep come last. Within a sweep the winner of its confirmation comes first,
    then the other confirmed rows: a value that was selected as the best of many flatters. Rows of several sweeps were
    not selected from one another, and rank by value alone. Equal values share a rank.
    """
    sign = 1 if better == "lower" else -1

    def key(entry: _Entry) -> tuple[bool, int, float]:
        return entry.violates, -ROLES.index(entry.role) if confirmed_first else 0, sign * entry.chosen

    entries.sort(key=key)
    last = max((place for place, entry in enumerate(entries, start=1) if entry.confirmed), default=0)
    rank, before = 0, None
    for place, entry in enumerate(entries, start=1):
        if key(entry) != before:
            rank, before = place, key(entry)
        yield entry, rank, place < last and not entry.confirmed and lucky(entry)


def _note(groups: list[Group]) -> str:
    """What the reader must know before comparing ranks."""
    if len(groups) < 2:
        return ""
    differing = differences((group.name, group.signature) for group in groups)
    return f"{len(groups)} signatures are present and differ in {differing}; ranks restart in each group."


_SHOWN = 4  # signatures whose differences are listed


def differences(named: Iterable[tuple[str, str]]) -> str:
    """The parts in which signatures differ, each with the name of its score: `n:1000 / n:500`."""
    parts = [[name, *(part for part in re.split(r"[|;\s]+", signature) if part)] for name, signature in named]
    common = set(parts[0]).intersection(*parts[1:])
    differing = [" ".join(dict.fromkeys(part for part in own if part not in common)) or "(nothing)" for own in parts]
    return " / ".join(differing[:_SHOWN]) + (" / …" if len(differing) > _SHOWN else "")
