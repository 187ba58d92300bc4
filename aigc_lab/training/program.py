"""A computation on tensors, recorded as the operations that torch's kernels get, and repeated on other inputs.

What stands above the kernels (modules, autograd, vmap, autocast, the arguments' parsing) is paid once, when it is
recorded: for small networks that is most of a step. The kernels, their order and their operands are those of the
recording, so that a repetition has its bits. It is what a CUDA graph does to kernels' launches, one level above; on a
GPU a program is what is captured as one (`training.graphs`).
"""

import math
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: operations of a program at most: beyond, a step is long, and what stands above its kernels is little
MOST = 20_000

_aten = torch.ops.aten
# They give their argument itself, as autograd sees it.
_SAME = {_aten.detach.default, _aten.alias.default, _aten.lift_fresh.default}
# Batch normalisations write these, which not all of their schemas say.
_WRITTEN_UNSAID = {"running_mean", "running_var"}
_REFUSED = {
    torch.Tag.data_dependent_output: "it reads a number of a tensor on the host",
    torch.Tag.dynamic_output_shape: "the size of a result depends on numbers",
    torch.Tag.inplace_view: "a tensor's shape is changed in place",
}


@dataclass(frozen=True)
class Line:
    """One operation, or what is done aside: `gives` are names of results, `takes` those of tensors that it reads, of
    which it `writes` some.

    What is done aside, and an operation on the `host`'s tensors alone, are no part of a CUDA graph.
    """

    text: str
    takes: tuple[str, ...]
    gives: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    #: whether it is there for what it does, and not for a result
    lasts: bool = False
    aside: bool = False
    host: bool = False


@dataclass
class Program:
    """Operations in order. Names begin with i for inputs, c for tensors that are there before and after, v for what is
    computed on the way, k for what is no tensor, f for operations, a for what is done aside.
    """

    known: dict[str, Any]
    lines: list[Line]
    inputs: list[str]
    outputs: list[str]
    #: the tensors that outlast a repetition; what is computed of them alone by a change of view is among them
    lasting: list[str]
    #: why it cannot be repeated; None where nothing is against it
    fault: str | None = None

    def difference(self, other: "Program") -> str | None:
        """Why two recordings of one computation on different inputs are not the same program; None where they are.

        A constant that is made anew each time must have the same numbers.
        """
        if (self.inputs, self.outputs, len(self.lines)) != (other.inputs, other.outputs, len(other.lines)):
            return f"{len(self.lines)} operations the first time, {len(other.lines)} the second"
        for one, two in zip(self.lines, other.lines, strict=True):
            if one != two:
                return f"{one.text} the first time, {two.text} the second"
        for name in self.lasting:
            mine, theirs = self.known[name], other.known.get(name)
            if theirs is not mine and not _same_numbers(mine, theirs):
                return f"a tensor {list(mine.shape)} that it makes has other numbers the second time"
        return None

    def leave_out(self, shares: Mapping[str, str]) -> None:
        """Leaves out the lines whose results nothing reads: gradients of weights that a phase does not train, say,
        which autograd's functions in Python compute unasked. `shares` leads from a view to what it is of.
        """

        def whole(name: str) -> str:
            while name in shares:
                name = shares[name]
            return name

        # What lies in these is read later on, or outlasts a repetition.
        read = {whole(name) for name in (*self.outputs, *self.inputs, *self.lasting)}
        kept = []
        for line in reversed(self.lines):
            if line.aside or line.lasts or any(whole(name) in read for name in (*line.gives, *line.writes)):
                kept.append(line)
                read |= {whole(name) for name in line.takes}
        self.lines = kept[::-1]
        taken = {name for line in kept for name in line.takes}
        self.lasting = [name for name in self.lasting if name in taken]

    def compiled(self, first: int = 0, last: int | None = None) -> "Piece":
        """The lines from `first` until `last` as one function."""
        lines = self.lines[first:last]
        after = {name for line in self.lines[first + len(lines) :] for name in line.takes} | set(self.outputs)
        found = set(self.known).union(name for line in lines for name in line.gives)
        takes = dict.fromkeys(name for line in lines for name in line.takes if name not in found)
        gives = [name for name in dict.fromkeys(name for line in lines for name in line.gives) if name in after]
        uses = {name: number for number, line in enumerate(lines) for name in (*line.takes, *line.gives)}
        text = [f"def run({', '.join(takes)}):"]
        for number, line in enumerate(lines):
            text.append(f"    {line.text}")
            over = [
                name
                for name in dict.fromkeys((*line.takes, *line.gives))
                if uses[name] == number and name not in gives and name not in self.known
            ]
            if over:
                text.append(f"    del {', '.join(over)}")
        text.append(f"    return [{', '.join(gives)}]")
        # The text is made of names and numbers of this file's own making.
        space = dict(self.known)
        exec("\n".join(text), space)  # noqa: S102
        return Piece(space["run"], list(takes), gives)


@dataclass(frozen=True)
class _Operation:
    """What the schema of an operation says, as torch's own tracers read it."""

    #: why a program cannot have it; None where it can
    refused: str | None
    #: by each result, whether it is an argument that was written; none where nothing is returned
    written: tuple[bool, ...]
    #: whether all that it returns are views
    view: bool
    #: place and name of the arguments whose memory a result may share, and of those that are written
    shares: tuple[tuple[int, str], ...]
    writes: tuple[tuple[int, str], ...]


@cache
def _operation(func: Any) -> _Operation:
    refused = next((f"{why} ({func})" for tag, why in _REFUSED.items() if tag in func.tags), None)
    if torch.Tag.nondeterministic_seeded in func.tags:
        refused = refused or f"it draws random numbers of its own ({func})"
    schema = func._schema  # noqa: SLF001
    results = [each.alias_info for each in schema.returns]
    shares, writes = [], []
    for place, each in enumerate(schema.arguments):
        if each.name in _WRITTEN_UNSAID or (each.alias_info is not None and each.alias_info.is_write):
            writes.append((place, each.name))
        elif each.alias_info is not None or (place == 0 and "unsafe" in func.__name__):  # a view that does not say so
            shares.append((place, each.name))
    return _Operation(
        refused,
        tuple(each is not None and each.is_write for each in results),
        bool(results) and all(each is not None and not each.is_write for each in results),
        tuple(shares),
        tuple(writes),
    )


@dataclass(frozen=True)
class Piece:
    """A run of lines as a function of the tensors `takes`, which returns those that are called `gives`."""

    run: Callable[..., list[Tensor]]
    takes: list[str]
    gives: list[str]


class _Recording(TorchDispatchMode):
    """Notes every operation between the entry and the exit, and lets it happen."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.program = Program({}, [], [], [], [])
        self.paused = False
        # By the tensor's address as an object, which may be another's when it is gone.
        self._names: dict[int, tuple[weakref.ref[Tensor], str]] = {}
        self._computed = 0
        self._functions: dict[Any, str] = {}
        self._shares: dict[str, str] = {}
        for tensor in inputs:
            name = self._name_of(tensor)
            if name is None:
                name = f"i{len(self.program.inputs)}"
                self._call(tensor, name)
            self.program.inputs.append(name)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would keep its compiler away, and import all of it to do so: a second of the processor's time."""
        return False

    def _call(self, tensor: Tensor, name: str) -> None:
        self._names[id(tensor)] = weakref.ref(tensor), name

    def _name_of(self, tensor: Tensor) -> str | None:
        held, name = self._names.get(id(tensor), (None, None))
        return name if held is not None and held() is tensor else None

    def _last(self, tensor: Tensor) -> str:
        """The name of a tensor that is there before."""
        name = f"c{len(self.program.lasting)}"
        self.program.lasting.append(name)
        self.program.known[name] = tensor.detach() if tensor.requires_grad else tensor
        self._call(tensor, name)
        return name

    def text(self, value: Any, takes: list[str]) -> str:
        """An argument as a program writes it; names of tensors are added to `takes`."""
        if isinstance(value, Tensor):
            name = self._name_of(value) or self._last(value)
            takes.append(name)
            return name
        if isinstance(value, (list, tuple)):
            inside = ", ".join(self.text(each, takes) for each in value)
            return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * bool(value)})"
        if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
            return repr(value)
        if isinstance(value, (float, torch.dtype, torch.device, torch.layout, torch.memory_format)):
            name = f"k_{''.join(each if each.isalnum() else '_' for each in str(value))}"
            self.program.known[name] = value
            return name
        self._refuse(f"an operation is given a {type(value).__name__}")
        return "None"

    def _refuse(self, why: str) -> None:
        self.program.fault = self.program.fault or why

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.paused and self.program.fault is None:
            self._note(func, args, kwargs or {}, result)
        return result

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        operation = _operation(func)
        if operation.refused is not None:
            return self._refuse(operation.refused)
        if len(self.program.lines) >= MOST:
            return self._refuse(f"a step is more than {MOST} operations")
        if func.namespace == "profiler":  # labels
            return None
        if func in _SAME:
            name = self._name_of(args[0]) or self._last(args[0])
            return self._call(result, name)
        takes: list[str] = []
        given = [*(self.text(value, takes) for value in args)]
        given += [f"{key}={self.text(value, takes)}" for key, value in kwargs.items()]
        results = result if isinstance(result, (list, tuple)) else [result]
        if operation.view and all(name in self.program.known for name in takes):
            for each in results:  # another view of what lasts: made once
                self._last(each)
            return None
        gives: list[str] = []
        if not operation.written or not all(operation.written):
            for number, each in enumerate(results):
                gives.append(f"v{self._computed}")
                self._computed += 1
                written = number < len(operation.written) and operation.written[number]
                if isinstance(each, Tensor) and not written:  # what is written keeps its name
                    self._call(each, gives[-1])
        if shared := self._names_at(operation.shares, args, kwargs):
            self._shares |= dict.fromkeys(gives, shared[0])
        writes = self._names_at(operation.writes, args, kwargs)
        called = f"{self._function(func)}({', '.join(given)})"
        left = ", ".join(gives) + "," * (isinstance(result, (list, tuple)) and len(gives) == 1)
        text = f"{left} = {called}" if gives else called
        host = not any(self._elsewhere(each) for each in (*args, *kwargs.values(), *results))
        lasts = not operation.written
        self.program.lines.append(Line(text, tuple(takes), tuple(gives), tuple(writes), lasts, host=host))
        return None

    def _names_at(self, places: Sequence[tuple[int, str]], args: Any, kwargs: dict[str, Any]) -> list[str]:
        """Names of the tensors among the arguments at these places."""
        names: list[str] = []
        for place, key in places:
            self.text(args[place] if place < len(args) else kwargs.get(key), names)
        return names

    def _elsewhere(self, value: Any) -> bool:
        """Whether it is a tensor, or holds one, that does not lie in the host's memory."""
        if isinstance(value, (list, tuple)):
            return any(self._elsewhere(each) for each in value)
        return isinstance(value, Tensor) and not value.is_cpu

    def _function(self, func: Any) -> str:
        if func not in self._functions:
            name = f"f_{func.__name__.replace('.', '_')}_{len(self._functions)}"
            # Without torch's wrapper in Python around it.
            self._functions[func], self.program.known[name] = name, func._op  # noqa: SLF001
        return self._functions[func]

    def aside(self, function: Callable[..., object], tensors: Sequence[Tensor]) -> None:
        takes: list[str] = []
        given = [self.text(tensor, takes) for tensor in tensors]
        name = f"a{sum(line.aside for line in self.program.lines)}"
        self.program.known[name] = function
        self.program.lines.append(Line(f"{name}({', '.join(given)})", tuple(takes), aside=True))

    def finish(self, outputs: Sequence[Tensor]) -> None:
        for tensor in outputs:
            name = self._name_of(tensor)
            if name is None or not name.startswith("v"):
                return self._refuse("a result is nothing that it computes")
            self.program.outputs.append(name)
        self.program.leave_out(self._shares)
        return None


_of_thread = threading.local()


@contextmanager
def _recorded(recording: _Recording) -> Iterator[None]:
    _of_thread.recording = recording
    try:
        with recording:
            yield
    finally:
        _of_thread.recording = None


def record(function: Callable[[], Sequence[Tensor]], inputs: Sequence[Tensor]) -> tuple[list[Tensor], Program]:
    """Calls `function`, and returns its results and the program that computes them from `inputs`: float or integer
    tensors, which `function` reads as these very objects. What else it reads or changes is there before and after.

    The program's `fault` says why it cannot be repeated, where it cannot; the results are right all the same.
    """
    recording = _Recording(inputs)
    with _recorded(recording):
        results = list(function())
    recording.finish(results)
    return results, recording.program


def aside(function: Callable[..., object], *tensors: Tensor) -> None:
    """Calls `function` on the tensors. Where a program is recorded, it is called anew at each repetition, at this place
    and with what the tensors are then; it may read numbers on the host that change.
    """
    recording: _Recording | None = getattr(_of_thread, "recording", None)
    if recording is None or recording.paused:
        function(*tensors)
        return
    recording.aside(function, tensors)
    recording.paused = True
    try:
        function(*tensors)
    finally:
        recording.paused = False


def _same_numbers(one: Tensor, other: Any) -> bool:
    if not isinstance(other, Tensor) or (one.dtype, one.device, one.shape, one.stride()) != (
        other.dtype,
        other.device,
        other.shape,
        other.stride(),
    ):
        return False
    return same_bits(one, other)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape and type hold the same bits: a NaN is equal to itself here."""
    if one.data_ptr() == other.data_ptr() and one.stride() == other.stride():
        return True
    if torch.equal(one, other):
        return True
    return (
        one.is_floating_point()
        and torch.equal(one.isnan(), other.isnan())
        and torch.equal(one.nan_to_num(), other.nan_to_num())
    )
