"""Tables of verdicts: of runs, and of configurations over their seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group as Stack
from rich.console import RenderableType

from aigc_lab.display.rows_table import Column, RowsTable
from aigc_lab.display.terminal import Text, cell, plain_table
from aigc_lab.display.wording import Row, assignments
from aigc_lab.host import visible
from aigc_lab.statistics.wording import number

_LEGEND = (
    "collapsed, unstable: how many of the runs that are decided, and the share of such runs that this allows "
    "(95 %, Wilson; undecided ones may be either). A claim needs 10 seeds, screening 5.\n"
    "fails at step: when half of the runs have failed (Kaplan and Meier); pruned runs are left out.\n"
    "sd: over the runs of a row, with its 95 % interval for normal values."
)
_IQM = (
    "interquartile mean: without the best and the worst quarter of the runs, from 10 on, with its 95 % bootstrap "
    "interval."
)
_WITHIN = (
    "within 1.2 × best: of the trials that the random search drew those whose median is so close to the best of all, "
    "and the share that this allows (95 %, Wilson)."
)
_POOLED = (
    "Runs of one trial are alike: where a row holds several trials, its intervals are of these trials with other "
    "seeds, and those over other trials are wider."
)
_CONFIRMED = "* fresh seeds alone: those that the search chose by would flatter."


def verdicts_table(rows: Sequence[Row]) -> RenderableType:
    """One line a verdict that was judged again: the run, the kind, the verdict now and before, and why."""
    table = plain_table()
    for name in ("run", "kind", "verdict", "was", "why"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(cell(str(row[key] or "")) for key in ("run", "kind", "verdict", "before", "reason")))
    return table


def seeds_table(rows: Sequence[Row]) -> RenderableType:
    """One line a configuration, system or value of a parameter: what its runs say together. Rows of each signature
    stand together, under its name where there are several. Nothing is broken inside a word.
    """
    parts = [
        [row for row in rows if (row["objective"], row["signature"]) == key]
        for key in dict.fromkeys((row["objective"], row["signature"]) for row in rows)
    ]
    several = len({sweep for row in rows for sweep in row["sweeps"]}) > 1
    stack: list[RenderableType] = []
    for part in parts or [[]]:
        stack.append(RowsTable(_columns(part, several), part))
        if len(parts) > 1:
            stack.append(Text(f"signature: {part[0]['signature'] or 'none, no run has a score'}\n"))
    return Stack(*stack, Text(_legend(rows)))


# Columns move to the lines below in this order until the first line fits. The trial or value, the runs and those that
# collapsed stay.
_CONFIGURATION, _SEARCH, _SELECTED, _MEAN, _FAILURE, _UNSTABLE, _SCORE, _SWEEP, _SYSTEM = range(1, 10)


def _columns(rows: Sequence[Row], several: bool) -> list[Column]:
    """The columns of what any of the rows has."""
    objective = visible.line(rows[0]["objective"] if rows else "score")
    columns = [
        *_group_columns(rows, several),
        Column("runs", _runs, right=True),
        Column("collapsed", lambda row: _share(row["collapse"])),
        Column("unstable", lambda row: _share(row["unstable"]), yields=_UNSTABLE),
        Column("fails at step", _failure_step, yields=_FAILURE),
        Column(f"{objective}, sd", lambda row: _spread(row["last"]), yields=_SCORE),
    ]
    if any(row["selected"] and row["selected"] != row["last"] for row in rows):
        columns.append(Column("selected checkpoint, sd", lambda row: _spread(row["selected"]), yields=_SELECTED))
    if any(row["iqm"] for row in rows):
        columns.append(Column("interquartile mean", lambda row: _mean(row["iqm"]), yields=_MEAN))
    if any(row["within"] for row in rows):
        columns.append(Column("within 1.2 × best", lambda row: _within(row["within"]), yields=_SEARCH))
    if any(row["steps"] is not None for row in rows):
        columns.append(Column("steps to 1.1 × best", lambda row: number(row["steps"]), True, _SEARCH))
    return columns


def _group_columns(rows: Sequence[Row], several: bool) -> list[Column]:
    """What a row is about."""
    sweep = Column("sweep", lambda row: row["sweep"] or f"{len(row['sweeps'])} sweeps", yields=_SWEEP)
    system = Column("system", lambda row: row["system"] or "several", yields=_SYSTEM)
    columns = [sweep] if several else []
    if any(row["trial"] is None for row in rows):
        value = [Column("value", lambda row: assignments(row["config"]))] if any(row["config"] for row in rows) else []
        return [*columns, system, *value, Column("trials", lambda row: str(row["trials"]), right=True)]
    trial = Column("trial", lambda row: str(row["trial"]), right=True)
    return [*columns, trial, system, Column("configuration", _configuration, yields=_CONFIGURATION, label="")]


def _configuration(row: Row) -> list[str]:
    return [assignments({name: value}) for name, value in row["config"].items()]


def _legend(rows: Sequence[Row]) -> str:
    told = [_LEGEND]
    if any(row["iqm"] for row in rows):
        told.append(_IQM)
    if any(row["within"] for row in rows):
        told.append(_WITHIN)
    if any(row["trials"] > 1 for row in rows):
        told.append(_POOLED)
    if any(row["confirmed"] for row in rows):
        told.append(_CONFIRMED)
    return "\n".join(told)


def _runs(row: Row) -> str:
    pruned = f" and {row['pruned']} pruned" if row["pruned"] else ""
    return f"{row['runs']}{'*' if row['confirmed'] else ''}{pruned}"


def _share(share: Mapping[str, Any] | None) -> str:
    """`2/5 [12%, 77%], 1 undecided`: of the decided runs, those that went wrong."""
    if share is None:
        return ""
    undecided = f", {share['undecided']} undecided" if share["undecided"] else ""
    return f"{share['wrong']}/{share['decided']} [{share['low']:.0%}, {share['high']:.0%}]{undecided}"


def _spread(spread: Mapping[str, Any] | None) -> str:
    """`12.3, 1.5 [0.9, 4.3]`: the median over the seeds, and the standard deviation with its interval."""
    if spread is None:
        return ""
    return f"{number(spread['median'])}, {number(spread['sd'])} [{number(spread['low'])}, {number(spread['high'])}]"


def _mean(mean: Mapping[str, Any] | None) -> str:
    """`12.3 [11.8, 13.9]`; ∞ where seeds that failed are among those that are averaged."""
    if mean is None:
        return ""
    value, low, high = (number(mean[key]) or "∞" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _within(share: Mapping[str, Any] | None) -> str:
    return "" if share is None else f"{share['within']}/{share['of']} [{share['low']:.0%}, {share['high']:.0%}]"


def _failure_step(row: Row) -> str:
    if row["survival"] is None:
        return ""
    step = row["median_failure"]
    return "not seen" if step is None else number(step)
