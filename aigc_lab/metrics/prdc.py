"""Precision, recall, density and coverage (Naeem et al. 2020): open balls to the fifth neighbour."""

from pydantic import Field

from aigc_lab.metrics import base
from aigc_lab.metrics.shared.manifolds import ManifoldMetric

_SCORES = ("precision", "recall", "density", "coverage")


class PRDC(ManifoldMetric):
    """Precision and density: generated samples near real ones. Recall and coverage: real ones near generated ones.
    Both sets have the same size, as in the paper: what generated and reference samples both have, 10,000 at most.

    Two samples of one distribution do not score 1: density has expectation 1, and coverage 1 − ½ᵏ at large n (0.97);
    the floor says what is to be expected at this n. Blur raises precision and density. Of the intervals see
    `neighbours.manifolds`: a simulation found 96 to 100 % coverage where Clopper and Pearson's have 47 to 97 %.
    """

    closed = False

    class Config(ManifoldMetric.Config):
        k: int = Field(5, ge=1, le=50)

    @property
    def gives(self) -> dict[str, base.Better]:
        return {self.named(name): "higher" for name in _SCORES}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        found, floors, signature = self.manifolds(evidence)
        n = len(evidence.generated)
        return [
            base.Score(self.named(name), got.value, got.low, got.high, n, floors[name], signature, "higher")
            for name, got in zip(_SCORES, found, strict=True)
        ]
