"""What every optimiser must do, whoever wrote it: on a quadratic, whose minimum is known, in runs of the lab's loop."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors.torch import load, save
from torch import Tensor, nn

from aigc_lab import noise, plugins
from aigc_lab.config import Positive, Strict
from aigc_lab.contracts import system_case, system_state
from aigc_lab.contracts.base import Broken, Contracts, borrow, say
from aigc_lab.contracts.system_case import differing, listed
from aigc_lab.noise import Draw, Noise
from aigc_lab.optimizers import base as optimizers
from aigc_lab.optimizers.base import Optimizer
from aigc_lab.samples import Points
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System
from aigc_lab.training.loop import train
from aigc_lab.training.optimizers import trained
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Replica, TrainingState

# Numbers that no knob takes, that few take, and those between which most lie.
_EXTREMES = (-1, -1e-3, 0, 0.5, 1, 2, 1e6)
_STEPS, _LR = 100, 1e-2
# Of sums in single precision that are taken in another order.
_STACKED = 1e-4


class _Quadratic(System):
    """Weights [3, 4] and [4] of which ½ mean c (w − 1)² is minimal at 1; curvatures c go from ½ to 2. Batch and noise
    tilt it a little.
    """

    modality = Modality.POINTS

    class Config(Strict):
        lr: Positive = _LR
        optimizer: optimizers.Name = "adam"
        optimizer_options: optimizers.Options = Field({})

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.matrix, self.vector = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4))
        self.register_buffer("curvatures", torch.linspace(0.5, 2, 4))

    def phases(self, batch_size: int) -> list[Phase]:
        rule = OptimizerConfig.of(self.config, self.config.lr)
        return [Phase("fit", self._loss, [self], rule, {"latents": self.latents(batch_size)})]

    def _loss(self, batch: Any, noise: Noise, step: int) -> Loss:
        tilt = 0.01 * (batch.values.mean() + noise["latents"].mean())
        return Loss(self.value + tilt * (self.matrix.mean() + self.vector.mean()))

    @property
    def value(self) -> Tensor:
        """The quadratic itself, at least 0."""
        curvatures: Tensor = self.curvatures  # type: ignore[assignment]
        parts = ((curvatures * (weight - 1).square()).mean() for weight in (self.matrix, self.vector))
        return 0.5 * sum(parts, torch.zeros_like(self.vector[0]))

    def samplers(self) -> list[nn.Module]:
        return [self]

    def latents(self, count: int) -> Draw:
        return Draw((count, 1))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Points:
        return Points(latents + self.vector[0])


@dataclass(frozen=True)
class Case:
    """An optimiser with some of its knobs."""

    kind: type[Optimizer]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What an experiment calls it."""
        file = plugins.file_of(self.kind) if plugins.source_of(self.kind) is not None else None
        return str(file) if file else plugins.name_of(self.kind)

    @property
    def rule(self) -> Optimizer:
        return self.kind(self.kind.Config(**self.options))

    @cached_property
    def system(self) -> system_case.Case:
        """The quadratic under this optimiser."""
        shape, points = Shape(Modality.POINTS, (1,)), noise.draw(Draw((120, 1)), "points")
        options = {"optimizer": self.name, "optimizer_options": dict(self.options)}
        return system_case.Case(_Quadratic, shape, Points(points), options)

    def trained(self, steps: int) -> TrainingState:
        return self.system.finished(self.system.fresh(), steps)

    def replicas(self) -> list[Replica]:
        return [Replica(self.system.fresh(seed=seed), self.system.batches(seed), seed) for seed in (0, 1, 2)]


def _value(state: TrainingState) -> float:
    assert isinstance(state.system, _Quadratic)
    return state.system.value.item()


def _memory(state: TrainingState) -> list[dict[str, Any]]:
    """What is kept of each weight, in the order of the weights; nothing where nothing is kept."""
    optimizer = state.optimizers["fit"]
    return [dict(optimizer.state.get(weight, {})) for weight in optimizer.param_groups[0]["params"]]


OPTIMIZER: Contracts[Case] = Contracts()


@OPTIMIZER.add(once=True)
def unknown_knobs_are_refused(case: Case) -> None:
    """A misspelt knob of an experiment would be ignored, and a sweep would compare the default with itself."""
    if not issubclass(case.kind.Config, Strict):
        raise Broken("Config is no aigc_lab.config.Strict: write class Config(Strict)")
    try:
        case.kind.Config.model_validate({**case.options, "no_such_knob": 1})
    except ValidationError as error:
        if any(each["loc"] == ("no_such_knob",) for each in error.errors()):
            return
    raise Broken("Config takes no_such_knob=1: leave model_config as Strict has it")


@OPTIMIZER.add(unknown_knobs_are_refused, once=True)
def every_knob_has_a_default(case: Case) -> None:
    """An experiment may name the optimiser and say nothing more."""
    lacking = [name for name, info in case.kind.Config.model_fields.items() if info.is_required()]
    if lacking:
        raise Broken(f"Config has no default for {listed(lacking)}: give the paper's")


@OPTIMIZER.add(every_knob_has_a_default)
def it_builds_an_optimiser_of_torch(case: Case) -> None:
    """The loop sets gradients, calls step(), and changes the step size in the first group of parameters."""
    for fast in (True, False):
        weights = [nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(4))]
        optimizer = case.rule.build(weights, 0.25, fast=fast)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise Broken(f"build() returns a {type(optimizer).__name__}: return a torch.optim.Optimizer")
        groups = optimizer.param_groups
        if len(groups) != 1 or [id(weight) for weight in groups[0]["params"]] != [id(weight) for weight in weights]:
            raise Broken("its weights are not those that it was given, in their order, in one group of parameters")
        if groups[0].get("lr") != 0.25:
            raise Broken(f"given lr 0.25, its group of parameters has lr {groups[0].get('lr')}")


@OPTIMIZER.add(it_builds_an_optimiser_of_torch, once=True)
def a_knob_that_is_taken_can_be_built(case: Case) -> None:
    """A wrong value must fail before training, at its key, and not in the first step of a run."""
    for name, value in ((name, value) for name in case.kind.Config.model_fields for value in _EXTREMES):
        try:
            config = case.kind.Config.model_validate({**case.options, name: value}, strict=True)
        except ValidationError:
            continue
        try:
            case.kind(config).build([nn.Parameter(torch.ones(2))], _LR)
        except Exception as error:
            raise Broken(f"Config takes {name}={value}, and then: {say(error)}; bound it with Field(ge=…)") from error


@OPTIMIZER.add(it_builds_an_optimiser_of_torch)
def a_step_lowers_a_quadratic(case: Case) -> None:
    """What goes up on the simplest loss there is trains nothing."""
    before, after, late = (_value(case.trained(steps)) for steps in (0, 1, _STEPS))
    if not math.isfinite(late) or not late < after < before:
        raise Broken(
            f"from {before:.6g} one step of {_LR} comes to {after:.6g}, and {_STEPS} to {late:.6g}: which sign has it?"
        )


@OPTIMIZER.add(a_step_lowers_a_quadratic)
def the_step_size_is_read_at_every_step(case: Case) -> None:
    """A schedule changes it between two steps: with a step size of 0 no weight may move."""
    state = case.trained(3)
    optimizer, phase = state.optimizers["fit"], state.phases[0]
    before = {name: value.clone() for name, value in state.system.state_dict().items()}
    optimizer.param_groups[0].update(case.rule.options(0.0, getattr(case.rule.config, "beta2", None)))
    weights = trained(phase)
    for weight, gradient in zip(
        weights, torch.autograd.grad(case.system.loss(phase, 3, 3).total, weights), strict=True
    ):
        weight.grad = gradient
    optimizer.step()
    if moved := differing(before, state.system.state_dict()):
        raise Broken(f"with lr 0 it moves {listed(moved)}: read group['lr'] in step(), and keep no copy of it")


@OPTIMIZER.add(a_step_lowers_a_quadratic)
def its_state_is_what_it_declares(case: Case) -> None:
    """A checkpoint stores tensors by name, and a stack of replicas joins those that are declared."""
    rule = case.rule
    for weight, memory in zip(case.trained(0).system.parameters(), _memory(case.trained(3)), strict=True):
        if set(memory) != {*rule.memory, *rule.counters}:
            raise Broken(
                f"after three steps it keeps {sorted(memory)}, and memory and counters declare "
                f"{sorted([*rule.memory, *rule.counters])}"
            )
        for name, value in memory.items():
            if not isinstance(value, Tensor):
                raise Broken(f"{name} is a {type(value).__name__}: keep it as a tensor, or no checkpoint has it")
            if value.shape != (weight.shape if name in rule.memory else ()):
                raise Broken(f"{name} has the shape {list(value.shape)}; memory is like its weight, a counter is 0-d")


@OPTIMIZER.add(its_state_is_what_it_declares)
def its_state_is_stored_to_the_bit(case: Case) -> None:
    """A checkpoint is a safetensors file, read into an optimiser of another process."""
    state, other = case.trained(3), case.system.fresh(seed=1)
    stored = {f"{index}.{name}": value for index, memory in enumerate(_memory(state)) for name, value in memory.items()}
    read = load(save({name: value.contiguous() for name, value in stored.items()}))
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in read.items():
        entries.setdefault(int(name.partition(".")[0]), {})[name.partition(".")[2]] = value
    groups = other.optimizers["fit"].state_dict()["param_groups"]
    other.optimizers["fit"].load_state_dict({"state": entries, "param_groups": groups})
    for ours, theirs in zip(_memory(state), _memory(other), strict=True):
        if ours.keys() != theirs.keys():
            raise Broken(f"stored with {sorted(ours)}, it is read with {sorted(theirs)}")
        if changed := differing(ours, theirs):
            raise Broken(f"{listed(changed)} is another when it is read: keep it in the precision of its weight")


@OPTIMIZER.add(its_state_is_stored_to_the_bit)
def the_same_gradients_give_the_same_bits(case: Case) -> None:
    """A run that cannot be repeated cannot be believed: an update may draw nothing."""
    first = case.trained(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again = case.trained(3)
    if changed := differing(first.system.state_dict(), again.system.state_dict()):
        raise Broken(f"twice the same three steps, and another {listed(changed)}: does step() draw?")


borrow(
    OPTIMIZER,
    lambda case: case.system,
    the_same_gradients_give_the_same_bits,
    system_state.a_restored_run_goes_on_as_if_never_stopped,
)


@OPTIMIZER.add(the_same_gradients_give_the_same_bits)
def stacked_it_does_as_alone_or_says_why_not(case: Case) -> None:
    """Weights of many replicas are updated as one tensor [R, …]; a rule that cannot must say so in `unstackable`."""
    if case.rule.unstackable is not None:
        return
    options: dict[str, Any] = {"steps": 6, "every": 3, "precision": "fp32"}
    alone, together = case.replicas(), case.replicas()
    for _ in train(alone, **options):
        pass
    try:
        for _ in train(together, course=Stacked, **options):
            pass
    except Exception as error:
        raise Broken(f"stacked: {say(error)[:160]}; or declare unstackable = 'why'") from error
    for one, two in zip(alone, together, strict=True):
        tensors = [dict(each.state.system.state_dict()) for each in (one, two)]
        for index, memories in enumerate(zip(_memory(one.state), _memory(two.state), strict=True)):
            for of_state, memory in zip(tensors, memories, strict=True):
                of_state |= {f"{name} of weight {index}": value for name, value in memory.items()}
        for name, value in tensors[0].items():
            size, off = value.abs().max().item(), (value - tensors[1][name]).abs().max().item()
            if not off <= _STACKED * size + 1e-7:
                raise Broken(f"stacked, {name} is {off:.3g} off {size:.3g}; or declare unstackable = 'why'")
