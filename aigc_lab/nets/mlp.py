"""Fully connected networks."""

from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(inputs: int, hidden: int, layers: int, outputs: int, bias: bool = True) -> nn.Sequential:
    """`layers` × (linear, ReLU) of width `hidden`, and a linear output, whose bias may be left out."""
    widths = [inputs, *[hidden] * layers]
    body = [module for a, b in pairwise(widths) for module in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*body, nn.Linear(widths[-1], outputs, bias=bias))


class Maxout(nn.Module):
    """The largest of `pieces` linear maps, feature by feature (Goodfellow et al. 2013): [N, inputs] -> [N, outputs]."""

    def __init__(self, inputs: int, outputs: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs * pieces)
        self._pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return torch.unflatten(self.linear(x), 1, (-1, self._pieces)).amax(2)
