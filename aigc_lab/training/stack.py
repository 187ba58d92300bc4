"""Replicas of one system, with seeds, learning rates and weights of losses of their own, trained as one program.

The weights of R replicas are the rows of common tensors [R, …]: `torch.func.vmap` turns each phase's loss into one
computation of all replicas, and one backward gives each its own gradient, since no loss reads another's row. The
replicas' own states are windows onto these rows, so that a replica can be sampled, scored and stored between two steps
as if it were alone.

A replica gets the noise and the batches that it would get alone. Its numbers differ by the order of sums only: stacked
kernels add up in another order, and in an order that may depend on how many replicas there are. So a stacked run
repeats to the bit in the same company and place, and to rounding in another.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from aigc_lab.noise import Noise
from aigc_lab.optimizers.base import Optimizer
from aigc_lab.samples import Samples
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System
from aigc_lab.training.averages import average_of
from aigc_lab.training.batched import BatchedLayers
from aigc_lab.training.optimizers import build_optimizer, shortened_by_replica, trained
from aigc_lab.training.own_numbers import OwnNumbers, in_common
from aigc_lab.training.state import TrainingState


class Stack:
    """Stacked states of one system: `system` and `average` hold the weights of all replicas, `loss` computes a phase's
    loss of all, and `move` updates what the phase trains.

    Meanwhile the states' weights, buffers, averages and optimisers' memory are views of the stack's: read them between
    two steps, and leave the training to the stack. `unstack` gives them memory of their own. Each replica uses its own
    rows: if one diverges its numbers are left as they are, and no other reads them.

    Raises `ValueError` naming what differs, unless the states have one class, shape, device and step, and one
    configuration apart from keys that the system declares as `optimizer_only` or `loss_only`.
    """

    def __init__(self, states: Sequence[TrainingState]) -> None:
        _refuse_unlike(states)
        self.states = list(states)
        first = self.states[0]
        self.averaged = first.averaged
        self.system = copy.deepcopy(first.system)
        self.average = average_of(self.system, averaged=self.averaged)
        self.phases = self.system.phases(first.batch_size)
        all_of_them = [_of_state(self), *map(_of_state, self.states)]
        for whole, *rows in zip(*all_of_them, strict=True):
            _join(whole, rows)
        _share(self)
        for state in self.states:
            _share(state)
        numbers = OwnNumbers([state.system for state in self.states])
        self._functions = [_Function(self.system, phase, numbers) for phase in self.phases]
        self._optimizers = [_Optimizer(self.states, index, phase) for index, phase in enumerate(self.phases)]

    @property
    def step(self) -> int:
        """Number of steps taken."""
        return self.states[0].step

    def loss(self, index: int, like: Samples, values: Tensor, labels: Tensor | None, draws: Noise, step: int) -> Loss:
        """Losses of phase `index`, each [R], every replica on its own batch and noise, which are rows of tensors [R, …]
        (see `together`); `like` is a batch of the kind. Updates buffers.

        The gradient of their sum holds each replica's own in its row, since no row enters another's loss.
        """
        return self._functions[index].of_all(like, values, labels, draws, step)

    def move(self, index: int, gradients: Sequence[Tensor], step: int) -> None:
        """Updates the parameters that phase `index` trains by gradients [R, …]."""
        self._optimizers[index].step(gradients, step)

    def afterwards(self, index: int, step: int) -> None:
        """Calls what comes after an update of phase `index`."""
        if self.phases[index].after is not None:
            self._functions[index].afterwards(step)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimisers that `move` calls."""
        return [share.optimizer for each in self._optimizers for share in each.shares]

    def unstack(self) -> None:
        """Gives each state memory of its own, equal to the bit. The stack must not be used after that."""
        for state in self.states:
            for tensor in _of_state(state):
                tensor.data = tensor.data.clone()
            _share(state)
            for optimizer in state.optimizers.values():
                for memory in optimizer.state.values():
                    memory.update({key: value.clone() for key, value in memory.items()})


# ---- the tensors in common


def _tensors(*modules: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once, since an average shares most modules with the system."""
    tensors = (tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))
    return list({id(tensor): tensor for tensor in tensors}.values())


def _of_state(state: "TrainingState | Stack") -> list[Tensor]:
    """What a state, or a stack of them, holds beside the optimisers: of several tensors on the same memory one."""
    if state.averaged:
        return _tensors(state.system, state.average)
    mine = {id(tensor): tensor for tensor in (*_tensors(state.system), *state.average.buffers())}
    return list(mine.values())


def _share(state: "TrainingState | Stack") -> None:
    """Brings an average that samples with the system's weights back to where these lie now."""
    if not state.averaged:
        for mine, theirs in zip(state.average.parameters(), state.system.parameters(), strict=True):
            mine.data = theirs.data


def _join(whole: Tensor, rows: Sequence[Tensor]) -> None:
    """Makes `whole` the tensor of all rows [R, …], and each of `rows` a view of its own."""
    whole.data = torch.stack([row.data for row in rows])
    for row, window in zip(rows, whole.data.unbind(), strict=True):
        row.data = window


def together(batches: Sequence[Samples], draws: Sequence[Noise]) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """Values, labels and noise of all replicas, as tensors [R, …]."""
    labels = [batch.labels for batch in batches if batch.labels is not None]
    noises = {name: _together([draw[name] for draw in draws]) for name in draws[0]}
    return _together(_alike(batches)), _together(labels) if labels else None, noises


def _together(rows: Sequence[Tensor]) -> Tensor:
    """The tensor of all rows [R, …]: a new one, unless they are the rows of one that there is."""
    first, whole = rows[0], rows[0]._base  # noqa: SLF001
    if whole is not None and whole.is_contiguous() and whole.numel() == len(rows) * first.numel():
        place, bytes_each = whole.data_ptr(), first.numel() * first.element_size()
        if all(row._base is whole and row.data_ptr() == place + i * bytes_each for i, row in enumerate(rows)):  # noqa: SLF001
            return whole.view(len(rows), *first.shape)
    return torch.stack(list(rows))


# ---- one computation


class _Function(nn.Module):
    """Loss of a phase as a module, so that its weights and buffers can be replaced by a functional call."""

    def __init__(self, system: System, phase: Phase, numbers: OwnNumbers) -> None:
        super().__init__()
        self.system, self._phase, self._numbers = system, phase, numbers
        # Their names are looked for once: that takes as long as a small layer.
        self._weights = dict(self.named_parameters()), dict(self.named_buffers())

    def forward(self, batch: Samples, draws: Noise, step: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        loss = self._phase.loss(batch, draws, step)
        return loss.total, dict(loss.parts), dict(loss.dynamics)

    def of_all(self, like: Samples, values: Tensor, labels: Tensor | None, noises: Noise, step: int) -> Loss:
        """Losses [R] of all replicas, each on its own batch and noise."""

        def one(weights: Any, own: Any, values: Tensor, labels: Tensor | None, noises: Noise) -> Any:
            batch = replace(like, values=values, labels=labels)
            with self._numbers.of_one(self.system, own):
                return torch.func.functional_call(self, weights, (batch, noises, step))

        # Buffers are mapped too, and change in place: batch normalisation writes its running statistics row by row.
        axes = (0, 0, 0, None if labels is None else 0, 0)
        with BatchedLayers():
            return Loss(*torch.func.vmap(one, axes)(self._weights, self._numbers.tensors, values, labels, noises))

    @torch.no_grad()
    def afterwards(self, step: int) -> None:
        """Calls the phase's `after` for each replica on its own weights and buffers, in place."""

        def one(weights: Any, own: Any) -> Tensor:
            with self._numbers.of_one(self.system, own):
                torch.func.functional_call(_After(self.system, self._phase), weights, (step,))
            return torch.zeros(())

        torch.func.vmap(one)(self._weights, self._numbers.tensors)


def _alike(batches: Sequence[Samples]) -> list[Tensor]:
    """Values of the batches in one shape: sentences are padded to the longest of all, which no loss reads."""
    longest = max(batch.values.shape[-1] for batch in batches)
    return [batch.padded(longest) for batch in batches]


class _After(nn.Module):
    def __init__(self, system: nn.Module, phase: Phase) -> None:
        super().__init__()
        self.system, self._phase = system, phase

    def forward(self, step: int) -> None:
        assert self._phase.after is not None
        self._phase.after(step)


class _Optimizer:
    """Update of one phase: torch's own optimiser, one for each group of neighbouring replicas with the same settings.

    Where a rule's update is in proportion to its step size, replicas that differ in that alone are one group.
    """

    def __init__(self, states: Sequence[TrainingState], index: int, phase: Phase) -> None:
        self.shares: list[_Share] = []
        first = 0
        for config, group in groupby(states, key=lambda state: _of_group(state.phases[index].optimizer)):
            members = list(group)
            rows = slice(first, first + len(members))
            configs = [state.phases[index].optimizer for state in members]
            share = _Share(rows, configs, config, [leaf.detach()[rows] for leaf in trained(phase)])
            owners = [(state.optimizers[phase.name], trained(state.phases[index])) for state in members]
            for number, updated in enumerate(share.updated):
                if config.optimizer.memory or config.optimizer.counters:
                    rows_of = [(own.state, weights[number]) for own, weights in owners]
                    share.optimizer.state[updated] = _remember(rows_of, config.optimizer)
            self.shares.append(share)
            first += len(members)

    def step(self, gradients: Sequence[Tensor], step: int) -> None:
        for share in self.shares:
            share.step([gradient[share.rows] for gradient in gradients], step)


def _of_group(config: OptimizerConfig) -> OptimizerConfig:
    """What the replicas of one group have in common: all, or all but the step size."""
    if not config.optimizer.proportional:
        return config
    return replace(config, lr=1.0, decay=None if config.decay is None else replace(config.decay, lr=1.0))


class _Share:
    """Replicas `rows` that are updated at once by torch's optimiser of the `updated` tensors: their weights, or, where
    their step sizes differ, the updates by a step size of 1, which are then added in proportion.
    """

    def __init__(
        self, rows: slice, configs: Sequence[OptimizerConfig], common: OptimizerConfig, weights: list[Tensor]
    ) -> None:
        self.rows, self._configs, self._weights = rows, configs, weights
        one = len({(config.lr, config.decay and config.decay.lr) for config in configs}) == 1
        self._config = configs[0] if one else common
        self._differ = not one
        self.updated = [nn.Parameter(weight if one else torch.zeros_like(weight)) for weight in weights]
        self.optimizer = build_optimizer(self._config, self.updated)
        self._sizes = self._step_sizes(0) if self._differ else []

    def step(self, gradients: Sequence[Tensor], step: int) -> None:
        used = shortened_by_replica(gradients, self._config.max_norm)
        for updated, gradient in zip(self.updated, used, strict=True):
            # Fused Adam pairs weights and gradients by their place in memory: a gradient may come transposed.
            updated.grad = gradient.contiguous()
        self.optimizer.param_groups[0].update(self._config.at(step) | ({"lr": 1.0} if self._differ else {}))
        self.optimizer.step()
        if not self._differ:
            return
        if self._config.decay is not None:
            self._sizes = self._step_sizes(step)
        for weight, updated, size in zip(self._weights, self.updated, self._sizes, strict=True):
            weight.addcmul_(updated, size)
        torch._foreach_zero_([*self.updated])

    def _step_sizes(self, step: int) -> list[Tensor]:
        """The step size of each replica, in the shape [R, 1, …] of each weight."""
        sizes = torch.tensor([config.at(step).get("lr", config.lr) for config in self._configs], dtype=torch.float64)
        return [sizes.to(weight.device, weight.dtype).reshape(-1, *[1] * (weight.ndim - 1)) for weight in self._weights]


def _remember(owners: Sequence[tuple[dict[Tensor, dict[str, Tensor]], Tensor]], rule: Optimizer) -> dict[str, Tensor]:
    """The memory of one stacked weight, from those of its rows, which become windows onto it.

    The counters, like that of steps, are one for all; an optimiser that has not stepped remembers zeros.
    """
    memories = [state.get(weight) or _blank(weight, rule) for state, weight in owners]
    together = {key: memories[0][key].clone() for key in rule.counters}
    together |= {key: torch.stack([memory[key] for memory in memories]) for key in rule.memory}
    for row, (state, weight) in enumerate(owners):
        state[weight] = {key: value if key in rule.counters else value[row] for key, value in together.items()}
    return together


def _blank(weight: Tensor, rule: Optimizer) -> dict[str, Tensor]:
    counters = {key: torch.zeros((), device=weight.device) for key in rule.counters}
    return counters | {key: torch.zeros_like(weight, requires_grad=False) for key in rule.memory}


# ---- who may be stacked


def _refuse_unlike(states: Sequence[TrainingState]) -> None:
    if not states:
        raise ValueError("there is no state to stack")
    first = states[0]
    of_rules = [phase.optimizer.optimizer.unstackable for phase in first.phases]
    reason = next((reason for reason in (first.system.unstackable, *of_rules) if reason is not None), None)
    if reason is not None:
        raise ValueError(f"{type(first.system).__name__} cannot be stacked: {reason}")
    weights = [id(weight) for state in states for weight in state.system.parameters()]
    if len(set(weights)) < len(weights):
        raise ValueError("two of the states share their weights, and one memory cannot be two replicas")
    ours = _identity(first)
    for number, state in enumerate(states[1:], 1):
        theirs = _identity(state)
        for name in [name for name in ours | theirs if ours.get(name) != theirs.get(name)]:
            raise ValueError(
                f"replicas 0 and {number} cannot be stacked: {name} is {ours.get(name)} and {theirs.get(name)}"
            )


def _identity(state: TrainingState) -> dict[str, object]:
    """Everything that replicas of one stack must have in common, by the name under which a difference is reported."""
    system = state.system
    weights = [(tuple(tensor.shape), tensor.dtype, tensor.device) for tensor in _tensors(system)]
    return {
        "the system": f"{type(system).__module__}.{type(system).__qualname__}",
        "the shape": str(system.shape),
        "the number of classes": system.shape.classes,
        "the vocabulary": system.shape.vocabulary,
        "the batch size": state.batch_size,
        "the step": state.step,
        "whether it has a moving average": state.averaged,
        **in_common(type(system), system.config),
        "the kind of its weights": sorted({f"{kind} on {device}" for _, kind, device in weights}),
        "the layout of its weights": [shape for shape, _, _ in weights],
        "the phases": [
            (phase.name, dict(phase.noise), phase.repeat, phase.start, phase.stop, phase.every)
            for phase in state.phases
        ],
    }
