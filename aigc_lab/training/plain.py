"""Course of one replica: each replica is its own program, and they take their steps in turn."""

from collections.abc import Sequence
from typing import Self

import torch

from aigc_lab.systems.base import Loss
from aigc_lab.training.averages import MovingAverage
from aigc_lab.training.course import Course, Gradients
from aigc_lab.training.optimizers import laid_out, shortened, trained
from aigc_lab.training.state import Precision, Replica


class Plain(Course):
    """Course of one replica, which trains its state in place."""

    def __init__(self, replica: Replica, decay: float, precision: Precision) -> None:
        state = replica.state
        super().__init__([replica], state.phases, MovingAverage(state.system, state.average, decay), precision)
        self._parameters = [trained(phase) for phase in state.phases]
        self._optimizers = [state.optimizers[phase.name] for phase in state.phases]

    @classmethod
    def of(cls, replicas: Sequence[Replica], decay: float, precision: Precision) -> list[Self]:
        return [cls(replica, decay, precision) for replica in replicas]

    def _differentiate(self, number: int, repeat: int) -> tuple[Loss, Gradients]:
        batch, draws = self._inputs(self.replicas[0], number, repeat)
        with self._autocast:
            loss = self._phases[number].loss(batch, draws, self.at)
        return loss, self._gradients(number, loss)

    def _gradients(self, number: int, loss: Loss) -> Gradients:
        """Gradients of the weights that the phase trains; the other networks' are left out of the backward. Raises
        `RuntimeError` where the loss does not depend on one of them.
        """
        parameters = self._parameters[number]
        for parameter in parameters:
            parameter.grad = None
        # A few per cent of a small network's step quicker than `torch.autograd.grad`, to the same bits.
        loss.total.backward(inputs=parameters)  # type: ignore[no-untyped-call]
        gradients = tuple(parameter.grad for parameter in parameters if parameter.grad is not None)
        if len(gradients) < len(parameters):
            unused = len(parameters) - len(gradients)
            raise RuntimeError(
                f"the loss of phase {self._phases[number].name} does not depend on {unused} of the "
                f"{len(parameters)} weights that it trains"
            )
        return gradients

    def _update(self, number: int, loss: Loss, gradients: Gradients) -> None:
        phase, optimizer = self._phases[number], self._optimizers[number]
        used = shortened(gradients, phase.optimizer.max_norm)
        for parameter, gradient in zip(self._parameters[number], used, strict=True):
            parameter.grad = laid_out(gradient, parameter)
        optimizer.param_groups[0].update(phase.optimizer.at(self.at))
        optimizer.step()
        if phase.after is not None:
            with torch.no_grad():
                phase.after(self.at)
        measured = gradients if number in self._measured else None
        self.replicas[0].state.recorder.record(phase, loss.total, loss.parts, loss.dynamics, measured)
