"""Base of `prdc` and `improved_precision_recall`: two sets of equal size, and the balls to their neighbours."""

from typing import ClassVar

from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base
from aigc_lab.samples import Samples
from aigc_lab.statistics.neighbours import Manifolds, enough_neighbours, manifolds


class ManifoldMetric(base.FeatureMetric):
    """Metric of two sets of equal size, at most 10,000 of each. The `Config` of a subclass has a rank `k`."""

    keeps = 10_000
    draws = 5  # distances of all pairs each
    #: whether a ball has its rim
    closed: ClassVar[bool]

    def check(self, dataset: Dataset, samples: int) -> None:
        enough_neighbours(self.config.k, samples)

    def manifolds(self, evidence: base.Evidence) -> tuple[Manifolds, dict[str, base.Floor], str]:
        """Precision, recall, density and coverage of the generated samples; their floors by name; and the signature."""
        k = self.config.k

        def of(a: Samples | base.Part, b: Samples | base.Part, most: int) -> tuple[Manifolds, int]:
            some, others = base.paired(evidence, self.extractor, a, b, most)
            return manifolds(some, others, k, closed=self.closed), len(some)

        intervals, each = of(evidence.generated, evidence.real.reference, self.keeps)
        rim = "in" if self.closed else "out"
        signature = self.signature(evidence, evidence.identity(self.extractor), f"k:{k}", f"rim:{rim}", f"each:{each}")

        def compared(n: int, m: int) -> int:
            return min(n, m, self.keeps)

        def between(floor: base.Part, against: base.Part) -> dict[str, float]:
            scores = of(floor, against, each)[0]._asdict()
            return {name: score.value for name, score in scores.items()}

        return intervals, self.floors(evidence, signature, between, used=compared), signature
