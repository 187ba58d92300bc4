"""Fréchet Inception distance (Heusel et al. 2017): 2048 pool3 features of the 2015-12-05 Inception, as pytorch-fid."""

from typing import Literal

from aigc_lab.config import Strict
from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base


class FID(base.Metric):
    """FID_N with ±1.96 standard errors. Its bias depends on n and on the model: read it beside the floor.

    Features of earlier layers have fewer `dims` and need fewer samples. They are another measure, under a name of its
    own.
    """

    class Config(Strict):
        dims: Literal[64, 192, 768, 2048] = 2048

    version = 2
    keeps = 10_000

    @property
    def name(self) -> str:
        return "fid" if self.config.dims == 2048 else f"fid_{self.config.dims}"

    @property
    def gives(self) -> dict[str, base.Better]:
        return {self.name: "lower"}

    @property
    def extractor(self) -> str:
        return "inception" if self.config.dims == 2048 else f"inception_{self.config.dims}"

    def check(self, dataset: Dataset, samples: int) -> None:
        if samples < 100:
            raise ValueError(f"a Fréchet distance needs at least 100 samples, not {samples}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        return [base.frechet_score(self, self.name, self.extractor, evidence)]
