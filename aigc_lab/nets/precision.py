"""What stays in single precision when the rest of a step runs in bf16."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def single(like: Tensor) -> AbstractContextManager[object]:
    """Within it, autocast is off on this tensor's device; on torch's meta device, which knows none, nothing is."""
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)


def halved(like: Tensor) -> bool:
    """Whether autocast is on, on this tensor's device."""
    return not like.is_meta and torch.is_autocast_enabled(like.device.type)
