"""Precision, recall, density and coverage (Naeem et al. 2020): open balls to the fifth neighbour."""

from pydantic import Field

from aigc_lab.config import Strict
from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base
from aigc_lab.neighbours import manifolds


class PRDC(base.Metric):
    """Precision and density: generated samples near real ones. Recall and coverage: real ones near generated ones.
    Both sets have the same size, as in the paper: what generated and reference samples both have, 10,000 at most.

    Two samples of one distribution do not score 1: density has expectation 1, and coverage 1 − ½ᵏ at large n (0.97);
    the floor says what is to be expected at this n. Blur raises precision and density. Of the intervals see
    `neighbours.manifolds`: a simulation found 96 to 100 % coverage where Clopper and Pearson's have 47 to 97 %.
    """

    keeps = 10_000

    class Config(Strict):
        features: str = "classifier"
        k: int = Field(5, ge=1, le=50)

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"precision": "higher", "recall": "higher", "density": "higher", "coverage": "higher"}

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
        found, lowest = manifolds(generated, reference, self.config.k), manifolds(floor, against, self.config.k)
        signature = self.signature(
            evidence, evidence.identity(self.extractor), f"k:{self.config.k}", "rim:out", f"each:{len(generated)}"
        )
        n = len(evidence.generated)
        return [
            base.Score(name, got.value, got.low, got.high, n, real.value, signature, "higher")
            for name, got, real in zip(self.gives, found, lowest, strict=True)
        ]
