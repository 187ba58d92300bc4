"""The KL term of a variational autoencoder as its configuration weighs it: β, annealing, free bits."""

from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from aigc_lab.config import Steps, Strict, Times, Weight
from aigc_lab.nets import joined
from aigc_lab.objectives.likelihood import standard_normal_kl, standard_normal_kls
from aigc_lab.systems.base import Loss, Read, scheduled

Annealing = Literal["linear", "cyclical", "none"]
#: what is said of `annealing`
ANNEALING = "how the KL term comes to its whole weight"


class KLConfig(Strict):
    """Keys of a system whose loss is −log p(x|z) + w·β·Σᵢ max(KLᵢ, λ), all in nats a sample."""

    beta: Weight = Field(1.0, description="weight of the KL term")
    annealing: Annealing = Field("none", description=ANNEALING)
    anneal_steps: Steps = Field(1000, description="steps until the KL term has its whole weight for good")
    cycles: Times = Field(4, description="of cyclical annealing")
    free_bits: Weight = Field(0.0, description="nats of each latent that cost nothing more")


#: what annealing leaves without effect
KL_READS = (Read("anneal_steps", "annealing", ("linear", "cyclical")), Read("cycles", "annealing", ("cyclical",)))
#: what the losses alone read
KL_NUMBERS = frozenset({"beta", "free_bits"})


def kl_weight(step: int, annealing: str, steps: int, cycles: int) -> float:
    """What multiplies β·KL at a step: `none` 1; `linear` rises from 0 to 1 over `steps` (Bowman et al. 2016 with a ramp
    for their sigmoid); `cyclical` does so in each of `cycles` equal parts of `steps`, over its first half, and stays 1
    in the second (Fu et al. 2019, R = 0.5); after `steps` it is 1.
    """
    if annealing == "none" or step >= steps:
        return 1.0
    if annealing == "linear":
        return step / steps
    part = steps / cycles
    return min(1.0, 2 * (step % part) / part)


def kl_term(config: Any, mean: Tensor, log_variance: Tensor, step: int) -> Loss:
    """w·β·Σᵢ max(KLᵢ, λ) of posteriors [N, D], with the unweighted `kl` as its part. KLᵢ is the batch mean of latent
    i's divergence from N(0, 1), λ its free bits (Kingma et al. 2016, equation 15).
    """
    kl = standard_normal_kl(mean, log_variance).mean()
    charged = kl
    if config.free_bits:
        charged = joined.mean(standard_normal_kls(mean, log_variance).mean(0)).clamp_min(config.free_bits).sum()
    return weighted(config, charged, kl, step)


def weighted(config: Any, charged: Tensor, kl: Tensor, step: int) -> Loss:
    """w·β·`charged` with the `kl` as its part; the weight w is logged where it is annealed."""
    if config.annealing == "none":
        return Loss(config.beta * charged, {"kl": kl})
    of_step = partial(kl_weight, annealing=config.annealing, steps=config.anneal_steps, cycles=config.cycles)
    weight = scheduled(step, of_step, kl.detach())
    return Loss(weight * config.beta * charged, {"kl": kl}, {"kl_weight": weight + torch.zeros_like(kl.detach())})
