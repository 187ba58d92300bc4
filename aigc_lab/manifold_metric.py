"""What `prdc` and `improved_precision_recall` share: two sets of one size, and the balls to their neighbours."""

from typing import ClassVar

from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base
from aigc_lab.neighbours import Manifolds, enough_neighbours, manifolds
from aigc_lab.samples import Samples


class ManifoldMetric(base.FeatureMetric):
    """Both sets have the same size: what generated and reference samples both have, 10,000 at most. The `Config` of a
    metric of this kind has a rank `k`.
    """

    keeps = 10_000
    #: whether a ball has its rim
    closed: ClassVar[bool]

    def check(self, dataset: Dataset, samples: int) -> None:
        enough_neighbours(self.config.k, samples)

    def manifolds(self, evidence: base.Evidence) -> tuple[Manifolds, Manifolds, str]:
        """Of the generated samples, of real ones, and the signature."""
        real, k = evidence.real, self.config.k

        def of(a: Samples, b: Samples, most: int) -> tuple[Manifolds, int]:
            some, others = base.paired(evidence, self.extractor, a, b, most)
            return manifolds(some, others, k, closed=self.closed), len(some)

        found, each = of(evidence.generated, real.reference, self.keeps)
        rim = "in" if self.closed else "out"
        signature = self.signature(evidence, evidence.identity(self.extractor), f"k:{k}", f"rim:{rim}", f"each:{each}")
        return found, self.of_real(evidence, signature, lambda: of(real.floor, real.against, each)[0]), signature
