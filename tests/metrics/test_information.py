"""The Inception score is torch-fidelity's of the same logits, and its interval covers what it says and no more."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric

from aigc_lab.metrics.base import Metric
from aigc_lab.metrics.shared.information import exp_mutual_information, student
from aigc_lab.plugins import find


@pytest.mark.parametrize("count", [1000, 1007])
def test_it_is_torch_fidelitys(count: int) -> None:
    logits = 3 * torch.randn(count, 1008, generator=torch.Generator().manual_seed(0))
    theirs = isc_features_to_metric(logits, 10, True, 2020)
    order = torch.from_numpy(np.random.RandomState(2020).permutation(count))
    value, error = exp_mutual_information(logits, 10, order)
    assert value == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert error * 3 == pytest.approx(theirs["inception_score_std"], rel=1e-9), "sd with ddof 1 over √10; theirs ddof 0"


def sets(count: int, sets: int, classes: int, source: torch.Generator) -> Tensor:
    """Logits of `sets` sets of samples: each is of one class, with a certainty of its own."""
    logits = torch.randn(sets, count, classes, generator=source)
    picks = torch.randint(classes, (sets, count, 1), generator=source)
    return logits.scatter_add(2, picks, 4 * torch.rand(sets, count, 1, generator=source))


def test_the_interval_covers_the_score_of_so_many_and_not_of_infinitely_many() -> None:
    source = torch.Generator().manual_seed(0)
    trials, count, splits, classes = 300, 200, 10, 20
    found = [exp_mutual_information(each, splits) for each in sets(count, trials, classes, source)]
    small = np.mean([exp_mutual_information(each, 1)[0] for each in sets(count // splits, 2000, classes, source)])
    limit, _ = exp_mutual_information(sets(50_000, 1, classes, source)[0], 1)

    def coverage(truth: float, quantile: float) -> float:
        return float(np.mean([abs(value - truth) <= quantile * error for value, error in found]))

    spread = math.sqrt(0.95 * 0.05 / trials)
    assert coverage(float(small), student(splits - 1)) == pytest.approx(0.95, abs=3.5 * spread)
    assert coverage(float(small), 1.96) < coverage(float(small), student(splits - 1))
    assert coverage(limit, student(splits - 1)) < 0.65, "twenty samples a split know a marginal of twenty classes badly"


@pytest.mark.parametrize("name", ["inception_score", "classifier_score"])
def test_too_few_samples_say_how_many(name: str) -> None:
    kind = find(Metric, name)  # type: ignore[type-abstract]
    metric = kind(kind.Config.model_validate({"splits": 5}))
    metric.check(None, 50)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="49"):
        metric.check(None, 49)  # type: ignore[arg-type]
