"""Text of stored verdicts, for a reader."""

from collections.abc import Mapping, Sequence
from typing import Any

from aigc_lab.verdicts.states import DRAWN, MISSING, PRESENT, VARIED

# Largest number of bins that are listed.
_MOST = 12


def of_collapse(verdict: Mapping[str, Any]) -> str:
    """Verdict on a collapse and the bins behind it as text, missing ones first."""
    lines = [f"{verdict['verdict']}: {verdict['reason']}"]
    rows = [row for row in verdict["bins"] if row["state"] != PRESENT or (row["diversity_high"] or 1) < 1]
    rows.sort(key=lambda row: row["state"] != MISSING)
    if rows:
        lines.append("  share of the samples that look real [bounds of all bins together, 95 %] of the real share:")
    for row in rows[:_MOST]:
        diversity = "" if row["diversity"] is None else f", diversity {row['diversity']:.2f} of real"
        lines.append(
            f"  {row['name']}: {row['state']}, {row['generated']:.1%} [{row['low']:.1%}, {row['high']:.1%}] of "
            f"{row['real']:.1%}{diversity}"
        )
        lines += [f"    real ones: {'; '.join(row['examples'][:3])}"] if row.get("examples") else []
    if len(rows) > _MOST:
        lines.append(f"  and {len(rows) - _MOST} more")
    return "\n".join([*lines, *_asked(verdict.get("asked") or [])])


def _asked(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines about the classes that a conditional system was asked for, of which something is to be said; the least
    accurate first.
    """
    faults = [row for row in rows if (row["state"], row["variety"]) != (DRAWN, VARIED)]
    faults.sort(key=lambda row: row["drawn"])
    title = "  asked for: share of its samples that are sorted into it [bounds of all classes, 95 %]:"
    lines = [title] if faults else []
    for row in faults[:_MOST]:
        instead = "" if row["mostly"] == row["name"] else f", {row['mostly_share']:.0%} into {row['mostly']}"
        diversity = "" if row["diversity"] is None else f", diversity {row['diversity']:.2f} of real"
        lines.append(
            f"  {row['name']}: {row['state']}, {row['drawn']:.0%} [{row['low']:.0%}, {row['high']:.0%}] of {row['n']} "
            f"({row['real']:.0%} of real ones){instead}{diversity}"
        )
    return [*lines, f"  and {len(faults) - _MOST} more"] if len(faults) > _MOST else lines


def of_stability(verdict: Mapping[str, Any]) -> str:
    """Verdict on stability and its evidence as text."""
    lines = [f"{verdict['verdict']}: {verdict['reason']}"]
    if verdict["alarm_step"] is not None and "alarm" not in verdict["reason"]:
        lines.append(f"  alarm at step {verdict['alarm_step']}")
    for finding in verdict["evidence"]:
        where = "" if finding["step"] is None else f" (step {finding['step']})"
        number = "" if finding["value"] is None else f": {finding['value']:.4g}"
        lines.append(f"  {finding['what']}{number}{where}")
    return "\n".join(lines)
