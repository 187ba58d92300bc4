"""Replicas of a system, trained together as one program."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from aigc_lab.contracts.base import Broken, Contracts, say
from aigc_lab.contracts.system_case import Case, copied, drawn, listed
from aigc_lab.contracts.system_losses import a_loss_is_a_function_of_its_arguments, a_step_asks_the_device_for_no_number
from aigc_lab.training.optimizers import trained
from aigc_lab.training.stack import Stack, together
from aigc_lab.training.state import TrainingState

REPLICAS: Contracts[Case] = Contracts()


# Stacked sums are taken in another order: single precision, with the cancellation of a batch normalisation in between.
_STACKED = 1e-3


@REPLICAS.add(a_loss_is_a_function_of_its_arguments, a_step_asks_the_device_for_no_number)
def it_stacks_under_vmap_or_says_why_not(case: Case) -> None:
    """Small runs are fastest as one program of many replicas; one that cannot must say so in `unstackable`."""
    if case.fresh().system.unstackable is not None:
        return
    for index, phase in enumerate(case.fresh().phases):
        # A rectified unit on its edge falls to either side by rounding; a fault shows with other seeds too.
        if _off(case, index, (0, 1)) and (off := _off(case, index, (2, 3))):
            raise Broken(f"phase {phase.name}: stacked, a loss, gradient or buffer is {off}")


def _off(case: Case, index: int, seeds: tuple[int, int]) -> str | None:
    """How far a number of stacked replicas is from that of each alone, and its size; None within rounding."""
    states = [case.fresh(seed=seed) for seed in seeds]
    alone = [_alone(case, index, *replica) for replica in zip(states, seeds, strict=True)]
    for one, stacked in zip(alone, _stacked(case, index, states, seeds), strict=True):
        for size, off in _distances(one, stacked):
            if not off <= _STACKED * size + 1e-6:
                return f"{off:.3g} off {size:.3g}"
    return None


_Tensors = list[Tensor | None]


def _distances(one: _Tensors, two: _Tensors) -> Iterator[tuple[float, float]]:
    """Of each tensor the largest entry and the largest difference."""
    for a, b in zip(one, two, strict=True):
        if a is not None and b is not None:
            yield a.abs().max().item(), (a - b).abs().max().item()


def _alone(case: Case, index: int, state: TrainingState, seed: int) -> _Tensors:
    """The loss of a phase, the gradients of what it trains, the buffers after it, and all that is kept after what
    follows an update; the state is afterwards what it was.
    """
    phase, before = state.phases[index], copied(state.system.state_dict())
    loss = phase.loss(case.batches(seed)[0], drawn(phase, seed), state.step).total
    results: _Tensors = [
        loss,
        *torch.autograd.grad(loss, trained(phase), allow_unused=True),
        *_clones(state.system.buffers()),
    ]
    if phase.after is not None:
        with torch.no_grad():
            phase.after(state.step)
        results += _clones([*state.system.parameters(), *state.system.buffers()])
    state.system.load_state_dict(before)
    return results


def _stacked(case: Case, index: int, states: Sequence[TrainingState], seeds: Sequence[int]) -> list[_Tensors]:
    """What `_alone` gives, of each of the states in one stack."""
    phase, batches = states[0].phases[index], [case.batches(seed)[0] for seed in seeds]
    draws = [drawn(phase, seed) for seed in seeds]
    try:
        stack = Stack(states)
        loss = stack.loss(index, batches[0], *together(batches, draws), stack.step).total
        results = [loss, *torch.autograd.grad(loss.sum(), trained(stack.phases[index]), allow_unused=True)]
        results += _clones(stack.system.buffers())
        if phase.after is not None:
            stack.afterwards(index, stack.step)
            results += [*stack.system.parameters(), *stack.system.buffers()]
    except Exception as error:
        remedy = "no .item() and no if on tensors, or declare unstackable = 'why'"
        raise Broken(f"phase {phase.name}: {say(error)[:160]}; {remedy}") from error
    return [[None if each is None else each[row] for each in results] for row in range(len(states))]


def _clones(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


@REPLICAS.add(a_loss_is_a_function_of_its_arguments)
def what_only_the_optimisers_read_leaves_the_losses_alone(case: Case) -> None:
    """Replicas that differ there are trained as one program, with the loss of the first: it must be the loss of all."""
    unknown = case.kind.optimizer_only - case.kind.Config.model_fields.keys()
    if unknown:
        raise Broken(f"optimizer_only names {listed(sorted(unknown))}, which Config does not have")
    for name in sorted(case.kind.optimizer_only):
        plain, other = case.fresh(), _with_another(case, name)
        other.system.load_state_dict(plain.system.state_dict())
        outline, changed = (
            [
                (phase.name, dict(phase.noise), phase.repeat, phase.start, phase.stop, phase.every)
                for phase in state.phases
            ]
            for state in (plain, other)
        )
        if outline != changed:
            raise Broken(f"{name} changes the phases, not only their optimisers: take it out of optimizer_only")
        for ours, theirs in zip(plain.phases, other.phases, strict=True):
            first, again = case.loss(ours, 0, 1).total, case.loss(theirs, 0, 1).total
            if not torch.equal(first, again):
                raise Broken(
                    f"phase {ours.name}: {name} changes the loss from {first.item():.6g} to {again.item():.6g}: "
                    "take it out of optimizer_only"
                )


def _with_another(case: Case, name: str) -> TrainingState:
    """A fresh state with another number at the key `name`. Raises `Broken` if there is none that the Config takes."""
    value = getattr(case.config, name)
    for another in (value / 2, value * 2, value + 1, value + 0.5) if isinstance(value, int | float) else ():
        try:
            if another != value:
                return case.fresh(seed=0, **{name: another})
        except ValueError:
            continue
    raise Broken(f"optimizer_only names {name} = {value}: only a number of the optimiser's can differ among replicas")


# As large as the steps of most schedules, which weigh a term with 0 at first.
_LATER = 10_000
# Of what one tells a replica by a number from one by another.
_EFFECT = 1e-4


@REPLICAS.add(it_stacks_under_vmap_or_says_why_not)
def replicas_may_differ_in_what_only_the_losses_read(case: Case) -> None:
    """A search over such a number trains its runs as one program, each of which must come to what it comes to alone."""
    unknown = case.kind.loss_only - case.kind.Config.model_fields.keys()
    if unknown:
        raise Broken(f"loss_only names {listed(sorted(unknown))}, which Config does not have")
    for name in sorted(case.kind.loss_only_of(case.config)):
        pair = _two_numbers(case, name)
        if pair is None or case.fresh().system.unstackable is not None:
            continue
        one, two = ({name: value} for value in pair)
        try:
            Stack([_later(case, 0, options) for options in (one, two)])
        except ValueError as error:
            raise Broken(f"{name} changes more than losses: {say(error)[:160]}; take it out of loss_only") from error
        for index, phase in enumerate(case.fresh().phases):
            # As above: rounding may decide on which side of an edge a unit is.
            if _mistaken(case, index, (0, 1), one, two) and (off := _mistaken(case, index, (2, 3), one, two)):
                raise Broken(
                    f"phase {phase.name}: {off} in a stack of replicas whose {name} is {pair[0]:.4g} and "
                    f"{pair[1]:.4g}: read self.config.{name} where it is used, as a number, or take it out of loss_only"
                )


def _mistaken(
    case: Case, index: int, seeds: tuple[int, int], one: Mapping[str, float], two: Mapping[str, float]
) -> str | None:
    """Where a stacked replica of other numbers than the first is further from what it is alone than from what the
    first's numbers make of it; None where it is as alone.
    """
    states = [_later(case, seed, options) for seed, options in zip(seeds, (one, two), strict=True)]
    alone = _alone(case, index, states[1], seeds[1])
    by_the_first = _alone(case, index, _later(case, seeds[1], one), seeds[1])
    effects = [off / size if size else 0.0 for size, off in _distances(alone, by_the_first)]
    if not effects or max(effects) < _EFFECT:
        return None
    try:
        stacked = _stacked(case, index, states, seeds)[1]
    except Broken as error:
        return say(error.__cause__ or error)[:160]
    most = effects.index(max(effects))
    for place, (size, off) in enumerate(_distances(alone, stacked)):
        within = 0.1 * max(effects) * size if place == most else _STACKED * size + 1e-6
        if not off <= within:
            return f"a loss, gradient or buffer is {off:.3g} off {size:.3g}"
    return None


def _later(case: Case, seed: int, options: Mapping[str, Any]) -> TrainingState:
    state = case.fresh(seed=seed, **options)
    state.step = _LATER
    return state


def _two_numbers(case: Case, name: str) -> tuple[float, float] | None:
    """Two positive numbers that the Config takes at the key `name`; None if it takes no two."""
    value = getattr(case.config, name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise Broken(f"loss_only names {name} = {value}: only a number can differ among replicas")
    first = (value, value / 4, value * 4, value + 1) if value else ()
    taken = []
    for number in (*first, 0.25, 0.5, 1, 2):
        if number > 0 and number not in taken:
            options: dict[str, Any] = {name: number}
            with suppress(ValueError):
                case.fresh(**options)
                taken.append(number)
        if len(taken) == 2:
            return taken[0], taken[1]
    return None
