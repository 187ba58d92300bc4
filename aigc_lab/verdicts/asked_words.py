"""What is said of the classes that a conditional system was asked for, of the rows of `verdicts.asked`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from aigc_lab.verdicts.conclusion import Collapse, needed
from aigc_lab.verdicts.states import NARROW, ONE, OTHER, UNMEASURED, UNTOLD

# Less of what real samples of the class have, of samples that are sorted into it, is another class.
MOST = 0.5
_LISTED = 4


def words(verdict: str, rows: Sequence[Mapping[str, Any]], *, faults_alone: bool = False) -> str:
    """What is said beside a verdict on collapse of the rows of its `asked`, or what is wrong with them alone: "" where
    nothing is, and of samples of which too few look real.
    """
    if verdict == Collapse.UNMEASURABLE:
        return ""
    said = _faults(rows) if faults_alone else sentence(rows)
    # Blur may be what sorts samples into other classes, and is what most of these verdicts are for.
    return f"{said}, by these features" if said and verdict == Collapse.INCONCLUSIVE else said


def sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was found of the classes that were asked for: what is wrong, else what cannot be told, else that all is
    well.

    >>> row = {"name": "3", "n": 40, "state": OTHER, "variety": "varied", "mostly": "8", "mostly_share": 0.95}
    >>> sentence([row])
    'asked for 3 it draws 8 (95% of 40)'
    """
    return _faults(rows) or _untold(rows) or f"{_all(rows)}, as varied as real samples of it"


def _faults(rows: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong, "" for nothing."""
    other = [row for row in rows if row["state"] == OTHER]
    one = [row for row in rows if row["variety"] == ONE]
    narrow = [row for row in rows if row["variety"] == NARROW]
    said = [f"asked for {row['name']} it draws {_instead(row)}" for row in other[:_LISTED]]
    said += [f"and for {len(other) - _LISTED} more classes others"] if len(other) > _LISTED else []
    if one:
        said.append(f"asked for {_listed(one)} it draws one thing over and over")
    if narrow:
        most = max(row["diversity_high"] for row in narrow)
        said.append(f"asked for {_listed(narrow)} its samples vary at most {most:.2f} times as much as real ones")
    return "; ".join(said)


def _all(rows: Sequence[Mapping[str, Any]]) -> str:
    """Phrase for classes that are all drawn, with the share of the least accurate."""
    least = min(row["drawn"] for row in rows)
    return f"every class that is asked for is drawn, in {math.floor(100 * least)}% of its samples or more"


def _untold(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What cannot be told of the classes, None if nothing."""
    class_open = [row for row in rows if row["state"] == UNTOLD]
    vague = [row for row in rows if row["variety"] == UNMEASURED]
    if not class_open and not vague:
        return None
    n, enough = sum(row["n"] for row in rows), needed(len(rows))
    more = f" ({enough:,} samples would tell more, and these are {n:,})" if n < enough else ""
    if class_open:
        return f"whether it draws {_listed(class_open)} when asked for it cannot be told{more}"
    half = "vary at least half as much as real ones cannot be told"
    return f"{_all(rows)}, and whether those of {_listed(vague)} {half}{more}"


def _instead(row: Mapping[str, Any]) -> str:
    if row["mostly"] == row["name"]:
        return f"many others, and {row['name']} in {row['mostly_share']:.0%} of {row['n']}"
    if row["mostly_share"] <= MOST:
        return f"many others ({row['mostly']} most often, {row['mostly_share']:.0%} of {row['n']})"
    return f"{row['mostly']} ({row['mostly_share']:.0%} of {row['n']})"


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
    more = f" and {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
    return ", ".join(row["name"] for row in rows[:_LISTED]) + more
