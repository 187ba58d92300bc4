"""An experiment fitted to its data: where the protocol allows `fewer` samples than it takes, as many as the scored
splits have are scored, and metrics that need more are left out.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aigc_lab.data.base import SPLITS, Dataset
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.experiment.yaml_file import KeyPath
from aigc_lab.metrics.base import Metric

# No metric asks for so many samples: one that refuses them too does not refuse for their number.
_MANY = 10_000_000


def fitted(experiment: Experiment) -> tuple[Experiment, list[str]]:
    """The experiment that can be scored, and what a user should know of the difference, a sentence each; the experiment
    itself where its protocol does not allow `fewer` samples, or its data are as many as are taken. Loads the data.

    `evaluation.samples` and `evaluation.metrics` that the experiment gives stay as they are. Where the objective is a
    score of a metric that is left out, the first score of the others takes its place. All of this becomes part of the
    experiment, so that another number of samples is another sweep.

    Raises `UsageError` where no metric can do with so few samples, and where an objective that the user named cannot.
    """
    protocol, document = experiment.protocol, experiment.document
    if not protocol.fewer:
        return experiment, []
    named = document.data["evaluation"]
    given: dict[str, Any] = dict(named) if isinstance(named, Mapping) else {"name": named}
    dataset = experiment.dataset
    sizes: dict[str, int] = {split: len(dataset.load(split)) for split in SPLITS}
    scored = min(("reference", "holdout"), key=lambda split: sizes[split])
    count = protocol.samples if "samples" in given else min(protocol.samples, sizes[scored])
    left_out: dict[str, tuple[Metric, str]] = {}
    kept: list[Metric] = []
    configured: list[Any] = []
    for metric, (name, config) in zip(experiment.metrics, protocol.metrics, strict=True):
        reason = None if "metrics" in given else _refusal(metric, dataset, count)
        if reason is None or _refusal(metric, dataset, _MANY) is not None:
            kept.append(metric)
            configured.append({name: config} if config else name)
        else:
            left_out[name] = metric, reason
    if count == protocol.samples and not left_out:
        return experiment, []

    def in_all(needed: int) -> str:
        return f"{math.ceil(sum(sizes.values()) * needed / max(sizes[scored], 1)):,} in all"

    if not kept:
        _refuse(experiment, dataset, scored, sizes, {name: metric for name, (metric, _) in left_out.items()})
    notes = []
    if count < protocol.samples:
        notes.append(
            f"{count:,} samples are scored: protocol {protocol.name} takes {protocol.samples:,} where there are as "
            f"many, and the {scored} split has {sizes[scored]:,} ({in_all(protocol.samples)} would do)"
        )
    for name, (metric, reason) in left_out.items():
        needed = _least(metric, dataset, count)
        notes.append(f"{name} is left out: {reason} ({in_all(needed)} would do)")
    data = copy.deepcopy(document.data)
    data["evaluation"] = given | {"samples": count}
    if left_out:
        data["evaluation"] |= {
            "metrics": configured,
            "left_out": {name: reason for name, (_, reason) in left_out.items()},
        }
    objective = experiment.file.objective
    lost = next((reason for metric, reason in left_out.values() if objective.score in metric.gives), None)
    if lost is not None:
        verb, score = _other_objective(experiment, kept, lost)
        data["objective"] = {verb: score}
        notes.append(f"the objective is to {verb} {score}, for {objective.score} is left out")
    changed = replace(document, data=data, lines=dict(document.lines), overridden=dict(document.overridden))
    return replace(experiment, document=changed), notes


def _other_objective(experiment: Experiment, metrics: Sequence[Metric], lost: str) -> tuple[str, str]:
    """`minimize` or `maximize`, and the first score of these metrics that is one to improve. Raises `UsageError` where
    the user named the objective, or there is no such score; `lost` says why the objective cannot be computed.
    """
    objective, document = experiment.file.objective, experiment.document
    scores = {name: way for metric in metrics for name, way in metric.gives.items() if name not in metric.describes}
    if not scores or any(path[:1] == ("objective",) for path in document.overridden):
        at: KeyPath = ("objective", "minimize" if objective.minimize else "maximize")
        document.fail(at, f"{objective.score} cannot be computed: {lost}; name another score, or give more samples")
    score, better = next(iter(scores.items()))
    return "minimize" if better == "lower" else "maximize", score


def _refusal(metric: Metric, dataset: Dataset, samples: int) -> str | None:
    """Why a metric cannot do with so many samples, or None."""
    try:
        metric.check(dataset, samples)
    except ValueError as error:
        return str(error)
    return None


def _least(metric: Metric, dataset: Dataset, few: int) -> int:
    """The least number of samples that a metric can do with, of which `few` are fewer."""
    low, high = few, _MANY
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _refusal(metric, dataset, middle) else (low, middle)
    return high


def _refuse(
    experiment: Experiment, dataset: Dataset, scored: str, sizes: Mapping[str, int], metrics: Mapping[str, Metric]
) -> None:
    """Raises `UsageError` for data that no metric of the protocol can do with, with what would do."""
    total = sum(sizes.values())
    needed, name = min((_least(metric, dataset, sizes[scored]), name) for name, metric in metrics.items())
    share = math.ceil(100 * needed / total) / 100
    shares = {"reference", "holdout"} <= type(dataset.config).model_fields.keys() and share < 0.4
    remedy = f"set data.reference and data.holdout to {share:.2f}, or " * shares
    experiment.document.fail(
        ("data",),
        f"the {scored} split of {dataset.name} has {sizes[scored]:,} samples, too few for any metric of protocol "
        f"{experiment.protocol.name}: {name} needs {needed:,}; {remedy}give "
        f"{math.ceil(total * needed / max(sizes[scored], 1)):,} in all",
    )
