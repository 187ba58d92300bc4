"""Protocol + (generated, real) -> scores. Nothing here knows how the samples were trained or where scores go."""

from functools import cached_property
from typing import Literal

from aigc_lab.data.base import Dataset
from aigc_lab.experiment import Protocol
from aigc_lab.extractors.base import Features
from aigc_lab.features import FeatureStore
from aigc_lab.metrics.base import Evidence, Metric, Score
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

    @cached_property
    def _real(self) -> dict[ScoringSplit, Samples]:
        real: dict[ScoringSplit, Samples] = {split: self._dataset.load(split) for split in _FLOOR}
        for split, samples in real.items():
            assert len(samples) >= self.protocol.samples, (
                f"{split}: the experiment's check lets no such protocol through"
            )
        return real

    def prepare(self) -> None:
        """Loads the real splits, makes or reads the extractors, and fills the cache of real features."""
        for extractor in sorted({metric.extractor for metric in self.metrics if metric.extractor}):
            for samples in self._real.values():
                self._features.real(extractor, samples)
        _ = self._real

    def evaluate(self, generated: Samples, split: ScoringSplit) -> list[Score]:
        """The protocol's scores of generated samples against a real split, in the protocol's order."""
        count = self.protocol.samples
        reference, whole = self._real[split], self._real[_FLOOR[split]]
        real = whole.take(slice(0, count))

        # Each set passes through an extractor once, however many metrics read its features.
        made: dict[str, Features] = {}

        def features(extractor: str, samples: Samples) -> Features:
            if samples is reference:
                return self._features.real(extractor, reference)
            if samples is real:
                return self._features.real(extractor, whole).take(count)
            if extractor not in made:
                made[extractor] = self._features.made(extractor, samples)
            return made[extractor]

        evidence = Evidence(
            generated,
            reference,
            real,
            self._dataset,
            features,
            lambda extractor: self._features.extractor(extractor).identity,
            f"data:{self._dataset.name}:{self._dataset.digest[:8]}|ref:{split}:{len(reference)}|n:{len(generated)}",
        )
        return [score for metric in self.metrics for score in metric.scores(evidence)]
