"""Exponential moving average of the modules that a system samples with."""

import copy

import torch

from aigc_lab.systems.base import Fitted, System


def average_of(system: System) -> System:
    """Copy of a system for sampling: the modules of `samplers()` are its own, all others are shared with the system."""
    own = {id(part) for module in system.samplers() for part in module.modules()}
    shared = {id(part): part for part in system.modules() if part is not system and id(part) not in own}
    # A container that holds a module of its own must be copied, or the copy would sample with the raw weights.
    for part in list(shared.values()):
        if any(id(inner) in own for inner in part.modules()):
            del shared[id(part)]
    average = copy.deepcopy(system, shared)
    for module in average.samplers():
        module.eval().requires_grad_(False)
    return average


class MovingAverage:
    """Exponential moving average, average ← d·average + (1 − d)·system, over parameters and floating-point buffers, in
    one fused call. What is `Fitted` is the average's own.

    d = min(`decay`, (1 + step) / (10 + step)): the warm-up lets early samples show the system, not its initial weights.
    A `decay` of 0 copies.
    """

    def __init__(self, system: System, average: System, decay: float) -> None:
        self._decay = decay
        fitted = {id(buffer) for part in average.modules() if isinstance(part, Fitted) for buffer in part.buffers()}
        pairs = [
            (old, new)
            for mine, theirs in ((average.parameters(), system.parameters()), (average.buffers(), system.buffers()))
            for old, new in zip(mine, theirs, strict=True)
            if old is not new and id(old) not in fitted
        ]
        moving = [(old, new.detach()) for old, new in pairs if old.is_floating_point()]
        self._old, self._new = [old for old, _ in moving], [new for _, new in moving]
        self._copied = [(old, new) for old, new in pairs if not old.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Updates the average after `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        if decay > 0:
            torch._foreach_lerp_(self._old, self._new, 1 - decay)
        else:
            torch._foreach_copy_(self._old, self._new)
        for target, source in self._copied:
            target.copy_(source)
