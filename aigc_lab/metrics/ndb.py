"""Number of statistically different bins, and the Jensen–Shannon divergence of the bins (Richardson & Weiss 2018)."""

import torch
from pydantic import Field
from torch import Tensor

from aigc_lab import noise
from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base
from aigc_lab.samples import Samples
from aigc_lab.statistics.intervals import Z95
from aigc_lab.statistics.neighbours import assign, k_means

ALPHA = 0.05
_REPLICATES = 200


class NDB(base.FeatureMetric):
    """Bins are the k-means clusters of the training features. `ndb` counts the bins whose shares of the generated and
    of the reference samples differ by a two-proportion z-test at α = 0.05: of K bins αK differ by chance, which the
    signature states. It grows with n wherever there is any difference. `jsd`, between the two sets' shares, is in
    nats: 0 … ln 2, and above 0 by chance as well.

    The paper compares with the training samples that the bins were made of; the reference has not seen them. The
    intervals are of ±1.96 standard errors of the bootstrap of both sets' counts and cover the expectation at this n.
    """

    needs = frozenset({"train"})

    class Config(base.FeatureMetric.Config):
        bins: int = Field(100, ge=2, le=2000)

    @property
    def gives(self) -> dict[str, base.Better]:
        return {self.named("ndb"): "lower", self.named("jsd"): "lower"}

    def check(self, dataset: Dataset, samples: int) -> None:
        if samples < 4 * self.config.bins:
            raise ValueError(f"{self.config.bins} bins need at least {4 * self.config.bins} samples, not {samples}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        bins, n = self.config.bins, len(evidence.generated)
        signature = self.signature(
            evidence,
            evidence.identity(self.extractor),
            f"bins:{bins}",
            f"alpha:{ALPHA}",
            f"by chance:{ALPHA * bins:g}",
            f"cap:{self.keeps}",
        )

        def centres_of_train() -> Tensor:
            return k_means(self.vectors(evidence, evidence.train), bins)

        centres = self.of_real(evidence, signature, centres_of_train)

        def filled(samples: Samples | base.Part) -> Tensor:
            return torch.bincount(assign(self.vectors(evidence, samples), centres), minlength=bins).cpu()

        def between(floor: base.Part, against: base.Part) -> dict[str, float]:
            sets = filled(floor), filled(against)
            return {"ndb": float(different_bins(*sets)), "jsd": float(divergence(*sets))}

        floors = self.floors(evidence, signature, between)
        made, real = filled(evidence.generated), filled(evidence.real.reference)
        again = _resampled(made, "generated"), _resampled(real, "real")
        scores = []
        for name, of, most in (("ndb", different_bins, float(bins)), ("jsd", divergence, torch.inf)):
            value, margin = float(of(made, real)), Z95 * float(of(*again).std())
            low, high = max(value - margin, 0.0), min(value + margin, most)
            scores.append(base.Score(self.named(name), value, low, high, n, floors[name], signature, "lower"))
        return scores


def different_bins(a: Tensor, b: Tensor) -> Tensor:
    """How many bins' shares differ by a two-proportion z-test, of counts [..., K] and [..., K]."""
    from scipy.special import ndtri

    n, m = a.sum(-1, keepdim=True), b.sum(-1, keepdim=True)
    pooled = (a + b).double() / (n + m)
    error = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    apart: Tensor = (a / n.double() - b / m.double()).abs()
    differ = apart > float(ndtri(1 - ALPHA / 2)) * error
    count: Tensor = differ.sum(-1).double()
    return count


def divergence(a: Tensor, b: Tensor) -> Tensor:
    """The Jensen–Shannon divergence of counts [..., K], in nats."""
    p, q = (counts.double() / counts.sum(-1, keepdim=True) for counts in (a, b))
    middle = (p + q) / 2
    entropies = [torch.special.entr(shares).sum(-1) for shares in (middle, p, q)]
    apart: Tensor = entropies[0] - (entropies[1] + entropies[2]) / 2
    return apart.clamp_min(0)


def _resampled(counts: Tensor, key: str) -> Tensor:
    """Counts [replicates, K] of as many samples, each drawn with the observed shares."""
    total = int(counts.sum())
    edges = (counts.double().cumsum(0) / total).contiguous()
    edges[-1] = 1.0
    draws = torch.rand(_REPLICATES, total, generator=noise.generator("bins", key), dtype=torch.float64)
    bins = torch.searchsorted(edges, draws, right=True).clamp_max(len(counts) - 1)
    return torch.zeros(_REPLICATES, len(counts), dtype=torch.int64).scatter_add_(1, bins, torch.ones_like(bins))
