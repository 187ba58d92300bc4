"""An experiment fitted to its data: where the protocol allows `fewer` samples than it takes, as many as the scored
splits have are scored, and metrics that need more are left out.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from aigc_lab.data.base import SPLITS, Dataset
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.experiment.yaml_file import KeyPath
from aigc_lab.metrics.base import Metric

# No metric asks for so many samples: one that refuses them too does not refuse for their number.
_MANY = 10_000_000
# A share of less may be taken for each scored split: a fifth is left to train on at least.
_MOST = 0.4


class _Splits(NamedTuple):
    """A loaded dataset, the number of samples in each split, and the smaller of the two splits that are scored."""

    dataset: Dataset
    sizes: Mapping[str, int]
    scored: str

    @classmethod
    def of(cls, dataset: Dataset) -> "_Splits":
        sizes: dict[str, int] = {split: len(dataset.load(split)) for split in SPLITS}
        return cls(dataset, sizes, min(("reference", "holdout"), key=lambda split: sizes[split]))

    @property
    def size(self) -> int:
        return self.sizes[self.scored]

    def in_all(self, needed: int) -> str:
        """How many samples a dataset of these shares has whose scored split has as many as are needed."""
        return f"{math.ceil(sum(self.sizes.values()) * needed / max(self.size, 1)):,} in all"

    def share(self, needed: int) -> str | None:
        """The share of the samples that the scored splits may be told to have, so that they have as many as are needed;
        None where it would leave too little to train on, or the splits are no shares.
        """
        share = math.ceil(100 * needed / sum(self.sizes.values())) / 100
        told = {"reference", "holdout"} <= type(self.dataset.config).model_fields.keys()
        return f"{share:.2f}" if told and share < _MOST and getattr(self.dataset, "by_shares", True) else None

    def remedy(self, needed: int) -> str:
        """What would give a scored split as many samples as are needed, the easiest first."""
        share, in_all = self.share(needed), self.in_all(needed)
        told = "" if share is None else f"--set data.reference={share} --set data.holdout={share}, or "
        return f"{told}{in_all}"


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
    splits = _Splits.of(experiment.dataset)
    count = protocol.samples if "samples" in given else min(protocol.samples, splits.size)
    entries = [
        (metric, name, config, None if "metrics" in given else _too_few(metric, splits.dataset, count))
        for metric, (name, config) in zip(experiment.metrics, protocol.metrics, strict=True)
    ]
    left_out = {name: (metric, reason) for metric, name, _, reason in entries if reason is not None}
    if count == protocol.samples and not left_out:
        return experiment, []
    remaining = [(metric, name, config) for metric, name, config, reason in entries if reason is None]
    if not remaining:
        _refuse(experiment, splits, {name: metric for name, (metric, _) in left_out.items()})
    notes = _notes(experiment, splits, count, left_out)
    data = copy.deepcopy(document.data)
    data["evaluation"] = given | {"samples": count}
    if left_out:
        data["evaluation"] |= {
            "metrics": [{name: config} if config else name for _, name, config in remaining],
            "left_out": {name: reason for name, (_, reason) in left_out.items()},
        }
    objective = experiment.file.objective
    lost = next((reason for metric, reason in left_out.values() if objective.score in metric.gives), None)
    if lost is not None:
        verb, score = _other_objective(experiment, [metric for metric, _, _ in remaining], lost)
        data["objective"] = _replaced(data["objective"], {verb: score})
        notes.append(f"the objective is to {verb} {score}, for {objective.score} is left out")
    changed = replace(document, data=data, lines=dict(document.lines), overridden=dict(document.overridden))
    return replace(experiment, document=changed), notes


def _too_few(metric: Metric, dataset: Dataset, samples: int) -> str | None:
    """Why so many samples are too few for a metric; None where they are enough, or it would refuse any number."""
    reason = _refusal(metric, dataset, samples)
    return None if reason is None or _refusal(metric, dataset, _MANY) is not None else reason


def _notes(
    experiment: Experiment, splits: _Splits, count: int, left_out: Mapping[str, tuple[Metric, str]]
) -> list[str]:
    """What a user should know of a protocol that is fitted to `count` samples, a sentence each."""
    protocol, notes = experiment.protocol, []
    if count < protocol.samples:
        wider = math.sqrt(protocol.samples / count)
        notes.append(
            f"{count:,} samples are scored, which leaves intervals about {wider:.1f} times as wide: protocol "
            f"{protocol.name} takes {protocol.samples:,} where there are as many, and the {splits.scored} split has "
            f"{splits.size:,} ({splits.remedy(protocol.samples)} would do)"
        )
    for name, (metric, reason) in left_out.items():
        needed = _least(metric, splits.dataset, count)
        notes.append(f"{name} is left out: {reason} ({splits.remedy(needed)} would do)")
    return notes


def _other_objective(experiment: Experiment, metrics: Sequence[Metric], lost: str) -> tuple[str, str]:
    """`minimize` or `maximize`, and the first score of these metrics that is one to improve. Raises `UsageError` where
    the user named the objective, or there is no such score; `lost` says why the objective cannot be computed.
    """
    objective, document = experiment.file.objective, experiment.document
    scores = {name: way for metric in metrics for name, way in metric.gives.items() if name not in metric.describing()}
    if not scores or any(path[:1] == ("objective",) for path in document.overridden):
        listed = isinstance(document.data["objective"], list)
        verb = "minimize" if objective.minimize else "maximize"
        at: KeyPath = ("objective", 0, verb) if listed else ("objective", verb)
        document.fail(at, f"{objective.score} cannot be computed: {lost}; name another score, or give more samples")
    score, better = next(iter(scores.items()))
    return "minimize" if better == "lower" else "maximize", score


def _replaced(section: Any, objective: dict[str, Any]) -> Any:
    """The section with another first objective, and with the constraints that it had."""
    if isinstance(section, list):
        return [_replaced(section[0], objective), *section[1:]]
    return objective | {key: section[key] for key in ("subject_to",) if key in section}


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


def _refuse(experiment: Experiment, splits: _Splits, metrics: Mapping[str, Metric]) -> None:
    """Raises `UsageError` for data that no metric of the protocol can do with, with what would do."""
    needed, name = min((_least(metric, splits.dataset, splits.size), name) for name, metric in metrics.items())
    share = splits.share(needed)
    remedy = "" if share is None else f"set data.reference and data.holdout to {share}, or "
    experiment.document.fail(
        ("data",),
        f"the {splits.scored} split of {splits.dataset.name} has {splits.size:,} samples, too few for any metric of "
        f"protocol {experiment.protocol.name}: {name} needs {needed:,}; {remedy}give {splits.in_all(needed)}",
    )
