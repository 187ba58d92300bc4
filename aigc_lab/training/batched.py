"""Faster forms of what a stack of replicas computes under `vmap`, to the same numbers but for rounding."""

from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.overrides import TorchFunctionMode


class BatchedLayers(TorchFunctionMode):
    """Context, within a `vmap` over replicas, in which their fully connected layers are one batched product each.

    `vmap` itself turns a layer's weights and inputs into other layouts, and adds the bias in a pass of its own: half as
    long again for layers of 100 units, and several times as long for smaller ones. What this does not know (inputs of
    more dimensions, functions that are being differentiated within) is left to it.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.linear and not kwargs and all(map(_of_replicas, args)) and args[0].ndim == 2:
            return _linear(*args)
        return func(*args, **(kwargs or {}))


def _of_replicas(value: Any) -> bool:
    """Whether a value is a tensor of each replica, and no function, of it or not, is being differentiated within the
    `vmap`: what is then computed of unwrapped tensors would belong to that.
    """
    batched = isinstance(value, Tensor) and _functorch.is_batchedtensor(value)
    innermost = batched and _functorch.maybe_get_level(value) == _functorch.maybe_current_level()
    return innermost and _functorch.maybe_get_bdim(value) == 0


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A layer [units, features] of inputs [batch, features] of each replica. Outputs lie in memory unit by unit, as the
    next layer reads them fastest, and the gradient of a weight lies as the weight does.
    """
    level = _functorch.maybe_get_level(weight)
    x, w = _functorch.get_unwrapped(inputs).transpose(1, 2), _functorch.get_unwrapped(weight)
    outputs = torch.bmm(w, x) if bias is None else torch.baddbmm(_functorch.get_unwrapped(bias).unsqueeze(2), w, x)
    together: Tensor = _functorch._add_batch_dim(outputs.transpose(1, 2), 0, level)  # noqa: SLF001
    return together
