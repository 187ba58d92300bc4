"""Improved precision and recall (Kynkäänniemi et al. 2019): closed balls to the third neighbour."""

from pydantic import Field

from aigc_lab.metrics import base
from aigc_lab.metrics.shared.manifolds import ManifoldMetric


class ImprovedPrecisionRecall(ManifoldMetric):
    """`prdc` has the later definition of the same two names, with k = 5 and balls without their rim: these are called
    `improved_precision` and `improved_recall`, as their paper calls them. Both sets have the same size, 10,000 at most.
    """

    closed = True

    class Config(ManifoldMetric.Config):
        k: int = Field(3, ge=1, le=50)

    @property
    def gives(self) -> dict[str, base.Better]:
        return {self.named(f"improved_{name}"): "higher" for name in ("precision", "recall")}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        found, floors, signature = self.manifolds(evidence)
        n = len(evidence.generated)
        return [
            base.Score(
                self.named(f"improved_{name}"), got.value, got.low, got.high, n, floors[name], signature, "higher"
            )
            for name, got in (("precision", found.precision), ("recall", found.recall))
        ]
