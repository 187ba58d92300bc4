"""Likelihoods and divergences in nats per sample: every function returns a tensor [N]."""

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
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
