"""Course of alike replicas as one program: a step of all is one computation, on a `Stack` of their states."""

from collections.abc import Sequence
from functools import partial
from typing import Self

import torch
from torch import Tensor

from aigc_lab.data.shared.batches import batch_of_each
from aigc_lab.samples import Samples
from aigc_lab.systems.base import Loss, System
from aigc_lab.training.averages import MovingAverage
from aigc_lab.training.course import Course, Given, Gradients
from aigc_lab.training.optimizers import trained
from aigc_lab.training.program import aside
from aigc_lab.training.recorder import Columns
from aigc_lab.training.stack import Stack, together
from aigc_lab.training.state import Precision, Replica


class Stacked(Course):
    """Course of replicas that are alike and at the same step. If one leaves, the others go on as a smaller stack.

    Raises `ValueError` if they cannot be stacked.
    """

    def __init__(self, replicas: Sequence[Replica], decay: float, precision: Precision) -> None:
        self._stack = Stack([replica.state for replica in replicas])
        average = MovingAverage(self._stack.system, self._stack.average, decay)
        super().__init__(replicas, self._stack.phases, average, precision)
        self._leading = (len(replicas),)
        #: the newest batches, by their number and the replica
        self._taken: tuple[int, dict[int, Samples]] = (-1, {})
        self._parameters = [trained(phase) for phase in self._stack.phases]

    @classmethod
    def of(cls, replicas: Sequence[Replica], decay: float, precision: Precision) -> list[Self]:
        return [cls(replicas, decay, precision)] if replicas else []

    def _system(self) -> System:
        return self._stack.system

    def _optimizers_used(self) -> Sequence[torch.optim.Optimizer]:
        return self._stack.optimizers()

    def _given_to(self, number: int, repeat: int) -> Given:
        batches, draws = zip(*(self._inputs(replica, number, repeat) for replica in self.replicas), strict=True)
        return Given(batches[0], *together(batches, draws))

    def _differentiate(self, number: int, repeat: int, step: int) -> tuple[Loss, Gradients]:
        given = self._given[number, repeat]
        with self._autocast:
            loss = self._stack.loss(number, given.batch, given.values, given.labels, given.draws, step)
        # The gradient of their sum has each replica's own in its row: no row reaches another's loss.
        return loss, torch.autograd.grad(loss.total.sum(), self._parameters[number])

    @torch.no_grad()
    def _update(self, number: int, loss: Loss, gradients: Gradients, step: int) -> None:
        if self._phases[number].optimizer.decay is None:
            self._move(number, *gradients)
        else:  # their step sizes are other numbers each time
            aside(partial(self._move, number), *gradients)
        self._stack.afterwards(number, step)

    def _move(self, number: int, *gradients: Tensor) -> None:
        self._stack.move(number, gradients, self.at)

    @torch.no_grad()
    def _norms(self, gradients: Gradients) -> Sequence[Tensor]:
        return [_norms(each) for each in gradients]

    def _end_rows(self, columns: Columns, rows: Tensor) -> None:
        for replica, row in zip(self.replicas, rows.unbind(), strict=True):
            replica.state.recorder.add(columns, row)

    def _batch(self, replica: Replica, number: int) -> Samples:
        if number != self._taken[0]:
            batches = batch_of_each([each.batches for each in self.replicas], number)
            self._taken = number, {id(each): batch for each, batch in zip(self.replicas, batches, strict=True)}
        return self._taken[1][id(replica)]

    def resume(self) -> None:
        super().resume()
        self._stack.system.train()

    def close(self) -> None:
        self._stack.unstack()


def _norms(gradient: Tensor) -> Tensor:
    """Norm of each replica's row [R, …]; a weight without dimensions has one number of each."""
    norms: Tensor = torch.linalg.vector_norm(gradient.unsqueeze(-1), dim=tuple(range(1, gradient.ndim + 1)))
    return norms
