"""Accuracy of labelled samples by a judge of their classes: of all, and of the least accurate class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aigc_lab.metrics import base
from aigc_lab.metrics.shared.classes import FEWEST, name_of, sizes
from aigc_lab.statistics.intervals import clopper_pearson

if TYPE_CHECKING:
    from torch import Tensor

    from aigc_lab.samples import Samples

#: classes [k] that a judge sorts samples into, and the classes [k] that they are labelled with
Sorted = tuple["Tensor", "Tensor"]


def accuracy_scores(
    metric: base.Metric, evidence: base.Evidence, signature: str, sort: Callable[[Samples | base.Part], Sorted]
) -> list[base.Score]:
    """Share of generated samples that `sort` sorts into their own class, and that of the class with the smallest share:
    two scores, named as `metric.gives` names them.

    The worst class is one of those with at least 20 samples, and its score names it. Intervals are exact
    (Clopper–Pearson); that of the worst class holds for all classes together (Bonferroni). Floors are the means over
    draws of as many real samples.
    """
    classes = evidence.dataset.shape.classes
    assert classes is not None
    sizes(evidence.generated, classes)  # refuses labels that are none

    def of_one(part: base.Part) -> dict[str, float]:
        return dict(zip(metric.gives, (value for value, *_ in _accuracies(*sort(part), classes)[0]), strict=True))

    floors, n = metric.floors_alone(evidence, signature, of_one), len(evidence.generated)
    intervals, worst = _accuracies(*sort(evidence.generated), classes)
    whose = None, name_of(evidence.dataset, worst)
    return [
        base.Score(name, *interval, n, floors[name], signature, "higher", of_class=of_class)
        for name, interval, of_class in zip(metric.gives, intervals, whose, strict=True)
    ]


def _accuracies(found: Tensor, labels: Tensor, classes: int) -> tuple[list[tuple[float, float, float]], int]:
    """Accuracy of all samples and of the worst class, each with the ends of its interval; the number of that class."""
    import torch

    right = found == labels
    totals, hits = (torch.bincount(each, minlength=classes) for each in (labels, labels[right]))
    # Of draws so small that no class has 20 the largest are looked at.
    enough = (totals >= min(FEWEST, int(totals.max()))).nonzero().flatten().tolist()
    counts = [(int(hits[number]), int(totals[number])) for number in enough]
    ends = [clopper_pearson(hit, total, 0.05 / len(counts)) for hit, total in counts]
    worst, whose = min((hit / total, number) for (hit, total), number in zip(counts, enough, strict=True))
    every = int(hits.sum()), len(labels)
    lowest = worst, min(low for low, _ in ends), min(high for _, high in ends)
    return [(every[0] / every[1], *clopper_pearson(*every)), lowest], whose
