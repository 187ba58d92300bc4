"""What the modules that read the registry share: the columns of a run and of a score, and rows ready for JSON.

Everything that they return is plain: no NaN, times as ISO 8601 text.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Table, and_, or_

from aigc_lab.registry.tables import Checkpoint, Run, Score, Sweep, Trial, Verdict

Json = dict[str, Any]
FinalCheckpoint = Literal["last", "selected"]

# How many rows are fetched, or asked for by their keys, at once.
BATCH = 1000

OF_RUN = (
    Run.c.id.label("run"),
    Run.c.sweep_id.label("sweep"),
    Run.c.trial,
    Run.c.seed,
    Run.c.role,
    Trial.c.system,
    Run.c.state,
    Run.c.seconds,
    Run.c.mlflow_run_id,
    Sweep.c.objective,
)
# What a ranking says of a score, in the order of `standings.SeedOutcome`; and all that is shown of one.
RANKED_OF_SCORE = (
    Score.c.name,
    Score.c.value,
    Score.c.low,
    Score.c.high,
    Score.c.n,
    Score.c.floor,
    Score.c.floor_sd,
    Score.c.signature,
    Score.c.better,
)
OF_SCORE = (*RANKED_OF_SCORE, Score.c.of_class, Score.c.split)

# Conditions of a join or a selection.
TRIAL_OF_RUN = and_(Trial.c.sweep_id == Run.c.sweep_id, Trial.c.number == Run.c.trial)
# The objective of the last weights on the reference split, which is what the search sees.
OBJECTIVE_ON_REFERENCE = and_(
    Score.c.run_id == Run.c.id,
    Score.c.name == Sweep.c.objective,
    Score.c.checkpoint == "last",
    Score.c.split == "reference",
)
# Verdicts on samples up to the step of a checkpoint, since training may have gone on after it; and all other verdicts.
VERDICT_UP_TO_CHECKPOINT = or_(
    Verdict.c.kind != "collapse", Checkpoint.c.step.is_(None), Verdict.c.step <= Checkpoint.c.step
)


def checkpoint_of_verdict(kind: FinalCheckpoint) -> ColumnElement[bool]:
    """The condition that joins a verdict with the checkpoint of its run of this kind."""
    return and_(Checkpoint.c.run_id == Verdict.c.run_id, Checkpoint.c.kind == kind)


def json_row(row: Mapping[Any, Any]) -> Json:
    """The row as a dict, its times as ISO 8601 text."""
    return {str(key): value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}


def besides_run(table: Table) -> list[Any]:
    """The columns of a table but that of the run, which a row about the run names already."""
    return [column for column in table.columns if column.name != "run_id"]
