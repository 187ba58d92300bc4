"""The ranking of trials: one table for each signature, and below it what its numbers mean."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table

from aigc_lab.display.terminal import Text, cell, cell_width, plain_table
from aigc_lab.display.wording import (
    ARROW,
    Row,
    assignments,
    duration,
    floor_text,
    interval,
    number,
    omitted,
    state_text,
    unbounded,
    verdict_counts,
    whole,
)
from aigc_lab.registry.marks import NOT_CONFIRMED

if TYPE_CHECKING:
    from aigc_lab.registry.ranking import Comparison, Group


def compare_table(comparison: "Comparison") -> RenderableType:
    """The ranking: one table for each signature, and the rows without a score in the last."""
    if not comparison.rows:
        return Text("no trials yet")
    several = len({row["sweep"] for row in comparison.rows}) > 1
    tables: list[RenderableType] = []
    for group, rows in sections(comparison):
        tables.append(_group_table(rows, several, *((group.name, group.better) if group else ("score", ""))))
        if group:
            # The caption stands below the table and not in it, where it would wrap at the table's width.
            tables.append(Text(caption(rows, group.signature)))
    if comparison.note:
        tables.append(Text(comparison.note))
    if rest := omitted(len(comparison.rows), comparison.total):
        tables.append(Text(rest))
    return Stack(*tables)


def sections(comparison: "Comparison") -> "list[tuple[Group | None, list[Row]]]":
    """The rows of each table with the group that they are ranked in. Rows without a score follow the only group; where
    there are several groups or none, they are a section of their own, under None.
    """
    unscored: list[Row] = [row for row in comparison.rows if row["score"] is None]
    parts: list[tuple[Group | None, list[Row]]] = []
    for group in comparison.groups:
        key = (group.name, group.better, group.signature)
        rows = [row for row in _with_score(comparison.rows) if _group_key(row["score"]) == key]
        if rows:  # of what was left out there may be whole groups
            parts.append((group, rows + (unscored if len(comparison.groups) == 1 else [])))
    if unscored and len(comparison.groups) != 1:
        parts.append((None, unscored))
    return parts


class _Column(NamedTuple):
    """A column of the ranking: its heading, how rich sets it, and the text of a row."""

    heading: str | Text
    options: dict[str, Any]
    text: Callable[[Row], str]


_RIGHT: dict[str, Any] = {"justify": "right"}
_FOLD: dict[str, Any] = {"overflow": "fold"}


def _group_table(rows: Sequence[Row], several: bool, name: str, better: str) -> Table:
    """The rows of one section, ranked by the score `name`; of `several` sweeps, each row names its own."""
    table = plain_table()
    if not several:
        table.title, table.title_justify = cell(rows[0]["sweep"]), "left"
    columns = [*_trial_columns(rows, several), *_score_columns(rows, name, better), *_outcome_columns(rows)]
    for column in columns:
        table.add_column(column.heading, **column.options)
    for row in rows:
        table.add_row(*(cell(column.text(row)) for column in columns))
    return table


def _trial_columns(rows: Sequence[Row], several: bool) -> list[_Column]:
    as_wide_as_sweeps = {"no_wrap": True, "min_width": max(cell_width(row["sweep"]) for row in rows)}
    return [
        _Column("rank", _RIGHT, rank_text),
        *([_Column("sweep", as_wide_as_sweeps, lambda row: row["sweep"])] if several else []),
        _Column("trial", _RIGHT, lambda row: str(row["trial"])),
        _Column("system", _FOLD, lambda row: row["system"]),
        _Column("configuration", _FOLD, lambda row: assignments(row["config"])),
    ]


def _score_columns(rows: Sequence[Row], name: str, better: str) -> list[_Column]:
    """The score and what it is to be read with. What has no score says in its place how it ended."""

    def column(heading: str, text: Callable[[Row], str]) -> _Column:
        return _Column(heading, _RIGHT, lambda row: "" if row["score"] is None else text(row["score"]))

    def value(row: Row) -> str:
        return state_text(row) if row["score"] is None else interval(row["score"], unbounded(row))

    two_splits = any(row["score"]["reference"] is not None for row in _with_score(rows))
    return [
        # Numbers and their intervals stay in one piece; configurations wrap.
        _Column(cell(f"{name} {ARROW.get(better, '')}".strip()), {"no_wrap": True}, value),
        *([column("reference", lambda score: number(score["reference"]))] if two_splits else []),
        column("n", lambda score: whole(score["n"])),
        column("floor", floor_text),
    ]


def _outcome_columns(rows: Sequence[Row]) -> list[_Column]:
    """Seeds, time, and where all is not well or was judged, states and verdicts."""

    def state(row: Row) -> str:
        return "" if row["score"] is None else state_text(row)

    ended_otherwise = any(state_text(row) != "FINISHED" for row in _with_score(rows))
    judged = [kind for kind in ("collapse", "stability") if any(kind in row["verdicts"] for row in rows)]
    return [
        _Column("seeds", _RIGHT, lambda row: f"{row['seeds']}{'*' if row['confirmed'] else ''}"),
        _Column("time", _RIGHT, lambda row: duration(row["seconds"])),
        *([_Column("state", _FOLD, state)] if ended_otherwise else []),
        *(_Column(kind, _FOLD, partial(_verdicts_of, kind)) for kind in judged),
    ]


def _verdicts_of(kind: str, row: Row) -> str:
    return verdict_counts(row["verdicts"].get(kind, {}))


# The symbols beside a rank, and what they mean.
_SYMBOLS = {
    "!": "UNMEASURABLE, SEVERE or TOTAL: a score says little of such samples; promote needs --force --reason",
    "?": "not confirmed: one seed, or the best of several trials, ahead of confirmed values; it may be luck",
}


def _symbol(mark: str) -> str:
    return "?" if mark == NOT_CONFIRMED else "!"


def rank_text(row: Row) -> str:
    """`1`, or of a row that has marks `1 !`."""
    symbols = sorted({_symbol(mark) for mark in row["marks"]})
    return "" if row["rank"] is None else " ".join([str(row["rank"]), *symbols])


def caption(rows: Sequence[Row], signature: str) -> str:
    """What the numbers mean: how sure the intervals are, and how the score was computed."""
    lines = []
    if confidences := _confidences(rows):
        lines.append(f"[low, high] is an interval of the median over the seeds; confidence {confidences}")
    if any(row["confirmed"] for row in rows):
        first = "" if len({row["sweep"] for row in rows}) > 1 else "; ranked first"
        lines.append(f"* confirmed on fresh seeds{first}, for a value that won the search flatters")
    if any(row["score"]["reference"] is not None for row in _with_score(rows)):
        lines.append("ranked by the reference split; shown is the value on the holdout, which chooses nothing")
    symbols = {_symbol(mark) for row in rows if row["rank"] is not None for mark in row["marks"]}
    lines += [f"{symbol} {meaning}" for symbol, meaning in _SYMBOLS.items() if symbol in symbols]
    if signature:
        lines.append(f"signature: {signature}")
    return "\n".join(lines)


def _confidences(rows: Sequence[Row]) -> str:
    """`0.75 (3 seeds), 0.95 (one run: sampling error alone)`, of the rows with a score; "" where no interval is sure of
    anything.
    """
    by_seeds = {
        row["seeds"] + row["states"].get("DIVERGED", 0): row["score"]["confidence"] for row in _with_score(rows)
    }
    return ", ".join(
        f"{confidence:.3g} ({seeds} seeds)".replace("(1 seeds)", "(one run: sampling error alone)")
        for seeds, confidence in sorted(by_seeds.items())
        if confidence is not None
    )


def _with_score(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["score"] is not None]


def _group_key(score: Row) -> tuple[str, str, str]:
    return score["name"], score["better"], score["signature"]
