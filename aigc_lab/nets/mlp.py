"""Fully connected networks."""

from itertools import pairwise

from torch import nn


def mlp(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """`layers` × (linear, ReLU) of width `hidden`, and a linear output: [N, inputs] -> [N, outputs]."""
    widths = [inputs, *[hidden] * layers]
    body = [module for a, b in pairwise(widths) for module in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*body, nn.Linear(widths[-1], outputs))
