"""What the terminal shows: rich renderables made of the plain rows that the registry returns.

A number is never shown alone: its interval, n, floor and signature stand beside it. Names and ids are what the user
copies into the next command, so their columns are as wide as they are; configurations wrap instead. What a name holds
is shown and never obeyed: consoles read no markup, `cell` writes control characters out, and the console does so with
whatever is left.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.console import Group as Stack
from rich.segment import Segment
from rich.table import Table
from rich.text import Text as RichText

from aigc_lab.host import visible
from aigc_lab.registry.marks import NOT_CONFIRMED

if TYPE_CHECKING:
    from aigc_lab.registry.ranking import Comparison, Group

Row = Mapping[str, Any]

ARROW = {"lower": "↓", "higher": "↑"}


def console(*, stderr: bool = False) -> Console:
    """For a terminal, as wide as it is; for a pipe, as wide as needed, so that every row is one line."""
    stream = visible.unguarded(sys.stderr if stderr else sys.stdout)
    piped = not stream.isatty() and "COLUMNS" not in os.environ
    width = 10_000 if piped else None
    return _Console(file=stream, stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


class _Console(Console):
    """One that writes control characters out, except its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible.text(segment.text), segment.style)


class Text(RichText):
    """Rich's text, in which control characters are written out; line ends stay."""

    def __init__(self, text: str = "", *style: Any, **options: Any) -> None:
        super().__init__(visible.text(text), *style, **options)

    def append(self, text: RichText | str, style: Any = None) -> Self:
        super().append(visible.text(text) if isinstance(text, str) else text, style)
        return self


def cell(value: str) -> Text:
    """A name or a value of a table, in one line."""
    return Text(visible.line(value))


def _width(value: str) -> int:
    return cell(value).cell_len


def duration(seconds: float) -> str:
    """`48 s`, `3.5 min`, `2.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def compare_table(comparison: "Comparison") -> RenderableType:
    """The ranking: one table for each signature, and the rows without a score in the last."""
    if not comparison.rows:
        return Text("no trials yet")
    several = len({row["sweep"] for row in comparison.rows}) > 1
    tables: list[RenderableType] = []
    for group, rows in sections(comparison):
        tables.append(_ranking(rows, several, *((group.name, group.better) if group else ("score", ""))))
        if group:
            # The caption stands below the table and not in it, where it would wrap at the table's width.
            tables.append(Text(caption(rows, group.signature)))
    if comparison.note:
        tables.append(Text(comparison.note))
    if left_out := more(len(comparison.rows), comparison.total):
        tables.append(Text(left_out))
    return Stack(*tables)


def more(shown: int, total: int) -> str:
    """What to say of the rows that a limit kept back; "" when there are none."""
    return f"… and {total - shown:,} more; --limit 0 shows all" if total > shown else ""


def runs_table(rows: Sequence[Row], total: int | None = None) -> RenderableType:
    """One line a run, with the score that its sweep optimises; there are `total` of them."""
    if not rows:
        return Text("no runs yet")
    table = plain_table()
    table.add_column("run", no_wrap=True, min_width=max(_width(row["run"]) for row in rows))
    for name in ("system", "state", "score"):
        table.add_column(name, overflow="fold")
    table.add_column("seconds", justify="right")
    for row in rows:
        objective = next((score for score in row["scores"] if score["name"] == row["objective"]), None)
        shown = "" if objective is None else f"{objective['name']} {interval(objective)}"
        table.add_row(*map(cell, (row["run"], row["system"], row["state"], shown, number(row["seconds"]))))
    left_out = more(len(rows), len(rows) if total is None else total)
    return Stack(table, Text(left_out)) if left_out else table


def show_page(row: Row) -> RenderableType:
    """Everything about one run."""
    facts = {
        "run": row["run"],
        "system": row["system"],
        "state": row["state"] + (f": {row['reason']}" if row["reason"] else ""),
        "role": row["role"],
        "configuration": assignments(row["config"]) or "as written",
        "seconds": number(row["seconds"]),
        "mark": f"! collapse {row['doubt']}" if row["doubt"] else "",
        "MLflow run": row["mlflow_run_id"] or "",
        "promoted": ", ".join(
            f"{version['model']} version {version['version']}" + "".join(f" @{alias}" for alias in version["aliases"])
            for version in row["promotions"]
        ),
    }
    parts: list[RenderableType] = [_facts(facts)]
    for title, scores in (("last checkpoint", row["scores"]), ("selected checkpoint", row["scores_selected"])):
        if scores:
            parts += [_heading(f"scores of the {title}"), _scores(scores)]
    result = next((file["step"] for file in row["checkpoints"] if file["kind"] == "last"), None)
    for kind, story in _stories(row["verdicts"], result).items():
        parts += [_heading(kind), *story]
    if row["progress"]:
        parts += [_heading("scores on the way"), _progress(row["progress"])]
    if row["scalars"]:
        parts += [_heading("training scalars, last"), _facts({k: number(v) for k, v in row["scalars"].items()})]
    if row["attempts"]:
        parts += [_heading("attempts"), _attempts(row["attempts"])]
    if row["environment"]:
        parts += [_heading("environment"), _facts({k: _value(v) for k, v in row["environment"].items()})]
    files = {f"{file['kind']} (step {file['step']})": file["path"] for file in row["checkpoints"]}
    # Of the pictures on the way, the last stands for all.
    files |= {file["name"].replace("samples/", "samples at step "): file["path"] for file in _whole_artifacts(row)}
    if files:
        parts += [_heading("files"), _facts(files)]
    return Stack(*parts)


# What is judged, by the heading that tells of it.
TOLD = {
    "collapse": "collapse",
    "collapse_raw": "collapse of the last weights, without their moving average",
    "stability": "stability",
}


def _stories(found: Sequence[Row], result: int | None = None) -> dict[str, list[RenderableType]]:
    """What was judged of a run, told: the last verdict (on samples, up to the step of the result), and how it came to
    that.
    """
    told: dict[str, list[RenderableType]] = {}
    for kind, heading in TOLD.items():
        rows = [row for row in found if row["kind"] == kind]
        rows = [row for row in rows if kind != "collapse" or result is None or row["step"] <= result]
        if not rows:
            continue
        last = rows[-1]
        whole = {**last["evidence"], **{key: last[key] for key in ("verdict", "reason")}}
        told[heading] = [Text(_story(kind, whole))]
        changes = [row for before, row in zip([None, *rows], rows, strict=False) if _missing(before) != _missing(row)]
        if kind == "collapse" and len(changes) > 1:
            history = [f"step {row['step']}: {row['verdict']}{_lacking(row)}" for row in changes]
            told[heading].append(Text("; ".join(history)))
        told[heading].append(Text(last["signature"], style="dim"))
    return told


def _story(kind: str, whole: Row) -> str:
    from aigc_lab.verdicts import wording

    try:
        return wording.of_stability(whole) if kind == "stability" else wording.of_collapse(whole)
    except (KeyError, TypeError, ValueError, AttributeError):  # evidence that another version wrote, or another hand
        return f"{whole['verdict']}: {whole['reason']}"


def _missing(row: Row | None) -> tuple[str, ...] | None:
    """What a verdict says, as far as it may change: itself, and the bins that are missing."""
    if row is None:
        return None
    bins = row["evidence"].get("bins", [])
    return (row["verdict"], *(each["name"] for each in bins if each["state"] == "missing"))


def _lacking(row: Row) -> str:
    names = (_missing(row) or ())[1:]
    return f" ({', '.join(names[:8])}{' …' if len(names) > 8 else ''} missing)" if names else ""


def models_table(rows: Sequence[Row]) -> RenderableType:
    """One line a version, the newest of each model first, with its aliases and the score of its run."""
    if not rows:
        return Text("no promoted models yet; aigc-lab promote SWEEP makes one")
    table = plain_table()
    table.add_column("model", no_wrap=True, min_width=max(_width(row["model"]) for row in rows))
    table.add_column("version", justify="right")
    table.add_column("aliases", overflow="fold")
    table.add_column("system", overflow="fold")
    table.add_column("run", no_wrap=True, min_width=max(_width(row["run"]) for row in rows))
    for name in ("weights", "score", "promoted"):
        table.add_column(name, overflow="fold")
    for row in rows:
        cells = [row["model"], str(row["version"]), ", ".join(row["aliases"]), row["system"], row["run"]]
        table.add_row(*map(cell, [*cells, row["checkpoint"], _promoted_score(row), row["created_at"][:10]]))
    return table


def promotion_page(row: Row, uses: Sequence[str]) -> RenderableType:
    """What a promotion came to, and the commands that use the model."""
    name, alias, before = row["model"], row["alias"], row["before"]
    facts = {
        "model": f"{name} version {row['version']}" + ("" if row["created"] else ": these weights were it before"),
        "alias": "" if alias is None else f"{alias} {_moved(before, row['version'])}",
        "run": row["run"] + (f" ({row['chosen']})" if row["chosen"] else ""),
        "weights": f"{row['checkpoint']}, sha256 {row['sha256'][:16]}…",
        "forced": row["reason"] or "",
    }
    if row["score"] is not None:
        floor = floor_of(row["score"])
        facts["score"] = f"{_promoted_score(row)}, n {row['score']['n']}" + (f", floor {floor}" if floor else "")
        facts["signature"] = row["score"]["signature"]
    return Stack(_facts(facts), Text("Next:"), *(Text(f"  {line}") for line in uses))


def names_table(rows: Sequence[Row]) -> RenderableType:
    """Names and what they are."""
    return _facts({row["name"]: row["description"] for row in rows}) if rows else Text("none")


def catalogue_page(rows: Sequence[Row]) -> RenderableType:
    """What `catalogue` found: each plugin with what it says of itself, and its knobs as a table."""
    parts: list[RenderableType] = []
    for row in rows:
        table = plain_table()
        for name in ("knob", "default", "values", "meaning"):
            table.add_column(name, overflow="fold", no_wrap=name in ("knob", "default"))
        for knob in row["knobs"]:
            default = "null" if knob["default"] is None else str(knob["default"])
            table.add_row(*map(cell, (knob["name"], default, knob["values"], knob["description"])))
        about = [Text(" ".join(row["about"].split()))] if row["about"] else []
        title = Text(f"{row['name']}  ", "bold").append(row["description"], "not bold")
        parts += [title, *about, *([table] if row["knobs"] else []), Text("")]
    return Stack(*parts) if parts else Text("none")


# ---- the ranking in parts: what the terminal and the pages share


def sections(comparison: "Comparison") -> "list[tuple[Group | None, list[Row]]]":
    """The rows that belong in one table, with what they are ranked by; those without a score follow the only group,
    and stand alone, under None, where there are several groups or none.
    """
    unscored: list[Row] = [row for row in comparison.rows if row["score"] is None]
    parts: list[tuple[Group | None, list[Row]]] = []
    for group in comparison.groups:
        key = (group.name, group.better, group.signature)
        rows: list[Row] = [row for row in comparison.rows if row["score"] is not None and _key(row["score"]) == key]
        if rows:  # of what was left out there may be whole groups
            parts.append((group, rows + (unscored if len(comparison.groups) == 1 else [])))
    if unscored and len(comparison.groups) != 1:
        parts.append((None, unscored))
    return parts


def scores_table(rows: Sequence[Row]) -> RenderableType:
    """One line a score; below, how each was computed: once for those that share it. Where a Fréchet distance has too
    few samples to be trusted, the kernel distance leads, and it is said why.
    """
    few = {row["name"]: (n, d) for row in rows if (n := _fewest(row)) < 4 * (d := _dimensions(row))}
    if few:
        rows = sorted(rows, key=lambda row: not _is_kid(row["name"]))
    table = plain_table()
    for name in ("score", "value", "n", "floor"):
        table.add_column(name, justify="right" if name in ("n", "floor") else "left")
    signatures: dict[str, list[str]] = {}
    for row in rows:
        cells = (f"{row['name']} {ARROW[row['better']]}", interval(row), _whole(row["n"]), floor_of(row))
        table.add_row(*map(cell, cells))
        signatures.setdefault(row["signature"], []).append(row["name"])
    told = [Text(f"{' '.join(names)}: {signature}", style="dim") for signature, names in signatures.items()]
    said = ["[low, high]: 95 % interval; floor: what real samples score against real ones ± one standard deviation"]
    fewer = sorted({row["floor_n"] for row in rows if row.get("floor_n") is not None})
    if fewer:
        at = " and ".join(f"{n:,}" for n in fewer)
        said.append(
            f"(value at n): the reference serves both sides of a floor, which leaves {at} samples; compare such a "
            "floor with the value in brackets, which is of as many"
        )
    unbiased = next((row["name"] for row in rows if _is_kid(row["name"])), "--metrics kid")
    said += [
        f"{name}: {n:,} samples are fewer than four for each of {dimensions:,} dimensions, so most of it may be bias: "
        f"compare it at the same n alone; {unbiased} has none"
        for name, (n, dimensions) in few.items()
    ]
    return Stack(table, *map(cell, said), *told)


def floor_of(row: Row) -> str:
    """What real samples score, with the spread of a draw, and where it is of fewer samples what as few score."""
    said, sd = number(row["floor"]), row.get("floor_sd")
    said += f" ± {number(sd)}" if said and sd is not None else ""
    if row.get("at_floor") is not None:
        said += f" ({number(row['at_floor'])} at {row['floor_n']:,})"
    return said


def _is_kid(name: str) -> bool:
    return name == "kid" or name.startswith("kid_")


def _fewest(row: Row) -> int:
    """How many samples the smaller one of the two sets has."""
    found = re.search(r"\|ref:\w+:(\d+)", row["signature"])
    n: int = row["n"]
    return min(n, int(found[1])) if found else n


def _dimensions(row: Row) -> int:
    """Of the features that a Fréchet distance was computed from; 0 for other scores."""
    found = re.search(r"\|d:(\d+)\|", row["signature"])
    return int(found[1]) if found else 0


def cache_table(rows: Sequence[Row]) -> RenderableType:
    """What is kept, the largest first."""
    if not rows:
        return Text("the cache is empty")
    table = plain_table()
    for name in ("kind", "what", "samples", "size", "age", "file"):
        table.add_column(name, overflow="fold", justify="right" if name in ("samples", "size") else "left")
    for row in rows:
        size = f"{row['bytes'] / 1e6:.1f} MB"
        cells = (row["kind"], row["what"], _whole(row["samples"]), size, duration(row["age"]), row["file"])
        table.add_row(*map(cell, cells))
    return Stack(table, Text(f"{len(rows)} files, {sum(row['bytes'] for row in rows) / 1e6:.1f} MB"))


def checks_table(rows: Sequence[Row]) -> RenderableType:
    """What was looked at, what was found, and below each finding its remedy."""
    table = plain_table()
    for name in ("", "check", "found"):
        table.add_column(name, overflow="fold")
    for row in rows:
        style = {"ok": "green", "warning": "yellow", "problem": "bold red"}[row["state"]]
        found = Text(row["found"]) + (Text(f"\n→ {row['remedy']}", style="bold") if row["remedy"] else Text())
        table.add_row(Text(row["state"], style=style), Text(row["name"]), found)
    return table


# ---- pieces of the ranking


def _ranking(rows: Sequence[Row], several: bool, name: str, better: str) -> Table:
    table = plain_table()
    if not several:
        table.title, table.title_justify = cell(rows[0]["sweep"]), "left"
    table.add_column("rank", justify="right")
    if several:
        table.add_column("sweep", no_wrap=True, min_width=max(_width(row["sweep"]) for row in rows))
    table.add_column("trial", justify="right")
    table.add_column("system", overflow="fold")
    table.add_column("configuration", overflow="fold")
    # Numbers and their intervals stay in one piece; configurations wrap.
    table.add_column(cell(f"{name} {ARROW.get(better, '')}".strip()), no_wrap=True)
    chosen = any(row["score"] is not None and row["score"]["reference"] is not None for row in rows)
    for heading in (*(["reference"] if chosen else []), "n", "floor", "seeds"):
        table.add_column(heading, justify="right")
    table.add_column("time", justify="right")
    # Where all is well there is nothing to say; what has no score says in its place how it ended.
    told = any(row["score"] is not None and state_text(row) != "FINISHED" for row in rows)
    if told:
        table.add_column("state", overflow="fold")
    judged = [kind for kind in ("collapse", "stability") if any(kind in row["verdicts"] for row in rows)]
    for kind in judged:
        table.add_column(kind, overflow="fold")
    for row in rows:
        score = row["score"]
        cells = [ranked(row), *([row["sweep"]] if several else []), str(row["trial"]), row["system"]]
        shown = state_text(row) if score is None else interval(score, unbounded(row))
        cells += [assignments(row["config"]), shown]
        cells += ([""] if score is None else [number(score["reference"])]) if chosen else []
        cells += ["", ""] if score is None else [_whole(score["n"]), floor_of(score)]
        cells += [f"{row['seeds']}{'*' if row['confirmed'] else ''}", duration(row["seconds"])]
        cells += [state_text(row) if score is not None else ""] if told else []
        cells += [verdicts(row["verdicts"].get(kind, {})) for kind in judged]
        table.add_row(*map(cell, cells))
    return table


def verdicts_table(rows: Sequence[Row]) -> RenderableType:
    """One line a run: what is said of it, and why."""
    table = plain_table()
    for name in ("run", "kind", "verdict", "was", "why"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(cell(str(row[key] or "")) for key in ("run", "kind", "verdict", "before", "reason")))
    return table


def seeds_table(rows: Sequence[Row]) -> RenderableType:
    """One line a configuration: what its seeds say together."""
    table = plain_table()
    objective = rows[0]["objective"] if rows else "score"
    for name in (
        "trial",
        "system",
        "configuration",
        "runs",
        "collapsed",
        "unstable",
        "fails at step",
        visible.line(f"{objective}, sd"),
    ):
        table.add_column(name, overflow="fold", justify="right" if name in ("trial", "runs") else "left")
    steps = any(row["steps"] is not None for row in rows)
    if steps:
        table.add_column("steps to 1.1 × best", justify="right")
    for row in rows:
        pruned = f" and {row['pruned']} pruned" if row["pruned"] else ""
        runs = f"{row['runs']}{'*' if row['confirmed'] else ''}{pruned}"
        failing = "" if row["survival"] is None else _whole_step(row["median_failure"])
        cells = [str(row["trial"]), row["system"], assignments(row["config"]), runs]
        cells += [_chance(row["collapse"]), _chance(row["unstable"]), failing, _spread(row["last"])]
        cells += [number(row["steps"])] if steps else []
        table.add_row(*map(cell, cells))
    told = (
        "collapsed, unstable: how many of the runs that are decided, and the share of such runs that this allows "
        "(95 %, Wilson; undecided ones may be either). A claim needs 10 seeds, screening 5.\n"
        "fails at step: when half of the runs have failed (Kaplan and Meier); pruned runs are left out.\n"
        "sd: over the seeds, with its 95 % interval for normal values."
    )
    if any(row["confirmed"] for row in rows):
        told += "\n* fresh seeds alone: those that the search chose by would flatter."
    return Stack(table, Text(told, style="dim"))


def _chance(chance: Mapping[str, Any] | None) -> str:
    if chance is None:
        return ""
    undecided = f", {chance['undecided']} undecided" if chance["undecided"] else ""
    return f"{chance['wrong']}/{chance['decided']} [{chance['low']:.0%}, {chance['high']:.0%}]{undecided}"


def _spread(spread: Mapping[str, Any] | None) -> str:
    if spread is None:
        return ""
    return f"{number(spread['median'])}, {number(spread['sd'])} [{number(spread['low'])}, {number(spread['high'])}]"


def _whole_step(step: float | None) -> str:
    return "not seen" if step is None else number(step)


def verdicts(counts: Mapping[str, int]) -> str:
    """`NONE`, or of runs that do not agree `2 NONE, 1 SEVERE`."""
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


# What stands beside a rank, and what it says.
_MARKS = {
    "!": "UNMEASURABLE, SEVERE or TOTAL: a score says little of such samples; promote needs --force --reason",
    "?": "not confirmed: one seed, or the best of several trials, ahead of confirmed values; it may be luck",
}


def _symbol(mark: str) -> str:
    return "?" if mark == NOT_CONFIRMED else "!"


def ranked(row: Row) -> str:
    """`1`, or of a row that has marks `1 !`."""
    symbols = sorted({_symbol(mark) for mark in row["marks"]})
    return "" if row["rank"] is None else " ".join([str(row["rank"]), *symbols])


def caption(rows: Sequence[Row], signature: str) -> str:
    """What the numbers mean: how sure the intervals are, and how the score was computed."""
    confidences = {row["seeds"] + row["states"].get("DIVERGED", 0): row["score"]["confidence"] for row in _scored(rows)}
    shown = ", ".join(
        f"{confidence:.3g} ({k} seeds)".replace("(1 seeds)", "(one run: sampling error alone)")
        for k, confidence in sorted(confidences.items())
        if confidence is not None
    )
    lines = [f"[low, high] is an interval of the median over the seeds; confidence {shown}"] if shown else []
    lines += (
        [
            "* confirmed on fresh seeds"
            + ("" if len({row["sweep"] for row in rows}) > 1 else "; ranked first")
            + ", for a value that won the search flatters"
        ]
        if any(row["confirmed"] for row in rows)
        else []
    )
    if any(row["score"]["reference"] is not None for row in _scored(rows)):
        lines += ["ranked by the reference split; shown is the value on the holdout, which chooses nothing"]
    marks = {mark for row in rows if row["rank"] is not None for mark in row["marks"]}
    lines += [f"{symbol} {_MARKS[symbol]}" for symbol in _MARKS if any(_symbol(mark) == symbol for mark in marks)]
    lines += [f"signature: {signature}"] if signature else []
    return "\n".join(lines)


def _scored(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["score"] is not None]


def _key(score: Row) -> tuple[str, str, str]:
    return score["name"], score["better"], score["signature"]


def unbounded(row: Row) -> bool:
    """Whether a missing bound means that a diverged seed made it infinite."""
    return row["score"]["confidence"] is not None and bool(row["seeds"] + row["states"].get("DIVERGED", 0) > 1)


def state_text(row: Row) -> str:
    """A trial that finished in spite of seeds that did not says so."""
    others = {state: count for state, count in row["states"].items() if state not in ("FINISHED", row["state"])}
    return ", ".join([row["state"], *(f"{count} {state}" for state, count in others.items())])


# ---- pieces of a page


def plain_table(**options: Any) -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), **options)


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _whole_artifacts(row: Row) -> list[Row]:
    """The files of a run; of those over the steps (`samples/000250`), where there is no final one, the newest."""
    names = {file["name"] for file in row["artifacts"]}
    newest = {file["name"].partition("/")[0]: file for file in row["artifacts"] if "/" in file["name"]}
    return [file for file in row["artifacts"] if "/" not in file["name"]] + [
        file for name, file in newest.items() if name not in names
    ]


def _facts(facts: Mapping[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=max(map(_width, facts), default=0))
    table.add_column(overflow="fold", min_width=_width(facts.get("run", "")))
    for name, fact in facts.items():
        if fact:
            table.add_row(cell(name), cell(fact))
    return table


def _scores(scores: Sequence[Row]) -> Table:
    table = plain_table()
    for name in ("score", "value", "n", "floor", "signature"):
        table.add_column(name, overflow="fold", justify="right" if name in ("n", "floor") else "left")
    for score in scores:
        name = f"{score['name']} {ARROW[score['better']]}"
        cells = (name, interval(score), _whole(score["n"]), floor_of(score), score["signature"])
        table.add_row(*map(cell, cells))
    return table


def _progress(entries: Sequence[Row]) -> Table:
    """One line a step, one column a score: the history is read downwards."""
    names = list(dict.fromkeys(entry["name"] for entry in entries))
    steps: dict[int, dict[str, str]] = {}
    for entry in entries:
        steps.setdefault(entry["step"], {})[entry["name"]] = number(entry["value"])
    table = plain_table()
    for name in ("step", *names):
        table.add_column(cell(name), justify="right", overflow="fold")
    for step, values in steps.items():
        table.add_row(str(step), *(values.get(name, "") for name in names))
    return table


def _attempts(attempts: Sequence[Row]) -> Table:
    """One line an attempt; where it went on from and which process it was, where any of them knows."""
    shown = [_attempt(attempt) for attempt in attempts]
    table = plain_table()
    names = [name for name in shown[0] if name in ("attempt", "state") or any(cells[name] for cells in shown)]
    for name in names:
        table.add_column(name, overflow="fold")
    for cells in shown:
        table.add_row(*(cell(cells[name]) for name in names))
    return table


def _attempt(attempt: Row) -> dict[str, str]:
    beat = attempt["heartbeat_at"] if attempt["state"] == "RUNNING" else None
    return {
        "attempt": str(attempt["number"]),
        "state": attempt["state"],
        "from step": _whole(attempt["from_step"] or None),
        "step": _whole(attempt["step"]),
        "process": "" if attempt["pid"] is None else f"{attempt['pid']} on {attempt['host']}",
        "started": _moment(attempt["started_at"]),
        "last heard": _moment(beat),
        "ended": _moment(attempt["ended_at"]),
        "reason": attempt["reason"] or "",
    }


def _moment(text: str | None) -> str:
    """A time in UTC, to the second."""
    return (text or "")[:19].replace("T", " ")


# ---- pieces about models


def _promoted_score(row: Row) -> str:
    return "" if row["score"] is None else f"{row['score']['name']} {interval(row['score'])}"


def _moved(before: int | None, now: int) -> str:
    return f"→ version {now}" + (f" (was {before})" if before not in (None, now) else "")


# ---- values


def number(value: float | None) -> str:
    """Three digits, or all of an integer part that is longer: `12.3`, `1235`."""
    return "" if value is None else f"{value:.0f}" if 100 <= abs(value) < 1e7 else f"{value:.3g}"


def _whole(value: int | None) -> str:
    return "" if value is None else str(value)


def interval(score: Row, unbounded: bool = False) -> str:
    """`12.3 [10.1, 14.9]`; a bound that a diverged seed took away is shown as infinite."""
    if score["value"] is None:
        return "not finite"
    low, high = score["low"], score["high"]
    if low is None and high is None:
        return number(score["value"])
    missing = ("-∞", "∞") if unbounded else ("?", "?")
    bounds = (shown or gap for shown, gap in zip((number(low), number(high)), missing, strict=True))
    return f"{number(score['value'])} [{', '.join(bounds)}]"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def assignments(config: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in config.items())
