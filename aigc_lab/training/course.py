"""What the loop asks of a course: replicas at one step that take their steps as one program.

`plain` is a course of one replica, `stacked` one of many. Another way to compute a step (captured, distributed) is
another subclass, in a file of its own, which `train` is given by its class.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.noise import Noise
from aigc_lab.samples import Samples
from aigc_lab.systems.base import Loss, Phase
from aigc_lab.training.averages import MovingAverage
from aigc_lab.training.recorder import Diverged
from aigc_lab.training.state import Precision, Replica

Gradients = tuple[Tensor, ...]


class Course(ABC):
    """Replicas under way, all at the same step: `step` takes one, `collect` says what an interval of them came to.

    A subclass differentiates a phase (`_differentiate`) and moves what the phase trains (`_update`), or computes the
    whole `step` in a way of its own.
    """

    def __init__(
        self, replicas: Sequence[Replica], phases: Sequence[Phase], average: MovingAverage, precision: Precision
    ) -> None:
        self.replicas = list(replicas)
        self._phases = phases
        self._turns = turns(phases)
        self._batches_per_step = max(phase.repeat for phase in phases)
        self._average = average
        self._device = next(self.replicas[0].state.system.parameters()).device
        self._autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16")

    @classmethod
    @abstractmethod
    def of(cls, replicas: Sequence[Replica], decay: float, precision: Precision) -> list[Self]:
        """The courses in which these replicas are trained, none for no replicas; `decay` is the moving average's."""

    @property
    def at(self) -> int:
        """How many steps its replicas have done."""
        return self.replicas[0].state.step

    def step(self) -> None:
        """Every phase as often as it repeats, each time on a batch and noise of its own; then the average follows."""
        for turn in self._turns:
            for repeat in range(self._phases[turn[0]].repeat):
                # The phases of a turn are differentiated at the same point, before any of them is updated.
                differentiated = [(number, *self._differentiate(number, repeat)) for number in turn]
                for number, loss, gradients in differentiated:
                    self._update(number, loss, gradients)
        self._average.update(self.at)
        for replica in self.replicas:
            replica.state.recorder.end_step()
            replica.state.step += 1

    @abstractmethod
    def _differentiate(self, number: int, repeat: int) -> tuple[Loss, Gradients]:
        """The loss of phase `number` at this point, and the gradients of what it trains."""

    @abstractmethod
    def _update(self, number: int, loss: Loss, gradients: Gradients) -> None:
        """Moves what phase `number` trains, does what comes `after` it, and records it."""

    def _inputs(self, replica: Replica, number: int, repeat: int) -> tuple[Samples, Noise]:
        """What a loss reads: the batch and the noise are functions of the replica's seed and step alone."""
        step, phase = replica.state.step, self._phases[number]
        batch = replica.batches[step * self._batches_per_step + repeat]
        draws = {
            name: noise.draw(what, replica.seed, step, phase.name, repeat, name, device=self._device)
            for name, what in phase.noise.items()
        }
        return batch, draws

    # ---- between two steps

    def resume(self) -> None:
        """Puts the systems in training mode, which whatever was done with them since may have left."""
        for replica in self.replicas:
            replica.state.system.train()

    def collect(self) -> list[tuple[Replica, Mapping[str, float] | Diverged]]:
        """The scalars of each replica over the interval that ends here; waits for the device. One that diverged is
        `live` no more.
        """
        return [(replica, self._scalars(replica)) for replica in self.replicas]

    def _scalars(self, replica: Replica) -> Mapping[str, float] | Diverged:
        try:
            return replica.state.recorder.collect(self.at)
        except Diverged as diverged:
            replica.live = False
            return diverged

    def close(self) -> None:  # noqa: B027 -- a course that trains its states in place has nothing to give back
        """Gives the replicas' states back, to the bit what they are. The course is not to be used after that."""


def turns(phases: Sequence[Phase]) -> list[list[int]]:
    """The numbers of the phases that are differentiated at the same point, in order: mostly one by one."""
    found: list[list[int]] = []
    for number, phase in enumerate(phases):
        if phase.joint is not None and found and phases[found[-1][0]].joint == phase.joint:
            found[-1].append(number)
        else:
            found.append([number])
    return found
