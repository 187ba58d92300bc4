"""Improved precision and recall (Kynkäänniemi et al. 2019): closed balls to the third neighbour."""

from pydantic import Field

from aigc_lab.metrics import base
from aigc_lab.metrics.shared.manifolds import ManifoldMetric


class ImprovedPrecisionRecall(ManifoldMetric):
    """`improved_precision` and `improved_recall`, as their paper calls them: with k = 3 and closed balls, where `prdc`
    has a later definition of the two with k = 5 and open balls. Both sets have the same size, at most 10,000.
    """

    closed = True

    class Config(ManifoldMetric.Config):
        k: int = Field(3, ge=1, le=50)

    @property
    def gives(self) -> dict[str, base.Better]:
        return {self.named(f"improved_{name}"): "higher" for name in ("precision", "recall")}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        manifolds, floors, signature = self.manifolds(evidence)
        n = len(evidence.generated)
        return [
            base.Score(
                self.named(f"improved_{name}"),
                interval.value,
                interval.low,
                interval.high,
                n,
                floors[name],
                signature,
                "higher",
            )
            for name, interval in (("precision", manifolds.precision), ("recall", manifolds.recall))
        ]
