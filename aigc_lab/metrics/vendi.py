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
    """−Σ λ log λ over the eigenvalues of K/n, K the cosine similarities of vectors [n, d]; its exponential is the Vendi
    score.

    The standard error is that of a jackknife of 20 groups. First-order influences of single samples would need one
    decomposition instead of 21, but miss a quarter of the error for n < d.
    """
    rows = _directions(vectors)
    part = groups(len(rows)).to(rows.device)
    whole = _alike(rows)
    replicates = []
    for group in range(int(part.max()) + 1):
        rest = part != group
        # Subtracting the group's part of XᵀX costs a twentieth of a new product; K without the group is a submatrix.
        alike = whole - gram(rows[~rest]) if rows.shape[1] < len(rows) else whole[rest][:, rest]
        replicates.append(_of_spectrum(alike / rest.sum()))
    error = jackknife_error(torch.tensor(replicates, dtype=torch.float64))
    return Entropy(_of_spectrum(whole / len(rows)), error)


def nats(vectors: Tensor) -> float:
    """Entropy without its standard error."""
    rows = _directions(vectors)
    return _of_spectrum(_alike(rows) / len(rows))


def _directions(vectors: Tensor) -> Tensor:
    """Unit vectors [n, d + 1] in float64. Zero vectors have no direction: they are alike and unlike the rest, by a
    dimension of their own.
    """
    rows = vectors.double()
    lengths = rows.norm(dim=1, keepdim=True)
    return torch.cat([rows / lengths.where(lengths > 0, 1.0), (lengths == 0).double()], 1)


def _alike(rows: Tensor) -> Tensor:
    """Cosine similarities K of unit vectors [n, d]; if d < n, the matrix XᵀX [d, d], which has the same nonzero
    eigenvalues.
    """
    return gram(rows) if rows.shape[1] < len(rows) else gram(rows.T)


def _of_spectrum(alike: Tensor) -> float:
    values = torch.linalg.eigvalsh(alike).clamp_min(0)
    return float(torch.special.entr(values).sum())


class Vendi(base.FeatureMetric):
    """Ratio of two Vendi scores of cosines, since the score of one set depends on n and on the features. Both sets have
    equally many vectors, at most 10,000; 1 is the diversity of real samples.

    The interval of ±2.09 standard errors of the ratio's logarithm covers the expected ratio at this n. It measures
    diversity alone: noise may have more than real samples.
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
        generated_entropy, real_entropy = (
            entropy(generated),
            self.of_real(evidence, signature, lambda: entropy(reference)),
        )
        value, factor = (
            math.exp(generated_entropy.nats - real_entropy.nats),
            math.exp(T95_OF_GROUPS * math.hypot(generated_entropy.error, real_entropy.error)),
        )
        n = len(evidence.generated)
        return [base.Score(name, value, value / factor, value * factor, n, floor, signature, "higher")]
