"""Verdicts in words, from what is stored of them."""

from collections.abc import Mapping
from typing import Any

# So many bins are told of.
_MOST = 12


def of_collapse(found: Mapping[str, Any]) -> str:
    """The verdict and the bins behind it, for a reader; those that are missing first."""
    lines = [f"{found['verdict']}: {found['reason']}"]
    rows = [row for row in found["bins"] if row["state"] != "present" or (row["diversity_high"] or 1) < 1]
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


def of_stability(found: Mapping[str, Any]) -> str:
    """The verdict and what it rests on, for a reader."""
    lines = [f"{found['verdict']}: {found['reason']}"]
    if found["alarm_step"] is not None and "alarm" not in found["reason"]:
        lines.append(f"  alarm at step {found['alarm_step']}")
    for finding in found["evidence"]:
        where = "" if finding["step"] is None else f" (step {finding['step']})"
        number = "" if finding["value"] is None else f": {finding['value']:.4g}"
        lines.append(f"  {finding['what']}{number}{where}")
    return "\n".join(lines)
