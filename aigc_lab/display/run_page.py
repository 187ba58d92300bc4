"""Runs: one line for each, and a page with everything about one."""

from collections.abc import Sequence

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table

from aigc_lab.display.selection import passed_over_lines
from aigc_lab.display.terminal import Text, cell, cell_width, facts_table, heading, plain_table
from aigc_lab.display.wording import VERDICT_HEADINGS, Row, assignments, omitted, value_text, whole
from aigc_lab.statistics.wording import floor_text, interval, measured, number, with_arrow
from aigc_lab.verdicts.states import MISSING


def runs_table(rows: Sequence[Row], total: int | None = None) -> RenderableType:
    """One line a run, with the score that its sweep optimises; there are `total` of them."""
    if not rows:
        return Text("no runs yet")
    table = plain_table()
    table.add_column("run", no_wrap=True, min_width=max(cell_width(row["run"]) for row in rows))
    for name in ("system", "state", "score"):
        table.add_column(name, overflow="fold")
    table.add_column("seconds", justify="right")
    for row in rows:
        objective = next((score for score in row["scores"] if score["name"] == row["objective"]), None)
        score = "" if objective is None else f"{objective['name']} {interval(objective)}"
        table.add_row(*map(cell, (row["run"], row["system"], row["state"], score, number(row["seconds"]))))
    rest = omitted(len(rows), len(rows) if total is None else total)
    return Stack(table, Text(rest)) if rest else table


def show_page(row: Row) -> RenderableType:
    """Everything about one run."""
    parts: list[RenderableType] = [facts_table(_run_facts(row))]
    for title, scores in (("last checkpoint", row["scores"]), ("selected checkpoint", row["scores_selected"])):
        if scores:
            parts += [heading(f"scores of the {title}"), _scores_table(scores, row["describing"])]
    result = next((file["step"] for file in row["checkpoints"] if file["kind"] == "last"), None)
    for title, verdict in _verdict_parts(row["verdicts"], result).items():
        parts += [heading(title), *verdict]
    if row["progress"]:
        parts += [heading("scores on the way"), _progress_table(row["progress"])]
    if row["scalars"]:
        parts += [heading("training scalars, last"), facts_table({k: number(v) for k, v in row["scalars"].items()})]
    if row["attempts"]:
        parts += [heading("attempts"), _attempts_table(row["attempts"])]
    if row["environment"]:
        parts += [heading("environment"), facts_table({k: value_text(v) for k, v in row["environment"].items()})]
    files = {f"{file['kind']} (step {file['step']})": file["path"] for file in row["checkpoints"]}
    # Of the pictures on the way, the last stands for all.
    files |= {file["name"].replace("/", " at step "): file["path"] for file in _final_artifacts(row)}
    if files:
        parts += [heading("files"), facts_table(files)]
    return Stack(*parts)


def _run_facts(row: Row) -> dict[str, str]:
    """What a run was and how it ended; facts that there are not are ""."""
    return {
        "run": row["run"],
        "system": row["system"],
        "state": row["state"] + (f": {row['reason']}" if row["reason"] else ""),
        "role": row["role"],
        "configuration": assignments(row["config"]) or "as written",
        "seconds": number(row["seconds"]),
        "mark": f"! collapse {row['doubt']}" if row["doubt"] else "",
        "MLflow run": row["mlflow_run_id"] or "",
        "promoted": "; ".join(map(_promotion, row["promotions"])),
    }


def _promotion(version: Row) -> str:
    """`digits version 2 @champion`, with why it was forced and what was passed over for it."""
    reason = [f"all the same: {version['reason']}"] if version["reason"] else []
    name = f"{version['model']} version {version['version']}" + "".join(f" @{alias}" for alias in version["aliases"])
    return ", ".join([name, *reason, *passed_over_lines(version["selection"])])


def _verdict_parts(verdicts: Sequence[Row], result: int | None = None) -> dict[str, list[RenderableType]]:
    """Heading -> the last verdict of a kind in sentences (on samples, up to step `result`), the verdicts that led to it
    and its signature.
    """
    parts: dict[str, list[RenderableType]] = {}
    for kind, title in VERDICT_HEADINGS.items():
        rows = [row for row in verdicts if row["kind"] == kind]
        rows = [row for row in rows if kind != "collapse" or result is None or row["step"] <= result]
        if not rows:
            continue
        last = rows[-1]
        parts[title] = [
            Text(_sentences(kind, {**last["evidence"], "verdict": last["verdict"], "reason": last["reason"]}))
        ]
        if kind == "collapse" and (history := _collapse_history(rows)):
            parts[title].append(Text(history))
        parts[title].append(Text(last["signature"]))
    return parts


def _sentences(kind: str, verdict: Row) -> str:
    from aigc_lab.verdicts import wording

    try:
        return wording.of_stability(verdict) if kind == "stability" else wording.of_collapse(verdict)
    except (KeyError, TypeError, ValueError, AttributeError):  # evidence that another version wrote, or another hand
        return f"{verdict['verdict']}: {verdict['reason']}"


def _collapse_history(rows: Sequence[Row]) -> str:
    """The steps at which the verdict or its missing bins changed; "" where they never did."""
    changes: list[str] = []
    before: tuple[str, list[str]] | None = None
    for row in rows:
        bins = _missing_bins(row)
        if (row["verdict"], bins) != before:
            before = (row["verdict"], bins)
            names = f" ({', '.join(bins[:8])}{' …' if len(bins) > 8 else ''} missing)" if bins else ""
            changes.append(f"step {row['step']}: {row['verdict']}{names}")
    return "; ".join(changes) if len(changes) > 1 else ""


def _missing_bins(row: Row) -> list[str]:
    """The names of the bins that a collapse verdict says are missing."""
    return [each["name"] for each in row["evidence"].get("bins", []) if each["state"] == MISSING]


def _final_artifacts(row: Row) -> list[Row]:
    """The files of a run; of those over the steps (`samples/000250`), where there is no final one, the newest."""
    names = {file["name"] for file in row["artifacts"]}
    newest = {file["name"].partition("/")[0]: file for file in row["artifacts"] if "/" in file["name"]}
    return [file for file in row["artifacts"] if "/" not in file["name"]] + [
        file for name, file in newest.items() if name not in names
    ]


def _scores_table(scores: Sequence[Row], describing: Sequence[str]) -> Table:
    """One line a score, with its signature; users' own that only describe are named in `describing`."""
    table = plain_table()
    for name in ("score", "value", "n", "floor", "signature"):
        table.add_column(name, overflow="fold", justify="right" if name in ("n", "floor") else "left")
    for score in scores:
        name = with_arrow(score["name"], score["better"], describing)
        cells = (name, measured(score), whole(score["n"]), floor_text(score), score["signature"])
        table.add_row(*map(cell, cells))
    return table


def _progress_table(entries: Sequence[Row]) -> Table:
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


def _attempts_table(attempts: Sequence[Row]) -> Table:
    """One line an attempt; only columns in which some attempt has a value, besides its number and state."""
    lines = [_attempt_cells(attempt) for attempt in attempts]
    table = plain_table()
    names = [name for name in lines[0] if name in ("attempt", "state") or any(cells[name] for cells in lines)]
    for name in names:
        table.add_column(name, overflow="fold")
    for cells in lines:
        table.add_row(*(cell(cells[name]) for name in names))
    return table


def _attempt_cells(attempt: Row) -> dict[str, str]:
    beat = attempt["heartbeat_at"] if attempt["state"] == "RUNNING" else None
    return {
        "attempt": str(attempt["number"]),
        "state": attempt["state"],
        "from step": whole(attempt["from_step"] or None),
        "step": whole(attempt["step"]),
        "process": "" if attempt["pid"] is None else f"{attempt['pid']} on {attempt['host']}",
        "started": _to_the_second(attempt["started_at"]),
        "last heard": _to_the_second(beat),
        "ended": _to_the_second(attempt["ended_at"]),
        "reason": attempt["reason"] or "",
    }


def _to_the_second(time: str | None) -> str:
    """A time in UTC; "" for none."""
    return (time or "")[:19].replace("T", " ")
