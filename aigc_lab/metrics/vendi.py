"""Vendi score (Friedman & Dieng 2023): the effective number of different samples, as a ratio to real ones."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base
from aigc_lab.statistics.frechet import gram
from aigc_lab.statistics.intervals import T95_OF_GROUPS, groups, jackknife_error


class Entropy(NamedTuple):
    nats: float
    error: float


def entropy(vectors: Tensor) -> Entropy:
    """−Σ λ log λ over the eigenvalues of K/n, K the cosines of vectors [n, d]; its exponential is the Vendi score.

    The standard error is that of a jackknife of 20 groups: the first-order influence of single samples, which would
    need one decomposition instead of 21, misses a quarter of it where n < d.
    """
    rows = _directions(vectors)
    part = groups(len(rows)).to(rows.device)
    whole = _alike(rows)
    replicates = []
    for left in range(int(part.max()) + 1):
        kept = part != left
        # What is left of a group's part of XᵀX costs a twentieth of multiplying again; K without it is a part of K.
        alike = whole - gram(rows[~kept]) if rows.shape[1] < len(rows) else whole[kept][:, kept]
        replicates.append(_of_spectrum(alike / kept.sum()))
    error = jackknife_error(torch.tensor(replicates, dtype=torch.float64))
    return Entropy(_of_spectrum(whole / len(rows)), error)


def nats(vectors: Tensor) -> float:
    """The entropy without its error."""
    rows = _directions(vectors)
    return _of_spectrum(_alike(rows) / len(rows))


def _directions(vectors: Tensor) -> Tensor:
    """Unit vectors in float64. A zero vector has no direction: all of them are alike and unlike the rest, a dimension
    of their own.
    """
    rows = vectors.double()
    lengths = rows.norm(dim=1, keepdim=True)
    return torch.cat([rows / lengths.where(lengths > 0, 1.0), (lengths == 0).double()], 1)


def _alike(rows: Tensor) -> Tensor:
    """K of unit vectors [n, d], or with d < n the d × d matrix XᵀX, which has the same eigenvalues."""
    return gram(rows) if rows.shape[1] < len(rows) else gram(rows.T)


def _of_spectrum(alike: Tensor) -> float:
    values = torch.linalg.eigvalsh(alike).clamp_min(0)
    return float(torch.special.entr(values).sum())


class Vendi(base.FeatureMetric):
    """The ratio of two Vendi scores of cosines, each of as many vectors as generated and reference samples both have,
    10,000 at most: the score of one set alone depends on n and on the features. 1 is real samples' diversity.

    The interval is of ±2.09 standard errors of the ratio's logarithm, both sets' together; it covers the ratio's
    expectation at this n. Diversity is all that it sees: noise may have more than real samples.
    """

    keeps = 10_000
    tells = "collapse"
    draws = 5  # two decompositions each

    @property
    def gives(self) -> dict[str, base.Better]:
        return {self.named("vendi"): "higher"}

    def check(self, dataset: Dataset, samples: int) -> None:
        if samples < 50:
            raise ValueError(f"a Vendi score needs at least 50 samples, not {samples}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        generated, reference = base.paired(
            evidence, self.extractor, evidence.generated, evidence.real.reference, self.keeps
        )
        signature = self.signature(
            evidence, evidence.identity(self.extractor), "kernel:cosine", f"each:{len(generated)}", "ratio:real"
        )

        name = self.named("vendi")

        def between(floor: base.Part, against: base.Part) -> dict[str, float]:
            sets = base.paired(evidence, self.extractor, floor, against, len(generated))
            return {name: math.exp(nats(sets[0]) - nats(sets[1]))}

        floor = self.floors(evidence, signature, between, used=min)[name]
        made, real = entropy(generated), self.of_real(evidence, signature, lambda: entropy(reference))
        value, factor = math.exp(made.nats - real.nats), math.exp(T95_OF_GROUPS * math.hypot(made.error, real.error))
        n = len(evidence.generated)
        return [base.Score(name, value, value / factor, value * factor, n, floor, signature, "higher")]
