"""Improved precision and recall (Kynkäänniemi et al. 2019): closed balls to the third neighbour."""

from pydantic import Field

from aigc_lab.config import Strict
from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base
from aigc_lab.neighbours import manifolds


class ImprovedPrecisionRecall(base.Metric):
    """`prdc` has the later definition of the same two names, with k = 5 and balls without their rim: these are called
    `improved_precision` and `improved_recall`, as their paper calls them. Both sets have the same size, 10,000 at most.
    """

    keeps = 10_000

    class Config(Strict):
        features: str = "classifier"
        k: int = Field(3, ge=1, le=50)

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"improved_precision": "higher", "improved_recall": "higher"}

    @property
    def extractor(self) -> str:
        name: str = self.config.features
        return name

    def check(self, dataset: Dataset, samples: int) -> None:
        base.enough_neighbours(self.config.k, samples)

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        generated, reference = base.paired(
            evidence, self.extractor, evidence.generated, evidence.real.reference, self.keeps
        )
        floor, against = base.paired(
            evidence, self.extractor, evidence.real.floor, evidence.real.against, len(generated)
        )
        found = manifolds(generated, reference, self.config.k, closed=True)
        lowest = manifolds(floor, against, self.config.k, closed=True)
        signature = self.signature(
            evidence, evidence.identity(self.extractor), f"k:{self.config.k}", "rim:in", f"each:{len(generated)}"
        )
        n = len(evidence.generated)
        return [
            base.Score("improved_precision", *found.precision, n, lowest.precision.value, signature, "higher"),
            base.Score("improved_recall", *found.recall, n, lowest.recall.value, signature, "higher"),
        ]
