"""Numbers of scores as text: short, and never without their interval and floor."""

import re
from collections.abc import Container, Mapping
from typing import Any

ARROW = {"lower": "↓", "higher": "↑"}
# Scores that ship and describe a system, of which neither more nor less is better; their features may follow the name.
_DESCRIBING = re.compile("(kl|active_units|mutual_information|repetition|nll_div|auth_pct|fd_gap)(_.+)?")


def only_describes(name: str) -> bool:
    """Whether a score that ships describes a system, and has no direction that is better.

    >>> only_describes("fd_gap_clf"), only_describes("fd_clf")
    (True, False)
    """
    return _DESCRIBING.fullmatch(name) is not None


def with_arrow(name: str, better: str, describing: Container[str] = ()) -> str:
    """`fd_clf ↓`; without the arrow where the score only describes, as those of users' metrics in `describing` do.

    >>> with_arrow("fd_clf", "lower"), with_arrow("kl", "lower"), with_arrow("brightness", "higher", {"brightness"})
    ('fd_clf ↓', 'kl', 'brightness')
    """
    return name if only_describes(name) or name in describing else f"{name} {ARROW[better]}"


def number(value: float | None) -> str:
    """Three digits, or all of an integer part that is longer.

    >>> number(12.345), number(1234.5), number(None)
    ('12.3', '1234', '')
    """
    return "" if value is None else f"{value:.0f}" if 100 <= abs(value) < 1e7 else f"{value:.3g}"


def probability(p: float | None) -> str:
    """A p-value to two digits, a small one as a bound.

    >>> probability(0.0476), probability(0.4), probability(1e-7), probability(None)
    ('0.048', '0.4', '< 0.0001', '')
    """
    return "" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def interval(score: Mapping[str, Any], unbounded: bool = False) -> str:
    """`12.3 [10.1, 14.9]`; a bound that a diverged seed took away is shown as infinite."""
    if score["value"] is None:
        return "not finite"
    low, high = score["low"], score["high"]
    if low is None and high is None:
        return number(score["value"])
    missing = ("-∞", "∞") if unbounded else ("?", "?")
    bounds = (bound or gap for bound, gap in zip((number(low), number(high)), missing, strict=True))
    return f"{number(score['value'])} [{', '.join(bounds)}]"


def measured(score: Mapping[str, Any]) -> str:
    """The value of a score with its interval, and the class that it is of: `12.3 [10.1, 14.9], class 8`."""
    name = score.get("of_class")
    return interval(score) if name is None else f"{interval(score)}, class {name}"


def floor_text(row: Mapping[str, Any]) -> str:
    """`0.959 ± 0.352 (1.32 at 200)`: the floor, the standard deviation of a draw, and where the floor is of fewer
    samples than the score, the score at as many.
    """
    text, sd = number(row["floor"]), row.get("floor_sd")
    text += f" ± {number(sd)}" if text and sd is not None else ""
    if row.get("at_floor") is not None:
        text += f" ({number(row['at_floor'])} at {row['floor_n']:,})"
    return text
