"""Course of one replica: each replica is its own program, and they take their steps in turn."""

from collections.abc import Sequence
from functools import partial
from typing import Self

import torch
from torch import Tensor

from aigc_lab.systems.base import Loss, System
from aigc_lab.training.averages import MovingAverage
from aigc_lab.training.course import Course, Given, Gradients
from aigc_lab.training.optimizers import laid_out, shortened, trained
from aigc_lab.training.program import aside
from aigc_lab.training.recorder import Columns
from aigc_lab.training.state import Precision, Replica


class Plain(Course):
    """Course of one replica, which trains its state in place."""

    def __init__(self, replica: Replica, decay: float, precision: Precision) -> None:
        state = replica.state
        self._parameters = [trained(phase) for phase in state.phases]
        self._optimizers = [state.optimizers[phase.name] for phase in state.phases]
        super().__init__([replica], state.phases, MovingAverage(state.system, state.average, decay), precision)

    @classmethod
    def of(cls, replicas: Sequence[Replica], decay: float, precision: Precision) -> list[Self]:
        return [cls(replica, decay, precision) for replica in replicas]

    def _system(self) -> System:
        return self.replicas[0].state.system

    def _optimizers_used(self) -> Sequence[torch.optim.Optimizer]:
        return self._optimizers

    def _given_to(self, number: int, repeat: int) -> Given:
        batch, draws = self._inputs(self.replicas[0], number, repeat)
        return Given(batch, batch.values, batch.labels, draws)

    def _differentiate(self, number: int, repeat: int, step: int) -> tuple[Loss, Gradients]:
        given = self._given[number, repeat]
        with self._autocast:
            loss = self._phases[number].loss(given.batch, given.draws, step)
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

    def _update(self, number: int, loss: Loss, gradients: Gradients, step: int) -> None:
        phase = self._phases[number]
        if phase.optimizer.decay is None:
            self._move(number, *gradients)
        else:  # its step size is another number each time
            aside(partial(self._move, number), *gradients)
        if phase.after is not None:
            with torch.no_grad():
                phase.after(step)

    def _move(self, number: int, *gradients: Tensor) -> None:
        phase, optimizer = self._phases[number], self._optimizers[number]
        used = shortened(gradients, phase.optimizer.max_norm)
        for parameter, gradient in zip(self._parameters[number], used, strict=True):
            parameter.grad = laid_out(gradient, parameter)
        optimizer.param_groups[0].update(phase.optimizer.at(self.at))
        optimizer.step()

    def _norms(self, gradients: Gradients) -> Sequence[Tensor]:
        with torch.no_grad():
            return torch._foreach_norm(gradients)  # noqa: SLF001

    def _end_rows(self, columns: Columns, rows: Tensor) -> None:
        self.replicas[0].state.recorder.add(columns, rows)
