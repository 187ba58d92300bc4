"""Vendi score (Friedman & Dieng 2023): the effective number of different samples, as a ratio to real ones."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aigc_lab.config import Strict
from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base
from aigc_lab.statistics import T95_OF_GROUPS, groups, jackknife_error


class Entropy(NamedTuple):
    nats: float
    error: float


def entropy(vectors: Tensor) -> Entropy:
    """−Σ λ log λ over the eigenvalues of K/n, K the cosines of vectors [n, d]; its exponential is the Vendi score.

    The standard error is that of a jackknife of 20 groups: the first-order influence of single samples, which would
    need one decomposition instead of 21, misses a quarter of it where n < d.
    """
    rows = vectors.double()
    lengths = rows.norm(dim=1, keepdim=True)
    # A zero vector has no direction: all of them are alike and unlike the rest, a dimension of their own.
    rows = torch.cat([rows / lengths.where(lengths > 0, 1.0), (lengths == 0).double()], 1)
    part = groups(len(rows)).to(rows.device)
    replicates = [_nats(rows[part != left]) for left in range(int(part.max()) + 1)]
    return Entropy(_nats(rows), jackknife_error(torch.tensor(replicates, dtype=torch.float64)))


def _nats(rows: Tensor) -> float:
    """Of unit vectors [n, d]: with d < n the d × d matrix XᵀX/n has the eigenvalues of K/n."""
    gram = rows.T @ rows if rows.shape[1] < len(rows) else rows @ rows.T
    values = torch.linalg.eigvalsh(gram / len(rows)).clamp_min(0)
    return float(torch.special.entr(values).sum())


class Vendi(base.Metric):
    """The ratio of two Vendi scores of cosines, each of as many vectors as generated and reference samples both have,
    10,000 at most: the score of one set alone depends on n and on the features. 1 is real samples' diversity.

    The interval is of ±2.09 standard errors of the ratio's logarithm, both sets' together; it covers the ratio's
    expectation at this n. Diversity is all that it sees: noise may have more than real samples.
    """

    keeps = 10_000
    tells = "collapse"

    class Config(Strict):
        features: str = "classifier"

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"vendi": "higher"}

    @property
    def extractor(self) -> str:
        name: str = self.config.features
        return name

    def check(self, dataset: Dataset, samples: int) -> None:
        if samples < 50:
            raise ValueError(f"a Vendi score needs at least 50 samples, not {samples}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        generated, reference = base.paired(
            evidence, self.extractor, evidence.generated, evidence.real.reference, self.keeps
        )
        floor, against = base.paired(
            evidence, self.extractor, evidence.real.floor, evidence.real.against, len(generated)
        )
        made, real = entropy(generated), entropy(reference)
        value, factor = math.exp(made.nats - real.nats), math.exp(T95_OF_GROUPS * math.hypot(made.error, real.error))
        lowest = math.exp(entropy(floor).nats - entropy(against).nats)
        signature = self.signature(
            evidence, evidence.identity(self.extractor), "kernel:cosine", f"each:{len(generated)}", "ratio:real"
        )
        n = len(evidence.generated)
        return [base.Score("vendi", value, value / factor, value * factor, n, lowest, signature, "higher")]
