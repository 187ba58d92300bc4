"""The optimiser of a phase, the weights that it updates, and what happens to a gradient before it is used."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aigc_lab.systems.base import OptimizerConfig, Phase


def trained(phase: Phase) -> list[nn.Parameter]:
    """The parameters that a phase updates, each once, in a stable order."""
    return list({id(p): p for module in phase.trains for p in module.parameters() if p.requires_grad}.values())


def build_optimizer(
    config: OptimizerConfig, parameters: list[nn.Parameter], *, fast: bool = True
) -> torch.optim.Optimizer:
    """The optimiser that is described. Without `fast` it goes through the weights one by one, to the same numbers."""
    return config.optimizer.build(parameters, config.lr, fast=fast)


def laid_out(gradient: Tensor, like: Tensor) -> Tensor:
    """The gradient in its weight's own layout in memory: fused Adam pairs their numbers by place, and what comes of a
    second derivative, or of other layouts of pictures, may lie in another order.
    """
    return gradient if gradient.stride() == like.stride() else torch.empty_like(like).copy_(gradient)


def shortened(gradients: tuple[Tensor, ...], max_norm: float | None) -> tuple[Tensor, ...]:
    """Gradients whose common norm is at most `max_norm`, without a wait for the device."""
    if max_norm is None:
        return gradients
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))  # noqa: SLF001
    scale: Tensor = (max_norm / (norm + 1e-12)).clamp_max(1)
    return torch._foreach_mul(gradients, scale)  # noqa: SLF001


def shortened_by_replica(gradients: Sequence[Tensor], max_norm: float | None) -> Sequence[Tensor]:
    """`shortened` for the gradients [R, …] of R replicas, of each by its own norm."""
    if max_norm is None:
        return gradients
    squares = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0)
    scale = (max_norm / (squares.sqrt() + 1e-12)).clamp_max(1)
    return [gradient * scale.reshape(-1, *[1] * (gradient.ndim - 1)) for gradient in gradients]
