"""A step as a program: recorded twice, compared, repeated once beside the recording, and from then on instead of it.

A course's steps of one kind (the same phases, the same shapes) are the same operations on the same weights, as long as
a loss is a function of its batch, its noise and what lies in registered tensors. That is not taken on trust: a step
becomes a program only if

- two recordings of two steps are the same operations, with the same numbers and constants;
- nothing in them read the step's number but by `systems.base.scheduled`, drew random numbers, or asked for a tensor's
  number on the host;
- no system's own attribute of Python changed in a step, and no module has hooks;
- the program, run on the state before a recorded step, gives the bits that the step gave (on a GPU, whose sums may come
  in any order, the same numbers to a hundredth of what the step changed).

So a program never changes a result, and what is no program is computed as ever. On a CPU, of two ways with the same
bits, the quicker is kept; on a GPU the program is captured as CUDA graphs.
"""

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aigc_lab.training.graphs import Graphs
from aigc_lab.training.program import Program, aside, record, same_bits

#: programs of a course at most: batches of many shapes are computed as ever
MOST_PROGRAMS = 16
# Steps each way that are timed before one is kept.
_TIMED = 4
#: steps of a kind after which it is settled how they are computed: a first, two recorded, and those that are timed
SETTLED = 3 + 2 * _TIMED
# What a captured step may be off, of what the step changed, on a device whose sums have no order.
_OFF = 1e-2
#: what steps of one kind have in common: which phases run, and the shapes of what they are given
Key = tuple[object, ...]
#: what computes a step: of its number the step's rows, and what else is to be known of them, which is no tensor
Compute = Callable[[Any], tuple[Tensor, Any]]
_of_thread = threading.local()


@contextmanager
def as_ever() -> Iterator[None]:
    """Context in which no step is a program: what a program is compared with."""
    before = getattr(_of_thread, "off", False)
    _of_thread.off = True
    try:
        yield
    finally:
        _of_thread.off = before


class WatchedStep:
    """A step's number that knows whether anybody read it. To be handed on is not to be read.

    No `int`: a float that is multiplied by an `int` reads it unseen.
    """

    def __init__(self, step: int) -> None:
        self.number, self.read = step, False

    def fill(self, tensor: Tensor, value: Callable[[int], float]) -> None:
        """Fills the tensor with the value of this step, and at each repetition with that of its own."""
        _of_thread.at = self.number
        aside(lambda filled: filled.fill_(value(_of_thread.at)), tensor)


def _reading(name: str) -> Callable[..., Any]:
    def method(self: WatchedStep, *others: Any) -> Any:
        self.read = True
        answer = getattr(self.number, name)(*others)
        return getattr(float(self.number), name)(*others) if answer is NotImplemented else answer

    return method


# `__bool__`, `__index__`, `__lt__`, `__rmul__`, `__format__`, …: whatever a number can be asked.
_COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__")
for _name in (*set(dir(int)) - set(dir(object)), *_COMPARISONS, "__repr__", "__str__", "__format__"):
    setattr(WatchedStep, _name, _reading(_name))


class Programs:
    """The programs of a course, by the kind of step. `module` holds its weights and buffers, and `state` gives all
    tensors that a step may change; `reason` says why no program is made, None where nothing is against it.
    """

    def __init__(
        self, module: nn.Module, device: torch.device, state: Callable[[], list[Tensor]], reason: str | None = None
    ) -> None:
        self._module, self._device, self._state = module, device, state
        self.reason = "AIGC_LAB_PROGRAMS is off" if os.environ.get("AIGC_LAB_PROGRAMS") == "off" else reason
        self._slots: dict[Key, _Slot] = {}
        self._places = self._tensors_lie()

    def step(self, kind: Key, inputs: Sequence[Tensor], at: int, compute: Compute) -> tuple[Tensor, Any]:
        """What `compute(at)` gives, which reads `inputs`: by the program of such steps, where there is one; else it is
        called, and recorded where it is time to.
        """
        if self.reason is not None or getattr(_of_thread, "off", False):
            return compute(at)
        key = (*kind, *((tuple(each.shape), each.stride(), each.dtype) for each in inputs), _shared(inputs))
        slot = self._slots.get(key)
        if slot is None:
            if len(self._slots) >= MOST_PROGRAMS:
                return compute(at)
            slot = self._slots[key] = _Slot(self._module, self._device, self._state)
        rows = slot.step(inputs, at, compute)
        if slot.reason is not None:
            self.reason = slot.reason
            self._slots.clear()
        return rows

    def resume(self) -> None:
        """Drops the programs where the weights lie elsewhere by now."""
        places = self._tensors_lie()
        if places != self._places:
            self._places = places
            self._slots.clear()

    @property
    def repeated(self) -> int:
        """How many steps were repetitions of a program."""
        return sum(slot.repeated for slot in self._slots.values())

    def _tensors_lie(self) -> list[int]:
        return [each.data_ptr() for each in (*self._module.parameters(), *self._module.buffers())]


class _Slot:
    """Steps of one kind, on their way to a program: computed, recorded, recorded again and tried, timed, repeated."""

    def __init__(self, module: nn.Module, device: torch.device, state: Callable[[], list[Tensor]]) -> None:
        self._module, self._device, self._state = module, device, state
        self._seen = 0
        self._first: Program | None = None
        self._known: Any = None
        self._repeat: Callable[[Sequence[Tensor], int], Tensor] | None = None
        self._seconds: tuple[list[float], list[float]] = [], []
        self._as_ever = False
        self.reason: str | None = None
        self.repeated = 0

    def step(self, inputs: Sequence[Tensor], at: int, compute: Compute) -> tuple[Tensor, Any]:
        self._seen += 1
        if self._seen == 1 or self._as_ever:  # the first of a kind may build what later ones find
            return compute(at)
        if self._repeat is None:
            return self._recorded(inputs, at, compute)
        if len(self._seconds[0]) < _TIMED and self._device.type == "cpu":
            return self._timed(inputs, at, compute)
        self.repeated += 1
        return self._repeat(inputs, at), self._known

    def _timed(self, inputs: Sequence[Tensor], at: int, compute: Compute) -> tuple[Tensor, Any]:
        assert self._repeat is not None
        ways = self._seconds
        clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
        program = len(ways[1]) <= len(ways[0])
        begun = clock()
        found = (self._repeat(inputs, at), self._known) if program else compute(at)
        ways[program].append(clock() - begun)
        self.repeated += program
        if len(ways[0]) == _TIMED:
            self._as_ever = statistics.median(ways[0]) < statistics.median(ways[1])
            if self._as_ever:
                self._repeat = None
        return found

    def _recorded(self, inputs: Sequence[Tensor], at: int, compute: Compute) -> tuple[Tensor, Any]:
        try:
            before = _copies(self._state())
        except RuntimeError:
            self.reason = "there is no memory for a copy of its weights"
            return compute(at)
        if _hooked(self._module):
            self.reason = "a module has hooks"
            return compute(at)
        step, attributes, known = WatchedStep(at), _attributes(self._module), None

        def computed() -> list[Tensor]:
            nonlocal known
            rows, known = compute(step)
            return [rows]

        try:
            (rows,), program = record(computed, inputs)
        except Exception as error:  # noqa: BLE001 -- of a loss that cannot do with a watched step, or its own: it is met again
            _restore(self._state(), before)
            self.reason = f"it cannot be recorded: {error}"
            return compute(at)
        fault = program.fault
        if step.read:
            fault = "a loss reads the number of the step"
        elif attributes != _attributes(self._module):
            fault = "an attribute of a module changes with a step"
        elif fault is None and self._first is not None and (other := self._first.difference(program)) is not None:
            fault = f"two steps are not the same operations: {other}"
        elif fault is None and self._first is not None and known != self._known:
            fault = "two steps have other scalars"
        if fault is not None:
            self.reason = fault
        elif self._first is None:
            self._first, self._known = program, known
        else:
            self._try(self._first, before, inputs, at, rows)
            self._first = None
        return rows, known

    def _try(self, program: Program, before: Sequence[Tensor], inputs: Sequence[Tensor], at: int, rows: Tensor) -> None:
        """Repeats the step that was just recorded, from the state before it; leaves the state as it is after it."""
        state = self._state()
        after = _copies(state)
        try:
            repeat = _at(_piece(program) if self._device.type == "cpu" else Graphs(program, inputs))
            _restore(state, before)
            found = repeat(inputs, at)
            pairs = [*zip(state, after, before, strict=True), (found, rows, None)]
            if all(_agree(one, two, former) for one, two, former in pairs):
                self._repeat = repeat
            else:
                self.reason = "a repetition gives other numbers than the step"
        except Exception as error:  # noqa: BLE001 -- a CUDA graph cannot hold it, or memory ends: it trains as ever
            self.reason = f"it cannot be repeated: {str(error).partition(chr(10))[0][:160]}"
        _restore(state, after)


def _at(repeat: Callable[[Sequence[Tensor]], Tensor]) -> Callable[[Sequence[Tensor], int], Tensor]:
    """A repetition that knows the number of its step, which what is done aside may ask for."""

    def repeated(inputs: Sequence[Tensor], at: int) -> Tensor:
        _of_thread.at = at
        return repeat(inputs)

    return repeated


def _piece(program: Program) -> Callable[[Sequence[Tensor]], Tensor]:
    piece = program.compiled()
    places = [program.inputs.index(name) for name in piece.takes]

    def repeat(inputs: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            (rows,) = piece.run(*(inputs[place] for place in places))
        return rows

    return repeat


def _shared(inputs: Sequence[Tensor]) -> tuple[int, ...]:
    """Of each input, the first that is the same tensor."""
    places: dict[int, int] = {}
    return tuple(places.setdefault(id(each), number) for number, each in enumerate(inputs))


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [each.detach().clone() for each in tensors]


@torch.no_grad()
def _restore(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _agree(found: Tensor, expected: Tensor, before: Tensor | None) -> bool:
    if same_bits(found, expected):
        return True
    if found.device.type == "cpu" or not found.is_floating_point():
        return False
    way = expected if before is None else expected - before
    return bool((found - expected).norm() <= _OFF * way.norm())


def _hooked(module: nn.Module) -> bool:
    """Whether somebody listens to a module: what torch's own hooks do is recorded, and of others nobody knows."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooks = (hook for part in module.modules() for kind in kinds for hook in getattr(part, kind).values())
    return any(not str(hook.__module__).startswith("torch.") for hook in hooks)


def _attributes(module: nn.Module) -> dict[tuple[int, str], object]:
    """What a module holds in Python, as far as a comparison is cheap: numbers and words, and which tensors."""
    plain = (int, float, str, bool, type(None))
    found: dict[tuple[int, str], object] = {}
    for part in module.modules():
        for name, value in vars(part).items():
            if isinstance(value, plain):
                found[id(part), name] = value
            elif isinstance(value, Tensor):
                found[id(part), name] = id(value)
            elif isinstance(value, (list, dict, set, tuple)):
                held = value.values() if isinstance(value, dict) else value
                found[id(part), name] = [each if isinstance(each, plain) else id(each) for each in held]
    return found
