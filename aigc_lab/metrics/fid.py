"""Fréchet Inception distance (Heusel et al. 2017): 2048 pool3 features of the 2015-12-05 Inception, as pytorch-fid."""

from pydantic import Field

from aigc_lab.config import Strict
from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base


class FID(base.Metric):
    """FID_N with ±1.96 bootstrap standard errors. Its bias depends on n and on the model: read it beside the floor."""

    class Config(Strict):
        replicates: int = Field(
            20, ge=20, description="bootstrap replicates behind the interval: seconds each where n > 2048"
        )

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"fid": "lower"}

    @property
    def extractor(self) -> str:
        return "inception"

    def check(self, dataset: Dataset, samples: int) -> None:
        if samples < 100:
            raise ValueError(f"a Fréchet distance needs at least 100 samples, not {samples}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        return [base.frechet_score(self, "fid", self.extractor, self.config.replicates, evidence)]
