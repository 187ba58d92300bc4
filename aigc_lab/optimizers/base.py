"""Optimisers, one file each: rules by which a gradient becomes an update of the weights.

An experiment names one as `optimizer: rmsprop`, or a file: `optimizer: ./mine.py`; `optimizer_options` are its knobs.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar

import torch
from pydantic import AfterValidator, ValidationError, ValidationInfo
from torch import nn

from aigc_lab import plugins
from aigc_lab.config import Strict
from aigc_lab.host.content import unknown_name

# Torch keeps its compiler away from these methods, and on the first call of one imports all of the compiler to do so,
# with sympy and triton: seconds before the first step of every process. Nothing compiles an optimiser here.
for _method in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
    _plain = getattr(getattr(torch.optim.Optimizer, _method), "__wrapped__", None)
    if _plain is not None and not hasattr(_plain, "__dynamo_disable"):
        setattr(_plain, "__dynamo_disable", _plain)


@cache
def uncompiled(kind: type[torch.optim.Optimizer]) -> Any:
    """A class of torch's optimisers whose `step` imports no compiler either. It updates to the same bits, in plain
    Python under `no_grad`: without hooks, and not differentiable.

    >>> weight = nn.Parameter(torch.ones(1))
    >>> optimizer = uncompiled(torch.optim.SGD)([weight], lr=0.5)
    >>> weight.grad = torch.ones(1)
    >>> optimizer.step()
    >>> weight.item()
    0.5
    """
    step = torch.no_grad()(inspect.unwrap(kind.step))
    step.hooked = True  # or torch would wrap it again when the first one is made
    return type(kind.__name__, (kind,), {"step": step})


class Optimizer(ABC):
    """A rule and its knobs. The state of a run is torch's: what the rule keeps between two updates lies in
    `torch.optim.Optimizer.state`, as tensors that a checkpoint stores under their names.

    >>> from pydantic import Field
    >>> class HeavyBall(Optimizer):
    ...     class Config(Strict):
    ...         momentum: float = Field(0.9, ge=0, lt=1)
    ...
    ...     memory = ("momentum_buffer",)
    ...
    ...     def build(self, parameters, lr, *, fast=True):
    ...         return torch.optim.SGD(parameters, lr=lr, momentum=self.config.momentum, foreach=fast)
    """

    #: its knobs without the step size; a system that has `beta1` or `beta2` hands them to a rule that has them too
    Config: ClassVar[type[Strict]]
    #: the names of the tensors that it keeps of every weight, each of the weight's own shape
    memory: tuple[str, ...] = ()
    #: the names of the numbers (0-d tensors) that it keeps with every weight and that are the same for all
    counters: tuple[str, ...] = ()
    #: whether an update is the step size times what depends on neither it nor the weights: then replicas with step
    #: sizes of their own are updated at once
    proportional: bool = False
    #: why it cannot update the stacked weights [R, …] of R replicas at once; None for a rule that treats each number of
    #: a weight by itself
    unstackable: str | None = None

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def build(self, parameters: list[nn.Parameter], lr: float, *, fast: bool = True) -> torch.optim.Optimizer:
        """Torch's optimiser of these weights, in one group of parameters, with step size `lr`. Without `fast` it
        updates the weights one by one, to the same numbers up to rounding.
        """

    def options(self, lr: float, beta2: float | None) -> dict[str, Any]:
        """What the group of parameters is set to before an update, by torch's names, where the step size follows a
        schedule. `beta2` is the scheduled β₂ of a rule with this knob, else None.
        """
        return {"lr": lr}


def from_name(name: str, options: Mapping[str, Any]) -> Optimizer:
    """The optimiser of a name, or of a user's file, with these knobs. Raises `ValueError` in a sentence for knobs that
    it refuses, and `UsageError` for a file that is no optimiser.
    """
    kind: type[Optimizer] = plugins.find(Optimizer, name)  # type: ignore[type-abstract]
    try:
        return kind(kind.Config.model_validate(dict(options), strict=True))
    except ValidationError as error:
        first = error.errors()[0]
        path, called = ".".join(map(str, first["loc"])), plugins.name_of(kind)
        if first["type"] == "extra_forbidden":
            raise ValueError(
                unknown_name(f"knob of optimizer {called}", path, list(kind.Config.model_fields))
            ) from None
        message = first["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
        raise ValueError(f"optimizer {called}: {path}: {message}") from None


def _checked(options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    if "optimizer" in info.data:  # else the name is what is wrong
        from_name(info.data["optimizer"], options)
    return options


#: the type of a key `optimizer` of a `Config`: one that ships or is installed, or a file that ends in .py
Name = Annotated[str, plugins.Named("optimizers"), AfterValidator(plugins.Named("optimizers").check)]
#: the type of a key `optimizer_options`, which stands after `optimizer`: the optimiser's knobs by name
Options = Annotated[dict[str, bool | int | float | str | None], AfterValidator(_checked)]
#: what is said of both keys
NAME = "the rule of the updates, by name or ./file.py; `aigc-lab list optimizers` says their knobs"
OPTIONS = "knobs of the optimizer, like {momentum: 0.9}"
