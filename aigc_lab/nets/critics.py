"""What critics of any shape share: how they normalise, and a look at the whole batch."""

from typing import Literal

import torch
from torch import Tensor, nn

from aigc_lab.nets import joined

#: batch normalisation; layer normalisation, which keeps samples apart (for gradient penalties); spectral; none
Norm = Literal["batch", "layer", "spectral", "none"]


def norm_2d(norm: Norm, channels: int) -> list[nn.Module]:
    """The layer that normalises [N, C, H, W], if there is one: spectral normalisation is one of weights."""
    match norm:
        case "batch":
            return [nn.BatchNorm2d(channels)]
        case "layer":
            return [nn.GroupNorm(1, channels)]
        case _:
            return []


def norm_1d(norm: Norm, features: int) -> list[nn.Module]:
    """The layer that normalises [N, D], if there is one."""
    match norm:
        case "batch":
            return [nn.BatchNorm1d(features)]
        case "layer":
            return [nn.LayerNorm(features)]
        case _:
            return []


class MinibatchStd(nn.Module):
    """[N, C, …] -> [N, C + 1, …]: appends one feature, the same everywhere: the standard deviation over the batch of
    each feature at each place, averaged over features and places (Karras et al. 2018, section 3).
    """

    def forward(self, x: Tensor) -> Tensor:
        # In single precision; a batch that is all alike has the deviation 1e-4, with a gradient that is finite.
        spread = (joined.gather(x.float()).var(0, correction=0) + 1e-8).sqrt().mean().to(x.dtype)
        return torch.cat([x, torch.ones_like(x[:, :1]) * spread], 1)
