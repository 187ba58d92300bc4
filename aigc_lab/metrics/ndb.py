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
    """Comparison of histograms over bins, the k-means clusters of the training features.

    `ndb` counts the bins whose shares differ between generated and reference samples, by a two-proportion z-test at α =
    0.05. Of K bins αK differ by chance, which the signature states; it grows with n if there is any difference. `jsd`
    is the Jensen–Shannon divergence of the two histograms in nats: 0 … ln 2, and above 0 by chance as well.

    The paper compares with the training samples that define the bins; here it is the reference, which had no part in
    them. Intervals of ±1.96 bootstrap standard errors of both histograms cover the expectation at this n.
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
        generated_hits, real_hits = filled(evidence.generated), filled(evidence.real.reference)
        replicates = _resampled(generated_hits, "generated"), _resampled(real_hits, "real")
        scores = []
        for name, statistic, most in (("ndb", different_bins, float(bins)), ("jsd", divergence, torch.inf)):
            value, margin = float(statistic(generated_hits, real_hits)), Z95 * float(statistic(*replicates).std())
            low, high = max(value - margin, 0.0), min(value + margin, most)
            scores.append(base.Score(self.named(name), value, low, high, n, floors[name], signature, "lower"))
        return scores


def different_bins(a: Tensor, b: Tensor) -> Tensor:
    """Number of bins whose shares differ by a two-proportion z-test, for counts [..., K] of each set."""
    from scipy.special import ndtri

    n, m = a.sum(-1, keepdim=True), b.sum(-1, keepdim=True)
    pooled = (a + b).double() / (n + m)
    error = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    apart: Tensor = (a / n.double() - b / m.double()).abs()
    differ = apart > float(ndtri(1 - ALPHA / 2)) * error
    count: Tensor = differ.sum(-1).double()
    return count


def divergence(a: Tensor, b: Tensor) -> Tensor:
    """Jensen–Shannon divergence of counts [..., K], in nats."""
    p, q = (counts.double() / counts.sum(-1, keepdim=True) for counts in (a, b))
    middle = (p + q) / 2
    entropies = [torch.special.entr(shares).sum(-1) for shares in (middle, p, q)]
    apart: Tensor = entropies[0] - (entropies[1] + entropies[2]) / 2
    return apart.clamp_min(0)


def _resampled(counts: Tensor, key: str) -> Tensor:
    """Bootstrap replicates [replicates, K] of counts [K]."""
    total = int(counts.sum())
    edges = (counts.double().cumsum(0) / total).contiguous()
    edges[-1] = 1.0
    draws = torch.rand(_REPLICATES, total, generator=noise.generator("bins", key), dtype=torch.float64)
    bins = torch.searchsorted(edges, draws, right=True).clamp_max(len(counts) - 1)
    return torch.zeros(_REPLICATES, len(counts), dtype=torch.int64).scatter_add_(1, bins, torch.ones_like(bins))
