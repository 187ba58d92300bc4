"""Course of alike replicas as one program: a step of all is one computation, on a `Stack` of their states."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from aigc_lab.data.shared.batches import batch_of_each
from aigc_lab.samples import Samples
from aigc_lab.systems.base import Loss
from aigc_lab.training.averages import MovingAverage
from aigc_lab.training.course import Course, Gradients
from aigc_lab.training.optimizers import trained
from aigc_lab.training.stack import Stack
from aigc_lab.training.state import Precision, Replica


class Stacked(Course):
    """Course of replicas that are alike and at the same step. If one leaves, the others go on as a smaller stack.

    Raises `ValueError` if they cannot be stacked.
    """

    def __init__(self, replicas: Sequence[Replica], decay: float, precision: Precision) -> None:
        self._stack = Stack([replica.state for replica in replicas])
        average = MovingAverage(self._stack.system, self._stack.average, decay)
        super().__init__(replicas, self._stack.phases, average, precision)
        #: what the current step has to record so far, [R] each
        self._columns: list[Tensor] = []
        #: the newest batches, by their number and the replica
        self._taken: tuple[int, dict[int, Samples]] = (-1, {})
        self._parameters = [trained(phase) for phase in self._stack.phases]

    @classmethod
    def of(cls, replicas: Sequence[Replica], decay: float, precision: Precision) -> list[Self]:
        return [cls(replicas, decay, precision)] if replicas else []

    def _differentiate(self, number: int, repeat: int) -> tuple[Loss, Gradients]:
        batches, draws = zip(*(self._inputs(replica, number, repeat) for replica in self.replicas), strict=True)
        with self._autocast:
            loss = self._stack.loss(number, batches, draws)
        # The gradient of their sum has each replica's own in its row: no row reaches another's loss.
        return loss, torch.autograd.grad(loss.total.sum(), self._parameters[number])

    @torch.no_grad()
    def _update(self, number: int, loss: Loss, gradients: Gradients) -> None:
        self._stack.move(number, gradients)
        measured = number in self._measured
        self._columns += [*loss.dynamics.values(), *loss.parts.values(), loss.total]
        if measured:
            self._columns += map(_norms, gradients)
        for replica in self.replicas:
            phase = replica.state.phases[number]
            replica.state.recorder.announce(phase, loss.parts, loss.dynamics, measured=measured)

    @torch.no_grad()
    def _end_rows(self) -> None:
        # Of all replicas in one tensor, [R, columns]: a row each.
        rows = torch.stack(self._columns, 1).float() if self._columns else torch.zeros(len(self.replicas), 0)
        self._columns = []
        for replica, row in zip(self.replicas, rows.unbind(), strict=True):
            replica.state.recorder.end_step(row)

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
