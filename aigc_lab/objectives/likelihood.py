"""Likelihoods and divergences in nats per sample: a tensor [N] unless a function says otherwise."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def bernoulli_nll(logits: Tensor, target: Tensor) -> Tensor:
    """−log p(target | logits), summed over all but the first dimension; target in [0, 1].

    For grey values between 0 and 1 this is the customary cross-entropy and not the log of a normalised density
    (Loaiza-Ganem & Cunningham 2019), so it compares with no Gaussian likelihood.
    """
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).sum(1)


def gaussian_nll(mean: Tensor, log_sigma: Tensor, target: Tensor) -> Tensor:
    """−log N(target; mean, σ²), summed over all but the first dimension; `log_sigma` broadcasts."""
    z = (target - mean) * torch.exp(-log_sigma)
    return (0.5 * z.square() + log_sigma + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def standard_normal_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag exp(log_variance)) ‖ N(0, I)) of [N, D] (Kingma & Welling 2014, appendix B)."""
    return standard_normal_kls(mean, log_variance).sum(1)


def standard_normal_kls(mean: Tensor, log_variance: Tensor) -> Tensor:
    """The divergence from N(0, 1) of every dimension, [N, D]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def normal_log_density(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log N(x; mean, exp(log_variance)) of every number; the tensors broadcast."""
    return -0.5 * ((x - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi))


def standard_normal_log_ratio(latents: Tensor, normal: Tensor, log_variance: Tensor) -> Tensor:
    """Log N(z; 0, I) − log q(z|x) [N] at z = mean + exp(½ log_variance)·normal, all [N, D]; the constants cancel."""
    return 0.5 * (normal.square() + log_variance - latents.square()).sum(-1)
