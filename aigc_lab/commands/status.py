"""`aigc-lab status`: the progress of sweeps, the processes that run them, and the commands that come next.

An attempt that the registry records as RUNNING counts as lost if its process is gone.
"""

import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from sqlalchemy import Connection, func, select

from aigc_lab.display import terminal, wording
from aigc_lab.display.terminal import BAD, GOOD, WARNING, Text
from aigc_lab.errors import UsageError
from aigc_lab.experiment.stored import stored_experiment
from aigc_lab.host import visible
from aigc_lab.host.settings import Settings, as_typed
from aigc_lab.registry import liveness
from aigc_lab.registry.best import select_run
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.savings import Savings, savings
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Run, Sweep, Trial
from aigc_lab.statistics.wording import number
from aigc_lab.sweeps.budget import runs_of_stored

Json = dict[str, Any]

# Seconds between two pages of `--watch`.
_PAUSE = 2.0
# The most ended runs, and reasons of failures, that are shown of a sweep.
_LAST = 5
# The newest sweeps that may be promoted from, and the trials of each that are looked at: more would take long to rank.
_NEWEST, _FIRST = 5, 20


@dataclass(frozen=True)
class StatusView:
    """The state of one sweep (by id or name), or of the newest `most` sweeps (None: of all)."""

    registry: Registry
    settings: Settings
    sweep: str | None
    most: int | None = None
    home: Path | None = None

    def rows(self) -> list[Json]:
        """One row for each sweep, ready for JSON, the newest first; the row of a named sweep also has its runs and
        their failures. Raises `UsageError` for an unknown sweep.
        """
        attempts: dict[str, list[Json]] = defaultdict(list)
        workers: dict[str, list[Json]] = defaultdict(list)
        for worker in liveness.workers(self.registry):
            workers[worker["sweep"]].append(worker)
        supervisors = {row["sweep"]: row for row in liveness.supervisors(self.registry)}
        for attempt in liveness.running(self.registry):
            attempts[attempt["sweep"]].append(attempt)
        sweep = None if self.sweep is None else find_sweep(self.registry, self.sweep)
        with self.registry.read() as connection:
            rows = []
            for stored in _sweeps(connection, sweep, self.most):
                budget = _Budget.of(stored, self.settings, self.registry)
                row = _row(stored, budget, attempts[stored["sweep"]], supervisors.get(stored["sweep"]))
                row["workers"] = [_worker(worker) for worker in workers[stored["sweep"]]]
                rows.append(row | (_details(connection, row, budget, attempts[sweep]) if sweep is not None else {}))
        for row in rows[:_NEWEST]:
            if row["condition"] == "ended" and _passes(self.registry, row["sweep"]):
                row["next"].append(f"aigc-lab promote {row['sweep']}")
        return rows

    def page(self, rows: list[Json] | None = None) -> RenderableType:
        """The rows as a page for a terminal, with the next commands."""
        rows = self.rows() if rows is None else rows
        if not rows:
            return Text("no sweeps yet; aigc-lab sweep digits makes one")
        parts: list[RenderableType] = [_table(rows)]
        if self.sweep is not None:
            parts += _page(rows[0])
        elif total := self._left_out(rows):
            parts.append(Text(f"… and {total:,} more; --all shows all"))
        commands = dict.fromkeys(command for row in rows for command in row["next"])
        shown = list(commands)[: 6 if self.sweep is not None else 3]
        return Group(*parts, Text("Next:"), *(Text(f"  {as_typed(line, self.settings, self.home)}") for line in shown))

    def _left_out(self, rows: list[Json]) -> int:
        with self.registry.read() as connection:
            return (connection.scalar(select(func.count()).select_from(Sweep)) or 0) - len(rows)


def watch_sweeps(view: StatusView) -> None:
    """Shows the page every two seconds until no sweep is running, or until Ctrl-C. A terminal shows it in place; a pipe
    gets a line for each change.
    """
    console = terminal.console()
    try:
        with Live(console=console, auto_refresh=False) as live:
            before: list[str] = []
            while True:
                rows = view.rows()
                if console.is_terminal:
                    visible.guard()
                    live.update(view.page(rows), refresh=True)
                else:
                    lines = [line(row) for row in rows]
                    for changed in (text for text in lines if text not in before):
                        print(visible.line(changed), flush=True)
                    before = lines
                if not any(row["condition"] == "running" for row in rows):
                    return
                time.sleep(_PAUSE)
    except KeyboardInterrupt:
        print("no longer watching; the sweep goes on", file=sys.stderr)


def line(row: Json) -> str:
    """A sweep as one line of a log."""
    parts = [row["sweep"], row["condition"], _progress(row), _states(row), _best(row), _left(row)]
    return " · ".join(filter(None, parts))


# ---- rows from the registry


@dataclass(frozen=True)
class _Budget:
    """The runs that an experiment can still come to, its seeds and steps; None where this version cannot read the
    stored one.
    """

    runs: int | None
    seeds: int
    steps: int | None

    @classmethod
    def of(cls, row: Json, settings: Settings, registry: Registry) -> "_Budget":
        try:
            experiment = stored_experiment({**row, "id": row["sweep"]}, settings)
            file = experiment.file
            return cls(runs_of_stored(experiment, registry, row["sweep"]), file.search.seeds, file.training.steps)
        except UsageError:
            return cls(None, 1, None)


def _sweeps(connection: Connection, sweep: str | None, most: int | None) -> list[Json]:
    """The stored sweeps with the number of runs in each state, the mean seconds of a run and the best trial value."""
    columns = [Sweep.c.id.label("sweep"), Sweep.c.name, Sweep.c.command, Sweep.c.created_at]
    columns += [Sweep.c.objective, Sweep.c.better]
    query = select(*columns, Sweep.c.source, Sweep.c.experiment).order_by(Sweep.c.created_at.desc(), Sweep.c.id)
    query = query.limit(most) if sweep is None else query.where(Sweep.c.id == sweep)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    ids = [row["sweep"] for row in rows]
    states: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    counted = select(Run.c.sweep_id, Run.c.state, func.count(), func.sum(Run.c.seconds), func.count(Run.c.seconds))
    counted = counted.where(Run.c.sweep_id.in_(ids)).group_by(Run.c.sweep_id, Run.c.state)
    for of, state, count, total, timed in connection.execute(counted):
        states[of][state] = count
        seconds[of][0] += total or 0.0
        seconds[of][1] += timed
    best = {
        of: (lowest, highest)
        for of, lowest, highest in connection.execute(
            select(Trial.c.sweep_id, func.min(Trial.c.value), func.max(Trial.c.value))
            .where(Trial.c.sweep_id.in_(ids), Trial.c.state == RunState.FINISHED.value)
            .group_by(Trial.c.sweep_id)
        )
    }
    for row in rows:
        total, timed = seconds[row["sweep"]]
        row["best"] = best.get(row["sweep"], (None, None))[row["better"] == "higher"]
        row["states"] = {state.value: states[row["sweep"]][state.value] for state in RunState}
        row["seconds_per_run"] = total / timed if timed else None
    return rows


def _row(stored: Json, budget: _Budget, attempts: list[Json], supervisor: Json | None) -> Json:
    """What is shown of one sweep: a stored row without its experiment, its progress, condition and next commands."""
    states: Counter[str] = Counter(stored["states"])
    lost = sum(not attempt["alive"] for attempt in attempts)
    states[RunState.RUNNING.value] -= lost
    done = sum(states[state] for state in (RunState.FINISHED, RunState.PRUNED, RunState.DIVERGED, RunState.FAILED))
    begun = sum(states.values()) + lost
    planned = begun if stored["command"] == "train" else budget.runs
    # A pruned trial has no further seeds; --trials may have asked for more than the stored file says.
    total = None if planned is None else max(planned - states[RunState.PRUNED] * (budget.seeds - 1), begun)
    row = {key: value for key, value in stored.items() if key not in ("source", "experiment")} | {
        "created_at": stored["created_at"].isoformat(),
        "age": max(0.0, (datetime.now(UTC) - stored["created_at"]).total_seconds()),  # a clock may have been set back
        "states": {state: states[state] for state in stored["states"]},
        "lost": lost,
        "done": done,
        "total": total,
        "runner": None if supervisor is None else _where(supervisor),
    }
    row["condition"] = _condition(row, supervisor, attempts)
    # Runs that are trained together are one process, and each of them costs its share of that process's time.
    at_once = len({(attempt["host"], attempt["pid"]) for attempt in attempts if attempt["alive"]})
    row["seconds_left"] = _seconds_left(row, at_once)
    return row | {"next": _next(row)}


def _worker(row: Json) -> Json:
    """A worker: where it is, its device, whether it has opened the sweep, and the run that it does."""
    return _where(row) | {key: row[key] for key in ("device", "ready", "run")}


def _where(row: Json) -> Json:
    return {key: row[key] for key in ("host", "pid", "alive")} | {"seconds_since_beat": max(0.0, row["age"])}


def _condition(row: Json, supervisor: Json | None, attempts: list[Json]) -> str:
    """running: a process works on it; lost: that process is gone; stopped: runs are left; ended: none is left."""
    if (supervisor is not None and supervisor["alive"]) or any(attempt["alive"] for attempt in attempts):
        return "running"
    if supervisor is not None or row["lost"]:
        return "lost"
    waiting = row["states"][RunState.QUEUED] + row["states"][RunState.KILLED]
    return "stopped" if waiting or (row["total"] is not None and row["done"] < row["total"]) else "ended"


def _seconds_left(row: Json, processes: int) -> float | None:
    """Wall-clock seconds: the mean seconds of ended runs, times the runs left, divided by the processes at work."""
    each, total = row["seconds_per_run"], row["total"]
    if row["condition"] != "running" or each is None or total is None:
        return None
    return float(each * max(0, total - row["done"]) / max(1, processes))


def _next(row: Json) -> list[str]:
    sweep = row["sweep"]
    match row["condition"]:
        case "running":
            return [f"aigc-lab status {sweep} --watch", f"aigc-lab stop {sweep}"]
        case "lost" | "stopped":
            return [f"aigc-lab resume {sweep}"]
    if row["states"][RunState.FINISHED]:
        return [f"aigc-lab compare {sweep}"]
    return [f"aigc-lab runs {sweep}"]


def _passes(registry: Registry, sweep: str) -> bool:
    """Whether `promote` finds a run that no verdict speaks against, among the first trials of the ranking."""
    selection = select_run(registry, compare_trials(registry, sweep, most=_FIRST).rows)
    return selection is not None and selection.sound


def _details(connection: Connection, row: Json, budget: _Budget, attempts: list[Json]) -> Json:
    """The runs of a sweep that are under way, those that ended last, and the reasons of failures."""
    of_sweep = Run.c.sweep_id == row["sweep"]
    configs = {
        run: config
        for run, config in connection.execute(
            select(Run.c.id, Trial.c.config)
            .join(Trial, (Trial.c.sweep_id == Run.c.sweep_id) & (Trial.c.number == Run.c.trial))
            .where(of_sweep, Run.c.state == RunState.RUNNING.value)
        )
    }
    last = connection.execute(
        select(Run.c.id.label("run"), Run.c.state, Run.c.seconds, Run.c.finished_at, Run.c.reason)
        .where(of_sweep, Run.c.finished_at.is_not(None))
        .order_by(Run.c.finished_at.desc(), Run.c.id)
        .limit(_LAST)
    )
    unlucky = (RunState.DIVERGED.value, RunState.FAILED.value, RunState.KILLED.value)
    count = func.count().label("runs")
    reasons = connection.execute(
        select(Run.c.state, Run.c.reason, count)
        .where(of_sweep, Run.c.state.in_(unlucky))
        .group_by(Run.c.state, Run.c.reason)
        .order_by(count.desc(), Run.c.state, Run.c.reason)
        .limit(_LAST)
    )
    return {
        "running": [
            {key: attempt[key] for key in ("run", "number", "from_step", "step")}
            | {"steps": configs.get(attempt["run"], {}).get("training.steps", budget.steps)}
            | _where(attempt)
            for attempt in attempts
        ],
        "last": [dict(run) | {"finished_at": run["finished_at"].isoformat()} for run in last.mappings()],
        "failures": [dict(reason) for reason in reasons.mappings()],
        "saved": None if (saved := savings(connection, row["sweep"])) is None else saved._asdict(),
    }


# ---- tables


def _table(rows: list[Json]) -> RenderableType:
    table = terminal.plain_table()
    table.add_column("sweep", no_wrap=True, min_width=max(len(row["sweep"]) for row in rows))
    for name in ("condition", "ended", "runs", "best (reference)", "begun"):
        table.add_column(name, overflow="fold")
    styles = {"running": GOOD, "lost": BAD, "stopped": WARNING, "ended": GOOD}
    for row in rows:
        condition = Text(row["condition"], style=styles[row["condition"]])
        cells = (_progress(row), _states(row), _best(row), f"{wording.duration(row['age'])} ago")
        table.add_row(terminal.cell(row["sweep"]), condition, *map(terminal.cell, cells))
    return table


def _page(row: Json) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if row["runner"] is not None:
        runner = row["runner"]
        gone = "" if runner["alive"] else ", which is gone"
        parts.append(Text(f"run by process {runner['pid']} on {runner['host']}{gone}"))
    if remaining := _left(row):
        parts.append(Text(remaining))
    if row["running"]:
        parts += [Text("\nunder way", style="bold"), _under_way(row["running"])]
    if row["workers"]:
        parts += [Text("\nworkers", style="bold"), _workers(row["workers"])]
    if row["last"]:
        parts += [Text("\nended last", style="bold"), _last(row["last"])]
    if row["saved"]:
        parts.append(Text(f"\n{Savings(**row['saved'])}"))
    if row["failures"]:
        parts.append(Text("\nwhy runs did not finish", style="bold"))
        parts += [
            Text(f"{each['runs']} {each['state']}: {visible.line(each['reason'] or 'no reason')}")
            for each in row["failures"]
        ]
    return [*parts, Text()]


def _under_way(rows: list[Json]) -> RenderableType:
    table = terminal.plain_table()
    table.add_column("run", no_wrap=True, min_width=max(len(row["run"]) for row in rows))
    for name in ("attempt", "step", "last heard", "process"):
        table.add_column(name, overflow="fold")
    for row in rows:
        heard = f"{wording.duration(row['seconds_since_beat'])} ago" if row["alive"] else "lost"
        cells = (row["run"], str(row["number"]), _steps(row), heard, f"{row['pid'] or '?'} on {row['host'] or '?'}")
        table.add_row(*map(terminal.cell, cells))
    return table


def _workers(rows: list[Json]) -> RenderableType:
    table = terminal.plain_table()
    for name in ("worker", "device", "last heard", "run"):
        table.add_column(name, overflow="fold")
    for row in rows:
        heard = f"{wording.duration(row['seconds_since_beat'])} ago" if row["alive"] else "lost"
        doing = row["run"] or ("waits for a run" if row["ready"] else "is being prepared")
        table.add_row(*map(terminal.cell, (f"{row['pid']} on {row['host']}", row["device"], heard, doing)))
    return table


def _steps(row: Json) -> str:
    step = row["step"] or row["from_step"] or 0
    share = f"/{row['steps']} ({step / row['steps']:.0%})" if row["steps"] else ""
    return f"{step}{share}" + (f", went on from {row['from_step']}" if row["from_step"] else "")


def _last(rows: list[Json]) -> RenderableType:
    table = terminal.plain_table()
    table.add_column("run", no_wrap=True, min_width=max(len(row["run"]) for row in rows))
    for name in ("state", "took", "ended"):
        table.add_column(name, overflow="fold")
    for row in rows:
        took = "" if row["seconds"] is None else wording.duration(row["seconds"])
        ended = row["finished_at"][:19].replace("T", " ")
        table.add_row(*map(terminal.cell, (row["run"], row["state"], took, ended)))
    return table


def _progress(row: Json) -> str:
    return f"{row['done']}/{row['total']}" if row["total"] is not None else str(row["done"])


def _states(row: Json) -> str:
    counted = row["states"] | {"LOST": row["lost"]}
    return ", ".join(f"{count} {state.lower()}" for state, count in counted.items() if count)


def _best(row: Json) -> str:
    return "" if row["best"] is None else f"{row['objective']} {number(row['best'])}"


def _left(row: Json) -> str:
    return "" if row["seconds_left"] is None else f"about {wording.duration(row['seconds_left'])} left"
