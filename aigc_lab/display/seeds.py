"""Tables of verdicts: of runs, and of configurations over their seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group as Stack
from rich.console import RenderableType

from aigc_lab.display.terminal import Text, cell, plain_table
from aigc_lab.display.wording import Row, assignments
from aigc_lab.host import visible
from aigc_lab.statistics.wording import number

_LEGEND = (
    "collapsed, unstable: how many of the runs that are decided, and the share of such runs that this allows "
    "(95 %, Wilson; undecided ones may be either). A claim needs 10 seeds, screening 5.\n"
    "fails at step: when half of the runs have failed (Kaplan and Meier); pruned runs are left out.\n"
    "sd: over the seeds, with its 95 % interval for normal values."
)
_CONFIRMED = "\n* fresh seeds alone: those that the search chose by would flatter."


def verdicts_table(rows: Sequence[Row]) -> RenderableType:
    """One line a verdict that was judged again: the run, the kind, the verdict now and before, and why."""
    table = plain_table()
    for name in ("run", "kind", "verdict", "was", "why"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(cell(str(row[key] or "")) for key in ("run", "kind", "verdict", "before", "reason")))
    return table


def seeds_table(rows: Sequence[Row]) -> RenderableType:
    """One line a configuration: what its seeds say together."""
    table = plain_table()
    spread = visible.line(f"{rows[0]['objective'] if rows else 'score'}, sd")
    names = ("trial", "system", "configuration", "runs", "collapsed", "unstable", "fails at step", spread)
    for name in names:
        table.add_column(name, overflow="fold", justify="right" if name in ("trial", "runs") else "left")
    steps = any(row["steps"] is not None for row in rows)
    if steps:
        table.add_column("steps to 1.1 × best", justify="right")
    for row in rows:
        pruned = f" and {row['pruned']} pruned" if row["pruned"] else ""
        runs = f"{row['runs']}{'*' if row['confirmed'] else ''}{pruned}"
        failure = "" if row["survival"] is None else _failure_step(row["median_failure"])
        cells = [str(row["trial"]), row["system"], assignments(row["config"]), runs]
        cells += [_share(row["collapse"]), _share(row["unstable"]), failure, _spread(row["last"])]
        cells += [number(row["steps"])] if steps else []
        table.add_row(*map(cell, cells))
    confirmed = any(row["confirmed"] for row in rows)
    return Stack(table, Text(_LEGEND + (_CONFIRMED if confirmed else "")))


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


def _failure_step(step: float | None) -> str:
    return "not seen" if step is None else number(step)
