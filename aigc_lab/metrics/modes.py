"""Captured modes, high-quality share and reverse KL on a mixture with known centres (Srivastava et al. 2017), counted
as PacGAN's program counts them (Lin et al. 2018).
"""

import math

import torch
from pydantic import Field
from torch import Tensor

from aigc_lab.config import Strict, Times
from aigc_lab.data.base import Dataset, Modes
from aigc_lab.metrics import base
from aigc_lab.statistics.intervals import (
    Z95,
    binomial_tail,
    bootstrap_standard_error,
    captured_interval,
    clopper_pearson,
    reverse_kl,
)

# Below this part of a perfect sampler's share of high quality the shares of the modes say nothing of the samples: the
# collapse verdict is UNMEASURABLE there.
_RECOGNISED = 0.2


class ModeCount(base.Metric):
    """Points are of high quality if they lie within 3σ of their nearest centre (98.9 % of a perfect 2-D sampler's).

    `modes` counts the centres with more high-quality points than the tails of the others explain. The lower end of its
    interval counts modes proved to have more than a quarter of their true share, the upper end modes not proved to have
    less (Clopper–Pearson, Bonferroni over the modes). A mode with a single point is counted in the value, and not in
    the lower end. `hq` has its exact interval.

    `rkl` (nats, ±1.96 bootstrap standard errors) is KL(shares of the modes ‖ equal shares) of the high-quality points
    alone, because noise far from all centres would look even. It is at most ln K of K modes, when one is left. If `hq`
    is less than a fifth of what real points have, `rkl` is ln K + 1 − hq / (a fifth of theirs): worse than any
    collapse, and finite, since a generator that has not learned yet has not diverged.
    """

    version = 2  # 1 assigned every point to its nearest centre

    class Config(Strict):
        replicates: Times = Field(200, ge=20, description="bootstrap replicates behind the interval of rkl")

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"modes": "higher", "hq": "higher", "rkl": "lower"}

    def check(self, dataset: Dataset, samples: int) -> None:
        if dataset.modes is None:
            raise ValueError(f"it needs known centres, and dataset {dataset.name} has none")
        needed = 20 * len(dataset.modes.centres)
        if samples < needed:
            raise ValueError(f"{len(dataset.modes.centres)} modes need at least {needed} samples, not {samples}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        modes = evidence.dataset.modes
        assert modes is not None
        generated = evidence.generated.canonical().values.cpu()
        nearest, good = assign(generated, modes)
        n, count = len(generated), len(modes.centres)
        signature = self.signature(evidence, f"modes:{count}", "within:3σ", f"bootstrap:{self.config.replicates}")

        def of_one(part: base.Part) -> dict[str, float]:
            points = part.samples.canonical().values.cpu()
            nearest, good = assign(points, modes)
            hits = torch.bincount(nearest[good], minlength=count).tolist()
            captured = captured_modes(hits, len(points), modes)
            return {"modes": captured, "hq": good.double().mean().item(), "rkl": reverse_kl(nearest[good], count)}

        floors = self.floors_alone(evidence, signature, of_one)

        def score(name: str, value: float, low: float, high: float) -> base.Score:
            return base.Score(name, value, low, high, n, floors[name], signature, self.gives[name])

        hits = torch.bincount(nearest[good], minlength=count).tolist()
        low, high = captured_interval(hits, n)
        captured = captured_modes(hits, n, modes)
        hq_low, hq_high = clopper_pearson(int(good.sum()), n)
        recognised = max(_RECOGNISED * _perfect(generated.shape[1]), 1 / n)
        rkl = self._reverse_kl(nearest[good], n, count, recognised=recognised)
        return [
            score("modes", captured, min(low, captured), max(high, captured)),
            score("hq", good.double().mean().item(), hq_low, hq_high),
            score("rkl", *rkl),
        ]

    def _reverse_kl(self, modes: Tensor, n: int, count: int, *, recognised: float) -> tuple[float, float, float]:
        """Reverse KL in nats and its interval, from the modes [m] of the m high-quality ones of n points. Below a share
        of `recognised` high-quality points it is a penalty above ln K.
        """
        if len(modes) < recognised * n:
            low, high = clopper_pearson(len(modes), n)
            value, least, most = (
                math.log(count) + max(0.0, 1 - share / recognised) for share in (len(modes) / n, high, low)
            )
            return value, least, most
        value = reverse_kl(modes, count)
        margin = Z95 * bootstrap_standard_error(
            lambda rows: reverse_kl(modes[rows], count), len(modes), replicates=self.config.replicates
        )
        return value, max(value - margin, 0.0), value + margin


def _perfect(dimensions: int) -> float:
    """Share of an isotropic Gaussian's points within 3σ of its centre: the χ² distribution of squared distances."""
    return float(torch.special.gammainc(torch.tensor(dimensions / 2), torch.tensor(4.5)))


def assign(points: Tensor, modes: Modes) -> tuple[Tensor, Tensor]:
    """Nearest centre of each point [N], and whether the point lies within 3σ of it [N]."""
    distance, nearest = torch.cdist(points.double(), modes.centres.double()).min(1)
    return nearest, distance <= 3 * modes.sigma


def captured_modes(hits: list[int], n: int, modes: Modes) -> int:
    """Number of centres with more high-quality points than the tails of the others explain, at 5 % over all centres."""
    # A Gaussian whose centre is d away puts at most exp(−(d/σ − 3)²/2) of its own share within 3σ of this one.
    away = torch.cdist(modes.centres.double(), modes.centres.double()).fill_diagonal_(math.inf)
    tails = (-((away / modes.sigma - 3).clamp_min(0) ** 2) / 2).exp().sum(1) / len(hits)
    return int((binomial_tail(torch.tensor(hits), n, tails.clamp_max(1)) < 0.05 / len(hits)).sum())
