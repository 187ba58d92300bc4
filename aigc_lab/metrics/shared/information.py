"""Exponential of the mutual information of samples and predicted classes, exp E KL(p(y|x) ‖ p(y)) (Salimans et al.
2016): base of the Inception score and the classifier score.
"""

import math
from abc import abstractmethod
from itertools import pairwise
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from aigc_lab import noise
from aigc_lab.config import Count, Strict
from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base


def exp_mutual_information(logits: Tensor, splits: int, order: Tensor | None = None) -> tuple[float, float]:
    """Exp E KL(p(y|x) ‖ p(y)) of logits [N, K]: the mean over `splits` of a shuffle (seeded, or `order`), and its
    standard error (NaN for one split).

    Values range from 1 (all samples alike, or none decided) to K (all decided, classes equally frequent).
    """
    count = len(logits)
    if order is None:
        order = torch.randperm(count, generator=noise.generator("splits"))
    bounds = [split * count // splits for split in range(splits + 1)]  # as torch-fidelity splits
    values = []
    for first, last in pairwise(bounds):
        log_p = logits[order[first:last]].double().log_softmax(1)
        log_marginal = torch.logsumexp(log_p, 0) - math.log(last - first)
        values.append((log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp())
    scores = torch.stack(values)
    error = (scores.std() / math.sqrt(splits)).item() if splits > 1 else math.nan
    return scores.mean().item(), error


def student(degrees: int) -> float:
    """97.5 % quantile of Student's t with `degrees` of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


class InformationScore(base.Metric):
    """Score whose floor, that of real samples at the same n, is a ceiling, since higher is better.

    The interval is mean ± t·(standard error over the splits) and covers the expected score of n / splits samples: in
    94.7 % of 2,000 simulated sets of 200 samples and 20 classes, where ± 1.96 standard errors cover 91.6 %. It does not
    cover the score of infinitely many samples (there 47 %): with few samples the marginal is close to each of them,
    which biases the score downwards, the more so the more classes there are. Compare equal n.
    """

    version = 2  # Student's interval; splits of unequal length are torch-fidelity's

    class Config(Strict):
        splits: Count = Field(10, ge=2)

    #: what it is called in a refusal, and as a score
    what: ClassVar[str]
    score: ClassVar[str]

    @property
    def gives(self) -> dict[str, base.Better]:
        return {self.score: "higher"}

    @property
    @abstractmethod
    def extractor(self) -> str: ...

    def check(self, dataset: Dataset, samples: int) -> None:
        if samples < 10 * self.config.splits:
            raise ValueError(f"{self.what} in {self.config.splits} splits needs 10 samples in each: {samples}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        splits = self.config.splits
        generated = evidence.features(self.extractor, evidence.generated).logits
        assert generated is not None
        value, error = exp_mutual_information(generated, splits)
        signature = self.signature(evidence, evidence.identity(self.extractor), f"splits:{splits}")

        def of_one(part: base.Part) -> dict[str, float]:
            logits = evidence.features(self.extractor, part).logits
            assert logits is not None
            return {self.score: exp_mutual_information(logits, splits)[0]}

        floor = self.floors_alone(evidence, signature, of_one)[self.score]
        margin = student(splits - 1) * error
        return [
            base.Score(self.score, value, value - margin, value + margin, len(generated), floor, signature, "higher")
        ]
