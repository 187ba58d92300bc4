"""Curves of finished language models over temperatures, with the budget that each model had."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import and_, select

from aigc_lab.host import shared_files
from aigc_lab.registry.columns import Json
from aigc_lab.registry.database import repeated
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Artifact, Run, ScalarSummary, Sweep, Trial
from aigc_lab.statistics.planes import SCORES

# The wall time of the training alone, without evaluations (`runs.run`).
_SECONDS = "time/training_seconds"


@dataclass(frozen=True)
class CurveRun:
    """A finished run with the curve of its result, as `scoring.temperature_curve` gives it. `trained_by` is
    "likelihood", "critic" or None; `updates` are those of the generator, in `seconds` of training. Curves of earlier
    versions say neither, and have None. `worth` is the objective of its trial, as the search saw it, more is better.
    """

    run: str
    sweep: str
    trial: int
    seed: int
    role: str
    system: str
    curve: Json
    trained_by: str | None
    updates: int | None
    seconds: float | None
    worth: float | None = None
    mlflow_run_id: str | None = None


@repeated
def temperature_curves(
    registry: Registry, sweeps: Sequence[str], trials: Sequence[int] | None = None
) -> list[CurveRun]:
    """The finished runs of these sweeps that have a curve, in the order of sweeps, trials and seeds, or those of trials
    with these numbers; a run whose file is gone or damaged is left out.
    """
    query = (
        select(Run.c.id.label("run"), Run.c.sweep_id.label("sweep"), Run.c.trial, Run.c.seed, Run.c.role)
        .add_columns(Run.c.mlflow_run_id, Trial.c.system, Trial.c.value, Sweep.c.better, Artifact.c.path)
        .add_columns(ScalarSummary.c.last.label("seconds"))
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .join(Trial, and_(Trial.c.sweep_id == Run.c.sweep_id, Trial.c.number == Run.c.trial))
        .join(Artifact, and_(Artifact.c.run_id == Run.c.id, Artifact.c.name == "temperature"))
        .outerjoin(ScalarSummary, and_(ScalarSummary.c.run_id == Run.c.id, ScalarSummary.c.name == _SECONDS))
        .where(Run.c.sweep_id.in_(sweeps), Run.c.state == RunState.FINISHED.value)
        .order_by(Run.c.sweep_id, Run.c.trial, Run.c.seed)
    )
    query = query if trials is None else query.where(Run.c.trial.in_(trials))
    with registry.read() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    return [run for row in rows if (run := _run(registry, row)) is not None]


def _run(registry: Registry, row: Json) -> CurveRun | None:
    curve = read_curve(shared_files.newest(Path(registry.located(row.pop("path")))))
    value, better = row.pop("value"), row.pop("better")
    if curve is None:
        return None
    worth = value if value is None or better == "higher" else -value
    trained_by, updates = curve.get("trained_by"), curve.get("generator_updates")
    return CurveRun(**row, curve=curve, trained_by=trained_by, updates=updates, worth=worth)


def read_curve(path: Path) -> dict[str, Any] | None:
    """The curve of a file, {"n", "references", "real", "points", …}; None where there is none in it."""
    try:
        curve = json.loads(path.read_bytes())
        points = curve["points"]
        whole = all(float(each[name]) == each[name] for each in [*points, curve["real"]] for name in SCORES)
        return curve if whole and curve["n"] and any(float(each["temperature"]) == 1 for each in points) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
