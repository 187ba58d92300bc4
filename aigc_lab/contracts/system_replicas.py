"""Replicas of a system, trained together as one program."""

import torch
from torch import Tensor

from aigc_lab.contracts.base import Broken, Contracts, say
from aigc_lab.contracts.system_case import Case, copied, drawn, listed
from aigc_lab.contracts.system_losses import a_loss_is_a_function_of_its_arguments, a_step_asks_the_device_for_no_number
from aigc_lab.samples import Samples
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
    batches = [case.batches(seed)[0] for seed in seeds]
    name = states[0].phases[index].name
    draws = [drawn(states[0].phases[index], seed) for seed in seeds]
    before = [copied(state.system.state_dict()) for state in states]
    given = zip(states, batches, draws, strict=True)
    alone = [_differentiated(state, index, batch, draw) for state, batch, draw in given]
    for state, weights in zip(states, before, strict=True):
        state.system.load_state_dict(weights)
    try:
        stack = Stack(states)
        totals = stack.loss(index, batches[0], *together(batches, draws), stack.step).total
        leaves = trained(stack.phases[index])
        of_stack = [totals, *torch.autograd.grad(totals.sum(), leaves, allow_unused=True), *stack.system.buffers()]
    except Exception as error:
        remedy = "no .item() and no if on tensors, or declare unstackable = 'why'"
        raise Broken(f"phase {name}: {say(error)[:160]}; {remedy}") from error
    for replica, tensors in enumerate(alone):
        for one, two in [(a, b[replica]) for a, b in zip(tensors, of_stack, strict=True) if a is not None]:
            size, off = one.abs().max().item(), (one - two).abs().max().item()
            if not off <= _STACKED * size + 1e-6:
                return f"{off:.3g} off {size:.3g}"
    return None


def _differentiated(state: TrainingState, index: int, batch: Samples, draws: dict[str, Tensor]) -> list[Tensor | None]:
    """The loss of a phase, the gradients of what it trains, and copies of the buffers after it."""
    loss = state.phases[index].loss(batch, draws, state.step).total
    gradients = torch.autograd.grad(loss, trained(state.phases[index]), allow_unused=True)
    return [loss, *gradients, *(buffer.clone() for buffer in state.system.buffers())]


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
