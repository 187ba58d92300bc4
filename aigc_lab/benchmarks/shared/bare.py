"""A training step as one writes it by hand, on a system's own networks and losses."""

from collections.abc import Callable

import torch
from torch import nn

from aigc_lab.data.shared.batches import Batches
from aigc_lab.noise import Draw
from aigc_lab.optimizers.adam import DirectAdam
from aigc_lab.systems.base import Phase
from aigc_lab.systems.shared.adversarial import AdversarialSystem
from aigc_lab.training.averages import average_of
from aigc_lab.training.state import TrainingState


def bare(state: TrainingState, batches: Batches, decay: float, steps: int) -> Callable[[], None]:
    """A call that takes so many steps more, from the state's on: the same networks, batches, losses and moving average,
    autograd's usual backward, torch's own fused Adam, noise from one stream, neither scalars nor gradient norms.
    """
    system, average = state.system, average_of(state.system)
    device = batches.samples.values.device
    source = torch.Generator(device).manual_seed(0)
    old: list[torch.Tensor] = list(average.parameters())
    new: list[torch.Tensor] = list(system.parameters())
    old += [buffer for buffer in average.buffers() if buffer.is_floating_point()]
    new += [buffer for buffer in system.buffers() if buffer.is_floating_point()]
    moving = [(a, b.detach()) for a, b in zip(old, new, strict=True) if a is not b]
    left, right = [a for a, _ in moving], [b for _, b in moving]
    number, at = 0, state.step
    optimizers = {name: _torchs_own(optimizer) for name, optimizer in state.optimizers.items()}

    def backward(loss: torch.Tensor, phase: Phase) -> None:
        optimizer = optimizers[phase.name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if phase.optimizer.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], phase.optimizer.max_norm)
        optimizer.step()

    def freeze(module: nn.Module, frozen: bool) -> None:
        for parameter in module.parameters():
            parameter.requires_grad_(not frozen)

    def update(phase: Phase) -> None:
        nonlocal number
        batch = batches[number]
        number += 1
        draws = {key: _drawn(what, source) for key, what in phase.noise.items()}
        if isinstance(system, AdversarialSystem):
            freeze(system.critic, phase.name == "generator")
        backward(phase.loss(batch, draws, at).total, phase)
        if phase.after is not None:
            with torch.no_grad():
                phase.after(at)

    def step() -> None:
        nonlocal at
        for phase in state.phases:
            if phase.runs(at):
                for _ in range(phase.repeat):
                    update(phase)
        if isinstance(system, AdversarialSystem):
            freeze(system.critic, False)
        if decay > 0:
            with torch.no_grad():
                torch._foreach_lerp_(left, right, 1 - decay)
        at += 1

    def segment() -> None:
        system.train()
        for _ in range(steps):
            step()

    return segment


def _drawn(what: Draw, source: torch.Generator) -> torch.Tensor:
    if what.law == "normal":
        return torch.randn(what.size, generator=source, device=source.device)
    values = torch.rand(what.size, generator=source, device=source.device)
    return values * 2 - 1 if what.law == "uniform" else values


def _torchs_own(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Torch's optimiser with the same settings, as one makes it by hand."""
    if not isinstance(optimizer, DirectAdam):
        return optimizer
    (group,) = optimizer.param_groups
    how = {key: group[key] for key in ("lr", "betas", "eps", "weight_decay")}
    return torch.optim.Adam(group["params"], **how, fused=True)
