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
    """Its interval covers the true distance, where that of FD_N covers FD_N's own mean; real samples score 0, and below
    it half of the time.

    Only from four samples a dimension on: with fewer the bias is no longer of order 1/n, and the interval misses.
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
        # Of what says nothing about itself the features do, when they are there.
        self._enough(samples, "samples", dimensions or GROUPS // _PER_DIMENSION)

    def _enough(self, samples: int, what: str, dimensions: int) -> None:
        needed = _PER_DIMENSION * dimensions
        if samples < needed:
            raise ValueError(
                f"{self.name} takes the bias of order 1/n away, and with features of {dimensions} dimensions that is "
                f"all of it only from {needed:,} samples on: {samples:,} {what} are too few; kid is unbiased at any n"
            )

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        made, reference = (
            evidence.features(self.extractor, samples) for samples in (evidence.generated, evidence.real.reference)
        )
        dimensions = made.vectors.shape[1]
        self._enough(len(made.vectors), "generated samples", dimensions)
        self._enough(len(reference.vectors), "reference samples", dimensions)
        value, error = debiased(made.vectors, reference.vectors, GROUPS)
        signature = self.signature(
            evidence,
            evidence.identity(self.extractor),
            f"d:{dimensions}",
            f"jackknife:{GROUPS}",
            *(f"kept:{len(made.vectors)}" for _ in range(len(made.vectors) < made.count)),
        )

        def between(floor: base.Part, against: base.Part) -> dict[str, float]:
            first, second = (evidence.features(self.extractor, each).vectors for each in (floor, against))
            return {self.name: debiased(first, second, GROUPS)[0]}

        floor = self.floors(evidence, signature, between, used=lambda made, real: "unbiased")[self.name]
        margin = _T95 * error
        return [base.Score(self.name, value, value - margin, value + margin, made.count, floor, signature, "lower")]
