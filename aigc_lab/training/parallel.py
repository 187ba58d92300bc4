"""Course of one replica on several devices: each process differentiates its part of a batch.

Every process holds the same state. It draws the batch and the noise of the whole, as one device would, and takes its
part; gradients and scalars are averaged over the processes, batch normalisations are those of the whole batch, and
every process then makes the same update. So the numbers are those of one device with the whole batch, to rounding.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.errors import Failure
from aigc_lab.nets import joined
from aigc_lab.nets.joined import Lost
from aigc_lab.noise import Noise
from aigc_lab.samples import Samples
from aigc_lab.systems.base import Fitted, Loss
from aigc_lab.training import parts
from aigc_lab.training.checkpoint import parts_of
from aigc_lab.training.course import Gradients
from aigc_lab.training.plain import Plain
from aigc_lab.training.process_group import Order, ProcessGroup
from aigc_lab.training.state import Precision, Replica, TrainingState


class Parallel(Plain):
    """The course as each process of a group computes it."""

    def __init__(self, replica: Replica, decay: float, precision: Precision, group: ProcessGroup) -> None:
        super().__init__(replica, decay, precision)
        state = replica.state
        self._programs.reason = "processes meet in a step"
        self._group = group
        self._cuts = parts.cuts(state.system, state.batch_size, group.size)
        self._verified: set[int] = set()
        self._synchronised = ExitStack()
        self._synchronised.enter_context(joined.synchronised(state.system))

    def step(self, end: int | None = None) -> None:
        with joined.parts(self._group.parts):
            super().step(end)

    def _differentiate(self, number: int, repeat: int, step: int) -> tuple[Loss, Gradients]:
        if number not in self._verified:
            self._verify(number, repeat)
        loss, gradients = super()._differentiate(number, repeat, step)
        scalars = {"": loss.total, **loss.parts}
        means = parts.averaged([*scalars.values(), *loss.dynamics.values(), *gradients], self._group.parts)
        total, *others = means[: len(scalars)]
        dynamics = means[len(scalars) : len(scalars) + len(loss.dynamics)]
        whole = Loss(total, dict(zip(loss.parts, others, strict=True)), dict(zip(loss.dynamics, dynamics, strict=True)))
        return whole, tuple(means[len(scalars) + len(loss.dynamics) :])

    def _part(self, number: int, batch: Samples, draws: Noise) -> tuple[Samples, Noise]:
        return parts.take(batch, draws, self._cuts[number], self._group.parts)

    def _verify(self, number: int, repeat: int) -> None:
        """Checks a phase at its first turn in this process: once with every start, so before anything depends on it."""
        replica, seen = self.replicas[0], self._group.parts
        batch, draws = self._whole(replica, number, repeat)
        state = replica.state
        parts.verify(state.system, number, batch, draws, self.at, state.batch_size, seen)
        self._verified.add(number)

    def held(self) -> Tensor:
        """A number of each tensor that all processes must hold alike, the sum of its bits: int64 [n] on the CPU."""
        return torch.stack([_sum_of_bits(tensor) for tensor in _held(self.replicas[0].state).values()]).cpu()

    def close(self) -> None:
        self._synchronised.close()


class Leading(Parallel):
    """The course in rank 0, which gives the orders: the process that evaluates, records and stores."""

    def __init__(self, replica: Replica, decay: float, precision: Precision, group: ProcessGroup, number: int) -> None:
        super().__init__(replica, decay, precision, group)
        self._number = number
        with _Blamed(self):
            group.order(Order.OPEN, number)
            group.tell(_description(replica, decay, precision))
            tensors, facts = parts_of(replica.state)
            group.tell(facts)
            group.share(tensors)
            labels = replica.batches.samples.labels
            group.share({"values": replica.batches.samples.values} | ({} if labels is None else {"labels": labels}))
            group.wait()  # the time of a step is no time of a start

    def step(self, end: int | None = None) -> None:
        with _Blamed(self):
            self._group.order(Order.STEP, self._number)
            super().step(end)

    def collect(self) -> list[tuple[Replica, Any]]:
        with _Blamed(self):
            self._group.order(Order.COMPARE, self._number)
            mine, *others = self._group.collected(self.held())
        self._refuse_drift(mine, others)
        return super().collect()

    def _refuse_drift(self, mine: Tensor, others: Sequence[Tensor]) -> None:
        """Raises `Failure` where a process holds other numbers than this one; the run is then not stored."""
        for rank, theirs in enumerate(others, 1):
            different = (mine != theirs).nonzero()
            if len(different):
                self.replicas[0].live = False
                name = list(_held(self.replicas[0].state))[int(different[0])]
                raise Failure(
                    f"process {rank} of {self._group.size} holds another {name} than the first after step {self.at}: "
                    "the same command goes on from its last checkpoint"
                )

    def close(self) -> None:
        super().close()
        try:
            self._group.order(Order.CLOSE, self._number)
        except Lost:
            self._group.close()


class _Blamed:
    """Context in which a run whose group breaks is not stored: it may be in the middle of a step. The group is closed,
    and an error that came from another process is told as that.
    """

    def __init__(self, course: Leading) -> None:
        self._course = course

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, at: Any) -> None:
        if error is None or isinstance(error, parts.Unparallel):  # which all of them raise alike
            return
        course = self._course
        for replica in course.replicas:
            replica.live = False
        group = course._group  # noqa: SLF001 -- of its own module
        try:
            if isinstance(error, Lost):
                group.blame()
        finally:
            group.close()


class OnDevices:
    """Courses that train by the processes of a group, for `train`: `of` is as that of a `Course`."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self._count = 0

    def of(self, replicas: Sequence[Replica], decay: float, precision: Precision) -> list[Leading]:
        courses = []
        for replica in replicas:
            self._count += 1
            courses.append(Leading(replica, decay, precision, self._group, self._count))
        return courses


def _description(replica: Replica, decay: float, precision: Precision) -> dict[str, Any]:
    """What another process needs to build the same course, as JSON data."""
    state, kind = replica.state, type(replica.state.system)
    system = state.system
    own = {key: str(plugins.file_of(each)) for key, each in system.named.items() if plugins.source_of(each) is not None}
    code = plugins.source_of(kind)
    return {
        "system": plugins.name_of(kind) if code is None else str(plugins.file_of(kind)),
        "config": system.config.model_dump(mode="json", exclude_unset=True) | own,
        "shape": system.shape.dump(),
        "batch_size": state.batch_size,
        "seed": replica.seed,
        "decay": decay,
        "averaged": state.averaged,
        "precision": precision,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "channels_last": any(_channels_last(weight) for weight in system.parameters()),
    }


def _channels_last(weight: Tensor) -> bool:
    layouts = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return layouts and not weight.is_contiguous()


def _held(state: TrainingState) -> dict[str, Tensor]:
    """Tensors of a state that all processes hold alike: weights, buffers but fitted ones, the optimisers' memory."""
    fitted = {id(buffer) for part in state.system.modules() if isinstance(part, Fitted) for buffer in part.buffers()}
    tensors: dict[str, Tensor] = {f"weight {name}": weight for name, weight in state.system.named_parameters()}
    tensors |= {f"buffer {name}": value for name, value in state.system.named_buffers() if id(value) not in fitted}
    for name, optimizer in state.optimizers.items():
        for index, memory in optimizer.state_dict()["state"].items():
            tensors |= {f"memory {key} of {name}'s weight {index}": value for key, value in memory.items()}
    return tensors


def _sum_of_bits(tensor: Tensor) -> Tensor:
    words = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}[tensor.element_size()]
    device = tensor.device
    return tensor.detach().reshape(-1).view(words).sum(dtype=torch.int64).to(device)
