"""The three parts of E KL(q(z|x) ‖ p(z)) for a factorised prior (Chen et al. 2018, equation 2), estimated from a batch.

The aggregate q(z) is a weighted sum of the posteriors of the batch, whose log weights [B, B] a caller gives: row i
holds those of all posteriors at the code of image i.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aigc_lab.objectives.likelihood import normal_log_density


class Decomposition(NamedTuple):
    """Index-code mutual information, total correlation, dimension-wise KL: each [B], in nats, for N(0, I). Their sum is
    log q(z|x) − log p(z) at each code, whatever the weights are.
    """

    mutual_information: Tensor
    total_correlation: Tensor
    dimension_wise: Tensor


def decomposition(latents: Tensor, mean: Tensor, log_variance: Tensor, log_weights: Tensor) -> Decomposition:
    """Parts at the latents [B, D] of posteriors [B, D], with the log weights [B, B] of the aggregate."""
    pairs = normal_log_density(latents[:, None], mean[None], log_variance[None])  # [code, posterior, latent]
    own = normal_log_density(latents, mean, log_variance).sum(1)
    prior = normal_log_density(latents, torch.zeros_like(latents), torch.zeros_like(latents)).sum(1)
    aggregate = torch.logsumexp(pairs.sum(2) + log_weights, 1)
    product = torch.logsumexp(pairs + log_weights[:, :, None], 1).sum(1)
    return Decomposition(own - aggregate, aggregate - product, product - prior)


def equal_log_weights(like: Tensor, batch: int) -> Tensor:
    """Log weights [B, B] of minibatch-weighted sampling (Chen et al. 2018, appendix C.1) without its factor 1/N: a
    constant of the estimates, and of no gradient. With the whole dataset as its batch the aggregate is exact.
    """
    return like.new_full((batch, batch), -math.log(batch))


def stratified_log_weights(like: Tensor, batch: int, population: int) -> Tensor:
    """Log weights [B, B] of minibatch stratified sampling (Chen et al. 2018, appendix C.2) from `population` images:
    unbiased for q(z), as the image's own posterior counts 1/N, and those of the others stand for the N − 1 others.
    """
    others = batch - 1
    weights = like.new_full((batch, batch), 1 / others)
    own = torch.eye(batch, device=like.device, dtype=like.dtype)
    last = own.roll(1, 1)
    weights = torch.where(own > 0, 1 / population, weights)
    return torch.where(last > 0, (population - others) / (population * others), weights).log()
