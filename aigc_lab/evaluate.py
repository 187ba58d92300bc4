"""Protocol + (generated, real) -> scores. Nothing here knows how the samples were trained or where scores go."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from aigc_lab.data.base import Dataset
from aigc_lab.experiment import Protocol
from aigc_lab.extractors.base import Features
from aigc_lab.features import FeatureStore
from aigc_lab.metrics.base import Autoencoder, Evidence, Metric, Real, Score
from aigc_lab.samples import Samples

ScoringSplit = Literal["reference", "holdout"]
SCORING_SPLITS: tuple[ScoringSplit, ...] = ("reference", "holdout")

# The split that is compared with, and the one that shows what real samples score against it.
_FLOOR: dict[ScoringSplit, ScoringSplit] = {"reference": "holdout", "holdout": "reference"}


class Evaluator:
    """Scores samples under one protocol on one dataset; real features are computed once for all runs."""

    def __init__(self, protocol: Protocol, metrics: list[Metric], dataset: Dataset, features: FeatureStore) -> None:
        self.protocol = protocol
        self.metrics = metrics
        self._dataset = dataset
        self._features = features
        features.keep |= kept(metrics)

    def prepare(self) -> None:
        """Loads the real splits, makes or reads the extractors, and fills the cache of real features."""
        for split in SCORING_SPLITS:
            for extractor in sorted({metric.extractor for metric in self.metrics if metric.extractor}):
                self._features.real(extractor, self._reals[split].reference)
        _ = self._reals

    def evaluate(self, generated: Samples, split: ScoringSplit, system: object = None) -> list[Score]:
        """The protocol's scores of generated samples against a real split, in the protocol's order."""
        return score(self.metrics, generated, self._reals[split], self._dataset, self._features, split, system)

    @cached_property
    def _reals(self) -> dict[ScoringSplit, Real]:
        whole: dict[ScoringSplit, Samples] = {split: self._dataset.load(split) for split in _FLOOR}
        for split, samples in whole.items():
            assert len(samples) >= self.protocol.samples, (
                f"{split}: the experiment's check lets no such protocol through"
            )
        train = self._dataset.load("train")
        floors = {split: samples.take(slice(0, self.protocol.samples)) for split, samples in whole.items()}
        return {
            split: Real(whole[split], floors[other], whole[split], train, whole[other])
            for split, other in _FLOOR.items()
        }


def kept(metrics: Sequence[Metric]) -> dict[str, int]:
    """Extractor -> of how many samples its features are kept: what the metric that reads the most of them reads."""
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
) -> list[Score]:
    """The scores of all metrics. Each set passes through an extractor once, however many metrics read its features.

    Raises `ValueError` for evidence that lacks what a metric needs, before anything is scored.
    """
    made: dict[str, Features] = {}

    def features(extractor: str, samples: Samples) -> Features:
        if samples is real.floor and real.whole is not None:
            whole = store.real(extractor, real.whole)
            if len(whole.vectors) == whole.count:
                return whole.take(slice(0, len(samples)))
        if samples is not generated:
            return store.real(extractor, samples)
        if extractor not in made:
            made[extractor] = store.made(extractor, samples)
        return made[extractor]

    evidence = Evidence(
        generated,
        real,
        dataset,
        features,
        lambda extractor: store.extractor(extractor).identity,
        f"data:{dataset.name}:{dataset.digest[:8]}|ref:{split}:{len(real.reference)}|n:{len(generated)}",
        system if isinstance(system, Autoencoder) else None,
    )
    for metric in metrics:
        metric.refuse_lacking(evidence)
    return [score for metric in metrics for score in metric.scores(evidence)]
