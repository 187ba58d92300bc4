"""Marks of a ranked row: reasons not to take it for the best as it stands."""

from collections.abc import Mapping

# Verdicts on samples of which a score says little: they lack most of what is real, or are like nothing real.
DOUBTFUL = ("UNMEASURABLE", "SEVERE", "TOTAL")

# Kind -> verdicts that keep a run from being promoted. PARTIAL, INCONCLUSIVE, OSCILLATING and WITHHELD do not: what is
# there was scored, and no proof of more is asked for.
UNSOUND = {
    "collapse": (*DOUBTFUL, "POSTERIOR-COLLAPSED"),
    "stability": ("DIVERGED", "NEVER-LEARNED", "REGRESSED"),
}

NOT_CONFIRMED = "not confirmed"


def doubts(counts: Mapping[str, int]) -> list[str]:
    """Marks of a row, from the number of its runs with each collapse verdict."""
    of = f" of {sum(counts.values())} runs" if sum(counts.values()) > 1 else ""
    return [f"collapse {verdict}" + (of and f" in {counts[verdict]}{of}") for verdict in DOUBTFUL if verdict in counts]
