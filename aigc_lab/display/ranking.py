"""The ranking of trials: one table for each signature, and below it what its numbers mean."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Group as Stack
from rich.console import RenderableType

from aigc_lab.display import beside_likelihood
from aigc_lab.display import pairs as against
from aigc_lab.display.meaning import Meaning
from aigc_lab.display.rows_table import Column, Folded, RowsTable
from aigc_lab.display.terminal import Text, heading, unwrapped
from aigc_lab.display.wording import (
    Row,
    Spread,
    assignments,
    counted,
    duration,
    omitted,
    pool_value,
    ranked_score,
    spread,
    state_text,
    verdict_counts,
    whole,
)
from aigc_lab.registry.marks import NOT_CONFIRMED, VIOLATES
from aigc_lab.registry.pairs import Pair, pairs_by_group
from aigc_lab.statistics.wording import ARROW, floor_text, number

if TYPE_CHECKING:
    from aigc_lab.registry.ranking import Comparison, Group


def compare_table(comparison: "Comparison") -> RenderableType:
    """The ranking: one table for each signature with its leading rows one against another, and the rows without a
    score in the last.
    """
    if not comparison.rows:
        return Text(nothing(comparison))
    several = several_sweeps(comparison.rows)
    tables: list[RenderableType] = []
    compared = shown_pairs(comparison)
    for group, rows in sections(comparison):
        tables.append(_group_table(rows, several, *((group.name, group.better) if group else ("score", ""))))
        if group:
            tables += map(Text, explanations(rows))
            tables.append(Folded(f"signature: {group.signature}"))
            tables += _against(compared[group])
    return Stack(*tables, *map(Text, notes(comparison)))


def nothing(comparison: "Comparison") -> str:
    """What is said of a comparison without rows."""
    if comparison.filtered:
        return f"no trial matches --where: {counted(comparison.filtered, 'trial')} left out"
    return "no trials yet"


def notes(comparison: "Comparison") -> list[str]:
    """What holds of all tables of a comparison: how signatures differ, and what is not shown."""
    several = (comparison.note, left_out(comparison), pooled(comparison))
    return [*filter(None, (*several, omitted(len(comparison.rows), comparison.total)))]


def pooled(comparison: "Comparison") -> str:
    """Which rows pool variants of one system, and how these are told apart; "" where none does."""
    if not comparison.variants:
        return ""
    told = "; ".join(
        f"{system} by {', '.join(keys)} (--where 'system = {system}' --by {keys[0]})"
        for system, keys in comparison.variants.items()
    )
    return f"a row pools all variants of its system, and these differ: {told}; --by trial tells each apart"


def left_out(comparison: "Comparison") -> str:
    """How many trials a condition leaves out, and whether the claims that are made of the others allow for that."""
    if not comparison.filtered:
        return ""
    chosen = ", chosen by how their runs ended, which no p-value allows for" if comparison.by_outcome else ""
    return f"--where leaves {counted(comparison.filtered, 'trial')} out{chosen}"


def several_sweeps(rows: Sequence[Row]) -> bool:
    """Whether rows have to name their sweeps."""
    return len({sweep for row in rows for sweep in row.get("sweeps", [row["sweep"]])}) > 1


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
    if meaning.beside:
        lines = [*meaning.beside, beside_likelihood.EXPLANATION]
        parts += [heading(beside_likelihood.TITLE), *map(Text, lines)]
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
    return RowsTable(columns(rows, several, name, better), rows, title="" if several else str(rows[0]["sweep"]))


def columns(rows: Sequence[Row], several: bool, name: str, better: str) -> list[Column]:
    """The columns of a section, in their order, for any table."""
    first = _pool_columns(rows, several) if "by" in rows[0] else _trial_columns(several)
    return [*first, *_score_columns(rows, name, better), *_outcome_columns(rows)]


# Columns move to the lines below in this order until the first line fits, those of one number together. Rank, trial and
# score stay where they are.
_DETAIL, _SWEEP, _TIME, _SEEDS, _FLOOR, _SYSTEM, _OBJECTIVES = range(1, 8)


def _trial_columns(several: bool) -> list[Column]:
    return [
        Column("rank", rank_text, right=True),
        *([Column("sweep", lambda row: row["sweep"], yields=_SWEEP)] if several else []),
        Column("trial", lambda row: str(row["trial"]), right=True),
        Column("system", lambda row: row["system"], yields=_SYSTEM),
        Column("configuration", _configuration, yields=_DETAIL, label=""),
    ]


def _pool_columns(rows: Sequence[Row], several: bool) -> list[Column]:
    """The value that the trials of a row share, what they are, and what else they share."""
    by = rows[0]["by"]

    def sweeps(row: Row) -> str:
        return row["sweep"] or counted(len(row["sweeps"]), "sweep")

    def others(row: Row) -> list[str]:
        return [assignments({name: value}) for name, value in row["config"].items() if name != by]

    return [
        Column("rank", rank_text, right=True),
        Column(by, pool_value),
        *([Column("sweep", sweeps, yields=_SWEEP)] if several and by != "sweep" else []),
        Column("trials", lambda row: str(row["trials"]), True, _SEEDS),
        *([Column("system", lambda row: row["system"] or "several", yields=_SYSTEM)] if by != "system" else []),
        Column("configuration", others, yields=_DETAIL, label=""),
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
        *(Column(each, partial(_objective, each), True, _OBJECTIVES) for each in further_objectives(rows, name)),
    ]


def further_objectives(rows: Sequence[Row], name: str) -> list[str]:
    """The objectives of the rows' sweeps that are not the score `name`."""
    return [each for each in dict.fromkeys(each for row in rows for each in row.get("objectives", {})) if each != name]


def _objective(name: str, row: Row) -> str:
    value = row.get("objectives", {}).get(name)
    return "" if value is None else number(value)


def _outcome_columns(rows: Sequence[Row]) -> list[Column]:
    """Seeds, time, and where all is not well or was judged, states and verdicts."""

    def state(row: Row) -> str:
        return "" if row["score"] is None else state_text(row)

    ended_otherwise = any(state_text(row) != "FINISHED" for row in _with_score(rows))
    judged = [kind for kind in ("collapse", "stability") if any(kind in row["verdicts"] for row in rows)]
    return [
        Column("seeds", lambda row: f"{row['seeds']}{fresh_mark(row)}", True, _SEEDS),
        Column("time", lambda row: duration(row["seconds"]), True, _TIME),
        *([Column("state", state, yields=_DETAIL)] if ended_otherwise else []),
        *([Column("front", _front, yields=_DETAIL)] if any("front" in row for row in rows) else []),
        *(Column(kind, partial(_verdicts_of, kind), yields=_DETAIL) for kind in judged),
    ]


def _front(row: Row) -> str:
    """Whether a row is on the Pareto front of its sweep's objectives."""
    return "yes" if row.get("front") else ""


def _verdicts_of(kind: str, row: Row) -> str:
    return verdict_counts(row["verdicts"].get(kind, {}))


# The symbols beside a rank, and what they mean.
_SYMBOLS = {
    "!": "UNMEASURABLE, SEVERE or TOTAL: a score says little of such samples; promote passes them over",
    "?": "not confirmed: one seed, or the best of several trials, ahead of confirmed values; it may be luck",
    "×": "violates a constraint of its sweep (objective.subject_to): ranked after those that do not",
    "^": "no claim is made of it: an adaptive sampler chose its trials, or some were pruned: they are no random draw",
    "~": "leaders within noise: by their seeds no test finds these rows worse than the first of them",
}


def _symbol(mark: str) -> str:
    if mark.startswith(VIOLATES):
        return "×"
    return "?" if mark == NOT_CONFIRMED else "!"


def rank_text(row: Row) -> str:
    """`1`, or of a row that has marks `1 !`."""
    symbols = sorted(_symbols(row))
    return "" if row["rank"] is None else " ".join([str(row["rank"]), *symbols])


def fresh_mark(row: Row) -> str:
    """What stands behind the number of seeds: * where the search did not choose by them, ** where nothing did."""
    return "" if not row["confirmed"] else "**" if row["role"] == "report" else "*"


def _symbols(row: Row) -> set[str]:
    marks = {_symbol(mark) for mark in row["marks"]}
    return marks | ({"^"} if row.get("adaptive") else set()) | ({"~"} if row.get("leaders") else set())


def caption(rows: Sequence[Row], signature: str) -> str:
    """What the numbers mean: what stands beside a value, and how the score was computed."""
    lines = explanations(rows)
    return "\n".join([*lines, f"signature: {signature}"] if signature else lines)


# What stands in the column of the score, as `wording.ranked_score` writes it.
_SPREADS: dict[Spread, str] = {
    "SAMPLING": "one run ± its sampling error (95 %)",
    "RANGE": "median (lowest–highest of its {unit}s)",
    "INTERVAL": "median [its interval of at least 95 % over the {unit}s]",
}


def explanations(rows: Sequence[Row]) -> list[str]:
    """The lines of the caption but that of the signature."""
    lines = []
    scored = _with_score(rows)
    if spreads := {spread(row) for row in scored} - {None}:
        units = {row.get("unit", "seed") for row in scored if spread(row) in ("RANGE", "INTERVAL")}
        unit = "seeds or trial" if len(units) > 1 else next(iter(units), "seed")
        shown = ", ".join(text.format(unit=unit) for kind, text in _SPREADS.items() if kind in spreads)
        lines.append(f"{scored[0]['score']['name']}: {shown}")
        if "trial" in units:
            seeds = "; where there is one trial, its seeds" if len(units) > 1 else ""
            lines.append(f"the values of a row are its trials, each the median over its seeds{seeds}")
    if any(row["score"]["floor"] is not None for row in scored):
        sd = any(row["score"]["floor_sd"] is not None for row in scored)
        lines.append(f"floor: what real samples score{' ± one standard deviation' if sd else ''}")
    alone, won = _fresh_first(rows), any(fresh_mark(row) == "**" for row in rows)
    if won:
        lines.append(f"** winner of the confirmation, on seeds that chose nothing{'; ranked first' if alone else ''}")
    if any(fresh_mark(row) == "*" for row in rows):
        first = "" if not alone else "; ranked next" if won else "; ranked first"
        lines.append(f"* confirmed on fresh seeds{first}, for a value that won the search flatters")
    if any(row["score"]["reference"] is not None for row in scored):
        lines.append("ranked by the reference split; shown is the value on the holdout, which chooses nothing")
    lines += _steering_lines(rows, scored[0]["score"]["name"] if scored else "")
    symbols = {symbol for row in rows if row["rank"] is not None for symbol in _symbols(row)}
    return lines + _endings(rows) + [f"{symbol} {meaning}" for symbol, meaning in _SYMBOLS.items() if symbol in symbols]


def _steering_lines(rows: Sequence[Row], name: str) -> list[str]:
    """What the columns of a sweep with several objectives say, of which `name` is ranked."""
    fronted = [row for row in rows if "front" in row]
    if not fronted:
        return []
    further = further_objectives(rows, name)
    lines = [f"{', '.join(further)}: median over its seeds on the reference split"] if further else []
    held = "; confirmed ones are held against confirmed ones alone" if any(row["confirmed"] for row in fronted) else ""
    better = "no other trial is as good in all objectives and better in one, by medians on the reference split"
    return [*lines, f"front: {better}{held}"]


def _fresh_first(rows: Sequence[Row]) -> bool:
    """Whether the rows with fresh seeds rank before all others: not those that violate a constraint, nor of several
    sweeps.
    """
    marks = [len(fresh_mark(row)) for row in rows if row["rank"] is not None]
    return not several_sweeps(rows) and marks == sorted(marks, reverse=True)


def _endings(rows: Sequence[Row]) -> list[str]:
    """How runs without a score count: numbers that were not finite as the worst, any other failure not at all."""
    lines, left_out = [], Counter[str]()
    failed = sum(row.get("nan_failures", 0) for row in rows)
    if any("DIVERGED" in row["states"] for row in rows):
        own = f" ({failed} of them FAILED by NaN or infinity of their own)" if failed else ""
        diverged = sum(row["states"].get("DIVERGED", 0) for row in rows)
        lines.append(f"DIVERGED: {counted(diverged, 'run')}{own} counted as the worst of all values")
    for row in rows:
        left_out.update({state: row["states"].get(state, 0) for state in _LEFT_OUT})
    if told := ", ".join(f"{count} {state}" for state, count in left_out.items() if count):
        lines.append(f"left out: {told} (not by NaN or infinity of their own)")
    return lines


_LEFT_OUT = ("PRUNED", "FAILED", "KILLED")


def _with_score(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["score"] is not None]


def _group_key(score: Row) -> tuple[str, str, str]:
    return score["name"], score["better"], score["signature"]
