"""Statistics of a batch whose parts lie in several processes: what one process computes of the whole batch.

In data-parallel training every process computes a loss of its own part, and gradients are averaged over the processes.
That is exact for a mean over samples. What is no such mean says so here: a sum of counts by `mean`, a statistic of the
batch (a spread, a kernel's pairs) by `gather`. With one process both return their argument itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Lost(RuntimeError):
    """A process of the group is gone, or cannot be reached."""


class Parts(NamedTuple):
    """The parts of a batch: so many `processes` of a group, of which this one has part `number`."""

    group: Any
    number: int
    processes: int


_parts: Parts | None = None


@contextmanager
def parts(of: Parts | None) -> Iterator[None]:
    """Within it, what is computed is of a part of a batch; with None, of a whole one."""
    global _parts
    before, _parts = _parts, of
    try:
        yield
    finally:
        _parts = before


def mean(value: Tensor) -> Tensor:
    """The mean of a value over the parts, differentiable: of a part's mean it is the whole batch's."""
    if _parts is None:
        return value
    values = value if value.is_floating_point() else value.float()
    return _summed(values, _parts) / _parts.processes


def gather(rows: Tensor) -> Tensor:
    """The rows of all parts [N, …] of those of this one [N / parts, …], differentiable, in the order of the batch."""
    if _parts is None:
        return rows
    return _gathered(rows, _parts).flatten(0, 1)


def own(rows: Tensor) -> Tensor:
    """The rows of this part, of those of all of them: what undoes `gather`."""
    return rows if _parts is None else rows.chunk(_parts.processes)[_parts.number]


def reduce(total: Tensor, of: Parts) -> Tensor:
    """The sum over the processes, in place. Raises `Lost`."""
    try:
        dist.all_reduce(total, group=of.group)
    except RuntimeError as error:
        raise Lost(str(error)) from error
    return total


class _Sum(torch.autograd.Function):
    """Sum over the processes. Each of them differentiates its own loss, so the gradient is the sum of all of theirs;
    it can be differentiated again.
    """

    @staticmethod
    def forward(value: Tensor, of: Parts) -> Tensor:
        return reduce(value.clone(memory_format=torch.contiguous_format), of)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Parts], output: Tensor) -> None:
        ctx.of = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _summed(gradients[0], ctx.of), None


def _summed(value: Tensor, of: Parts) -> Tensor:
    total: Tensor = _Sum.apply(value, of)
    return total


def _gathered(value: Tensor, of: Parts) -> Tensor:
    """The value of each part [parts, …], in order."""
    blank = torch.zeros_like(value)
    return _summed(torch.stack([value if number == of.number else blank for number in range(of.processes)]), of)


# ---- batch normalisation


@contextmanager
def synchronised(network: nn.Module) -> Iterator[None]:
    """Within it, batch normalisations of the network normalise a part by the mean and variance of the whole batch.

    torch's `SyncBatchNorm` wants CUDA, and cannot be differentiated twice, as a penalty of gradients is.
    """
    layers = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    for layer in layers:
        layer.forward = MethodType(_normalised, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _normalised(self: _BatchNorm, x: Tensor) -> Tensor:
    by_batch = self.training or (self.running_mean is None and self.running_var is None)
    if _parts is None or not by_batch:
        unchanged: Tensor = type(self).forward(self, x)
        return unchanged
    over = [dimension for dimension in range(x.ndim) if dimension != 1]
    values = x if x.dtype == torch.float64 else x.float()
    # Both moments of each part in one exchange; a mean of squares less a squared mean would cancel.
    moments = torch.stack([values.mean(over), values.var(over, correction=0)])
    means, variances = _gathered(moments, _parts).unbind(1)
    mean = means.mean(0)
    variance = (variances + (means - mean).square()).mean(0)
    if self.training and self.track_running_stats:
        _remember(self, mean, variance, _parts.processes * x.numel() // x.shape[1])
    shape = [1, -1, *[1] * (x.ndim - 2)]
    scale = (variance + self.eps).rsqrt()
    if self.weight is not None:
        scale = scale * self.weight
    out = (values - mean.reshape(shape)) * scale.reshape(shape)
    if self.bias is not None:
        out = out + self.bias.reshape(shape)
    return out.to(x.dtype)


def _remember(layer: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Moves the running statistics, as torch does."""
    with torch.no_grad():
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)
        for running, value in ((layer.running_mean, mean), (layer.running_var, variance * (count / max(count - 1, 1)))):
            if running is None:
                continue
            if layer.momentum is not None:
                running.mul_(1 - layer.momentum).add_(value.detach() * layer.momentum)
            else:
                assert layer.num_batches_tracked is not None
                running.add_((value.detach() - running) / layer.num_batches_tracked)
