"""What MLflow is told of one run, as it begins, goes on and ends."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aigc_lab.metrics.base import Metric
from aigc_lab.runs.job import Job
from aigc_lab.runs.record import Record
from aigc_lab.tracking import final
from aigc_lab.tracking.base import DatasetInfo, RunTracker, Tracker, run_key
from aigc_lab.tracking.description import RunDescription, beginning


def describe(job: Job, metrics: Sequence[Metric]) -> RunDescription:
    """The configuration and the data of a run, and which scores of the metrics describe; loads the training split."""
    plan = job.configuration
    train_size = len(plan.dataset.load("train"))
    shape = f"{plan.dataset.shape}, {train_size} samples"
    dataset = DatasetInfo(plan.dataset.name, plan.dataset.digest, plan.dataset.source, shape)
    describing = sorted({name for metric in metrics for name in metric.describing()})
    return RunDescription(plan.parameters, plan.protocol.name, dataset, tuple(describing))


def open_run(
    tracker: Tracker, job: Job, described: RunDescription, environment: Mapping[str, Any], *, attempt: int, chain: int
) -> RunTracker:
    """The run of an attempt: that of the attempt `chain` which it goes on from, or a new one."""
    name, params, tags, dataset = beginning(
        described,
        environment,
        sweep=job.sweep,
        trial=job.trial,
        seed=job.seed,
        role=job.role,
        system=job.configuration.system,
        attempt=attempt,
    )
    return tracker.start(job.sweep, name=name, key=run_key(job.run, chain), params=params, tags=tags, dataset=dataset)


def replay(record: Record, tracked: RunTracker) -> None:
    """Tells a new run the curves and scores of the attempt that it goes on from."""
    curves: dict[int, dict[str, float]] = {}
    for name, curve in record.curves.items():
        for step, value in zip(curve["step"], curve["value"], strict=True):
            curves.setdefault(step, {})[name] = math.nan if value is None else value
    for step, values in sorted(curves.items()):
        tracked.scalars(step, values)
    for (kind, step, _, name), score in sorted(record.scores.items()):
        if kind == "progress":
            tracked.scores(step, {name: math.nan if score.value is None else score.value})


def track_weights(record: Record, tracked: RunTracker) -> None:
    """Tells the final weights, equal ones once; tags say where each are."""
    checkpoints = record.checkpoints.values()
    weights = final.weights((stored.kind, Path(stored.path), stored.sha256) for stored in checkpoints)
    for file in final.files(weights):
        tracked.artifact(file, final.FOLDER)
    tracked.tags(final.tags(weights))
