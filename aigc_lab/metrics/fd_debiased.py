"""The Fréchet distance at n = ∞: the bias-corrected jackknife (Quenouille 1956; Tukey 1958) of an `fd` or a `fid`."""

from aigc_lab.data.base import Dataset
from aigc_lab.extractors.shared import lookup
from aigc_lab.metrics import base
from aigc_lab.statistics.frechet import debiased

GROUPS = 20
# Student's t at 97.5 % with 19 degrees of freedom: that many deviations are behind the error.
_T95 = 2.093024054408263
_PER_DIMENSION = 4


class DebiasedFD(base.FeatureMetric):
    """Estimate of the Fréchet distance at n = ∞. Its interval covers the true distance, where that of FD_N covers
    E[FD_N]; real samples score 0 on average, and below 0 half of the time.

    It needs four samples for each feature dimension: with fewer the bias is not of order 1/n, and the interval misses.
    """

    @property
    def name(self) -> str:
        features = self.config.features
        if features in ("inception", "inception_64", "inception_192", "inception_768"):
            return f"{features.replace('inception', 'fid')}_debiased"
        return f"fd_{lookup.find_extractor(features).short}_debiased"

    @property
    def gives(self) -> dict[str, base.Better]:
        return {self.name: "lower"}

    def check(self, dataset: Dataset, samples: int) -> None:
        dimensions = lookup.find_extractor(self.config.features).dimensions
        # An extractor that does not declare its dimensions is checked when its features are there.
        self._enough(samples, "samples", dimensions or GROUPS // _PER_DIMENSION)

    def _enough(self, samples: int, what: str, dimensions: int) -> None:
        needed = _PER_DIMENSION * dimensions
        if samples < needed:
            raise ValueError(
                f"{self.name} takes the bias of order 1/n away, and with features of {dimensions} dimensions that is "
                f"all of it only from {needed:,} samples on: {samples:,} {what} are too few; kid is unbiased at any n"
            )

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        generated, reference = (
            evidence.features(self.extractor, samples) for samples in (evidence.generated, evidence.real.reference)
        )
        dimensions = generated.vectors.shape[1]
        self._enough(len(generated.vectors), "generated samples", dimensions)
        self._enough(len(reference.vectors), "reference samples", dimensions)
        value, error = debiased(generated.vectors, reference.vectors, GROUPS)
        signature = self.signature(
            evidence,
            evidence.identity(self.extractor),
            f"d:{dimensions}",
            f"jackknife:{GROUPS}",
            *(f"kept:{len(generated.vectors)}" for _ in range(len(generated.vectors) < generated.count)),
        )

        def between(floor: base.Part, against: base.Part) -> dict[str, float]:
            first, second = (evidence.features(self.extractor, each).vectors for each in (floor, against))
            return {self.name: debiased(first, second, GROUPS)[0]}

        floor = self.floors(evidence, signature, between, used=lambda n, m: "unbiased")[self.name]
        margin = _T95 * error
        return [
            base.Score(self.name, value, value - margin, value + margin, generated.count, floor, signature, "lower")
        ]
