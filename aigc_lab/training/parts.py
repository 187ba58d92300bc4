"""A process's part of a batch and of its noise, and the check that the parts make the whole."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.errors import UsageError
from aigc_lab.nets import joined
from aigc_lab.nets.joined import Parts
from aigc_lab.nets.precision import products
from aigc_lab.noise import Draw, Noise
from aigc_lab.samples import Samples
from aigc_lab.systems.base import Loss, Phase, System
from aigc_lab.training.optimizers import trained

# Numbers of the parts may differ from those of the whole by roundings, which cancellation magnifies; a gradient by its
# norm. A statistic of a batch that is taken of its parts is off by more.
_NUMBERS, _GRADIENT, _SMALLEST = 1e-4, 2e-3, 1e-6
# Samples of each part of the batch that is checked, about.
_CHECKED = 16


@dataclass(frozen=True)
class Cut:
    """Where a draw lies along the batch: its dimension, and how many batches follow one another in it."""

    dimension: int
    batches: int

    def of(self, values: Tensor, parts: Parts) -> Tensor:
        """A part of the values, with its rows of each batch."""
        shape = (self.batches, parts.processes, -1)
        apart: Tensor = values.unflatten(self.dimension, shape)  # type: ignore[no-untyped-call]
        return apart.select(self.dimension + 1, parts.number).flatten(self.dimension, self.dimension + 1)


def part_size(batch_size: int, count: int) -> int:
    """Samples of each of `count` parts. Raises `ValueError` for a batch that has no such parts."""
    if batch_size % count:
        nearest = max(batch_size // count, 1) * count
        raise ValueError(
            f"training.batch_size {batch_size} is not divisible by training.devices {count}; "
            f"set training.batch_size to {nearest}"
        )
    return batch_size // count


def cuts(system: System, batch_size: int, count: int) -> list[dict[str, Cut]]:
    """How the draws of each phase are cut into `count` parts; a draw without a cut goes to all of them whole.

    A draw's size says it: of a part's batch it is as many times smaller. Raises `ValueError` for a batch that cannot
    be parted, and for a draw whose size does not follow the batch's.
    """
    if system.unparallel is not None:
        raise ValueError(f"it cannot be trained on several devices: {system.unparallel}")
    of_part = _phases(system, part_size(batch_size, count), count)
    of_whole = system.phases(batch_size)
    return [
        {
            name: cut
            for name, draw in phase.noise.items()
            if (cut := _cut(name, draw, part.noise[name], batch_size, count))
        }
        for phase, part in zip(of_whole, of_part, strict=True)
    ]


def _phases(system: System, size: int, count: int) -> list[Phase]:
    try:
        return system.phases(size)
    except ValueError as error:
        raise ValueError(f"on {count} devices each has {size} samples of the batch: {error}") from None


def _cut(name: str, whole: Draw, part: Draw, batch_size: int, count: int) -> Cut | None:
    pairs = list(zip(whole.size, part.size, strict=True))
    differing = [dimension for dimension, (one, other) in enumerate(pairs) if one != other]
    if not differing:
        return None
    (first, *others), size = differing, whole.size[differing[0]]
    if others or size != count * part.size[first]:
        raise ValueError(f"its draw {name} does not grow with the batch: {whole.size}, and {part.size} of a part")
    return Cut(first, max(size // batch_size, 1))


def take(batch: Samples, draws: Noise, how: Mapping[str, Cut], parts: Parts) -> tuple[Samples, dict[str, Tensor]]:
    """The part of a batch and of its noise that is this process's."""
    size = len(batch) // parts.processes
    rows = slice(parts.number * size, (parts.number + 1) * size)
    return batch.take(rows), {name: how[name].of(draw, parts) if name in how else draw for name, draw in draws.items()}


def averaged(tensors: Sequence[Tensor], parts: Parts) -> list[Tensor]:
    """The mean of each tensor over the processes, in one exchange for each type of numbers."""
    means: dict[int, Tensor] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        members = [(index, tensor) for index, tensor in enumerate(tensors) if tensor.dtype == dtype]
        flat = torch.cat([tensor.detach().reshape(-1) for _, tensor in members])
        pieces = torch.split(
            joined.reduce(flat, parts).div_(parts.processes), [tensor.numel() for _, tensor in members]
        )
        means |= {index: piece.view(tensor.shape) for (index, tensor), piece in zip(members, pieces, strict=True)}
    return [means[index] for index in range(len(tensors))]


# ---- whether the parts make the whole


class Unparallel(UsageError):
    """A loss whose parts do not make the whole."""


def verify(system: System, number: int, batch: Samples, draws: Noise, step: int, batch_size: int, parts: Parts) -> None:
    """Computes phase `number` once of a few samples in parts, and once of the same in one process, without parts.

    Raises `Unparallel` where a loss, a gradient or a buffer differs by more than roundings: what a system, or a
    user's, computes of its batch is then no mean over samples. Changes nothing.
    """
    size = _small(system, batch_size // parts.processes, parts.processes) * parts.processes
    how, phase = cuts(system, size, parts.processes)[number], system.phases(size)[number]
    own, faults = _copies(system), []
    # A rectified unit on its edge falls to either side by rounding; a fault shows with other samples too.
    for first in (0, batch_size - size):
        few = batch.take(slice(first, first + size))
        noise = {name: _fewer(draws[name], how.get(name), first, size, batch_size) for name in draws}
        ours = _computed(system, phase, *take(few, noise, how, parts), step, parts)
        _restore(system, own)
        with joined.parts(None):
            alone = _computed(system, phase, few, noise, step, None)
        _restore(system, own)
        faults.append(next(filter(None, (_fault(name, ours[name], value) for name, value in alone.items())), None))
        if faults[-1] is None:
            break
    system.phases(batch_size)  # a system may remember its batch
    if faults[-1] is not None:
        raise Unparallel(
            f"{plugins.name_of(type(system))} cannot be trained on several devices: in phase {phase.name}, "
            f"{faults[-1]}; set training.devices to 1"
        )


def _small(system: System, part: int, count: int) -> int:
    """A number of samples that the check takes of each part."""
    for size in range(min(_CHECKED, part), part):
        if part % size == 0:
            try:
                cuts(system, size * count, count)
            except ValueError:
                continue
            return size
    return part


def _fewer(values: Tensor, cut: Cut | None, first: int, small: int, batch_size: int) -> Tensor:
    """Rows of a draw from that of the sample `first` on, of each of its batches, as a batch of `small` draws them."""
    if cut is None:
        return values
    rows: Tensor = values.unflatten(cut.dimension, (cut.batches, -1))  # type: ignore[no-untyped-call]
    count = rows.shape[cut.dimension + 1]
    some = rows.narrow(cut.dimension + 1, count * first // batch_size, count * small // batch_size)
    return some.flatten(cut.dimension, cut.dimension + 1)


def _computed(
    system: System, phase: Phase, batch: Samples, draws: Noise, step: int, parts: Parts | None
) -> dict[str, Tensor]:
    """By name: the loss and what explains it, its gradient in one row, and the buffers after it, in mean over parts."""
    # TF32, or bf16, would round by more than is looked for.
    with products("highest"), torch.backends.cudnn.flags(allow_tf32=False, benchmark=False, deterministic=True):
        loss: Loss = phase.loss(batch, draws, step)
        gradients = torch.autograd.grad(loss.total, trained(phase), allow_unused=True)
    scalars = {"its value": loss.total, **loss.parts, **loss.dynamics}
    values = {name: value.detach().double() for name, value in scalars.items()}
    values["its gradient"] = torch.cat([each.detach().double().reshape(-1) for each in gradients if each is not None])
    if parts is not None:
        values = dict(zip(values, averaged(list(values.values()), parts), strict=True))
    return values | {f"buffer {name}": value.detach().double().clone() for name, value in system.named_buffers()}


def _fault(name: str, ours: Tensor, alone: Tensor) -> str | None:
    """What is wrong with the parts' number; None within rounding, and where the whole's is not finite."""
    tolerance = _GRADIENT if name == "its gradient" else _NUMBERS
    size, off = max(ours.norm().item(), alone.norm().item()), (ours - alone).norm().item()
    if not math.isfinite(alone.norm().item()) or off <= tolerance * size + _SMALLEST * ours.numel() ** 0.5:
        return None
    return f"{name} of the parts of a batch is not that of the whole (off by {off:.3g} of {size:.3g})"


def _copies(system: System) -> dict[str, Tensor]:
    return {name: buffer.detach().clone() for name, buffer in system.named_buffers()}


@torch.no_grad()
def _restore(system: System, values: Mapping[str, Tensor]) -> None:
    for name, buffer in system.named_buffers():
        buffer.copy_(values[name])
