"""The training loop: one page, read top to bottom.

`train` is a generator over R ≥ 1 runs. Every so many steps it yields how they stand; whoever iterates logs, evaluates,
saves, or stops. It knows neither Optuna nor MLflow, and the device is waited for once an interval: when the scalars
cross to the host.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.batches import Batches
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System

Precision = Literal["fp32", "bf16"]


class Diverged(ArithmeticError):
    """A loss or a gradient stopped being finite. `step` counts from 1; `tensor` is the first that did."""

    def __init__(self, step: int, tensor: str) -> None:
        super().__init__(f"{tensor} is not finite at step {step}")
        self.step = step
        self.tensor = tensor


@dataclass(frozen=True)
class Progress:
    """Where a run stands after `step` steps; scalars are means over the steps since the last one.

    `seconds` is what these steps cost: the time that they took, shared among the runs that were trained in it.
    `samples_per_second` is the run's own pace by the clock.
    """

    step: int
    scalars: Mapping[str, float]
    seconds: float
    samples_per_second: float


@dataclass
class State:
    """All that a run is between two steps: `system`, the moving `average` of what it samples with, optimisers, and what
    the `recorder` holds of the interval that is under way.

    Noise and data order are functions of the seed and the step, so this and the step are enough to continue.
    """

    system: System
    average: System
    batch_size: int
    phases: list[Phase] = field(init=False)
    optimizers: dict[str, torch.optim.Optimizer] = field(init=False)
    recorder: "Recorder" = field(init=False)
    step: int = 0

    def __post_init__(self) -> None:
        self.phases = self.system.phases(self.batch_size)
        self.recorder = Recorder(self.system)
        self.optimizers = {phase.name: build_optimizer(phase.optimizer, trained(phase)) for phase in self.phases}

    @classmethod
    def fresh(
        cls,
        kind: type[System],
        config: Any,
        shape: Any,
        *,
        seed: int,
        batch_size: int,
        device: str,
        channels_last: bool = False,
    ) -> "State":
        """A system with initial weights keyed by the seed, on the device, ready for step 1; with `channels_last` its
        convolutions' weights lie so in memory, which makes their outputs follow.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise.generator(seed, "weights").initial_seed())
            system = kind(config, shape).to(device)
        if channels_last:
            system = system.to(memory_format=torch.channels_last)
        return cls(system, average_of(system), batch_size)


def trained(phase: Phase) -> list[nn.Parameter]:
    """The parameters that a phase updates, each once, in a stable order."""
    return list({id(p): p for module in phase.trains for p in module.parameters() if p.requires_grad}.values())


def build_optimizer(
    config: OptimizerConfig, parameters: list[nn.Parameter], *, fast: bool = True
) -> torch.optim.Optimizer:
    """The optimiser that is described. Without `fast` it goes through the weights one by one, to the same numbers."""
    match config.rule:
        case "adam":
            how = {"fused": True} if fast else {"foreach": False, "fused": False}
            return torch.optim.Adam(parameters, lr=config.lr, betas=config.betas, eps=config.eps, **how)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=config.lr, eps=config.eps, foreach=fast)
        case "sgd":
            return torch.optim.SGD(parameters, lr=config.lr, foreach=fast)


def laid_out(gradient: Tensor, like: Tensor) -> Tensor:
    """The gradient in its weight's own layout in memory: fused Adam pairs their numbers by place, and what comes of a
    second derivative, or of other layouts of pictures, may lie in another order.
    """
    return gradient if gradient.stride() == like.stride() else torch.empty_like(like).copy_(gradient)


def shortened(gradients: tuple[Tensor, ...], max_norm: float | None) -> tuple[Tensor, ...]:
    """Gradients whose common norm is at most `max_norm`, without a wait for the device."""
    if max_norm is None:
        return gradients
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))  # noqa: SLF001
    scale: Tensor = (max_norm / (norm + 1e-12)).clamp_max(1)
    return torch._foreach_mul(gradients, scale)  # noqa: SLF001


def turns(phases: Sequence[Phase]) -> list[list[int]]:
    """The numbers of the phases that are differentiated at the same point, in order: mostly one by one."""
    found: list[list[int]] = []
    for number, phase in enumerate(phases):
        if phase.joint is not None and found and phases[found[-1][0]].joint == phase.joint:
            found[-1].append(number)
        else:
            found.append([number])
    return found


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


@dataclass
class Replica:
    """One of the runs that are trained together. Whoever iterates may set `live` to False: it is then left as it is."""

    state: State
    batches: Batches
    seed: int
    live: bool = True


Round = list[tuple[Replica, Progress | Diverged]]


def train(
    replicas: Sequence[Replica],
    *,
    steps: int,
    every: int,
    decay: float = 0.0,
    precision: Precision,
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[Round]:
    """Trains the states in place to `steps` steps, yielding those that are at a multiple of `every` or at the last
    step: how each stands, or that it has `Diverged` in this interval. A state that diverged is not worth keeping, and
    is not trained further.

    `decay` is the moving average's, 0 for none; it warms up as (1 + t) / (10 + t), so that early samples show the
    system and not its initial weights. When `interrupted()` it ends after a whole step, wherever in an interval that
    is: the states can be stored and trained further, to the same bits.
    """
    running = [replica for replica in replicas if replica.live and replica.state.step < steps]
    courses = [_Course(replica, decay, precision) for replica in running]
    while courses and not interrupted():
        for course in courses:
            course.step()
        reached = [course for course in courses if _is_due(course.replica.state.step, every, steps)]
        if reached:
            found = [course.collect() for course in reached]  # which waits for the device
            for course in courses:
                course.rest(len(courses))
            yield [(course.replica, course.stands(scalars)) for course, scalars in zip(reached, found, strict=True)]
            courses = [course for course in courses if course.replica.live and course.replica.state.step < steps]
            for course in courses:
                course.go_on()


def _is_due(step: int, every: int, steps: int) -> bool:
    return step % every == 0 or step == steps


def train_one(state: State, batches: Batches, *, seed: int, **options: Any) -> Iterator[Progress]:
    """`train` of a single run. Raises `Diverged` at the end of the interval in which a value stopped being finite."""
    for ((_, end),) in train([Replica(state, batches, seed)], **options):
        if isinstance(end, Diverged):
            raise end
        yield end


class _Course:
    """A replica under way: one step of it, and what an interval came to."""

    def __init__(self, replica: Replica, decay: float, precision: Precision) -> None:
        state = replica.state
        self.replica = replica
        self._device = next(state.system.parameters()).device
        self._autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16")
        updates = [_Update(phase, trained(phase), state.optimizers[phase.name]) for phase in state.phases]
        self._turns = [[updates[number] for number in turn] for turn in turns(state.phases)]
        self._batches_per_step = max(phase.repeat for phase in state.phases)
        self._average = MovingAverage(state.system, state.average, decay)
        self._by_clock, self._share, self._first = 0.0, 0.0, state.step  # of the interval that is under way
        self.go_on()

    def go_on(self) -> None:
        """Goes on, after whatever was done with the system."""
        self.replica.state.system.train()
        self._started = time.perf_counter()

    def rest(self, together: int) -> None:
        """Other things are done now; so many courses shared the time since `go_on`."""
        passed = time.perf_counter() - self._started
        self._by_clock, self._share = self._by_clock + passed, self._share + passed / together

    def step(self) -> None:
        """All phases once, each on its batches, with noise of its own key."""
        state = self.replica.state
        for turn in self._turns:
            for repeat in range(turn[0].phase.repeat):
                found = [self._differentiated(update, repeat) for update in turn]
                for (phase, parameters, optimizer), (loss, gradients) in zip(turn, found, strict=True):
                    used = shortened(gradients, phase.optimizer.max_norm)
                    for parameter, gradient in zip(parameters, used, strict=True):
                        parameter.grad = laid_out(gradient, parameter)
                    optimizer.param_groups[0].update(phase.optimizer.at(state.step))
                    optimizer.step()
                    if phase.after is not None:
                        with torch.no_grad():
                            phase.after(state.step)
                    state.recorder.record(phase, loss.total, loss.parts, loss.dynamics, gradients)
        self._average.update(state.step)
        state.recorder.end_step()
        state.step += 1

    def _differentiated(self, update: "_Update", repeat: int) -> tuple[Loss, tuple[Tensor, ...]]:
        step, phase = self.replica.state.step, update.phase
        batch = self.replica.batches[step * self._batches_per_step + repeat]
        draws = {
            name: noise.draw(what, self.replica.seed, step, phase.name, repeat, name, device=self._device)
            for name, what in phase.noise.items()
        }
        with self._autocast:
            loss = phase.loss(batch, draws, step)
        # Only the gradients that this phase uses: the other networks' weights are left out of the backward.
        return loss, torch.autograd.grad(loss.total, update.parameters)

    def collect(self) -> Mapping[str, float] | Diverged:
        """The scalars of the interval that ends here, after one copy to the host."""
        try:
            return self.replica.state.recorder.collect(self.replica.state.step)
        except Diverged as diverged:
            self.replica.live = False
            return diverged

    def stands(self, scalars: Mapping[str, float] | Diverged) -> Progress | Diverged:
        """The interval that ended, and the beginning of the next."""
        step, by_clock, share, first = self.replica.state.step, self._by_clock, self._share, self._first
        self._by_clock, self._share, self._first = 0.0, 0.0, step
        if isinstance(scalars, Diverged):
            return scalars
        return Progress(step, scalars, share, (step - first) * self.replica.batches.size / by_clock)


class _Update(NamedTuple):
    phase: Phase
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer


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
        self._parameters = list(system.parameters())
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

    def dump(self) -> tuple[Tensor | None, dict[str, Any]]:
        """The rows of the interval so far [steps, names], None at its beginning, and what they mean, as JSON."""
        return torch.stack(self._rows) if self._rows else None, {"names": self._names, "phases": self._phases}

    def load(self, rows: Tensor | None, meaning: dict[str, Any]) -> None:
        """Goes on from what `dump` returned."""
        device = next(iter(self._parameters)).device
        self._rows = [] if rows is None else list(rows.to(device))
        self._names, self._phases = list(meaning["names"]), {k: list(v) for k, v in meaning["phases"].items()}

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
