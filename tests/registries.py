"""Registries that tests fill: a run in a line, its scores, and what is stored."""

import math
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Table, func, select, text

from aigc_lab.registry.records import (
    Judged,
    Role,
    StoredArtifact,
    StoredCheckpoint,
    StoredScalar,
    StoredScore,
    StoredVerdict,
)
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry


def url_in(folder: Path) -> str:
    return f"sqlite:///{folder / 'registry.db'}"


def a_run(registry: Registry, *, name: str = "digits", trial: int = 0, seed: int = 0) -> str:
    sweep = registry.sweep(name, "0123456789abcdef", {"steps": 10}, "fd", "lower")
    registry.trial(sweep, trial, "vae", {"beta": 1.0}, {"system": "vae"})
    return registry.run(sweep, trial, seed, "search")


def a_score(name: str = "fd", value: float | None = 12.0, **changes: Any) -> StoredScore:
    values: dict[str, Any] = {"low": 10.0, "high": 14.0, "n": 1000, "floor": 0.5, "signature": f"{name}|n:1000"}
    values |= {"better": "lower", "checkpoint": "last", "step": 10, "split": "holdout"}
    return StoredScore(name=name, value=value, **(values | changes))


def count(registry: Registry, table: Table) -> int:
    with registry.read() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def finish(registry: Registry, run: str, attempt: int) -> None:
    registry.finish(
        run,
        attempt,
        RunState.FINISHED,
        seconds=3.5,
        scores=[a_score(), a_score("kid", 0.1), a_score(checkpoint="progress", step=5, split="reference")],
        scalars={"loss/g": StoredScalar(last=1.0, minimum=0.5, maximum=math.inf, step=10)},
        checkpoints=[StoredCheckpoint("last", 10, "c/last", "ab" * 32, 2**33)],
        artifacts=[StoredArtifact("grid", "image", "a/grid.png")],
    )


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


SIGNATURE = "fd|n:1000"


class Lab:
    """A registry that is filled in a line a run."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def sweep(self, name: str = "digits", objective: str = "fd", better: Any = "lower", experiment: Any = None) -> str:
        return self.registry.sweep(name, f"{name:_<8}", experiment or {}, objective, better)

    def run(
        self,
        sweep: str,
        trial: int,
        seed: int,
        value: float | None = None,
        *,
        state: RunState = RunState.FINISHED,
        role: Role = "search",
        signature: str = SIGNATURE,
        system: str = "vae",
        config: dict[str, Any] | None = None,
        reason: str | None = None,
        verdicts: Sequence[tuple[Judged, str]] = (),
        **changes: Any,
    ) -> str:
        self.registry.trial(sweep, trial, system, {"lr": trial / 10} if config is None else config, {})
        run = self.registry.run(sweep, trial, seed, role)
        if state is RunState.QUEUED:
            return run
        attempt = self.registry.begin(run, {"host": "here"})
        if state.ended:
            about: dict[str, Any] = {"name": "fd", "low": None, "high": None, "n": 1000, "floor": 0.5}
            about |= {"better": "lower", "checkpoint": "last", "step": 10, "split": "holdout"} | changes
            scores = [StoredScore(value=value, signature=signature, **about)] if value is not None else []
            said = [StoredVerdict(kind, 10, verdict, "why", {}, "signature") for kind, verdict in verdicts]
            self.registry.finish(run, attempt, state, reason=reason, seconds=1.0, scores=scores, verdicts=said)
        return run


def order(rows: list[dict[str, Any]]) -> list[tuple[int | None, int, float | None]]:
    return [(row["rank"], row["trial"], row["score"] and row["score"]["value"]) for row in rows]


# Of each sweep, as `benchmarks/bench_scale.py` fills a file: two seeds a trial, one run in 50 failed, the last go on.
_SERVER = (
    """INSERT INTO trial SELECT :sweep, n / 2, CASE n % 4 WHEN 0 THEN 'dcgan' ELSE 'vae' END,
    json_build_object('lr', 0.0001 * (1 + n % 97), 'loss', 'hinge'), '{}', 'FINISHED',
    10.0 + (n::bigint * 7919 % 100003) / 1e3 FROM generate_series(0, :count - 1, 2) AS n""",
    """INSERT INTO run (id, sweep_id, trial, seed, role, state, reason, seconds, created_at, finished_at)
    SELECT :sweep || '.' || (n / 2) || '.' || (n % 2), :sweep, n / 2, n % 2, 'search',
    CASE WHEN n >= :count - 10 THEN 'RUNNING' WHEN n % 50 = 7 THEN 'FAILED' ELSE 'FINISHED' END,
    CASE WHEN n % 50 = 7 THEN 'CUDA out of memory' END, 1.5, timestamptz '2026-01-01' + n * interval '1 second',
    timestamptz '2026-01-01' + (n + 1) * interval '1 second' FROM generate_series(0, :count - 1) AS n""",
    """INSERT INTO attempt (run_id, number, state, started_at, ended_at, environment, host, boot, pid, process_started,
    heartbeat_at, chain, from_step, step) SELECT id, 1, state, created_at, finished_at, '{}', 'elsewhere', '', 1, '',
    created_at, 1, 0, 50 FROM run WHERE sweep_id = :sweep""",
    """INSERT INTO score (run_id, checkpoint, step, split, name, value, low, high, n, floor, signature, better)
    SELECT id, 'last', 100, 'holdout', 'score' || s, v, v * 0.9, v * 1.1, 5000, 0.1,
    'score' || s || '|n:5000|features:classifier-9f3a|real:holdout', 'lower'
    FROM (SELECT id, 1.0 + (row_number() OVER () * 7919 % 100003) / 1e3 AS v FROM run WHERE sweep_id = :sweep
    AND state = 'FINISHED') AS finished, generate_series(0, :scores - 1) AS s""",
    """INSERT INTO checkpoint SELECT id, 'last', 100, 'checkpoints', 'ab', 1 FROM run
    WHERE sweep_id = :sweep AND state = 'FINISHED'""",
    """INSERT INTO verdict SELECT id, 'collapse', 100, 'healthy', '', '{}', '' FROM run
    WHERE sweep_id = :sweep AND state = 'FINISHED'""",
    """INSERT INTO queued_run (run_id, sweep_id, position, state, claim) SELECT id, sweep_id, 1, 'ENDED', 1 FROM run
    WHERE sweep_id = :sweep""",
    """INSERT INTO evaluation (run_id, step, sweep_id, value, stop) SELECT id, 50, sweep_id, 1.0, false FROM run
    WHERE sweep_id = :sweep""",
)


def fill_server(registry: Registry, sweeps: int, runs: int, scores: int) -> list[str]:
    """So many sweeps with so many runs in all, on PostgreSQL, by SQL alone; their ids, the newest first."""
    made = [registry.sweep(f"bench{i}", f"{i:08}", {}, "score0", "lower") for i in range(sweeps)]
    for sweep in made:
        with registry.write() as connection:
            connection.execute(
                text("SET LOCAL session_replication_role = replica")
            )  # no row's references are looked up
            of = {"sweep": sweep, "count": runs // sweeps, "scores": scores}
            for statement in _SERVER:
                connection.execute(text(statement), {key: of[key] for key in of if f":{key}" in statement})
    with registry.write() as connection:
        connection.execute(text("ANALYZE"))
    return made[::-1]
