"""Reading sweeps: all of them, one as it was run, and what the runs of one came to."""

from collections import defaultdict
from typing import Any

from sqlalchemy import Select, select

from aigc_lab.registry.columns import BATCH, OBJECTIVE_ON_REFERENCE, FinalCheckpoint, Json, json_row
from aigc_lab.registry.database import repeated
from aigc_lab.registry.find import sweep_id
from aigc_lab.registry.records import described_params
from aigc_lab.registry.runs import final_scores_of
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Artifact, Attempt, Run, Score, Sweep, Trial


@repeated
def list_sweeps(registry: Registry) -> list[Json]:
    """All sweeps, the newest first."""
    columns = (
        Sweep.c.id.label("sweep"),
        Sweep.c.name,
        Sweep.c.objective,
        Sweep.c.better,
        Sweep.c.created_at,
        Sweep.c.mlflow_experiment_id,
    )
    with registry.read() as connection:
        rows = connection.execute(select(*columns).order_by(Sweep.c.created_at.desc(), Sweep.c.id))
        return [json_row(row) for row in rows.mappings()]


@repeated
def show_sweep(registry: Registry, id_or_name: str) -> Json:
    """What was run: id, name, digest, the experiment as resolved, objective, when. Raises `UsageError` like
    `find_sweep`.
    """
    with registry.read() as connection:
        rows = connection.execute(select(*Sweep.columns).where(Sweep.c.id == sweep_id(connection, id_or_name)))
        return json_row(rows.mappings().one())


# ---- the trials and the runs of one sweep


@repeated
def list_trials(registry: Registry, sweep: str) -> list[Json]:
    """The configurations of a sweep, as the search left them. Raises `UsageError` like `find_sweep`."""
    columns = (
        Trial.c.sweep_id.label("sweep"),
        Trial.c.number.label("trial"),
        Trial.c.system,
        Trial.c.config,
        Trial.c.params,
        Trial.c.state,
        Trial.c.value,
    )
    with registry.read() as connection:
        this = Trial.c.sweep_id == sweep_id(connection, sweep)
        rows = connection.execute(select(*columns).where(this).order_by(Trial.c.number))
        return [dict(row) for row in rows.mappings()]


@repeated
def run_outcomes(registry: Registry, sweep: str) -> list[Json]:
    """Trial, seed, state, reason, and the objective of the last weights on the reference split, for every run of a
    sweep: what the search sees. The holdout is kept from it, so that comparisons there are not biased by selection.
    """
    with registry.read() as connection:
        rows = connection.execute(
            select(Run.c.id.label("run"), Run.c.trial, Run.c.seed, Run.c.state, Run.c.reason, Score.c.value)
            .join(Sweep, Sweep.c.id == Run.c.sweep_id)
            .outerjoin(Score, OBJECTIVE_ON_REFERENCE)
            .where(Run.c.sweep_id == sweep)
            .order_by(Run.c.trial, Run.c.seed)
        )
        return [dict(row) for row in rows.mappings()]


@repeated
def run_outcome(registry: Registry, run: str) -> Json:
    """State, reason and value of one run, as `run_outcomes` has them, and its seconds."""
    with registry.read() as connection:
        row = connection.execute(
            select(Run.c.state, Run.c.reason, Run.c.seconds, Score.c.value)
            .join(Sweep, Sweep.c.id == Run.c.sweep_id)
            .outerjoin(Score, OBJECTIVE_ON_REFERENCE)
            .where(Run.c.id == run)
        )
        return dict(row.mappings().one())


@repeated
def objective_histories(registry: Registry, sweep: str) -> dict[str, list[Json]]:
    """Run -> step, value, low, high, signature of the objective on the way (on the reference split), by step. A run has
    them when it has ended.
    """
    return _by_run(
        registry,
        select(Score.c.run_id, Score.c.step, Score.c.value, Score.c.low, Score.c.high, Score.c.signature)
        .join(Run, Run.c.id == Score.c.run_id)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .where(Run.c.sweep_id == sweep, Score.c.checkpoint == "progress", Score.c.name == Sweep.c.objective)
        .order_by(Score.c.run_id, Score.c.step),
    )


@repeated
def score_histories(registry: Registry, sweep: str) -> dict[str, list[Json]]:
    """Run -> step, name, value, low, high, floor of every score on the way (on the reference split), by name and
    step.
    """
    return _by_run(
        registry,
        select(*(Score.c[key] for key in ("run_id", "step", "name", "value", "low", "high", "floor")))
        .join(Run, Run.c.id == Score.c.run_id)
        .where(Run.c.sweep_id == sweep, Score.c.checkpoint == "progress")
        .order_by(Score.c.run_id, Score.c.name, Score.c.step),
    )


@repeated
def pretraining_ends(registry: Registry, sweep: str) -> dict[str, int]:
    """Run -> the step at which its pretraining ends, of runs that were told to have one (`pretrain_steps`)."""
    environments = _by_run(
        registry,
        select(Attempt.c.run_id, Attempt.c.environment)
        .join(Run, Run.c.id == Attempt.c.run_id)
        .where(Run.c.sweep_id == sweep)
        .order_by(Attempt.c.run_id, Attempt.c.number),
    )
    ends = {run: described_params(attempts[-1]["environment"]) for run, attempts in environments.items()}
    return {run: steps for run, params in ends.items() if type(steps := params.get("pretrain_steps")) is int and steps}


@repeated
def final_scores(registry: Registry, sweep: str, name: str, checkpoint: FinalCheckpoint) -> dict[str, float]:
    """Run -> the value of a score of a checkpoint, for every run of a sweep that has it."""
    with registry.read() as connection:
        ids = list(connection.scalars(select(Run.c.id).where(Run.c.sweep_id == sweep)))
        scores = [
            (run, score)
            for start in range(0, len(ids), BATCH)
            for run, of_run in final_scores_of(connection, checkpoint, ids[start : start + BATCH]).items()
            for score in of_run
        ]
    return {run: score["value"] for run, score in scores if score["name"] == name and score["value"] is not None}


@repeated
def artifacts_by_run(registry: Registry, sweep: str) -> dict[str, list[Json]]:
    """Run -> name, kind and path of its artifacts, by name."""
    artifacts = _by_run(
        registry,
        select(Artifact)
        .join(Run, Run.c.id == Artifact.c.run_id)
        .where(Run.c.sweep_id == sweep)
        .order_by(Artifact.c.run_id, Artifact.c.name),
    )
    return {
        run: [file | {"path": registry.located(file["path"])} for file in files] for run, files in artifacts.items()
    }


@repeated
def attempt_environments(registry: Registry, sweep: str) -> list[Json]:
    """The environment of every attempt of a sweep, in the order in which they started."""
    with registry.read() as connection:
        return list(
            connection.scalars(
                select(Attempt.c.environment)
                .join(Run, Run.c.id == Attempt.c.run_id)
                .where(Run.c.sweep_id == sweep)
                .order_by(Attempt.c.started_at, Attempt.c.run_id)
            )
        )


@repeated
def _by_run(registry: Registry, query: Select[Any]) -> dict[str, list[Json]]:
    """Run -> its rows of the query, without the column `run_id`."""
    rows: dict[str, list[Json]] = defaultdict(list)
    with registry.read() as connection:
        for row in connection.execute(query).mappings():
            entry = json_row(row)
            rows[entry.pop("run_id")].append(entry)
    return dict(rows)
