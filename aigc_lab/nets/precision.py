"""How precisely a step is computed: what stays in single precision when the rest of it runs in bf16, and how float32
matrices are multiplied.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


def single(like: Tensor) -> AbstractContextManager[object]:
    """Within it, autocast is off on this tensor's device; on torch's meta device, which knows none, nothing is."""
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)


def halved(like: Tensor) -> bool:
    """Whether autocast is on, on this tensor's device."""
    return not like.is_meta and torch.is_autocast_enabled(like.device.type)


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Within it, products of float32 matrices are as precise as `torch.set_float32_matmul_precision` says, convolutions
    as ever. The setting is the process's, so that backward passes have it too, whichever thread computes them.

    >>> with products("medium"):
    ...     torch.get_float32_matmul_precision()
    'medium'
    """
    former = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(former)
