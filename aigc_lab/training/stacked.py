"""Course of alike replicas as one program: a step of all is one computation, on a `Stack` of their states."""

from collections.abc import Sequence
from typing import Self

import torch

from aigc_lab.systems.base import Loss
from aigc_lab.training.averages import MovingAverage
from aigc_lab.training.course import Course, Gradients
from aigc_lab.training.optimizers import trained
from aigc_lab.training.stack import Stack, by_replica
from aigc_lab.training.state import Precision, Replica


class Stacked(Course):
    """Course of replicas that are alike and at the same step. If one leaves, the others go on as a smaller stack.

    Raises `ValueError` if they cannot be stacked.
    """

    def __init__(self, replicas: Sequence[Replica], decay: float, precision: Precision) -> None:
        self._stack = Stack([replica.state for replica in replicas])
        average = MovingAverage(self._stack.system, self._stack.average, decay)
        super().__init__(replicas, self._stack.phases, average, precision)
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
        for row, (replica, mine) in enumerate(zip(self.replicas, by_replica(loss), strict=True)):
            phase = replica.state.phases[number]
            own = tuple(gradient[row] for gradient in gradients) if measured else None
            replica.state.recorder.record(phase, mine.total, mine.parts, mine.dynamics, own)

    def resume(self) -> None:
        super().resume()
        self._stack.system.train()

    def close(self) -> None:
        self._stack.unstack()
