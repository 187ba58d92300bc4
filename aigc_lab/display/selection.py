"""Sentences on the best run of a sweep, of `registry.best.Selection` as plain data: what was passed over, and why."""

from collections.abc import Mapping, Sequence
from typing import Any

from aigc_lab.statistics.wording import interval

# Runs whose reasons are written out; a reason is a sentence or two.
_MOST = 5


def passed_over_lines(selection: Mapping[str, Any] | None) -> list[str]:
    """`passed over digits-0a.5.0 (fd_clf 1.2 [1.1, 1.3], rank 1): collapse SEVERE: …`, one a run, and what to know of a
    best run that is not confirmed. Nothing where the run was named.
    """
    if selection is None:
        return []
    passed, more = selection["passed_over"], selection["passed_over_more"]
    lines = [f"passed over {run_and_reasons(each)}" for each in passed[:_MOST]]
    if more := more + len(passed[_MOST:]):
        lines.append(f"passed over {more} more, for such reasons")
    if selection["confirmed_trials"] and not selection["confirmed"]:
        lines.append(
            "not confirmed: no run of a confirmed trial passes, so one of the search is taken, whose score flatters"
        )
    return lines


def run_and_reasons(each: Mapping[str, Any]) -> str:
    """`digits-0a.5.0 (fd_clf 1.2 [1.1, 1.3], rank 1): collapse SEVERE: …`."""
    score = each["score"]
    return f"{each['run']} ({score['name']} {interval(score)}, rank {each['rank']}): {'; '.join(each['reasons'])}"


def none_passes(sweep: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """Why no run of a sweep may be promoted, in one line: the reasons of the first, and how many there are."""
    more = f"; and {len(runs) - 3} more" if len(runs) > 3 else ""
    return f"no ranked run of {sweep} passes: {'; '.join(map(run_and_reasons, runs[:3]))}{more}"
