"""Reading who works on what: attempts and supervisors, and whether their processes are alive."""

import math
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, select, text

from aigc_lab.host.processes import Process
from aigc_lab.registry.database import repeated
from aigc_lab.registry.run_lifecycle import LEASE
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Attempt, Checkpoint, Run, Score, Supervisor, Sweep, Verdict, Worker

Json = dict[str, Any]


@repeated
def running(registry: Registry, sweep: str | None = None) -> list[Json]:
    """The attempts that have begun and not ended, of one sweep or of all, the oldest first: run, sweep, number, steps,
    `process`, the `age` of the last beat in seconds, and whether it is `alive` (see `alive`).
    """
    columns = [column for column in Attempt.columns if column.name not in ("run_id", "environment")]
    attempts = (
        select(Attempt.c.run_id.label("run"), Run.c.sweep_id.label("sweep"), *columns)
        .join(Run, Run.c.id == Attempt.c.run_id)
        .where(Attempt.c.state == RunState.RUNNING.value)
        .order_by(Attempt.c.started_at, Attempt.c.run_id)
    )
    with registry.read() as connection:
        return _rows(registry, connection, attempts if sweep is None else attempts.where(Run.c.sweep_id == sweep))


@repeated
def workers(registry: Registry, sweep: str | None = None) -> list[Json]:
    """The processes that do runs of a sweep, or of all: `worker`, sweep, device, whether `ready`, run, progress,
    error, and `process`, `age`, `alive` as of attempts. The longest first.
    """
    query = select(Worker.c.id.label("worker"), Worker.c.sweep_id.label("sweep"), *Worker.columns)
    query = query.order_by(Worker.c.started_at, Worker.c.id)
    with registry.read() as connection:
        rows = _rows(registry, connection, query if sweep is None else query.where(Worker.c.sweep_id == sweep))
    return [row | {"run": row["run_id"]} for row in rows]


@repeated
def supervisors(registry: Registry) -> list[Json]:
    """The processes that run sweeps now, or that died while they did: sweep, when, `process`, `age`, `alive`."""
    with registry.read() as connection:
        return _rows(registry, connection, select(Supervisor.c.sweep_id.label("sweep"), *Supervisor.columns))


@repeated
def supervisor(registry: Registry, sweep: str) -> Json | None:
    """The row of `supervisors` of a sweep; None when nobody runs it and its last process ended in order."""
    return next((row for row in supervisors(registry) if row["sweep"] == sweep), None)


@repeated
def ended(registry: Registry, run: str) -> Json | None:
    """How a run ended: sweep, trial, seed, state, reason, the number of its newest `attempt`, its `verdicts` as (kind,
    step, verdict), `result_step`, the step of its last weights, and the `floor` of its objective on the holdout with
    its standard deviation. None when there is no such run.
    """
    newest = select(Attempt.c.number).where(Attempt.c.run_id == run).order_by(Attempt.c.number.desc()).limit(1)
    last = select(Checkpoint.c.step).where(Checkpoint.c.run_id == run, Checkpoint.c.kind == "last")
    columns = (
        *(Run.c.sweep_id.label("sweep"), Run.c.trial, Run.c.seed, Run.c.state, Run.c.reason),
        *(newest.scalar_subquery().label("attempt"), last.scalar_subquery().label("result_step")),
    )
    verdicts = select(Verdict.c.kind, Verdict.c.step, Verdict.c.verdict).where(Verdict.c.run_id == run)
    objective = select(Sweep.c.objective).join(Run, Run.c.sweep_id == Sweep.c.id).where(Run.c.id == run)
    floors = (
        select(Score.c.floor, Score.c.floor_sd)
        .where(Score.c.run_id == run, Score.c.name == objective.scalar_subquery())
        .where(Score.c.checkpoint == "last", Score.c.split == "holdout")
    )
    with registry.read() as connection:
        row = connection.execute(select(*columns).where(Run.c.id == run)).mappings().first()
        if row is None:
            return None
        floor = connection.execute(floors).first()
        return dict(row) | {
            "verdicts": [tuple(each) for each in connection.execute(verdicts)],
            "floor": (None, None) if floor is None else tuple(floor),
        }


@repeated
def environment(registry: Registry, run: str, attempt: int) -> Json:
    """The environment of an attempt, as it began; empty where there is no such attempt."""
    query = select(Attempt.c.environment).where(Attempt.c.run_id == run, Attempt.c.number == attempt)
    with registry.read() as connection:
        return dict(connection.scalar(query) or {})


@repeated
def failures(registry: Registry, sweep: str) -> dict[str, Json]:
    """Run -> the environment of its newest attempt, for every run of a sweep that FAILED."""
    attempts = (
        select(Attempt.c.run_id, Attempt.c.environment)
        .join(Run, Run.c.id == Attempt.c.run_id)
        .where(Run.c.sweep_id == sweep, Run.c.state == RunState.FAILED.value)
        .order_by(Attempt.c.run_id, Attempt.c.number)
    )
    with registry.read() as connection:
        return {run: environment for run, environment in connection.execute(attempts)}


def alive(process: Process | None, age: float) -> bool:
    """Whether a process that last beat `age` seconds ago is taken to be alive. On this machine the process itself is
    looked for; elsewhere a beat holds for a lease. A clock may have been set back: a beat from the future is as old.
    """
    seen = None if process is None else process.alive  # None: it cannot be looked for from here
    return abs(age) < LEASE if seen is None else seen


def _rows(registry: Registry, connection: Connection, query: Select[Any]) -> list[Json]:
    rows = connection.execute(query).mappings().all()
    if not rows:
        return []
    up, now = _up_seconds(connection), registry.moment(connection)
    return [_row(row, up, now) for row in rows]


def _up_seconds(connection: Connection) -> float:
    """The seconds for which the server has been up to take beats; infinite for a file."""
    if connection.dialect.name != "postgresql":
        return math.inf
    since = text("SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())")
    return float(connection.scalar(since) or 0.0)


def _row(row: RowMapping, up: float, now: datetime) -> Json:
    """The columns of an attempt or a supervisor, with its process, the age of its last beat and whether it is alive."""
    process = None
    if row["pid"] is not None:
        process = Process(row["host"], row["boot"] or "", row["pid"], row["process_started"] or "")
    beat = row["heartbeat_at"] or row["started_at"]
    age = (now - beat).total_seconds()
    # A beat is no older than the server has been up, since it could not be heard before.
    return dict(row) | {"process": process, "age": age, "alive": alive(process, min(age, up))}
