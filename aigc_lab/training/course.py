"""Courses, by which the loop trains: replicas at one step that take their steps as one program.

`plain` is a course of one replica, `stacked` one of many. Another way to compute a step is another subclass in its own
file, which `train` is given by its class. Whatever the course, steps that repeat the same operations are run as a
program (`captured`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.noise import Noise
from aigc_lab.samples import Samples
from aigc_lab.systems.base import Loss, Phase, System
from aigc_lab.training.averages import MovingAverage
from aigc_lab.training.captured import Programs
from aigc_lab.training.recorder import Columns, Diverged
from aigc_lab.training.state import Precision, Replica

Gradients = tuple[Tensor, ...]
# The number of a phase, and what `Recorder.columns` reads of it.
_Noted = tuple[int, tuple[str, ...], tuple[str, ...], bool]


@dataclass(frozen=True)
class Given:
    """What a loss is computed of: the batch's values and labels, of one replica or [R, …] of several, and its noise.
    `batch` is the batch, or one like those of all.
    """

    batch: Samples
    values: Tensor
    labels: Tensor | None
    draws: Noise

    def tensors(self) -> list[Tensor]:
        """All tensors, in order."""
        return [self.values, *([] if self.labels is None else [self.labels]), *self.draws.values()]


class Course(ABC):
    """Training of replicas that are all at the same step: `step` takes one, `collect` gives the scalars of an interval.

    A subclass differentiates a phase (`_differentiate`) and updates what the phase trains (`_update`), or overrides
    `step`.
    """

    #: the dimensions of a number of a step before its own: none of one replica, R of several
    _leading: tuple[int, ...] = ()

    def __init__(
        self, replicas: Sequence[Replica], phases: Sequence[Phase], average: MovingAverage, precision: Precision
    ) -> None:
        self.replicas = list(replicas)
        self._phases = phases
        self._turns = turns(phases)
        names = [phase.name for phase in phases]
        # Of each phase, the number of the one whose draws it shares.
        self._leaders = [next((names.index(n) for n in phase.shares.values() if n in names), None) for phase in phases]
        self._latest: dict[tuple[int, int], tuple[int, Samples, Noise]] = {}
        self._batches_per_step = max(phase.repeat for phase in phases)
        self._average = average
        #: what the losses of this step are given, by phase and turn
        self._given: dict[tuple[int, int], Given] = {}
        #: what this step has to record so far, and its numbers
        self._noted: list[_Noted] = []
        self._columns: list[Tensor] = []
        self._known_columns: dict[tuple[_Noted, ...], Columns] = {}
        #: numbers of the phases whose gradients are measured in this step
        self._measured: set[int] = set()
        self._device = next(self.replicas[0].state.system.parameters()).device
        self._autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16")
        system = self._system()
        self._programs = Programs(system, self._device, self._changing, system.uncapturable)

    @abstractmethod
    def _system(self) -> System:
        """The system whose weights are trained: the replica's own, or that which holds those of all."""

    @abstractmethod
    def _optimizers_used(self) -> Sequence[torch.optim.Optimizer]:
        """The optimisers that a step calls."""

    def _changing(self) -> list[Tensor]:
        """All tensors that a step may change, apart from the average."""
        system = self._system()
        memory = (
            each for used in self._optimizers_used() for of_one in used.state.values() for each in of_one.values()
        )
        tensors = [*system.parameters(), *system.buffers(), *(each for each in memory if isinstance(each, Tensor))]
        return [each.detach() for each in {id(each): each for each in tensors}.values()]

    @classmethod
    @abstractmethod
    def of(cls, replicas: Sequence[Replica], decay: float, precision: Precision) -> list[Self]:
        """Courses that train these replicas, none for no replicas; `decay` is the moving average's."""

    @property
    def at(self) -> int:
        """Number of steps its replicas have taken."""
        return self.replicas[0].state.step

    @property
    def repeated(self) -> int:
        """How many of its steps were repetitions of a program (`captured`)."""
        return self._programs.repeated

    @property
    def reason(self) -> str | None:
        """Why its steps are no programs; None where nothing is against it."""
        return self._programs.reason

    def step(self, end: int | None = None) -> None:
        """Takes one step: every phase that runs then, as often as it repeats, each time on its own batch and noise; at
        last the average is updated. In an interval that ends after `end` steps, gradients are measured in the last step
        of each phase; without it in none.
        """
        present = tuple(number for number, phase in enumerate(self._phases) if phase.runs(self.at))
        self._measured = {n for n in present if end is not None and self._phases[n].last_before(end) == self.at}
        order = [
            [(number, repeat) for number in turn if number in present]
            for turn in self._turns
            for repeat in range(self._phases[turn[0]].repeat)
        ]
        # All batches and noise first: what follows is a function of them and of what lies in the weights' memory.
        self._given = {each: self._given_to(*each) for together in order for each in together}
        kind = (present, frozenset(self._measured))
        inputs = [tensor for given in self._given.values() for tensor in given.tensors()]

        def compute(step: Any) -> tuple[Tensor, tuple[_Noted, ...]]:
            self._noted, self._columns = [], []
            for together in order:
                # The phases of a turn are differentiated at the same point, before any of them is updated.
                differentiated = [(each[0], *self._differentiate(*each, step)) for each in together]
                for number, loss, gradients in differentiated:
                    self._update(number, loss, gradients, step)
                    self._note(number, loss, gradients if number in self._measured else None)
            with torch.no_grad():
                return self._rows(), tuple(self._noted)

        rows, noted = self._programs.step(kind, inputs, self.at, compute) if present else compute(self.at)
        self._average.update(self.at)
        self._end_rows(self._columns_of(noted), rows)
        self._given = {}
        for replica in self.replicas:
            replica.state.step += 1

    @abstractmethod
    def _given_to(self, number: int, repeat: int) -> Given:
        """What the loss of phase `number` is computed of, in this turn."""

    @abstractmethod
    def _differentiate(self, number: int, repeat: int, step: int) -> tuple[Loss, Gradients]:
        """Loss of phase `number`, of what it is given in this turn, and the gradients of the parameters that it trains.
        `step` is handed to the loss, and not read.
        """

    @abstractmethod
    def _update(self, number: int, loss: Loss, gradients: Gradients, step: int) -> None:
        """Updates the parameters that phase `number` trains, and calls `after` with `step`."""

    def _columns_of(self, noted: tuple[_Noted, ...]) -> Columns:
        if noted not in self._known_columns:
            first = self.replicas[0].state
            recorded = [(first.phases[number], *names) for number, *names in noted]
            self._known_columns[noted] = first.recorder.columns(recorded)  # type: ignore[arg-type]
        return self._known_columns[noted]

    def _note(self, number: int, loss: Loss, gradients: Gradients | None) -> None:
        """Adds a loss to the row of the step, with the norms of its gradients if they are given."""
        self._noted.append((number, tuple(loss.dynamics), tuple(loss.parts), gradients is not None))
        self._columns += [*loss.dynamics.values(), *loss.parts.values(), loss.total]
        if gradients is not None:
            self._columns += self._norms(gradients)

    @abstractmethod
    def _norms(self, gradients: Gradients) -> Sequence[Tensor]:
        """The norm of each gradient."""

    def _rows(self) -> Tensor:
        """The row of the step [columns], or [R, columns] of several replicas."""
        if not self._columns:
            return torch.zeros(*self._leading, 0, device=self._device)
        # Of several types the widest holds each exactly.
        return torch.stack(self._columns, -1).float()

    @abstractmethod
    def _end_rows(self, columns: Columns, rows: Tensor) -> None:
        """Gives each replica its row."""

    def _inputs(self, replica: Replica, number: int, repeat: int) -> tuple[Samples, Noise]:
        """Batch and noise of a loss, functions of the replica's seed and step alone. What a phase shares with another
        are the tensors of that one's last turn.
        """
        leader, step = self._leaders[number], replica.state.step
        if leader is not None:
            at, batch, theirs = self._latest.get((id(replica), leader), (-1, None, {}))
            if at == step and batch is not None:
                shared = {name: theirs[name] for name in self._phases[number].shares}
                _, own = self._part(number, batch, self._draws(replica, number, repeat, shared))
                return batch, {**own, **shared}
        batch, draws = self._part(number, *self._whole(replica, number, repeat))
        if number in self._leaders:
            self._latest[id(replica), number] = step, batch, draws
        return batch, draws

    def _whole(self, replica: Replica, number: int, repeat: int) -> tuple[Samples, Noise]:
        """The inputs for the whole batch, drawn anew."""
        leader, first = self._leaders[number], replica.state.step * self._batches_per_step
        if leader is None:
            return self._batch(replica, first + repeat), self._draws(replica, number, repeat)
        last = self._phases[leader].repeat - 1
        theirs = self._draws(replica, leader, last)
        shared = {name: theirs[name] for name in self._phases[number].shares}
        return self._batch(replica, first + last), {**self._draws(replica, number, repeat, shared), **shared}

    def _draws(self, replica: Replica, number: int, repeat: int, known: Noise = MappingProxyType({})) -> Noise:
        """Noise of a phase, but what is known."""
        step, phase = replica.state.step, self._phases[number]
        return {
            name: noise.draw(what, replica.seed, step, phase.name, repeat, name, device=self._device)
            for name, what in phase.noise.items()
            if name not in known
        }

    def _part(self, number: int, batch: Samples, draws: Noise) -> tuple[Samples, Noise]:
        """What of the inputs of a phase is computed here: all."""
        return batch, draws

    def _batch(self, replica: Replica, number: int) -> Samples:
        return replica.batches[number]

    # ---- between two steps

    def resume(self) -> None:
        """Puts the systems in training mode, which scoring and sampling may have left."""
        for replica in self.replicas:
            replica.state.system.train()
        self._programs.resume()

    def collect(self) -> list[tuple[Replica, Mapping[str, float] | Diverged]]:
        """Scalars of each replica over the interval that ends here; waits for the device. A replica that diverged is no
        longer `live`.
        """
        return [(replica, self._scalars(replica)) for replica in self.replicas]

    def _scalars(self, replica: Replica) -> Mapping[str, float] | Diverged:
        try:
            return replica.state.recorder.collect(self.at)
        except Diverged as diverged:
            replica.live = False
            return diverged

    def close(self) -> None:  # noqa: B027 -- a course that trains its states in place has nothing to give back
        """Gives the replicas' states back, equal to the bit. The course must not be used after that."""


def turns(phases: Sequence[Phase]) -> list[list[int]]:
    """Indices of the phases that are differentiated at the same point, in order: mostly one by one."""
    groups: list[list[int]] = []
    for number, phase in enumerate(phases):
        if phase.joint is not None and groups and phases[groups[-1][0]].joint == phase.joint:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups
