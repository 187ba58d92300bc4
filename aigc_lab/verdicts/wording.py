"""Text of stored verdicts, for a reader."""

from collections.abc import Mapping
from typing import Any

# Largest number of bins that are listed.
_MOST = 12


def of_collapse(verdict: Mapping[str, Any]) -> str:
    """Verdict on a collapse and the bins behind it as text, missing ones first."""
    lines = [f"{verdict['verdict']}: {verdict['reason']}"]
    rows = [row for row in verdict["bins"] if row["state"] != "present" or (row["diversity_high"] or 1) < 1]
    rows.sort(key=lambda row: row["state"] != "missing")
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
    return "\n".join(lines)


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
