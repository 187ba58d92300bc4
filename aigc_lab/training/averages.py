"""Exponential moving average of the modules that a system samples with."""

import copy

import torch
from torch import nn

from aigc_lab.systems.base import Fitted, System


def average_of(system: System, *, averaged: bool = True) -> System:
    """Copy of a system for sampling: the modules of `samplers()` are its own, all others are shared with the system.

    Without `averaged` these modules are in evaluation mode, and their weights and buffers lie in the system's memory:
    what a moving average without decay would copy. What is `Fitted` is the copy's own in any case.
    """
    own = {id(part) for module in system.samplers() for part in module.modules()}
    shared = {id(part): part for part in system.modules() if part is not system and id(part) not in own}
    # A container that holds a module of its own must be copied, or the copy would sample with the raw weights.
    for part in list(shared.values()):
        if any(id(inner) in own for inner in part.modules()):
            del shared[id(part)]
    memory: dict[int, object] = dict(shared)
    if not averaged:
        fitted = _fitted(system)
        for module in system.samplers():
            # Another parameter on the same numbers: what samples needs no gradient.
            memory |= {id(weight): nn.Parameter(weight.detach(), False) for weight in module.parameters()}
            memory |= {id(buffer): buffer for buffer in module.buffers() if id(buffer) not in fitted}
    average = copy.deepcopy(system, memory)
    for module in average.samplers():
        module.eval().requires_grad_(False)
    return average


def _fitted(system: System) -> set[int]:
    return {id(buffer) for part in system.modules() if isinstance(part, Fitted) for buffer in part.buffers()}


class MovingAverage:
    """Exponential moving average, average ← d·average + (1 − d)·system, over parameters and floating-point buffers, in
    one fused call. What is `Fitted` is the average's own.

    d = min(`decay`, (1 + step) / (10 + step)): the warm-up lets early samples show the system, not its initial weights.
    A `decay` of 0 copies; an average that lies in the system's memory is left alone. Raises `ValueError` for such a one
    with a decay.
    """

    def __init__(self, system: System, average: System, decay: float) -> None:
        self._decay = decay
        fitted = _fitted(average)
        pairs = [
            (old, new)
            for mine, theirs in ((average.parameters(), system.parameters()), (average.buffers(), system.buffers()))
            for old, new in zip(mine, theirs, strict=True)
            if old is not new and id(old) not in fitted
        ]
        if decay and any(old.is_set_to(new) for old, new in pairs):
            raise ValueError(f"the average shares the weights, and its decay is {decay}: make the state averaged")
        pairs = [(old, new) for old, new in pairs if not old.is_set_to(new)]
        moving = [(old, new.detach()) for old, new in pairs if old.is_floating_point()]
        self._old, self._new = [old for old, _ in moving], [new for _, new in moving]
        self._copied = [(old, new) for old, new in pairs if not old.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Updates the average after `step`, counted from 0."""
        if not self._old and not self._copied:
            return
        decay = min(self._decay, (1 + step) / (10 + step))
        if decay > 0:
            torch._foreach_lerp_(self._old, self._new, 1 - decay)
        else:
            torch._foreach_copy_(self._old, self._new)
        for target, source in self._copied:
            target.copy_(source)
