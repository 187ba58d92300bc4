"""Fréchet distance of sentence embeddings (Cífka et al. 2018, Semeniuta et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aigc_lab.metrics import base
from aigc_lab.shape import Modality

if TYPE_CHECKING:
    from aigc_lab.data.base import Dataset


class EmbeddingFD(base.FeatureMetric):
    """FD_N of the vectors of the embedder that `features` names, whose identity is in the signature. `sentences` is our
    own embedder, fitted to the training split; `minilm` is a published one, whose score is `embedding_fd_minilm`; a
    user's file may name another. The interval of ±1.96 standard errors covers E[FD_N] at this n.
    """

    class Config(base.FeatureMetric.Config):
        features: str = "sentences"

    @property
    def name(self) -> str:
        """`embedding_fd` for the package's own sentence vectors; with the extractor's name for others."""
        return "embedding_fd" if self.extractor == "sentences" else self.named("embedding_fd")

    @property
    def gives(self) -> dict[str, base.Better]:
        return {self.name: "lower"}

    def check(self, dataset: Dataset, samples: int) -> None:
        if dataset.shape.modality != Modality.TEXT:
            raise ValueError(f"it is of text, and dataset {dataset.name} holds {dataset.shape}")
        if samples < 50:
            raise ValueError(f"a Fréchet distance needs at least 50 sentences, not {samples}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        return [base.frechet_score(self, self.name, self.extractor, evidence)]
