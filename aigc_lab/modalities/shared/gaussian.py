"""A Gaussian of training samples: the trivial sampler of numbers of any shape."""

import torch
from torch import Tensor

from aigc_lab import noise

# Up to so many numbers a sample its own covariance is used; beyond, each number has its own variance.
_COVARIED = 1024
# Training samples that moments are taken of.
_MOST = 20_000


def gaussian(values: Tensor, count: int) -> Tensor:
    """`count` draws, float32 [count, …], of a Gaussian with mean and covariance of values [N, …]; of more than 1,024
    numbers a sample, with their variances alone.
    """
    rows = values[:_MOST].flatten(1).double()
    drawn = noise.draw(noise.Draw((count, rows.shape[1])), "trivial").double()
    mean = rows.mean(0)
    if rows.shape[1] <= _COVARIED:
        spread, axes = torch.linalg.eigh(torch.cov(rows.T).reshape(rows.shape[1], -1))
        samples = mean + (drawn * spread.clamp_min(0).sqrt()) @ axes.T
    else:
        samples = mean + drawn * rows.std(0)
    shaped: Tensor = samples.float().reshape(count, *values.shape[1:])
    return shaped
