"""Tables of promoted models, plugins, scores, cached files and checks, as rich renderables of plain rows."""

import re
from collections.abc import Container, Mapping, Sequence

from rich.console import Group as Stack
from rich.console import RenderableType

from aigc_lab.display.rows_table import Column, RowsTable
from aigc_lab.display.selection import passed_over_lines
from aigc_lab.display.terminal import BAD, GOOD, WARNING, Text, cell, facts_table, plain_table
from aigc_lab.display.wording import Row, duration, whole
from aigc_lab.statistics.wording import floor_text, interval, measured, number, with_arrow

# ---- promoted models


def models_table(rows: Sequence[Row]) -> RenderableType:
    """One line a version, the newest of each model first, with its aliases, the score of its run and its verdicts;
    below, why a version was forced, what was passed over for it, and the way of each alias from version to version.
    """
    if not rows:
        return Text("no promoted models yet; aigc-lab promote SWEEP makes one")
    return Stack(RowsTable(_MODEL_COLUMNS, rows), *map(Text, [*_grounds(rows), *_alias_ways(rows)]))


def _promoted_score(row: Row) -> str:
    return "" if row["score"] is None else f"{row['score']['name']} {interval(row['score'])}"


def _verdicts(row: Row) -> str:
    return ", ".join(row["verdicts"][kind] for kind in _WEIGHED if kind in row["verdicts"])


_MODEL_COLUMNS = (
    Column("model", lambda row: row["model"]),
    Column("version", lambda row: str(row["version"]), right=True),
    Column("aliases", lambda row: ", ".join(row["aliases"])),
    Column("system", lambda row: row["system"], yields=2),
    Column("run", lambda row: row["run"], yields=4),
    Column("weights", lambda row: row["checkpoint"], yields=1),
    Column("score", _promoted_score, label=""),
    Column("verdicts", _verdicts, yields=3),
    Column("promoted", lambda row: row["created_at"][:10], yields=1),
)
# Kinds of verdicts that a promotion looks at.
_WEIGHED = ("collapse", "stability")


def _grounds(rows: Sequence[Row]) -> list[str]:
    """`digits 2: promoted all the same: for a talk`, and what was passed over for a version."""
    lines = []
    for row in rows:
        reason = [f"promoted all the same: {row['reason']}"] if row["reason"] else []
        lines += [f"{row['model']} {row['version']}: {why}" for why in [*reason, *passed_over_lines(row["selection"])]]
    return lines


def _alias_ways(rows: Sequence[Row]) -> list[str]:
    """`digits@champion: 1 → 2 → 1 (2026-11-30, anna@lab)` of each alias that was moved, with who moved it last."""
    moves: dict[str, list[tuple[str, int, str]]] = {}
    for row in rows:
        for event in row["alias_history"]:
            name = f"{row['model']}@{event['alias']}"
            moves.setdefault(name, []).append((event["at"], row["version"], event["by"]))
    ways = []
    for name, events in sorted(moves.items()):
        ordered = sorted(events)
        at, _, by = ordered[-1]
        if len(ordered) > 1:
            ways.append(f"{name}: {' → '.join(str(version) for _, version, _ in ordered)} ({at[:10]}, {by})")
    return ways


def promotion_page(row: Row, uses: Sequence[str]) -> RenderableType:
    """What a promotion came to, and the commands that use the model."""
    name, alias, before = row["model"], row["alias"], row["before"]
    facts = {
        "model": f"{name} version {row['version']}" + ("" if row["created"] else " (promoted before)"),
        "alias": "" if alias is None else f"{alias} {_alias_move(before, row['version'])}",
        "run": row["run"] + (f" ({row['chosen']})" if row["chosen"] else ""),
        "weights": f"{row['checkpoint']}, sha256 {row['sha256'][:16]}…",
        "verdicts": ", ".join(f"{kind} {row['verdicts'][kind]}" for kind in _WEIGHED if kind in row["verdicts"]),
        "forced": row["reason"] or "",
        "despite": "; ".join(row["objections"]),
    }
    facts |= _replaced(row)
    if row["score"] is not None:
        floor = floor_text(row["score"])
        facts["score"] = f"{_promoted_score(row)}, n {row['score']['n']}" + (f", floor {floor}" if floor else "")
        facts["signature"] = row["score"]["signature"]
    passed = map(Text, passed_over_lines(row["selection"]))
    return Stack(facts_table(facts), *passed, Text("Next:"), *(Text(f"  {line}") for line in uses))


def _replaced(row: Row) -> dict[str, str]:
    """What the version replaces behind its alias, and whether it is better."""
    old = row["replaced"]
    if old is None or old["judgement"] == "the same":
        return {}
    score, name = old["score"], f"version {old['version']}"
    said = "" if score is None else f": {_promoted_score(old)}, n {score['n']}"
    facts = {"replaces": f"{name}, run {old['run']}{said}", "compared": _comparison(row, old)}
    if old["judgement"] == "unlike":
        facts["its signature"] = score["signature"]
    return facts


def _comparison(row: Row, old: Row) -> str:
    name, score = f"version {old['version']}", row["score"]
    if old["judgement"] == "unlike":
        return f"not with {name}: its score has another signature, and unlike scores say nothing of each other"
    if old["why"]:
        return f"not with {name}: {old['why']}"
    if old["difference"] is None:
        missing = score is None or old["score"] is None
        why = "one of the two has no score" if missing else "a value is not finite"
        judged = f"{old['judgement']} than {name}" if old["judgement"] in ("better", "worse") else "cannot be told"
        return f"{judged}: {why}"
    by = f"{number(abs(old['difference']))} " + ("lower" if old["difference"] < 0 else "higher")
    if old["low"] is None:
        return f"cannot be told: {by} than {name}, and an interval is missing"
    ends = f"the difference is {number(old['difference'])} [{number(old['low'])}, {number(old['high'])}]"
    if old["judgement"] == "cannot be told":
        return f"cannot be told: {by} than {name}, which may be chance: {ends}"
    return f"{old['judgement']} than {name}: {score['name']} is {by}; {ends}, {score['better']} is better"


def _alias_move(before: int | None, now: int) -> str:
    return f"→ version {now}" + (f" (was {before})" if before not in (None, now) else "")


# ---- plugins


def names_table(rows: Sequence[Row]) -> RenderableType:
    """One line a name with its description."""
    return facts_table({row["name"]: row["description"] for row in rows}) if rows else Text("none")


def catalogue_page(rows: Sequence[Row]) -> RenderableType:
    """Each plugin with its description and a table of its knobs, of the rows of `list_plugins`."""
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


# ---- scores


def scores_table(rows: Sequence[Row], describing: Container[str] = ()) -> RenderableType:
    """One line a score; below, the signatures, each once. Where a Fréchet distance has too few samples to be trusted,
    the kernel distance leads, and a note says why. Scores of users that only describe are named in `describing`.
    """
    few = {row["name"]: (n, d) for row in rows if (n := _fewest(row)) < 4 * (d := _dimensions(row))}
    if few:
        rows = sorted(rows, key=lambda row: not _is_kid(row["name"]))
    table = plain_table()
    for name in ("score", "value", "n", "floor"):
        table.add_column(name, justify="right" if name in ("n", "floor") else "left")
    signatures: dict[str, list[str]] = {}
    for row in rows:
        name = with_arrow(row["name"], row["better"], describing)
        cells = (name, measured(row), whole(row["n"]), floor_text(row))
        table.add_row(*map(cell, cells))
        signatures.setdefault(row["signature"], []).append(row["name"])
    lines = [Text(f"{' '.join(names)}: {signature}") for signature, names in signatures.items()]
    return Stack(table, *map(cell, _notes(rows, few)), *lines)


def _notes(rows: Sequence[Row], few: Mapping[str, tuple[int, int]]) -> list[str]:
    """What the columns mean, and of the Fréchet distances in `few` (name -> n and dimensions) why not to trust them."""
    notes = ["[low, high]: 95 % interval; floor: what real samples score against real ones ± one standard deviation"]
    floor_sizes = sorted({row["floor_n"] for row in rows if row.get("floor_n") is not None})
    if floor_sizes:
        at = " and ".join(f"{n:,}" for n in floor_sizes)
        notes.append(
            f"(value at n): the reference serves both sides of a floor, which leaves {at} samples; compare such a "
            "floor with the value in brackets, which is of as many"
        )
    return notes + [
        f"{name}: {n:,} samples are fewer than four for each of {dimensions:,} dimensions, so most of it may be bias: "
        f"compare it at the same n alone{_unbiased(name, rows)}"
        for name, (n, dimensions) in few.items()
    ]


def _unbiased(name: str, rows: Sequence[Row]) -> str:
    """Words on the distance without bias, in place of this one; "" for sentences, of which there is none."""
    if name.startswith("embedding_fd"):
        return ""
    return f"; {next((row['name'] for row in rows if _is_kid(row['name'])), '--metrics kid')} has none"


def _is_kid(name: str) -> bool:
    return name == "kid" or name.startswith("kid_")


def _fewest(row: Row) -> int:
    """The size of the smaller one of the two sets of samples."""
    size = re.search(r"\|ref:\w+:(\d+)", row["signature"])
    n: int = row["n"]
    return min(n, int(size[1])) if size else n


def _dimensions(row: Row) -> int:
    """The dimensions of the features that a Fréchet distance was computed from; 0 for other scores."""
    dimensions = re.search(r"\|d:(\d+)\|", row["signature"])
    return int(dimensions[1]) if dimensions else 0


# ---- the machine


def cache_table(rows: Sequence[Row]) -> RenderableType:
    """One line a file of the cache, in the order of the rows, and their sum."""
    if not rows:
        return Text("the cache is empty")
    table = plain_table()
    for name in ("kind", "what", "samples", "size", "age", "file"):
        table.add_column(name, overflow="fold", justify="right" if name in ("samples", "size") else "left")
    for row in rows:
        size = f"{row['bytes'] / 1e6:.1f} MB"
        cells = (row["kind"], row["what"], whole(row["samples"]), size, duration(row["age"]), row["file"])
        table.add_row(*map(cell, cells))
    return Stack(table, Text(f"{len(rows)} files, {sum(row['bytes'] for row in rows) / 1e6:.1f} MB"))


def checks_table(rows: Sequence[Row]) -> RenderableType:
    """One line a check of `doctor`: its state, its name and what it found, and below that the remedy."""
    table = plain_table()
    for name in ("", "check", "found"):
        table.add_column(name, overflow="fold")
    for row in rows:
        style = {"ok": GOOD, "warning": WARNING, "problem": BAD}[row["state"]]
        remedy = Text(f"\n→ {row['remedy']}", style="bold") if row["remedy"] else Text()
        table.add_row(Text(row["state"], style=style), Text(row["name"]), Text(row["found"]) + remedy)
    return table
