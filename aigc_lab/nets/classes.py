"""Classes as what a network reads beside its input."""

import torch
from torch import Tensor


def one_hot(classes: Tensor, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Classes int64 [N, …] as [N, …, count]; a class that does not exist is a row of zeros.

    >>> one_hot(torch.tensor([2, 0]), 3)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    # By comparison: torch's own asks the device for the largest class.
    return (classes[..., None] == torch.arange(count, device=classes.device)).to(dtype)


def beside(inputs: Tensor, classes: Tensor, count: int) -> Tensor:
    """Inputs [N, D, …] with the one-hot classes int64 [N] appended along dimension 1, alike at all places (Mirza &
    Osindero 2014): [N, D + count, …]. m samples packed into one get the planes of m classes, int64 [N·m].
    """
    rows = one_hot(classes, count, inputs.dtype).reshape(len(inputs), -1)
    planes = rows.reshape(*rows.shape, *[1] * (inputs.ndim - 2))
    return torch.cat([inputs, planes.expand(-1, -1, *inputs.shape[2:])], 1)
