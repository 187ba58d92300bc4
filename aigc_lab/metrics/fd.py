"""Fréchet distance between feature sets (Dowson & Landau 1982; Heusel et al. 2017), named by its features: `fd_clf`."""

from aigc_lab.data.base import Dataset
from aigc_lab.extractors.shared import lookup
from aigc_lab.metrics import base


class FD(base.FeatureMetric):
    """FD_N with ±1.96 standard errors, which covers E[FD_N] at this n and not the distance at n = ∞.

    Compare it with the floor: the same distance between two sets of real samples of the same n. Only Inception's
    features make a FID, and that has a file of its own.
    """

    version = 2
    keeps = 10_000

    @property
    def name(self) -> str:
        return f"fd_{lookup.find_extractor(self.config.features).short}"

    @property
    def gives(self) -> dict[str, base.Better]:
        return {self.name: "lower"}

    def check(self, dataset: Dataset, samples: int) -> None:
        if samples < 100:
            raise ValueError(f"a Fréchet distance needs at least 100 samples, not {samples}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        return [base.frechet_score(self, self.name, self.extractor, evidence)]
