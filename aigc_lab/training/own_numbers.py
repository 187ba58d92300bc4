"""Numbers of the configuration that replicas of one program have each of their own, such as the β of a VAE.

A `System` names in `loss_only` the keys that its losses read as numbers. Where replicas differ in one, `self.config`
holds a tensor of it while `torch.func.vmap` computes the losses of all. Its precision is that of the weights: a factor
of a loss is rounded to it alone, too, but arithmetic between numbers (`1 - alpha`) is done in it and not in double.
"""

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from aigc_lab.systems.base import System

_QUESTIONS = {
    Tensor.__bool__: operator.ne,
    Tensor.__eq__: operator.eq,
    Tensor.ne: operator.ne,
    Tensor.gt: operator.gt,
    Tensor.ge: operator.ge,
    Tensor.lt: operator.lt,
    Tensor.le: operator.le,
}


def in_common(kind: type[System], config: Any) -> dict[str, object]:
    """What replicas of one program must have in common of their configurations, by key: all but what only optimisers
    read, and of a number that only losses read its sign. Code may ask whether one is 0 (`if config.free_bits:`), which
    makes another program.
    """
    keys = kind.loss_only_of(config)
    return {
        key: _sign_of(value) if key in keys else value
        for key, value in config.model_dump(mode="json").items()
        if key not in kind.optimizer_only
    }


def _sign_of(value: object) -> object:
    if not _is_number(value):
        return value
    return "zero" if value == 0 else "positive" if value > 0 else "negative"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def with_other_numbers(kind: type[System], config: Any) -> Any:
    """The configuration with three quarters of each number that only losses read; it is not checked again."""
    keys = kind.loss_only_of(config)
    others = {key: value * 0.75 for key in keys if _is_number(value := getattr(config, key, None))}
    return config.model_copy(update=others)


class OwnNumbers:
    """The numbers in which the configurations of such `systems` differ: `tensors` [R] by key, made once."""

    def __init__(self, systems: Sequence[System]) -> None:
        configs, first = [system.config for system in systems], systems[0]
        weight = next(first.parameters())
        self.tensors: dict[str, Tensor] = {}
        #: by key, 1 or −1: the sign of all of them
        self._signs: dict[str, int] = {}
        for key in sorted(type(first).loss_only_of(first.config)):
            values = [value for config in configs if _is_number(value := getattr(config, key, None))]
            if len(values) == len(configs) and len(set(values)) > 1:
                self.tensors[key] = torch.tensor(values, dtype=torch.float64).to(weight.device, weight.dtype)
                self._signs[key] = 1 if values[0] > 0 else -1

    @contextmanager
    def of_one(self, system: System, numbers: Mapping[str, Tensor]) -> Iterator[None]:
        """Context within a `vmap` over `tensors`, in which the configuration of `system` has the numbers of one of the
        replicas.
        """
        if not numbers:
            yield
            return
        config = system.config
        system.config = config.model_copy(update=dict(numbers))
        try:
            with _Signs({id(number): self._signs[key] for key, number in numbers.items()}):
                yield
        finally:
            system.config = config


class _Signs(TorchFunctionMode):
    """Context that answers Python's questions whether such a number is 0, above or below, by the sign of all."""

    def __init__(self, signs: Mapping[int, int]) -> None:
        super().__init__()
        self._signs = signs

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _QUESTIONS and args and id(args[0]) in self._signs:
            other = args[1] if len(args) > 1 else 0
            if not isinstance(other, Tensor) and other == 0:
                return _QUESTIONS[func](self._signs[id(args[0])], 0)
        return func(*args, **(kwargs or {}))
