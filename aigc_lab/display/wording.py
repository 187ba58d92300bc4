"""Values of rows as the terminal and the pages show them, as text.

A number is never shown alone: its interval, n, floor and signature stand beside it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from aigc_lab.statistics.wording import interval, number

Row = Mapping[str, Any]

# Kind of verdict -> the heading under which it stands.
VERDICT_HEADINGS = {
    "collapse": "collapse",
    "collapse_raw": "collapse of the last weights, without their moving average",
    "stability": "stability",
}


def duration(seconds: float) -> str:
    """`48 s`, `3.5 min`, `2.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def omitted(shown: int, total: int) -> str:
    """`… and 12 more`, of rows that a limit omits; "" when there are none."""
    return f"… and {total - shown:,} more; --limit 0 shows all" if total > shown else ""


def verdict_counts(counts: Mapping[str, int]) -> str:
    """`NONE`, or of runs that do not agree `2 NONE, 1 SEVERE`."""
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


def values_of(row: Row) -> int:
    """The number of values that a ranked row's score is the median of; a seed that diverged counts as the worst one."""
    if row.get("unit") == "trial":
        return int(row["units"])
    return int(row["seeds"] + row["states"].get("DIVERGED", 0))


def counted(number: int, noun: str) -> str:
    """`1 seed`, `12 trials`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def unbounded(row: Row) -> bool:
    """Whether a missing bound of a ranked row is infinite, since one of its seeds diverged."""
    return row["score"]["confidence"] is not None and values_of(row) > 1


def state_text(row: Row) -> str:
    """`FINISHED`, or where seeds of the trial ended otherwise `FINISHED, 1 DIVERGED`."""
    others = {state: count for state, count in row["states"].items() if state not in ("FINISHED", row["state"])}
    return ", ".join([row["state"], *(f"{count} {state}" for state, count in others.items())])


def whole(value: int | None) -> str:
    """All digits; "" for none."""
    return "" if value is None else str(value)


# What stands beside a value: SAMPLING error of one run, the RANGE of a few seeds, or from six seeds on, where the exact
# interval of a median reaches it, a 95 % INTERVAL. They are written differently, so that none is taken for another.
Spread = Literal["SAMPLING", "RANGE", "INTERVAL"]

CONFIDENCE = 0.95


def spread(row: Row) -> Spread | None:
    """What stands beside the value of a ranked row; None where nothing does."""
    score = row["score"]
    if score["value"] is None or score["confidence"] is None:
        return None
    if values_of(row) == 1:
        return "SAMPLING"
    return "INTERVAL" if score["confidence"] >= CONFIDENCE else "RANGE"


def ranked_score(row: Row) -> str:
    """`39.1 ± 5.4 sampling error` of one run, `7.82 (7.43–8.21 of 2 seeds)`, from six seeds on `12.3 [10.1, 14.9]`; of
    several trials, `of 4 trials`.
    """
    score = row["score"]
    match spread(row):
        case "SAMPLING":
            return f"{number(score['value'])} ± {_sampling_error(score)} sampling error"
        case "RANGE":
            low, middle, high = _told_apart(score["low"], score["value"], score["high"])
            low, high = low or "-∞", high or "∞"
            between = " to " if "-" in low + high else "–"  # a dash beside a minus sign is misread
            return f"{middle} ({low}{between}{high} of {counted(values_of(row), row.get('unit', 'seed'))})"
    return interval(score, unbounded(row))


def _sampling_error(score: Row) -> str:
    """From the value to the farther end of its 95 % interval, to two digits."""
    error = max(abs(score[key] - score["value"]) for key in ("low", "high"))
    return f"{error:.0f}" if 10 <= error < 1e7 else f"{error:.2g}"


def _told_apart(low: float | None, middle: float, high: float | None) -> tuple[str, str, str]:
    """The three as `number` writes them, or with up to six digits where ends that differ would look alike."""
    texts = number(low), number(middle), number(high)
    for digits in (4, 5, 6):
        if texts[0] != texts[2] or low == high or low is None or high is None:
            break
        texts = f"{low:.{digits}g}", f"{middle:.{digits}g}", f"{high:.{digits}g}"
    return texts


def value_text(value: object) -> str:
    """A value of a configuration: a float to four digits, a text as it is, anything else as JSON."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def assignments(config: Mapping[str, Any]) -> str:
    """`lr=0.0002 loss=hinge`."""
    return " ".join(f"{name}={value_text(value)}" for name, value in config.items())


def titles(rows: Sequence[Row]) -> list[str]:
    """The system of each row, and behind those of one system the words of their configurations that differ, which tell
    its variants apart; numbers, which a search draws, do not name a trial.

    >>> config = {"loss": "hinge", "lr": 0.1}
    >>> titles([{"system": name, "config": config | {"loss": loss}} for name, loss in zip("aab", "xyz")])
    ['a loss=x', 'a loss=y', 'b']
    """
    found = []
    for row in rows:
        twins = [twin["config"] for twin in rows if twin["system"] == row["system"]]
        words = {key: value for key, value in row["config"].items() if isinstance(value, str | bool)}
        told = {key: value for key, value in words.items() if any(twin.get(key) != value for twin in twins)}
        found.append(" ".join(filter(None, (str(row["system"]), assignments(told)))))
    return found


def pool_value(row: Row) -> str:
    """The value that the trials of a row share; of those that lack the parameter, `not set`."""
    if row["by"] in ("system", "sweep"):
        return str(row["by_value"])
    return value_text(row["by_value"]) if row["by"] in row["config"] else "not set"
