"""The evidence that metrics score: samples of both sides, each set passed through an extractor once."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from aigc_lab.data.base import Dataset
from aigc_lab.extractors.base import Features, joined
from aigc_lab.metrics.base import Coder, Evidence, Game, Metric, Part, Pool, Real, Score
from aigc_lab.samples import Samples
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.text.likelihood import Likelihood


def pool_of(reference: Samples, other: Samples, exchangeable: bool) -> Pool:
    """The pool of real samples that floors are drawn from: the other scoring split, or both together where they are
    random parts of one set, so that both sides of each draw are new.
    """
    if exchangeable:
        return Pool((reference, other), len(other), len(reference))
    return Pool((other,), len(other), against=reference)


def kept(metrics: Sequence[Metric]) -> dict[str, int]:
    """The number of samples of which each extractor keeps features, by its name: the most that any metric reads."""
    most: dict[str, int] = {}
    for metric in metrics:
        if metric.extractor:
            most[metric.extractor] = max(metric.keeps, most.get(metric.extractor, 0))
    return most


def score(
    metrics: Sequence[Metric],
    generated: Samples,
    real: Real,
    dataset: Dataset,
    store: FeatureStore,
    split: str,
    system: object = None,
    details: Sequence[str] = (),
) -> list[Score]:
    """The scores of all metrics, with the `details` in their signatures. Each set passes through an extractor once,
    however many metrics read its features.

    Raises `ValueError` for evidence that lacks what a metric needs, before anything is scored.
    """
    return scores_of(metrics, evidence_of(generated, real, dataset, store, split, system, details))


def scores_of(metrics: Sequence[Metric], evidence: Evidence) -> list[Score]:
    for metric in metrics:
        metric.refuse_lacking(evidence)
    return [score for metric in metrics for score in metric.scores(evidence)]


def evidence_of(
    generated: Samples,
    real: Real,
    dataset: Dataset,
    store: FeatureStore,
    split: str,
    system: object,
    details: Sequence[str],
) -> Evidence:
    cache: dict[str, Features] = {}

    def features(extractor: str, samples: Samples | Part) -> Features:
        if isinstance(samples, Part):
            return _of_part(extractor, samples, real, features)
        if samples is not generated:
            return store.real(extractor, samples)
        if extractor not in cache:
            cache[extractor] = store.made(extractor, samples)
        return cache[extractor]

    return Evidence(
        generated,
        real,
        dataset,
        features,
        lambda extractor: store.extractor(extractor).identity,
        "|".join(
            [
                f"data:{dataset.name}:{dataset.digest[:8]}",
                f"ref:{split}:{len(real.reference)}",
                f"n:{len(generated)}",
                *details,
            ]
        ),
        system if isinstance(system, Coder | Game | Likelihood) else None,
        store.device,
    )


def _of_part(extractor: str, part: Part, real: Real, features: Callable[[str, Samples], Features]) -> Features:
    """Features of a part of real samples: rows of the features of the whole sets where all of these were kept, else
    extracted anew.
    """
    if part.rows is None and len(part.wholes) == 1:
        return features(extractor, part.wholes[0])
    parts = [(features(extractor, whole), torch.from_numpy(rows)) for whole, rows in part.each()]
    if all(len(every.vectors) == every.count for every, _ in parts):
        return joined([every.take(rows) for every, rows in parts])
    if real.pool is not None:
        # Only the first draw is made of such sets, and its samples are there.
        for drawn, samples in zip(real.pool.draw(0, len(real.floor)), (real.floor, real.against), strict=True):
            if drawn.rows is not None and part.rows is not None and np.array_equal(drawn.rows, part.rows):
                return features(extractor, samples)
    return features(extractor, part.samples)
