"""A against B: which of the leading rows of a ranking are better than which, and which cannot be told apart.

Holm's correction holds over all pairs of a group that have seeds enough for a test. Rows that were confirmed on fresh
seeds and rows on the seeds that a search chose by are never compared: the second kind flatters. Among themselves the
first rows of a search make no false claims for having been selected: of equal ones, those that come first lie closer
together than any others. Rows that violate a constraint lead nothing: they are compared where there are no others.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, cast

from aigc_lab.registry.marks import violate
from aigc_lab.statistics.rank_test import LEVEL, smallest_p, values_lacking
from aigc_lab.statistics.superiority import Superiority, holm, seeds_to_tell, superiority

if TYPE_CHECKING:
    from aigc_lab.config import Better
    from aigc_lab.registry.ranking import Comparison, Group
    from aigc_lab.registry.standings import Row

    _Leading = list[tuple[Row, list[float]]]  # rows with what their scores are the median of

# So many leading rows of a group are compared: of their 6 pairs, five seeds each can tell one after Holm's correction,
# 6 · 2 / C(10, 5) = 0.048.
MOST = 4

Answer = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True)
class Pair:
    """Row `first` against row `second` of a `group`, in the order of their ranks. `answer` is what the first is beside
    the second; `p` is the test's after Holm's correction for `comparisons` tests and for the `looks` that were taken at
    the growing samples, None where too few seeds allow no test.

    About `more` seeds each would tell them: an estimate with power 0.8 from two seeds each on, of single seeds the
    fewest that can; None where they are told, and where it takes more than 100.
    """

    first: "Row"
    second: "Row"
    group: "Group"
    answer: Answer
    beside: Superiority
    p: float | None
    comparisons: int
    looks: int
    more: int | None

    @property
    def unit(self) -> str:
        return unit_of(self.first)

    @property
    def told(self) -> bool:
        return self.answer != "cannot tell"

    @property
    def hopeless(self) -> bool:
        """Whether no order of so many seeds could have been told."""
        return self.p is None or smallest_p(self.beside.n, self.beside.m) * self.comparisons * self.looks > LEVEL

    def as_dict(self) -> dict[str, Any]:
        """Plain data: of both rows what they are called, the answer, and what it rests on."""
        keys = ("rank", "sweep", "trial", "system", "by", "by_value")
        first, second = ({key: row[key] for key in keys if key in row} for row in (self.first, self.second))
        return {
            "first": first,
            "second": second,
            "score": self.group.name,
            "signature": self.group.signature,
            "first_is": self.answer,
            "probability": self.beside.probability,
            "low": self.beside.low,
            "high": self.beside.high,
            "unit": self.unit,
            "values": [self.beside.n, self.beside.m],
            "p": self.beside.p,
            "p_adjusted": self.p,
            "comparisons": self.comparisons,
            "looks": self.looks,
            "more": self.more,
        }


def pairs(comparison: "Comparison", most: int = MOST, looks: int = 1) -> list[Pair]:
    """All pairs of the first `most` rows of each group that compare, group after group. `looks` is how often the same
    samples were tested while they grew, of a row that says more of itself (`looks`) so many times: each p-value counts
    so often (Bonferroni).

    >>> from aigc_lab.registry.ranking import rank
    >>> pairs(rank([]))
    []
    """
    return [pair for found in pairs_by_group(comparison, most, looks).values() for pair in found]


def pairs_by_group(comparison: "Comparison", most: int = MOST, looks: int = 1) -> "dict[Group, list[Pair]]":
    """The same by group; of one without pairs an empty list."""
    leading = _leading_by_group(comparison, most)
    return {group: _of_rows(group, leading.get(group, []), looks) for group in comparison.groups}


def mark_leaders(comparison: "Comparison", most: int = MOST, looks: int = 1) -> None:
    """Sets `leaders` of every row: whether it is one of the leaders within noise, which are the first of the rows that
    compare and those that no test finds worse than it; None where no test was made of it against the first.
    """
    for row in comparison.rows:
        row["leaders"] = None
    for group, rows in _leading_by_group(comparison, most).items():
        leader = rows[0][0]
        tested = [pair for pair in _of_rows(group, rows, looks) if pair.first is leader and pair.p is not None]
        for pair in tested:
            pair.second["leaders"] = pair.answer != "better"
        if tested:
            leader["leaders"] = any(pair.second["leaders"] for pair in tested)


def add_pairs(comparison: "Comparison") -> None:
    """Sets `against` of every row of the first group: its pairs with later rows as plain data (`Pair.as_dict`)."""
    if not comparison.groups:
        return
    group = comparison.groups[0]
    found = pairs_by_group(comparison)[group]
    for row in comparison.rows:
        score = row["score"]
        if score and (score["name"], score["better"], score["signature"]) == (
            group.name,
            group.better,
            group.signature,
        ):
            row["against"] = [pair.as_dict() for pair in found if pair.first is row]


def _of_rows(group: "Group", leading: "_Leading", looks: int) -> list[Pair]:
    looks = max([looks, *(row.get("looks", 1) for row, _ in leading)])
    chosen = list(combinations(leading, 2))
    better = cast("Better", group.better)
    beside = [superiority(values, others, better) for (_, values), (_, others) in chosen]
    testable = [place for place, each in enumerate(beside) if each.testable]
    adjusted = dict(zip(testable, holm([min(1.0, looks * beside[place].p) for place in testable]), strict=True))
    undecided = sum(adjusted.get(place, 1.0) > LEVEL for place in range(len(chosen)))
    built = []
    for place, ((first, values), (second, others)) in enumerate(chosen):
        each, p = beside[place], adjusted.get(place)
        answer: Answer = "cannot tell"
        more = None
        if p is not None and p <= LEVEL:
            answer = "better" if each.probability > 0.5 else "worse"
        else:
            more = _more(values, others, LEVEL / (looks * undecided))
        built.append(Pair(first, second, group, answer, each, p, len(testable), looks, more))
    return built


def _more(first: Sequence[float], second: Sequence[float], level: float) -> int | None:
    if min(len(first), len(second)) < 2:
        return values_lacking(len(first), len(second), level)
    return seeds_to_tell(first, second, level)


def _leading_by_group(comparison: "Comparison", most: int) -> "dict[Group, _Leading]":
    """The first rows of each group that compare; of a group that has none, nothing."""
    groups = {(group.name, group.better, group.signature): group for group in comparison.groups}
    members: dict[Group, _Leading] = defaultdict(list)
    for row, values in zip(comparison.rows, comparison.values, strict=True):
        # Trials that are no random draw have no test.
        if row["score"] is not None and not row.get("adaptive"):
            members[groups[tuple(row["score"][part] for part in ("name", "better", "signature"))]].append((row, values))
    return {group: _leading(rows)[:most] for group, rows in members.items()}


def _leading(rows: "_Leading") -> "_Leading":
    """Those that compare: the confirmed ones, where the first row is one or there are two to compare, otherwise those
    that are not; and of these, whose values are seeds or trials as the first one's are.
    """
    rows = [each for each in rows if not violate(each[0]["marks"])] or rows
    confirmed = [each for each in rows if each[0].get("confirmed")]
    if len(confirmed) < 2 and not rows[0][0].get("confirmed"):
        confirmed = [each for each in rows if not each[0].get("confirmed")]
    return [each for each in confirmed if unit_of(each[0]) == unit_of(confirmed[0][0])]


def unit_of(row: Mapping[str, Any]) -> str:
    """What the values of a row are: `seed`, or where a row is of several trials `trial`."""
    return str(row.get("unit", "seed"))
