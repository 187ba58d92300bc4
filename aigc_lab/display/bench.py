"""Tables of `aigc-lab bench`: each figure with its reference, its spread and the number of its rounds."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType

from aigc_lab.display.rows_table import Column, RowsTable
from aigc_lab.display.terminal import Text
from aigc_lab.display.wording import Row, counted, duration

# A ratio whose quartiles meet those of before has not changed, as far as it was measured.
_SAME = "as before"


def result_page(result: Mapping[str, Any], busy: str) -> RenderableType:
    """The machine, a row for each case, what was not measured and why."""
    parts: list[RenderableType] = [Text(machine_line(result))]
    if result["rows"]:
        parts += [RowsTable(_COLUMNS, result["rows"]), Text(_LEGEND)]
    for kind, verb in (("unmeasured", "not measured"), ("failed", "failed")):
        for each in result[kind]:
            what = (
                each["benchmark"] if each["case"] in ("", each["benchmark"]) else f"{each['benchmark']}, {each['case']}"
            )
            parts.append(Text(f"{verb}: {what}: {each['reason']}"))
    if busy:
        parts.append(Text(busy))
    return Group(*parts)


def history_page(results: Sequence[Mapping[str, Any]]) -> RenderableType:
    """A table for each result, the newest first."""
    if not results:
        return Text("no results yet; aigc-lab bench measures this machine")
    parts: list[RenderableType] = []
    for result in results:
        parts += [Text(f"{result['id']}  {machine_line(result)}"), RowsTable(_COLUMNS, result["rows"]), Text()]
    return Group(*parts, Text(_LEGEND))


def machine_line(result: Mapping[str, Any]) -> str:
    """`2026-12-01 14:02, AMD EPYC, 2 cores, 1 thread, cpu, load 3.1, torch 2.15.0, commit 0123abcd, quick`."""
    machine = result["machine"]
    loads = [each for each in (machine["load"], machine.get("load_after")) if each is not None]
    commit = machine.get("git_commit", "")[:10]
    changed = " with changes" if machine.get("git_dirty") else ""
    facts = (
        result["at"][:16].replace("T", " "),
        machine["cpu"],
        counted(machine["cores"], "core"),
        counted(result["threads"], "thread"),
        machine["device"],
        f"load {' to '.join(f'{each:.1f}' for each in loads)}" if loads else "",
        f"torch {machine['versions'].get('torch', 'unknown')}",
        f"commit {commit}{changed}" if commit else "",
        result["size"] if result["size"] != "full" else "",
        f"took {duration(sum(result['seconds'].values()))}" if result["seconds"] else "",
        "interrupted" if result["interrupted"] else "",
    )
    return ", ".join(fact for fact in facts if fact)


def ratio_text(row: Row, ratio: Mapping[str, float]) -> str:
    """`1.35 × (1.31–1.40)` as fast, or for a cost `0.021 % (0.0200–0.0240)` of the reference's time."""
    share = row["says"] == "cost"
    middle, low, high = (_three((100 if share else 1) * ratio[key]) for key in ("median", "low", "high"))
    return f"{middle} {'%' if share else '×'} ({low}–{high})"


def before_text(row: Row) -> str:
    """The ratio of the last time, and by how much it changed where the quartiles do not meet."""
    before = row["before"]
    if before is None:
        return ""
    now, then = row["ratio"], before["ratio"]
    meet = now["low"] <= then["high"] and then["low"] <= now["high"]
    change = _SAME if meet else f"{now['median'] / then['median'] - 1:+.0%}"
    return f"{ratio_text(row, then)} on {before['at'][:10]}: {change}"


def _rate(row: Row, key: str) -> str:
    return _three(row[key]["median"])


def _three(value: float) -> str:
    """Three digits, zeros included, or all of an integer part that is longer.

    >>> _three(1.0), _three(0.02345), _three(99.96), _three(1234567.0)
    ('1.00', '0.0234', '100', '1,234,567')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


_COLUMNS = (
    Column("measured", lambda row: row["benchmark"]),
    Column("what", lambda row: row["case"]),
    Column("ratio", lambda row: ratio_text(row, row["ratio"])),
    Column("beside", lambda row: row["reference"], yields=1),
    Column("ours / s", lambda row: _rate(row, "per_second"), right=True, yields=3),
    Column("theirs / s", lambda row: _rate(row, "reference_per_second"), right=True, yields=3),
    Column("of", lambda row: row["unit"], yields=3),
    Column("rounds", lambda row: str(row["rounds"]), right=True, yields=2),
    Column("time", lambda row: {"cpu": "CPU", "wall": "clock"}[row["clock"]], yields=2),
    Column("last time", before_text, yields=4),
)
_LEGEND = (
    "×: how many times as fast as what stands beside it; %: which part of its time it takes. Medians of the rounds, "
    "in parentheses their quartiles; both are timed in turns in one process."
)
