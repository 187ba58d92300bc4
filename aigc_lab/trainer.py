"""The training loop: one page, read top to bottom.

`train` is a generator. It yields a `Progress` every so many steps; whoever iterates logs, evaluates, saves, or stops.
It knows neither Optuna nor MLflow, and the device is waited for once an interval: when the scalars cross to the host.
"""

import copy
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.batches import Batches
from aigc_lab.systems.base import OptimizerConfig, Phase, System

Precision = Literal["fp32", "bf16"]


class Diverged(ArithmeticError):
    """A loss or a gradient stopped being finite. `step` counts from 1; `tensor` is the first that did."""

    def __init__(self, step: int, tensor: str) -> None:
        super().__init__(f"{tensor} is not finite at step {step}")
        self.step = step
        self.tensor = tensor


@dataclass(frozen=True)
class Progress:
    """Where a run stands after `step` steps; scalars are means over the steps since the last one."""

    step: int
    scalars: Mapping[str, float]
    seconds: float
    samples_per_second: float


@dataclass
class State:
    """All that a run is between two steps: `system`, the moving `average` of what it samples with, and optimisers.

    Noise and data order are functions of the seed and the step, so this and the step are enough to continue.
    """

    system: System
    average: System
    batch_size: int
    phases: list[Phase] = field(init=False)
    optimizers: dict[str, torch.optim.Optimizer] = field(init=False)
    step: int = 0

    def __post_init__(self) -> None:
        self.phases = self.system.phases(self.batch_size)
        self.optimizers = {phase.name: build_optimizer(phase.optimizer, trained(phase)) for phase in self.phases}

    @classmethod
    def fresh(cls, kind: type[System], config: Any, shape: Any, *, seed: int, batch_size: int, device: str) -> "State":
        """A system with initial weights keyed by the seed, on the device, ready for step 1."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise.generator(seed, "weights").initial_seed())
            system = kind(config, shape).to(device)
        return cls(system, average_of(system), batch_size)


def trained(phase: Phase) -> list[nn.Parameter]:
    """The parameters that a phase updates, each once, in a stable order."""
    return list({id(p): p for module in phase.trains for p in module.parameters() if p.requires_grad}.values())


def build_optimizer(config: OptimizerConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def average_of(system: System) -> System:
    """A copy for sampling: the modules of `samplers()` are its own, all else is shared with the system."""
    own = {id(part) for module in system.samplers() for part in module.modules()}
    shared = {id(part): part for part in system.modules() if part is not system and id(part) not in own}
    # A container that holds a module of its own must be copied, or the copy would sample with the raw weights.
    for part in list(shared.values()):
        if any(id(inner) in own for inner in part.modules()):
            del shared[id(part)]
    average = copy.deepcopy(system, shared)
    for module in average.samplers():
        module.eval().requires_grad_(False)
    return average


def train(
    state: State, batches: Batches, *, seed: int, steps: int, every: int, decay: float = 0.0, precision: Precision
) -> Iterator[Progress]:
    """Trains `state` in place to `steps` steps, yielding every `every` steps and at the last one.

    `decay` is the moving average's, 0 for none; it warms up as (1 + t) / (10 + t), so that early samples show the
    system and not its initial weights. Raises `Diverged` at the end of the interval in which a value stopped being
    finite; the state is then not worth keeping.
    """
    device = next(state.system.parameters()).device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    phases = [(phase, trained(phase), state.optimizers[phase.name]) for phase in state.phases]
    batches_per_step = max(phase.repeat for phase in state.phases)
    average = MovingAverage(state.system, state.average, decay)
    recorder = Recorder(state.system)
    state.system.train()

    started, first = time.perf_counter(), state.step
    while state.step < steps:
        step = state.step
        for phase, parameters, optimizer in phases:
            for repeat in range(phase.repeat):
                batch = batches[step * batches_per_step + repeat]
                draws = {
                    name: noise.draw(what, seed, step, phase.name, repeat, name, device=device)
                    for name, what in phase.noise.items()
                }
                with autocast:
                    loss = phase.loss(batch, draws, step)
                # Only the gradients that this phase uses: the other networks' weights are left out of the backward.
                gradients = torch.autograd.grad(loss.total, parameters)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
                recorder.record(phase, loss.total, loss.parts, loss.dynamics, gradients)
        average.update(step)
        recorder.end_step()
        state.step += 1

        if state.step % every == 0 or state.step == steps:
            scalars = recorder.collect(state.step)
            seconds = time.perf_counter() - started
            yield Progress(state.step, scalars, seconds, (state.step - first) * batches.size / seconds)
            state.system.train()
            started, first = time.perf_counter(), state.step


class MovingAverage:
    """average ← decay·average + (1 − decay)·system, over parameters and floating buffers, in one fused call."""

    def __init__(self, system: System, average: System, decay: float) -> None:
        self._decay = decay
        pairs = [
            (old, new)
            for mine, theirs in ((average.parameters(), system.parameters()), (average.buffers(), system.buffers()))
            for old, new in zip(mine, theirs, strict=True)
            if old is not new
        ]
        self._moving = [(old, new.detach()) for old, new in pairs if old.is_floating_point()]
        self._copied = [(old, new) for old, new in pairs if not old.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        old, new = (list(side) for side in zip(*self._moving, strict=True))
        if decay > 0:
            torch._foreach_lerp_(old, new, 1 - decay)
        else:
            torch._foreach_copy_(old, new)
        for target, source in self._copied:
            target.copy_(source)


class Recorder:
    """One row of scalars a step, kept on the device; a non-finite one is found, and named, when the rows cross.

    A row holds, for each phase in turn, what its loss was made of, the loss, and the norm of every gradient tensor: an
    order in which the first non-finite entry is a cause, and those after it may be its consequences.
    """

    def __init__(self, system: System) -> None:
        self._of = {id(parameter): name for name, parameter in system.named_parameters()}
        self._names: list[str] = []
        self._phases: dict[str, list[int]] = {}
        self._row: list[Tensor] = []
        self._rows: list[Tensor] = []

    @torch.no_grad()
    def record(
        self,
        phase: Phase,
        total: Tensor,
        parts: Mapping[str, Tensor],
        dynamics: Mapping[str, Tensor],
        gradients: tuple[Tensor, ...],
    ) -> None:
        if not self._rows:
            parameters = trained(phase)
            self._names += [f"dynamics/{name}" for name in dynamics]
            self._names += [*(f"loss/{phase.name}/{name}" for name in parts), f"loss/{phase.name}/total"]
            self._names += [f"gradient of {self._of[id(parameter)]}" for parameter in parameters]
            norms = range(len(self._names) - len(parameters), len(self._names))
            self._phases.setdefault(f"dynamics/grad_norm/{phase.name}", []).extend(norms)
        self._row += [*dynamics.values(), *parts.values(), total, *torch._foreach_norm(gradients)]  # noqa: SLF001

    @torch.no_grad()
    def end_step(self) -> None:
        self._rows.append(torch.stack([value.detach().float() for value in self._row]))
        self._row = []

    def collect(self, step: int) -> dict[str, float]:
        """Means over the interval that ends at `step`, after one copy to the host. Raises `Diverged`."""
        table = torch.stack(self._rows).double().cpu()
        self._rows = []
        if not torch.isfinite(table).all():
            row, column = (~torch.isfinite(table)).nonzero()[0].tolist()
            raise Diverged(step - len(table) + row + 1, self._names[column])
        values: dict[str, list[float]] = {}
        for name, mean in zip(self._names, table.mean(0).tolist(), strict=True):
            if not name.startswith("gradient of "):
                values.setdefault(name, []).append(mean)
        scalars = {name: math.fsum(means) / len(means) for name, means in values.items()}
        for name, columns in self._phases.items():
            # The norm of each step's whole gradient, over the repeats of the phase, averaged over the interval.
            repeats = len(values[f"loss/{name.rpartition('/')[2]}/total"])
            scalars[name] = (table[:, columns].square().sum(1) / repeats).sqrt().mean().item()
        self._names, self._phases = [], {}
        return scalars
