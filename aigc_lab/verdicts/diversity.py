"""Diversity of samples: the Vendi score with a kernel of the width of real samples."""

import torch
from torch import Tensor


def scale_of(real: Tensor) -> float:
    """Kernel width of real vectors [m, d]: a quarter of the mean squared distance of two of them."""
    centred = real - real.mean(0)
    return max(0.25 * 2 * centred.square().sum(1).mean().item(), 1e-12)


def vendi(members: Tensor, scale: float) -> Tensor:
    """Vendi score [B] (Friedman & Dieng 2023) of sets [B, s, d] with the kernel exp(−‖x−y‖²/scale)."""
    lengths = members.square().sum(2)
    squared = lengths[:, :, None] + lengths[:, None] - 2 * members @ members.transpose(1, 2)
    values = torch.linalg.eigvalsh((-squared.clamp_min(0) / scale).exp() / members.shape[1]).clamp_min(0)
    scores: Tensor = (-torch.special.xlogy(values, values).sum(1)).exp()
    return scores
