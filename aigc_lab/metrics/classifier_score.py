"""Classifier score: the Inception score (Salimans et al. 2016) with the dataset's own classifier instead."""

import math

import torch
from pydantic import Field
from torch import Tensor

from aigc_lab import noise
from aigc_lab.config import Strict
from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base
from aigc_lab.statistics import Z95


def exp_mutual_information(logits: Tensor, splits: int) -> tuple[float, float]:
    """Exp E KL(p(y|x) ‖ p(y)) of logits [N, K]: its mean over the splits of a seeded shuffle, and its standard error.

    From 1 (every sample alike, or none decided) to K (every sample decided, all classes equally often).
    """
    order = torch.randperm(len(logits), generator=noise.generator("splits"))
    values = []
    for part in logits[order].double().tensor_split(splits):
        log_p = part.log_softmax(1)
        log_marginal = torch.logsumexp(log_p, 0) - math.log(len(part))
        values.append((log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp())
    scores = torch.stack(values)
    return scores.mean().item(), (scores.std() / math.sqrt(splits)).item()


class ClassifierScore(base.Metric):
    """Its floor is what real samples score at the same n: a ceiling here, since higher is better."""

    class Config(Strict):
        splits: int = Field(10, ge=2)

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"classifier_score": "higher"}

    @property
    def extractor(self) -> str:
        return "classifier"

    def check(self, dataset: Dataset, samples: int) -> None:
        if samples < 10 * self.config.splits:
            raise ValueError(f"a classifier score in {self.config.splits} splits needs 10 samples in each: {samples}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        generated, real = (
            evidence.features(self.extractor, samples).logits for samples in (evidence.generated, evidence.real.floor)
        )
        assert generated is not None and real is not None
        value, error = exp_mutual_information(generated, self.config.splits)
        floor, _ = exp_mutual_information(real, self.config.splits)
        signature = self.signature(evidence, evidence.identity(self.extractor), f"splits:{self.config.splits}")
        low, high = value - Z95 * error, value + Z95 * error
        return [base.Score("classifier_score", value, low, high, len(generated), floor, signature, "higher")]
