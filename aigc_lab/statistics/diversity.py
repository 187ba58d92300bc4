"""Diversity of samples: the Vendi score with a kernel of the width of real samples."""

import torch
from torch import Tensor


def scale_of(real: Tensor) -> float:
    """Kernel width of real vectors [m, d]: a quarter of the mean squared distance of two of them."""
    centred = real - real.mean(0)
    return max(0.25 * 2 * centred.square().sum(1).mean().item(), 1e-12)


def vendi(members: Tensor, scale: float) -> Tensor:
    """Vendi score [B] (Friedman & Dieng 2023) of sets [B, s, d] with the kernel exp(−‖x−y‖²/scale).

    >>> far = 100 * torch.eye(3)  # three samples that have nothing in common, and one sample three times
    >>> [round(score, 3) for score in vendi(torch.stack([far, far[:1].expand(3, 3)]), 1.0).tolist()]
    [3.0, 1.0]
    """
    return vendi_of(similarities(members, scale))


def similarities(members: Tensor, scale: float) -> Tensor:
    """Kernel exp(−‖x−y‖²/scale) of all pairs [..., s, s] within sets of vectors [..., s, d]."""
    lengths = members.square().sum(-1)
    squared = lengths[..., :, None] + lengths[..., None, :] - 2 * members @ members.transpose(-1, -2)
    return (-squared.clamp_min(0) / scale).exp()


def vendi_of(kernel: Tensor) -> Tensor:
    """Vendi score [...] of similarities [..., s, s]: the exponential of the entropy of the eigenvalues of K/s."""
    values = torch.linalg.eigvalsh(kernel / kernel.shape[-1]).clamp_min(0)
    scores: Tensor = (-torch.special.xlogy(values, values).sum(-1)).exp()
    return scores
