"""The ranking of trials: one table for each signature, and below it what its numbers mean."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Group as Stack
from rich.console import RenderableType

from aigc_lab.display import pairs as against
from aigc_lab.display.meaning import Meaning
from aigc_lab.display.rows_table import Column, Folded, RowsTable
from aigc_lab.display.terminal import Text, heading, unwrapped
from aigc_lab.display.wording import (
    Row,
    Spread,
    assignments,
    duration,
    omitted,
    ranked_score,
    spread,
    state_text,
    verdict_counts,
    whole,
)
from aigc_lab.registry.marks import NOT_CONFIRMED
from aigc_lab.registry.pairs import Pair, pairs_by_group
from aigc_lab.statistics.wording import ARROW, floor_text, number

if TYPE_CHECKING:
    from aigc_lab.registry.ranking import Comparison, Group


def compare_table(comparison: "Comparison") -> RenderableType:
    """The ranking: one table for each signature with its leading rows one against another, and the rows without a
    score in the last.
    """
    if not comparison.rows:
        return Text("no trials yet")
    several = len({row["sweep"] for row in comparison.rows}) > 1
    tables: list[RenderableType] = []
    compared = shown_pairs(comparison)
    for group, rows in sections(comparison):
        tables.append(_group_table(rows, several, *((group.name, group.better) if group else ("score", ""))))
        if group:
            tables += map(Text, explanations(rows))
            tables.append(Folded(f"signature: {group.signature}"))
            tables += _against(compared[group])
    if comparison.note:
        tables.append(Text(comparison.note))
    if rest := omitted(len(comparison.rows), comparison.total):
        tables.append(Text(rest))
    return Stack(*tables)


def shown_pairs(comparison: "Comparison") -> "dict[Group | None, list[Pair]]":
    """The pairs that are shown below the table of each group: none where every row has one seed."""
    return {group: against.shown(found) for group, found in pairs_by_group(comparison).items()}


def _against(compared: Sequence[Pair]) -> list[RenderableType]:
    """The pairs of a group as a table, with what its columns mean below it; nothing for none."""
    if not compared:
        return []
    table = RowsTable(against.columns(compared), [pair.as_dict() for pair in compared])
    return [heading(against.TITLE), table, *map(Text, against.explanations(compared))]


def comparison_page(comparison: "Comparison", meaning: Meaning) -> RenderableType:
    """The ranking, and below it what it means. The command is in one line, to be copied."""
    parts = [compare_table(comparison)]
    if meaning.sentences:
        parts += [heading("What it means"), *map(Text, meaning.sentences)]
    if meaning.command:
        parts.append(unwrapped(Text(f"{meaning.purpose}: {meaning.command}")))
    return Stack(*parts)


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


def _group_table(rows: Sequence[Row], several: bool, name: str, better: str) -> RowsTable:
    """The rows of one section, ranked by the score `name`; of `several` sweeps, each row names its own."""
    return RowsTable(columns(rows, several, name, better), rows, title="" if several else rows[0]["sweep"])


def columns(rows: Sequence[Row], several: bool, name: str, better: str) -> list[Column]:
    """The columns of a section, in their order, for any table."""
    return [*_trial_columns(several), *_score_columns(rows, name, better), *_outcome_columns(rows)]


# Columns move to the lines below in this order until the first line fits, those of one number together. Rank, trial and
# score stay where they are.
_DETAIL, _SWEEP, _TIME, _SEEDS, _FLOOR, _SYSTEM = range(1, 7)


def _trial_columns(several: bool) -> list[Column]:
    return [
        Column("rank", rank_text, right=True),
        *([Column("sweep", lambda row: row["sweep"], yields=_SWEEP)] if several else []),
        Column("trial", lambda row: str(row["trial"]), right=True),
        Column("system", lambda row: row["system"], yields=_SYSTEM),
        Column("configuration", _configuration, yields=_DETAIL, label=""),
    ]


def _configuration(row: Row) -> list[str]:
    return [assignments({name: value}) for name, value in row["config"].items()]


def _score_columns(rows: Sequence[Row], name: str, better: str) -> list[Column]:
    """The score and what it is to be read with. What has no score says in its place how it ended."""

    def column(heading: str, text: Callable[[Row], str], yields: int) -> Column:
        return Column(heading, lambda row: "" if row["score"] is None else text(row["score"]), True, yields)

    def value(row: Row) -> str:
        return state_text(row) if row["score"] is None else ranked_score(row)

    two_splits = any(row["score"]["reference"] is not None for row in _with_score(rows))
    return [
        Column(f"{name} {ARROW.get(better, '')}".strip(), value),
        *([column("reference", lambda score: number(score["reference"]), _DETAIL)] if two_splits else []),
        column("n", lambda score: whole(score["n"]), _DETAIL),
        column("floor", floor_text, _FLOOR),
    ]


def _outcome_columns(rows: Sequence[Row]) -> list[Column]:
    """Seeds, time, and where all is not well or was judged, states and verdicts."""

    def state(row: Row) -> str:
        return "" if row["score"] is None else state_text(row)

    ended_otherwise = any(state_text(row) != "FINISHED" for row in _with_score(rows))
    judged = [kind for kind in ("collapse", "stability") if any(kind in row["verdicts"] for row in rows)]
    return [
        Column("seeds", lambda row: f"{row['seeds']}{'*' if row['confirmed'] else ''}", True, _SEEDS),
        Column("time", lambda row: duration(row["seconds"]), True, _TIME),
        *([Column("state", state, yields=_DETAIL)] if ended_otherwise else []),
        *(Column(kind, partial(_verdicts_of, kind), yields=_DETAIL) for kind in judged),
    ]


def _verdicts_of(kind: str, row: Row) -> str:
    return verdict_counts(row["verdicts"].get(kind, {}))


# The symbols beside a rank, and what they mean.
_SYMBOLS = {
    "!": "UNMEASURABLE, SEVERE or TOTAL: a score says little of such samples; promote needs --force --reason",
    "?": "not confirmed: one seed, or the best of several trials, ahead of confirmed values; it may be luck",
    "~": "leaders within noise: by their seeds no test tells these rows from the first of them",
}


def _symbols(row: Row) -> list[str]:
    symbols = {"?" if mark == NOT_CONFIRMED else "!" for mark in row["marks"]}
    return sorted(symbols | ({"~"} if row.get("leaders") else set()))


def rank_text(row: Row) -> str:
    """`1`, or of a row that has marks `1 !`, of one of several that lead `1 ~`."""
    symbols = _symbols(row)
    return "" if row["rank"] is None else " ".join([str(row["rank"]), *symbols])


def caption(rows: Sequence[Row], signature: str) -> str:
    """What the numbers mean: what stands beside a value, and how the score was computed."""
    lines = explanations(rows)
    return "\n".join([*lines, f"signature: {signature}"] if signature else lines)


# What stands in the column of the score, as `wording.ranked_score` writes it.
_SPREADS: dict[Spread, str] = {
    "SAMPLING": "one run ± its sampling error (95 %)",
    "RANGE": "median (lowest–highest of its seeds)",
    "INTERVAL": "median [its 95 % interval over the seeds]",
}


def explanations(rows: Sequence[Row]) -> list[str]:
    """The lines of the caption but that of the signature."""
    lines = []
    scored = _with_score(rows)
    if spreads := {spread(row) for row in scored} - {None}:
        shown = ", ".join(text for kind, text in _SPREADS.items() if kind in spreads)
        lines.append(f"{scored[0]['score']['name']}: {shown}")
    if any(row["score"]["floor"] is not None for row in scored):
        sd = any(row["score"]["floor_sd"] is not None for row in scored)
        lines.append(f"floor: what real samples score{' ± one standard deviation' if sd else ''}")
    if any(row["confirmed"] for row in rows):
        first = "" if len({row["sweep"] for row in rows}) > 1 else "; ranked first"
        lines.append(f"* confirmed on fresh seeds{first}, for a value that won the search flatters")
    if any(row["score"]["reference"] is not None for row in scored):
        lines.append("ranked by the reference split; shown is the value on the holdout, which chooses nothing")
    symbols = {symbol for row in rows if row["rank"] is not None for symbol in _symbols(row)}
    return lines + [f"{symbol} {meaning}" for symbol, meaning in _SYMBOLS.items() if symbol in symbols]


def _with_score(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["score"] is not None]


def _group_key(score: Row) -> tuple[str, str, str]:
    return score["name"], score["better"], score["signature"]
