"""Precision, recall, density and coverage (Naeem et al. 2020): open balls to the fifth neighbour."""

from pydantic import Field

from aigc_lab.metrics import base
from aigc_lab.metrics.shared.manifolds import ManifoldMetric

_SCORES = ("precision", "recall", "density", "coverage")


class PRDC(ManifoldMetric):
    """Precision and density measure how many generated samples lie near real ones; recall and coverage, how many real
    ones near generated ones. Both sets have the same size, as in the paper: at most 10,000.

    Two samples of one distribution do not score 1: density has expectation 1, and coverage 1 − ½ᵏ at large n (0.97).
    The floor is the expected value at this n. Blur raises precision and density. In a simulation the intervals of
    `neighbours.manifolds` covered 96 to 100 %, Clopper and Pearson's 47 to 97 %.
    """

    closed = False

    class Config(ManifoldMetric.Config):
        k: int = Field(5, ge=1, le=50)

    @property
    def gives(self) -> dict[str, base.Better]:
        return {self.named(name): "higher" for name in _SCORES}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        manifolds, floors, signature = self.manifolds(evidence)
        n = len(evidence.generated)
        return [
            base.Score(
                self.named(name), interval.value, interval.low, interval.high, n, floors[name], signature, "higher"
            )
            for name, interval in zip(_SCORES, manifolds, strict=True)
        ]
