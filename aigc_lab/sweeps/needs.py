"""The memory that a sweep needs, estimated beforehand: too much is refused with the key, and what would fit."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from pydantic import BaseModel
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from aigc_lab.errors import UsageError
from aigc_lab.executors.base import Place
from aigc_lab.experiment import space
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.experiment.yaml_file import KeyPath
from aigc_lab.host.capacity import format_bytes, free_memory
from aigc_lab.modalities.base import modality_of
from aigc_lab.nets.rollouts import RolloutMemory
from aigc_lab.samples import Samples
from aigc_lab.shape import Shape
from aigc_lab.sweeps.rollouts import describe_rollouts, refuse_rollouts, rollout_memory
from aigc_lab.systems.base import Phase, System

# Of a weight: itself, its gradient, Adam's two moments and the moving average.
_COPIES = 5
# Batches up to here fit wherever their networks do, and are not tried, which takes a while.
_USUAL = 256
# A process with torch imported and the data of a small experiment, beside what its run takes: 0.9 GB were seen.
_PROCESS = 10**9
#: what plugins of others may raise when they are built, or run without data
REFUSALS = (ValueError, TypeError, ArithmeticError, MemoryError, RuntimeError)


@dataclass(frozen=True)
class Cost:
    """Bytes that a training run holds at least: `fixed` of the networks, and of `each` sample of a batch."""

    fixed: int
    each: float = 0.0

    def of(self, batch_size: int) -> int:
        return self.fixed + round(self.each * batch_size)


def check_memory(experiment: Experiment, places: Sequence[Place], together: int = 1) -> None:
    """Raises `UsageError` for data or runs that memory cannot hold: of all workers that share a device, or of as many
    runs as are trained `together`. Nothing is loaded; what is built is small, or known to fit.
    """
    filled, first = _filled(experiment, {})
    for key, need in first.dataset.memory().items():
        free = free_memory()
        if need > free:
            value = getattr(first.dataset.config, key)
            experiment.document.fail(
                filled.source(("data", key)),
                f"{value:,} take about {format_bytes(need)} of memory, and {format_bytes(free)} are free; "
                f"{_rounded(int(value * free / need)):,} would fit",
            )
    for device in dict.fromkeys(place.device for place in places):
        free = free_memory(device) // (together * sum(place.device == device for place in places))
        for filled, plan in largest_plans(experiment):
            try:
                estimate, rollouts = cost(plan, free, device), rollout_memory(plan, device)
            except REFUSALS:
                continue  # a class of somebody else that needs real samples is not judged by samples of no content
            if (need := estimate.of(plan.training.batch_size)) <= free:
                continue
            if rollouts is not None and (left := free - need + rollouts.of(rollouts.at_once)) > 0:
                refuse_rollouts(experiment, filled, plan, rollouts, left)
            _refuse(experiment, filled, plan, estimate, free)


def described_rollouts(experiment: Experiment, places: Sequence[Place]) -> list[str]:
    """What the rollouts of each system hold at most, a line each; none for systems that make none."""
    most: dict[str, RolloutMemory] = {}
    for _, plan in largest_plans(experiment):
        with suppress(*REFUSALS):
            memory = rollout_memory(plan, places[0].device)
            if memory is not None:
                others = most.get(plan.title, memory)
                most[plan.title] = max(memory, others, key=lambda each: each.of(each.at_once))
    alone = len(experiment.systems) == 1
    return [f"{'' if alone else f'{title}: '}{describe_rollouts(memory)}" for title, memory in most.items()]


def most_at_once(experiment: Experiment) -> int:
    """How many runs the host's memory holds at once, about, each in a process of its own; 1 at least."""
    free = free_memory()
    runs = [0]
    for _, plan in largest_plans(experiment):
        with suppress(*REFUSALS):
            runs.append(cost(plan, free).of(plan.training.batch_size))
    return max(1, free // (_PROCESS + max(runs)))


def cost(plan: Configuration, free: int, device: str = "cpu") -> Cost:
    """The approximate memory of a run: weights with gradients and optimiser state, and of each sample its noise, its
    values, and the activations that autograd keeps. The activations are measured on a few samples, only for large
    batches of networks that fit into `free` bytes.
    """
    shape, count = plan.dataset.shape, plan.training.batch_size
    with torch.device("meta"):
        system = plan.system_class(plan.system_config, shape)
        phases = system.phases(count)
    fixed = _COPIES * sum(_bytes(tensor) for tensor in (*system.parameters(), *system.buffers()))
    rollouts = system.rollout_memory(count, device)
    noise = max(sum(4 * math.prod(draw.size) for draw in phase.noise.values()) for phase in phases)
    # The noise of rollouts is in what they hold.
    held = 0 if rollouts is None else rollouts.of(rollouts.at_once) - rollouts.noise
    least = 4 * math.prod(shape.size) + (noise + held) / count
    few = min(count, _few(plan))
    if count <= _USUAL or fixed + least * few > free:
        return Cost(fixed, least)
    # Autograd keeps nothing of rollouts, and thousands of them would take minutes.
    one = {} if rollouts is None else {"rollouts": 1, "rollouts_at_once": None}
    return Cost(fixed, max(least, _held(plan, few, one)))


def _few(plan: Configuration) -> int:
    """The size of a small batch: a few times the samples that a critic judges together."""
    return 4 * int(getattr(plan.system_config, "packing", 1))


def _held(plan: Configuration, count: int, changes: Mapping[str, Any]) -> float:
    """Bytes of each sample of a batch of so many, of the system with these changes: noise, and what autograd keeps for
    a phase's loss.
    """
    config = plan.system_config.model_copy(update=changes)
    with torch.random.fork_rng(devices=[]):
        system = plan.system_class(config, plan.dataset.shape)
        batch = _batch(plan.dataset.shape, count)
        most = max(_kept(system, phase, batch) for phase in system.phases(count))
    return most / count


def _kept(system: System, phase: Phase, batch: Samples) -> int:
    noise = {name: torch.rand(draw.size) for name, draw in phase.noise.items()}
    own = {tensor.untyped_storage().data_ptr() for tensor in (*system.parameters(), *system.buffers())}
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage  # held, so that no other gets its place
        return tensor

    # A penalty on a gradient runs under torch.func, which forbids these hooks: what it keeps is not counted.
    with suppress(*REFUSALS), saved_tensors_hooks(keep, lambda tensor: tensor), torch.enable_grad():
        phase.loss(batch, noise, 1)
    return sum(map(_bytes, noise.values())) + sum(storage.nbytes() for storage in storages.values())


def _batch(shape: Shape, count: int) -> Samples:
    """A blank batch of the shape."""
    labels = None if shape.classes is None else torch.zeros(count, dtype=torch.int64)
    return modality_of(shape).blank(shape, count, labels)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


# ---- which configurations


def _filled(experiment: Experiment, values: dict[str, Any]) -> tuple[space.Filled, Configuration]:
    def pick(hole: space.Hole) -> Any:
        return values.get(hole.name, hole.ends()[0])

    return space.fill(experiment.document, pick), experiment.resolve(pick)


def largest_plans(experiment: Experiment) -> Iterator[tuple[space.Filled, Configuration]]:
    """The configurations that take most: every option of every choice, with all whole numbers at their upper ends, or
    each of them alone where they cannot be so together. Real numbers do not change what is taken.
    """
    whole = {hole.name: _largest(hole) for hole in experiment.holes}
    largest = {name: value for name, value in whole.items() if value is not None}
    seen = set()
    for corner in space.corners(experiment.document):
        for values in (corner.values | largest, corner.values):
            # Two numbers that do not go together, like a packing and a batch, are no configuration.
            with suppress(UsageError):
                filled, plan = _filled(experiment, values)
                sizes = [(key, value) for key, value in plan.system_config if not isinstance(value, float)]
                key = repr((plan.system, sizes, plan.training.batch_size))
                if key not in seen:
                    seen.add(key)
                    yield filled, plan


def _largest(hole: space.Hole) -> Any:
    ends = hole.ends()
    return max(ends) if all(type(end) is int for end in ends) else None


# ---- what to say


def _refuse(experiment: Experiment, filled: space.Filled, plan: Configuration, estimate: Cost, free: int) -> NoReturn:
    """Raises `UsageError` naming the key: of those whose half would save a tenth, the one furthest from its default."""
    count, need = plan.training.batch_size, estimate.of(plan.training.batch_size)
    at: dict[KeyPath, int] = {
        ("system", key): value for key, value in plan.system_config if type(value) is int and value > 1
    }
    saved: dict[KeyPath, float] = {path: estimate.fixed - _fixed(plan, path, value // 2) for path, value in at.items()}
    at["training", "batch_size"], saved["training", "batch_size"] = count, estimate.each * count / 2
    costly = [path for path in at if saved[path] > need / 10] or list(at)
    path = max(costly, key=lambda path: at[path] / _usual(plan, path))
    if path[0] == "training":
        fits = int((free - estimate.fixed) / estimate.each)
    else:
        fits = _most(plan, path, at[path], int(free - estimate.each * count))
    remedy = f"; {_rounded(fits):,} would fit" if fits > 1 else ""
    experiment.document.fail(
        filled.source(path),
        f"{at[path]:,}: a run of {plan.system} takes about {format_bytes(need)} of memory, and "
        f"{format_bytes(free)} are free for it{remedy}",
    )


def _usual(plan: Configuration, path: KeyPath) -> float:
    """The default of a key; None without one."""
    model: type[BaseModel] = type(plan.training if path[0] == "training" else plan.system_config)
    default = model.model_fields[str(path[-1])].get_default()
    return default if isinstance(default, int) and default > 0 else 1


def _fixed(plan: Configuration, path: KeyPath, value: int) -> float:
    """Bytes of the networks with another value of a key; infinite for a value that is refused."""
    config = plan.system_config.model_copy(update={str(path[-1]): value})
    try:
        with torch.device("meta"):
            system = plan.system_class(config, plan.dataset.shape)
    except REFUSALS:
        return math.inf
    return _COPIES * sum(_bytes(tensor) for tensor in (*system.parameters(), *system.buffers()))


def _most(plan: Configuration, path: KeyPath, value: int, free: int) -> int:
    """About the largest value of a key whose networks fit; 0 if none does."""
    low, high = 0, value
    while high - low > max(low // 20, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if _fixed(plan, path, middle) <= free else (low, middle)
    return low


def _rounded(value: int) -> int:
    """The number rounded down to two digits."""
    step = int(10 ** max(len(str(value)) - 2, 0))
    return value // step * step
