"""Reading runs: a row for each, and everything that is known of one."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, func, select

from aigc_lab.registry.columns import (
    BATCH,
    OF_RUN,
    OF_SCORE,
    TRIAL_OF_RUN,
    FinalCheckpoint,
    Json,
    besides_run,
    json_row,
)
from aigc_lab.registry.database import repeated
from aigc_lab.registry.find import of_sweep, run_id
from aigc_lab.registry.models import promotions_where
from aigc_lab.registry.records import DESCRIBED, describing_scores
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import (
    Artifact,
    Attempt,
    Checkpoint,
    Promotion,
    Run,
    ScalarSummary,
    Score,
    Sweep,
    Trial,
    Verdict,
)
from aigc_lab.registry.verdicts import collapse_doubt, last_verdicts_where, verdicts_where

# ---- rows of many runs


@dataclass(frozen=True)
class NewestRuns:
    """The newest `shown` of `total` runs, in the order in which they were made; `parts` are read one by one."""

    total: int
    shown: int
    parts: Iterator[list[Json]]


@repeated
def list_runs(registry: Registry, sweep: str | None = None) -> list[Json]:
    """One row a run, with its final scores of the last checkpoint and the last value of every training scalar."""
    return [row for part in newest_runs(registry, sweep).parts for row in part]


@repeated
def newest_runs(
    registry: Registry, sweep: str | None = None, *, state: RunState | None = None, most: int | None = None
) -> NewestRuns:
    """The rows of `list_runs`: of the runs in a `state`, and no more than `most`, the newest ones."""
    with registry.read() as connection:
        condition = of_sweep(connection, sweep)
        if state is not None:
            condition = and_(condition, Run.c.state == state.value)
        runs = select(Run.c.id).join(Sweep, Sweep.c.id == Run.c.sweep_id).where(condition)
        newest = runs.order_by(Sweep.c.created_at.desc(), Run.c.sweep_id.desc(), Run.c.trial.desc(), Run.c.seed.desc())
        total = connection.scalar(select(func.count()).select_from(runs.subquery())) or 0
        ids = list(connection.scalars(newest.limit(most)))[::-1]
    return NewestRuns(total, len(ids), (_rows(registry, ids[at : at + BATCH]) for at in range(0, len(ids), BATCH)))


@repeated
def _rows(registry: Registry, ids: Sequence[str]) -> list[Json]:
    """The rows of these runs."""
    with registry.read() as connection:
        rows = {row["run"]: row for row in _rows_where(connection, Run.c.id.in_(ids))}
        scores = final_scores_of(connection, "last", ids)
        scalars = _last_scalars(connection, ids)
        verdicts = last_verdicts_where(connection, Run.c.id.in_(ids))
    return [
        rows[run]
        | {"scores": scores.get(run, []), "scalars": scalars.get(run, {})}
        | {kind: verdicts.get(run, {}).get(kind) for kind in ("collapse", "stability")}
        for run in ids
        if run in rows
    ]


def _rows_where(connection: Connection, condition: ColumnElement[bool]) -> list[Json]:
    rows = connection.execute(
        select(*OF_RUN, Trial.c.config)
        .join(Trial, TRIAL_OF_RUN)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .where(condition)
    )
    return [dict(row) for row in rows.mappings()]


def final_scores_of(connection: Connection, checkpoint: FinalCheckpoint, runs: Sequence[str]) -> dict[str, list[Json]]:
    """Run -> the scores of its checkpoint. Of a score on two splits, that of the holdout alone."""
    rows = connection.execute(
        select(Score.c.run_id, *OF_SCORE)
        .where(Score.c.run_id.in_(runs), Score.c.checkpoint == checkpoint)
        .order_by(Score.c.run_id, Score.c.name)
    )
    scores: dict[str, dict[str, Json]] = defaultdict(dict)
    keys = [column.name for column in OF_SCORE]
    for run, *values in rows:
        if values[0] not in scores[run] or values[-1] == "holdout":
            scores[run][values[0]] = dict(zip(keys, values, strict=True))
    return {run: list(named.values()) for run, named in scores.items()}


def _last_scalars(connection: Connection, runs: Sequence[str]) -> dict[str, Json]:
    """Run -> name of a training scalar -> its last value."""
    scalars: dict[str, Json] = defaultdict(dict)
    rows = connection.execute(
        select(ScalarSummary.c.run_id, ScalarSummary.c.name, ScalarSummary.c.last)
        .where(ScalarSummary.c.run_id.in_(runs))
        .order_by(ScalarSummary.c.run_id, ScalarSummary.c.name)
    )
    for run, name, last in rows:
        scalars[run][name] = last
    return scalars


# ---- one run

_OF_PROMOTION = ("model", "version", "checkpoint", "aliases", "reason", "selection")


@repeated
def show_run(registry: Registry, run: str) -> Json:
    """Everything that is known of one run, by its id or as `find_run` takes it; `doubt` is its `collapse_doubt`.

    Raises `UsageError` where there is no such run.
    """
    with registry.read() as connection:
        run = run_id(connection, run)
        (row,) = _rows_where(connection, Run.c.id == run)
        row |= _origin(connection, run) | {
            "scores": final_scores_of(connection, "last", [run]).get(run, []),
            "scores_selected": final_scores_of(connection, "selected", [run]).get(run, []),
            "scalars": _last_scalars(connection, [run]).get(run, {}),
            "progress": _progress(connection, run),
            "verdicts": verdicts_where(connection, Verdict.c.run_id == run).get(run, []),
            "describing": _describing(connection, run),
            "attempts": _attempts(connection, run),
            "promotions": [
                {key: version[key] for key in _OF_PROMOTION}
                for version in promotions_where(connection, Promotion.c.run_id == run)
            ],
            "checkpoints": _files(registry, connection, Checkpoint, Checkpoint.c.kind, run),
            "artifacts": _files(registry, connection, Artifact, Artifact.c.name, run),
        }
    row["environment"] = row["attempts"][-1]["environment"] if row["attempts"] else {}
    row["doubt"] = collapse_doubt(registry, run)
    return row


def _origin(connection: Connection, run: str) -> Json:
    """Why and when the run ended, and the MLflow experiment of its sweep."""
    columns = (Run.c.reason, Run.c.created_at, Run.c.finished_at, Sweep.c.mlflow_experiment_id)
    rows = connection.execute(select(*columns).join(Sweep, Sweep.c.id == Run.c.sweep_id).where(Run.c.id == run))
    return json_row(rows.mappings().one())


def _progress(connection: Connection, run: str) -> list[Json]:
    """The scores on the way, by step and name."""
    rows = connection.execute(
        select(Score.c.step, *OF_SCORE)
        .where(Score.c.run_id == run, Score.c.checkpoint == "progress")
        .order_by(Score.c.step, Score.c.name)
    )
    return [json_row(row) for row in rows.mappings()]


def _attempts(connection: Connection, run: str) -> list[Json]:
    """The attempts, the first first."""
    attempts = select(*besides_run(Attempt)).where(Attempt.c.run_id == run).order_by(Attempt.c.number)
    return [_attempt(row) for row in connection.execute(attempts).mappings()]


def _describing(connection: Connection, run: str) -> list[str]:
    """Names of the scores of which neither more nor less is better, by what its attempts hold of their metrics."""
    environments = connection.scalars(select(Attempt.c.environment).where(Attempt.c.run_id == run))
    return sorted({name for environment in environments for name in describing_scores(environment)})


def _attempt(row: Mapping[Any, Any]) -> Json:
    """An attempt, its environment without what MLflow is told of the run."""
    facts = {key: value for key, value in row["environment"].items() if key != DESCRIBED}
    return json_row(row) | {"environment": facts}


def _files(registry: Registry, connection: Connection, table: Table, by: ColumnElement[Any], run: str) -> list[Json]:
    """The checkpoints or the artifacts of a run, in the order of the column `by`, with the paths at which they lie."""
    rows = connection.execute(select(*besides_run(table)).where(table.c.run_id == run).order_by(by)).mappings()
    return [dict(row) | {"path": registry.located(row["path"])} for row in rows]
