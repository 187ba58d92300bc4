"""The losses of a system: finite, differentiable, and functions of their arguments alone."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aigc_lab.contracts.base import Broken, Contracts, say
from aigc_lab.contracts.system_case import Case, copied, differing, drawn, listed
from aigc_lab.contracts.system_structure import every_parameter_is_trained, its_phases_are_described
from aigc_lab.host import names
from aigc_lab.noise import Noise
from aigc_lab.systems.base import Loss, Phase
from aigc_lab.training.optimizers import trained
from aigc_lab.training.recorder import Diverged

LOSSES: Contracts[Case] = Contracts()


@LOSSES.add(its_phases_are_described)
def losses_are_finite(case: Case) -> None:
    """A loss that is NaN or infinite ends the run as DIVERGED; one that is no tensor stops the loop."""
    for phase in case.fresh().phases:
        loss = case.loss(phase, 0)
        if not isinstance(loss, Loss):
            raise Broken(f"phase {phase.name}: its loss is a {type(loss).__name__}: return Loss(total)")
        for name, value in {"total": loss.total, **loss.parts, **loss.dynamics}.items():
            if not isinstance(value, Tensor):
                raise Broken(f"phase {phase.name}: {name} is a {type(value).__name__}: keep it a tensor (no .item())")
            if value.ndim:
                raise Broken(f"phase {phase.name}: {name} has the shape {list(value.shape)}: take its mean")
            if not value.isfinite():
                raise Broken(f"phase {phase.name}: {name} is {value.item()} at the first batch")


@LOSSES.add(losses_are_finite)
def its_curves_can_be_stored(case: Case) -> None:
    """MLflow takes no @, % or + in a name, and would refuse the curves of a training that has begun."""
    state = case.fresh()
    try:
        names.refuse_parameters(type(case.config).model_fields)
        names.refuse_curves([phase.name for phase in state.phases])
        for progress in case.run(state, 1):
            names.refuse_curves((), [*progress.scalars, *state.system.summary()])
    except Diverged:
        return  # another contract tells
    except ValueError as error:
        raise Broken(str(error)) from None


@LOSSES.add(losses_are_finite, every_parameter_is_trained)
def every_trained_parameter_gets_a_gradient(case: Case) -> None:
    """A parameter without one never moves: a detached network trains nothing, and nothing says so."""
    state = case.fresh()
    # At a general point: initial weights may be symmetric, and a hinge critic's last bias starts with none.
    source = torch.Generator().manual_seed(1)
    names = {id(parameter): name for name, parameter in state.system.named_parameters()}
    without = {(phase.name, names[id(parameter)]) for phase in state.phases for parameter in trained(phase)}
    for attempt in range(6):
        with torch.no_grad():
            for parameter in state.system.parameters():
                # By fan-in, or the activations of a wide network would leave the range of its numbers.
                inputs = parameter[0].numel() if parameter.ndim > 1 else 1
                parameter.add_(torch.randn(parameter.shape, generator=source) * 0.3 / max(inputs, 1) ** 0.5)
        for phase in state.phases:
            parameters = trained(phase)
            total = case.loss(phase, attempt, attempt).total
            if not total.requires_grad:
                raise Broken(f"phase {phase.name}: the loss depends on no parameter: is it made under no_grad?")
            for parameter, gradient in zip(
                parameters, torch.autograd.grad(total, parameters, allow_unused=True), strict=True
            ):
                name = names[id(parameter)]
                if gradient is not None and not gradient.isfinite().all():
                    raise Broken(f"phase {phase.name}: the gradient of {name} is not finite")
                if gradient is not None and gradient.any():
                    without.discard((phase.name, name))
    if without:
        idle = sorted(f"{name} (phase {phase})" for phase, name in without)
        raise Broken(f"no gradient in six batches: {listed(idle)}; is it used, or detached on the way to the loss?")


@LOSSES.add(losses_are_finite)
def a_loss_draws_only_from_its_noise(case: Case) -> None:
    """Noise of torch's shared stream depends on who trains beside it: no seed repeats the run, and no resume does."""
    for phase in case.fresh().phases:
        shared = torch.get_rng_state()
        case.loss(phase, 7)
        if not torch.equal(torch.get_rng_state(), shared):
            raise Broken(f"phase {phase.name} draws from torch's stream: declare a Draw in Phase(noise=…) and read it")


@LOSSES.add(losses_are_finite)
def a_loss_leaves_its_arguments_alone(case: Case) -> None:
    """The batch and the noise belong to the loop: changed in place, the next reader gets something else."""
    for phase in case.fresh().phases:
        batch, draws = case.batches()[3], drawn(phase, 7)
        values, draws_before = batch.values.clone(), copied(draws)
        phase.loss(batch, draws, 0)
        changed = differing(draws_before, draws) + ([] if torch.equal(values, batch.values) else ["its batch"])
        if changed:
            raise Broken(f"phase {phase.name} changes {listed(changed)} in place: use the form without underscore")


@LOSSES.add(losses_are_finite)
def a_step_asks_the_device_for_no_number(case: Case) -> None:
    """A GPU is queued far ahead of the loop; a number that the host wants makes it wait until the queue is empty."""
    state = case.fresh()
    batches = case.batches()
    for phase in state.phases:
        draws, batch = drawn(phase, 0), batches[0]
        with _Asked() as asked:
            loss = phase.loss(batch, draws, 3).total
            torch.autograd.grad(loss, trained(phase), allow_unused=True)
            if phase.after is not None:
                with torch.no_grad():
                    phase.after(3)
        if asked.names:
            what = ", ".join(sorted(asked.names))
            raise Broken(
                f"phase {phase.name} asks for numbers ({what}): no .item(), no if on a tensor, no mask as index"
            )


@LOSSES.add(a_step_asks_the_device_for_no_number, a_loss_draws_only_from_its_noise)
def a_step_makes_its_tensors_where_the_weights_are(case: Case) -> None:
    """What a loss makes on the CPU stops a run on a GPU at its first step; torch's meta device shows it anywhere."""
    state = case.fresh()
    state.system.to("meta")
    for phase in state.phases:
        batch = case.batches()[0].to("meta")
        draws = {name: tensor.to("meta") for name, tensor in drawn(phase, 0).items()}
        try:
            phase.loss(batch, draws, 3)
            if phase.after is not None:
                with torch.no_grad():
                    phase.after(3)
        except (RuntimeError, NotImplementedError) as error:
            if "meta" not in str(error):
                raise
            raise Broken(f"phase {phase.name}: {say(error)[:120]}; make tensors with device=x.device") from error


class _Asked(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the names of operations whose result the host must wait for (`.item()`, a mask as index)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2"):
            self.names.add(name)
        return func(*args, **(kwargs or {}))


@LOSSES.add(every_trained_parameter_gets_a_gradient)
def a_phase_changes_only_what_it_trains(case: Case) -> None:
    """A weight that moves outside its optimiser makes the phases' order matter, and their learning rates a lie."""
    for index in range(len(case.fresh().phases)):
        state = case.fresh()
        state.phases = [state.phases[index]._replace(start=0, stop=None, every=1)]
        phase, parameters = state.phases[0], dict(state.system.named_parameters())
        before, mine = copied(parameters), {id(parameter) for parameter in trained(phase)}
        case.loss(phase, 0)
        moved = differing(before, parameters)
        if moved:
            raise Broken(f"the loss of phase {phase.name} changes {listed(moved)}: leave that to the optimiser")
        case.finished(state, 1)
        moved = [name for name in differing(before, parameters) if id(parameters[name]) not in mine]
        if moved:
            raise Broken(f"phase {phase.name} changes {listed(moved)}, which it does not train")


@LOSSES.add(a_phase_changes_only_what_it_trains, a_loss_draws_only_from_its_noise, a_loss_leaves_its_arguments_alone)
def a_loss_is_a_function_of_its_arguments(case: Case) -> None:
    """A loss that remembers earlier calls cannot be repeated, resumed or stacked."""
    state = case.finished(case.fresh(), 2)
    for phase in state.phases:
        first, again = (case.loss(phase, 3, 2) for _ in range(2))
        _equal(phase, {"total": first.total}, {"total": again.total})
        _equal(phase, first.parts, again.parts)
        _equal(phase, first.dynamics, again.dynamics)


def _equal(phase: Phase, first: Mapping[str, Tensor], again: Mapping[str, Tensor]) -> None:
    if first.keys() != again.keys():
        raise Broken(f"phase {phase.name}: it reports {sorted(first)} and then {sorted(again)}")
    for name in differing(first, again):
        values = f"{first[name].item():.6g} and then {again[name].item():.6g}"
        raise Broken(f"phase {phase.name}: {name} of the same batch, noise and step is {values}")


@LOSSES.add(a_loss_is_a_function_of_its_arguments)
def every_phase_alone_lowers_its_own_loss(case: Case) -> None:
    """With all else held still a phase is a plain minimisation: if it fails there, it fails in a sweep."""
    knobs: dict[str, Any] = {"lr": 2e-3} if "lr" in case.kind.Config.model_fields and "lr" not in case.options else {}
    for index in range(len(case.fresh().phases)):
        # A small batch is a rough judge: a phase that has not got anywhere after few steps begins again with more.
        for steps in (16, 48, 160):
            state = case.fresh(**knobs)
            state.phases = [_alone(state.phases[index])]
            name = state.phases[0].name
            try:
                course = case.run(state, steps, every=steps // 4)
                curve = [progress.scalars[f"loss/{name}/total"] for progress in course]
            except Diverged as error:
                raise Broken(f"phase {name}: {error}; lower its learning rate") from error
            if curve[-1] < curve[0]:
                break
        else:
            shown = " → ".join(f"{value:.4g}" for value in curve)
            raise Broken(f"phase {name} alone, mean loss over {state.step} steps: {shown}; look at its learning rate")


def _alone(phase: Phase) -> Phase:
    """The phase in every step, with the loss of its first: a schedule, such as a temperature's, moves no loss then."""

    def loss(batch: Any, noise: Noise, step: int) -> Loss:
        return phase.loss(batch, noise, phase.start)

    return phase._replace(loss=loss, after=None, start=0, stop=None, every=1)
