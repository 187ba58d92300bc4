"""The scores of an experiment: one protocol on one dataset."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import torch

from aigc_lab.data.base import Dataset
from aigc_lab.data.shared.class_shares import generate_like, labels_for
from aigc_lab.experiment.protocol import Protocol
from aigc_lab.host import shared_files
from aigc_lab.metrics.base import Metric, Pool, Real, Score
from aigc_lab.modalities.base import modality_of
from aigc_lab.noise import Key
from aigc_lab.pictures import drawing
from aigc_lab.samples import Samples
from aigc_lab.scoring import temperature_curve
from aigc_lab.scoring.collapse_judge import CollapseJudge, with_code
from aigc_lab.scoring.evidence import evidence_of, kept, pool_of, score, scores_of
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.scoring.null_cache import known_baseline, write_baseline
from aigc_lab.systems.base import System
from aigc_lab.systems.shared.language import LanguageSystem
from aigc_lab.verdicts.conclusion import CollapseVerdict
from aigc_lab.verdicts.states import MISSING

ScoringSplit = Literal["reference", "holdout"]


SCORING_SPLITS: tuple[ScoringSplit, ...] = ("reference", "holdout")


# Rows of the picture of what is missing, and real samples in each.
_LACKING, _IN_ROW = 20, 8


# The split that is compared with, and the one that shows what real samples score against it.
_FLOOR: dict[ScoringSplit, ScoringSplit] = {"reference": "holdout", "holdout": "reference"}


class Evaluator:
    """Scores samples under one protocol on one dataset. Features of real samples are computed once for all runs."""

    def __init__(self, protocol: Protocol, metrics: list[Metric], dataset: Dataset, features: FeatureStore) -> None:
        self.protocol = protocol
        self.metrics = metrics
        self._dataset = dataset
        self._features = features
        features.keep |= kept(metrics)
        self._baselines: dict[str, float | None] = {}

    def prepare(self) -> None:
        """Loads the real splits and the extractors, and fills the cache of real features."""
        for split in SCORING_SPLITS:
            for extractor in sorted({metric.extractor for metric in self.metrics if metric.extractor}):
                self._features.real(extractor, self._reals[split].reference)
        _ = self._reals

    def generate(self, system: System, *key: Key) -> Samples:
        """As many samples of a system as the protocol takes, keyed by `key`; of a conditional one in the proportions of
        the classes that it was trained on.
        """
        return generate_like(system, self._dataset, self.protocol.samples, *key)

    def evaluate(self, generated: Samples, split: ScoringSplit, system: object = None) -> list[Score]:
        """Scores of generated samples against a real split, in the order of the protocol."""
        return self.examine(generated, split, system)[0]

    def examine(
        self, generated: Samples, split: ScoringSplit, system: object = None, *, judged: bool = False
    ) -> tuple[list[Score], CollapseVerdict | None]:
        """The scores, and if `judged` the verdict on collapse by the same features, None where it cannot be given."""
        evidence = evidence_of(generated, self._reals[split], self._dataset, self._features, split, system, ())
        scores = scores_of(self.metrics, evidence)
        if not judged:
            return scores, None
        return scores, with_code(self._jury.collapse(evidence), scores, system, evidence.real.reference)

    def computable(self, generated: Samples, split: ScoringSplit, system: object = None) -> list[Score]:
        """The scores of those metrics that do not fail."""
        evidence = evidence_of(generated, self._reals[split], self._dataset, self._features, split, system, ())
        scores: list[Score] = []
        for metric in self.metrics:
            with suppress(Exception):  # what was wrong is the reason of the run's failure
                scores += scores_of([metric], evidence)
        return scores

    def judge(self, generated: Samples) -> CollapseVerdict | None:
        """The verdict on collapse, by the features of the protocol; None where it cannot be given."""
        return self._jury.collapse(
            evidence_of(generated, self._reals["reference"], self._dataset, self._features, "reference", None, ())
        )

    def missing(self, bins: Sequence[Mapping[str, Any]]) -> bytes | None:
        """A PNG of real images from each missing bin of a verdict on this dataset, a row of up to eight for each. None
        where no bin is missing, or samples are no images.
        """
        names = [row["name"] for row in bins if row["state"] == MISSING][:_LACKING]
        kind = modality_of(self._dataset.shape)
        if not names or not kind.is_image:
            return None
        rows = [self._jury.examples(name, _IN_ROW).canonical() for name in names]
        width = min(map(len, rows))
        values = torch.cat([row.values[:width] for row in rows])
        return drawing.png(kind.tiles(replace(rows[0], values=values, labels=None), width))

    @cached_property
    def _jury(self) -> CollapseJudge:
        extractor = next((metric.extractor for metric in self.metrics if metric.extractor), None)
        return CollapseJudge(self._dataset, self._features, extractor, self.protocol.samples)

    def baseline(self, objective: str) -> float | None:
        """The score of a trivial sampler on the reference split, by which it is measured whether anything was learned.

        None for scores of a system rather than of its samples, and for scores that hardly tell trivial samples from
        real ones: points of a Gaussian lie in wide modes as evenly as real ones do.
        """
        if objective not in self._baselines:
            self._baselines[objective] = self._kept_baseline(objective)
        return self._baselines[objective]

    def _kept_baseline(self, objective: str) -> float | None:
        """The baseline, from the cache if it is there: it costs as much as an evaluation, and depends on protocol and
        dataset alone.
        """
        judges = [self._features.extractor(name).identity for name in sorted(kept(self.metrics))]
        versions = [metric.version for metric in self.metrics]
        identity = [objective, self.protocol.model_dump(mode="json"), versions, self._dataset.digest, judges]
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        path = self._features.cache / "baselines" / f"{key}.json"
        with suppress(OSError, ValueError):
            return known_baseline(shared_files.cached(path))
        value = self._trivial_score(objective)
        with suppress(OSError):
            write_baseline(path, value)
        return value

    def _trivial_score(self, objective: str) -> float | None:
        metric = next(metric for metric in self.metrics if objective in metric.gives)
        if metric.needs & {"encoder", "codes", "game", "likelihood", "labels"}:
            return None
        train = self._dataset.load("train")
        trivial = modality_of(train).trivial(train, self.protocol.samples)
        scores = score([metric], trivial, self._reals["reference"], self._dataset, self._features, "reference")
        trivially = next(each for each in scores if each.name == objective)
        return trivially.value if _tells(trivially) else None

    def temperature_curve(self, system: LanguageSystem, temperatures: Sequence[float], seed: int) -> dict[str, Any]:
        """The quality and diversity of a language model at these temperatures and at 1, against the holdout (see
        `scoring.temperature_curve`).
        """
        real = self._reals["holdout"]
        labels = labels_for(system, self._dataset, self.protocol.samples)
        curve = temperature_curve.curve(
            system, real.reference, real.floor, temperatures, self.protocol.samples, seed, labels
        )
        return curve | {"data": self._dataset.digest}

    @cached_property
    def _reals(self) -> dict[ScoringSplit, Real]:
        whole: dict[ScoringSplit, Samples] = {split: self._dataset.load(split) for split in _FLOOR}
        for split, samples in whole.items():
            assert len(samples) >= self.protocol.samples, (
                f"{split}: the experiment's check lets no such protocol through"
            )
        train = self._dataset.load("train")
        n = self.protocol.samples
        return {split: Real.drawn(whole[split], self._pool(whole, split), n, train) for split in _FLOOR}

    def _pool(self, whole: Mapping[ScoringSplit, Samples], split: ScoringSplit) -> Pool:
        return pool_of(whole[split], whole[_FLOOR[split]], self._dataset.exchangeable)


def _tells(trivial: Score) -> bool:
    """Whether a score tells trivial samples from real ones clearly enough to measure learning by it."""
    if trivial.better == "lower":
        return trivial.low > trivial.floor and trivial.value > 2 * abs(trivial.floor)
    return trivial.high < trivial.floor and trivial.value < 0.75 * trivial.floor
