"""Marks of a ranked row: reasons not to take it for the best as it stands."""

from collections import Counter
from collections.abc import Iterable, Mapping

# Verdicts on samples of which a score says little: they lack most of what is real, or are like nothing real.
DOUBTFUL = ("UNMEASURABLE", "SEVERE", "TOTAL")

# Kind -> verdicts that keep a run from being promoted. PARTIAL, INCONCLUSIVE, OSCILLATING and WITHHELD do not: what is
# there was scored, and no proof of more is asked for.
UNSOUND = {
    "collapse": (*DOUBTFUL, "POSTERIOR-COLLAPSED"),
    "stability": ("DIVERGED", "NEVER-LEARNED", "REGRESSED"),
}

NOT_CONFIRMED = "not confirmed"
VIOLATES = "violates "


def violate(marks: Iterable[str]) -> bool:
    """Whether one of the marks says that a constraint is violated."""
    return any(mark.startswith(VIOLATES) for mark in marks)


def doubts(counts: Mapping[str, int]) -> list[str]:
    """Marks of a row, from the number of its runs with each collapse verdict."""
    of = f" of {sum(counts.values())} runs" if sum(counts.values()) > 1 else ""
    return [f"collapse {verdict}" + (of and f" in {counts[verdict]}{of}") for verdict in DOUBTFUL if verdict in counts]


def violations(violated: Mapping[str, Counter[str]], runs: int) -> list[str]:
    """Marks of a row whose `runs` violate constraints of its sweep, from the verdicts that they may not have by kind:
    "violates collapse: SEVERE in 1 of 3 runs".
    """
    of = f" of {runs} runs" if runs > 1 else ""
    said = {
        kind: [f"{verdict}{of and f' in {count}{of}'}" for verdict, count in sorted(counts.items())]
        for kind, counts in violated.items()
    }
    return [f"{VIOLATES}{kind}: {', '.join(each)}" for kind, each in said.items()]
