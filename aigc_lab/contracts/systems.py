"""What every system must do, whoever wrote it."""

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from aigc_lab import noise, plugins
from aigc_lab.config import Strict
from aigc_lab.contracts.base import Broken, Contracts, say
from aigc_lab.data.shared.batches import Batches
from aigc_lab.host import names
from aigc_lab.modalities.base import modality, modality_of
from aigc_lab.noise import Draw
from aigc_lab.samples import Samples
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import Loss, Phase, System
from aigc_lab.training.checkpoint import load_system, restore_state, save_state, save_weights
from aigc_lab.training.loop import train_one
from aigc_lab.training.optimizers import trained
from aigc_lab.training.recorder import Diverged
from aigc_lab.training.stack import Stack
from aigc_lab.training.state import Progress, TrainingState

BATCH = 12
# Stacked sums are taken in another order: single precision, with the cancellation of a batch normalisation in between.
_STACKED = 1e-3


@dataclass(frozen=True)
class Case:
    """A system with some of its options, and real samples to train it on for a few steps."""

    kind: type[System]
    shape: Shape
    samples: Samples
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def config(self) -> Any:
        return self.kind.Config(**self.options)

    def fresh(self, *, seed: int = 0, **options: Any) -> TrainingState:
        config = self.kind.Config(**(dict(self.options) | options)) if options else self.config
        return TrainingState.fresh(self.kind, config, self.shape, seed=seed, batch_size=BATCH, device="cpu")

    def batches(self, seed: int = 0) -> Batches:
        return Batches(self.samples, BATCH, seed)

    def run(
        self, state: TrainingState, steps: int, *, seed: int = 0, every: int = 1, decay: float = 0.9, **options: Any
    ) -> Iterator[Progress]:
        options |= {"steps": steps, "every": every, "decay": decay, "precision": "fp32"}
        return train_one(state, self.batches(seed), seed=seed, **options)

    def finished(self, state: TrainingState, steps: int, **options: Any) -> TrainingState:
        for _ in self.run(state, steps, **options):
            pass
        return state

    def loss(self, phase: Phase, number: int, step: int = 0) -> Loss:
        """The phase's loss on one batch, with noise of its own."""
        return phase.loss(self.batches()[number], drawn(phase, number), step)


def variants(kind: type[System], shape: Shape) -> Iterator[dict[str, Any]]:
    """The options that a system's Config offers for a shape: its defaults, each other value of each choice and switch,
    two critic steps, two samples packed.
    """
    yield {}
    fields = getattr(kind.Config, "model_fields", {})
    choices = {name: _choices(info) for name, info in fields.items()}
    choices |= {name: (2,) for name in ("n_critic", "packing") if name in fields}
    for name, values in choices.items():
        for value in values:
            if value != fields[name].default and _possible(kind, shape, {name: value}):
                yield {name: value}


def _choices(info: FieldInfo) -> tuple[Any, ...]:
    if info.annotation is bool:
        return (False, True)
    if named := plugins.named(info):
        return tuple(named.options)
    return get_args(info.annotation) if get_origin(info.annotation) is Literal else ()


def _possible(kind: type[System], shape: Shape, options: Mapping[str, Any]) -> bool:
    """Whether a choice goes with the shape and the defaults: one that is refused beside them is no variant."""
    try:
        with torch.device("meta"):
            kind(kind.Config(**options), shape)
    except ValueError:
        return False
    except Exception:  # noqa: BLE001 -- the contracts will tell
        return True
    return True


def drawn(phase: Phase, *key: int) -> dict[str, Tensor]:
    return {name: noise.draw(what, *key, name) for name, what in phase.noise.items()}


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in tensors.items()}


def _changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    return [key for key, value in before.items() if not torch.equal(value, after[key])]


SYSTEM: Contracts[Case] = Contracts()


# ---- what it is made of


@SYSTEM.add(once=True)
def unknown_keys_are_refused(case: Case) -> None:
    """A misspelt key of an experiment would be ignored, and a sweep would compare the default with itself."""
    config = case.kind.Config
    if not issubclass(config, Strict):
        raise Broken(f"Config is no aigc_lab.config.Strict but {_bases(config)}: write class Config(Strict)")
    try:
        config.model_validate({**case.options, "no_such_knob": 1})
    except ValidationError as error:
        if any(each["loc"] == ("no_such_knob",) for each in error.errors()):
            return
    raise Broken("Config takes no_such_knob=1: leave model_config as Strict has it")


@SYSTEM.add(unknown_keys_are_refused)
def every_key_has_a_default(case: Case) -> None:
    """Trial 0 of a sweep runs the defaults, and what an experiment does not mention must have a value."""
    lacking = [
        name for name, info in case.kind.Config.model_fields.items() if info.is_required() and name not in case.options
    ]
    if lacking:
        example = " ".join(f"--set {name}=…" for name in lacking)
        raise Broken(f"Config has no default for {', '.join(lacking)}: give one, or check it with {example}")
    _ = case.config


@SYSTEM.add(every_key_has_a_default)
def it_can_be_built(case: Case) -> None:
    """Every experiment that names it is refused otherwise."""
    state = case.fresh()
    if not any(parameter.requires_grad for parameter in state.system.parameters()):
        raise Broken("it has no parameters: assign its networks to self, and not to a list or a local name")


@SYSTEM.add(it_can_be_built)
def its_phases_are_described(case: Case) -> None:
    """The loop builds optimisers and draws noise from this description, and names the curves by it."""
    phases = case.fresh().phases
    if not phases:
        raise Broken("phases() returns none: there is nothing to train")
    for phase in phases:
        if not isinstance(phase, Phase):
            raise Broken(f"phases() returns a {type(phase).__name__}: make it a Phase(name, loss, trains, optimizer)")
        for name, what in phase.noise.items():
            if not isinstance(what, Draw):
                raise Broken(f"phase {phase.name}: noise {name} is a {type(what).__name__}: describe it as a Draw")
        if not trained(phase):
            raise Broken(f"phase {phase.name} trains no parameters")
    names = [phase.name for phase in phases]
    if len(set(names)) < len(names):
        raise Broken(f"phases share a name: {', '.join(names)}")


@SYSTEM.add(its_phases_are_described)
def every_parameter_is_trained(case: Case) -> None:
    """A network that no phase trains keeps its initial weights, and the variant looks worse than it is."""
    state = case.fresh()
    reached = {id(parameter) for phase in state.phases for parameter in trained(phase)}
    idle = [name for name, p in state.system.named_parameters() if p.requires_grad and id(p) not in reached]
    if idle:
        raise Broken(f"no phase trains {_some(idle)}: add the module to a phase's trains, or requires_grad_(False)")


@SYSTEM.add(it_can_be_built, once=True)
def what_it_does_not_make_is_refused(case: Case) -> None:
    """A wrong combination must fail before training, with a sentence, and not in the middle of a sweep."""
    for name in Modality:
        shape = modality(name).example_shape()
        if name != case.kind.modality and shape is not None and _refusal(case, shape) is None:
            raise Broken(f"it makes {case.kind.modality}, accepts {name}: call super().__init__(config, shape)")
    kind = modality_of(case.kind)
    odd = kind.odd_shape()
    if odd is not None:
        size, refusal = "×".join(map(str, odd.size[1:])), _refusal(case, odd)
        if refusal is not None and size not in str(refusal):
            raise Broken(f"it refuses {kind.noun} of {size} without naming the size: {say(refusal)}")
        if refusal is None:
            made = case.kind(case.config, odd).eval().generate(2).values.shape
            if made != (2, *odd.size):
                raise Broken(f"it accepts {kind.noun} of {size} and makes {list(made)}: raise ValueError from __init__")


def _refusal(case: Case, shape: Shape) -> ValueError | None:
    try:
        case.kind(case.config, shape)
    except ValueError as error:
        return error
    return None


# ---- its losses


@SYSTEM.add(its_phases_are_described)
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


@SYSTEM.add(losses_are_finite)
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


@SYSTEM.add(losses_are_finite, every_parameter_is_trained)
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
        raise Broken(f"no gradient in six batches: {_some(idle)}; is it used, or detached on the way to the loss?")


@SYSTEM.add(losses_are_finite)
def a_loss_draws_only_from_its_noise(case: Case) -> None:
    """Noise of torch's shared stream depends on who trains beside it: no seed repeats the run, and no resume does."""
    for phase in case.fresh().phases:
        shared = torch.get_rng_state()
        case.loss(phase, 7)
        if not torch.equal(torch.get_rng_state(), shared):
            raise Broken(f"phase {phase.name} draws from torch's stream: declare a Draw in Phase(noise=…) and read it")


@SYSTEM.add(losses_are_finite)
def a_loss_leaves_its_arguments_alone(case: Case) -> None:
    """The batch and the noise belong to the loop: changed in place, the next reader gets something else."""
    for phase in case.fresh().phases:
        batch, draws = case.batches()[3], drawn(phase, 7)
        values, kept = batch.values.clone(), _copy(draws)
        phase.loss(batch, draws, 0)
        changed = _changed(kept, draws) + ([] if torch.equal(values, batch.values) else ["its batch"])
        if changed:
            raise Broken(f"phase {phase.name} changes {_some(changed)} in place: use the form without underscore")


@SYSTEM.add(losses_are_finite)
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


@SYSTEM.add(a_step_asks_the_device_for_no_number, a_loss_draws_only_from_its_noise)
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
    """Notes the operations for which the host would wait for the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2"):
            self.names.add(name)
        return func(*args, **(kwargs or {}))


@SYSTEM.add(every_trained_parameter_gets_a_gradient)
def a_phase_changes_only_what_it_trains(case: Case) -> None:
    """A weight that moves outside its optimiser makes the phases' order matter, and their learning rates a lie."""
    for index in range(len(case.fresh().phases)):
        state = case.fresh()
        state.phases = [state.phases[index]]
        phase, parameters = state.phases[0], dict(state.system.named_parameters())
        before, mine = _copy(parameters), {id(parameter) for parameter in trained(phase)}
        case.loss(phase, 0)
        moved = _changed(before, parameters)
        if moved:
            raise Broken(f"the loss of phase {phase.name} changes {_some(moved)}: leave that to the optimiser")
        case.finished(state, 1)
        moved = [name for name in _changed(before, parameters) if id(parameters[name]) not in mine]
        if moved:
            raise Broken(f"phase {phase.name} changes {_some(moved)}, which it does not train")


@SYSTEM.add(a_phase_changes_only_what_it_trains, a_loss_draws_only_from_its_noise, a_loss_leaves_its_arguments_alone)
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
    for name in _changed(first, again):
        values = f"{first[name].item():.6g} and then {again[name].item():.6g}"
        raise Broken(f"phase {phase.name}: {name} of the same batch, noise and step is {values}")


@SYSTEM.add(a_loss_is_a_function_of_its_arguments)
def every_phase_alone_lowers_its_own_loss(case: Case) -> None:
    """With all else held still a phase is a plain minimisation: if it fails there, it fails in a sweep."""
    knobs: dict[str, Any] = {"lr": 2e-3} if "lr" in case.kind.Config.model_fields and "lr" not in case.options else {}
    for index in range(len(case.fresh().phases)):
        state = case.fresh(**knobs)
        state.phases = [state.phases[index]._replace(after=None)]
        name = state.phases[0].name
        # A small batch is a rough judge: a phase that has not got anywhere after 40 steps gets 120 more.
        try:
            curve = [progress.scalars[f"loss/{name}/total"] for progress in case.run(state, 40, every=10)]
            if curve[-1] >= curve[0]:
                curve += [progress.scalars[f"loss/{name}/total"] for progress in case.run(state, 160, every=40)]
        except Diverged as error:
            raise Broken(f"phase {name}: {error}; lower its learning rate") from error
        if curve[-1] >= curve[0]:
            shown = " → ".join(f"{value:.4g}" for value in curve)
            raise Broken(f"phase {name} alone, mean loss over {state.step} steps: {shown}; look at its learning rate")


# ---- its samples


@SYSTEM.add(losses_are_finite)
def samples_have_the_declared_shape_and_range(case: Case) -> None:
    """Metrics and pictures read every value literally: a picture in [−1, 1] is half black, and scores as such."""
    for state in (case.fresh(), case.finished(case.fresh(), 2)):
        system = state.average
        samples = system.generate(7, "samples")
        if not isinstance(samples, Samples):
            raise Broken(f"sample returns a {type(samples).__name__}: wrap it, as in Images(values)")
        if samples.modality != system.modality:
            raise Broken(f"it declares {system.modality}, and sample returns {samples.modality}")
        values, wanted = samples.values, (7, *system.shape.size)
        if tuple(values.shape) != wanted:
            raise Broken(f"seven samples have the shape {list(values.shape)}, not {list(wanted)}")
        fault = modality_of(samples).fault_of_generated(samples, system.shape)
        if fault is not None:
            raise Broken(fault)


@SYSTEM.add(samples_have_the_declared_shape_and_range)
def every_latent_gives_its_own_sample(case: Case) -> None:
    """A sampler that ignores its latents makes one picture n times, and every metric counts them as n."""
    if case.kind.deterministic:
        return
    values = case.fresh().average.generate(7, "samples").values
    count = len({row.numpy().tobytes() for row in values})
    if count < 7:
        raise Broken(f"seven latents give {count} different samples")


@SYSTEM.add(every_latent_gives_its_own_sample, once=True)
def more_samples_of_one_key_begin_with_the_same(case: Case) -> None:
    """Scores at another n, and the pictures of all steps, must show the same latents: sample may draw nothing."""
    system = case.finished(case.fresh(), 1).average
    few, some, many = (system.generate(count, "key", 1, block=8).values for count in (3, 8, 21))
    for shorter in (few, some):
        if not torch.equal(many[: len(shorter)], shorter):
            raise Broken(
                f"the first {len(shorter)} of 21 samples are others than {len(shorter)} alone: does sample draw?"
            )
    if case.kind.deterministic:
        return
    if len({row.numpy().tobytes() for row in many}) < 21 or torch.equal(
        system.generate(3, "key", 2, block=8).values, few
    ):
        raise Broken("another block, or another key, gives the same samples")


# ---- its state


@SYSTEM.add(a_loss_is_a_function_of_its_arguments)
def a_seed_decides_the_weights_to_the_bit(case: Case) -> None:
    """A run that cannot be repeated cannot be believed: its seed must decide all, and must decide something."""
    first = case.finished(case.fresh(seed=5), 3, seed=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again = case.finished(case.fresh(seed=5), 3, seed=5)
    if not (same(first.system, again.system) and same(first.average, again.average)):
        raise Broken("twice seed 5, and other weights: is anything drawn by another generator than torch's own?")
    if case.kind.deterministic:
        return
    if same(case.finished(case.fresh(seed=6), 3, seed=5).system, first.system):
        raise Broken("seeds 5 and 6 begin with the same weights: do not call manual_seed")
    if same(case.finished(case.fresh(seed=5), 3, seed=6).system, first.system):
        raise Broken("other batches and other noise end in the same weights: it learns nothing from them")


@SYSTEM.add(a_seed_decides_the_weights_to_the_bit)
def a_restored_run_goes_on_as_if_never_stopped(case: Case) -> None:
    """A crash would change the result of a sweep: what a loss needs from earlier steps must be a registered buffer."""
    straight = case.fresh(seed=1)
    curve = [progress.scalars for progress in case.run(straight, 6, seed=1, every=3)]
    # It is stopped in the middle of its second interval.
    first = case.fresh(seed=1)
    begin = [progress.scalars for progress in case.run(first, 6, seed=1, every=3, interrupted=lambda: first.step == 4)]
    # Nothing of the new object may survive: it starts from other weights, and has already taken a step.
    second = case.finished(case.fresh(seed=2), 1, seed=2)
    with _folder() as folder:
        save_state(first, folder / "state.safetensors")
        restore_state(second, folder / "state.safetensors")
    assert second.step == 4
    rest = [progress.scalars for progress in case.run(second, 6, seed=1, every=3)]
    for one, two in zip(curve, [*begin, *rest], strict=True):
        for name in [name for name in one if one[name] != two[name]]:
            raise Broken(f"{name} is {one[name]:.6g} without a stop and {two[name]:.6g} after one")
    for part in ("system", "average"):
        whole, resumed = getattr(straight, part).state_dict(), getattr(second, part).state_dict()
        if _changed(whole, resumed):
            raise Broken(f"after six steps {_some(_changed(whole, resumed))} of the {part} differ")
    for phase in straight.phases:
        ours, theirs = (state.optimizers[phase.name].state_dict()["state"] for state in (second, straight))
        assert ours.keys() == theirs.keys() and (ours or phase.optimizer.rule == "sgd")
        if not ours:
            continue
        for index, key in itertools.product(theirs, next(iter(theirs.values()))):
            assert torch.equal(ours[index][key], theirs[index][key])


@SYSTEM.add(more_samples_of_one_key_begin_with_the_same, a_seed_decides_the_weights_to_the_bit)
def stored_weights_give_the_same_samples(case: Case) -> None:
    """A model is its weights and its configuration: what is neither is lost when it is promoted or served."""
    state = case.finished(case.fresh(), 3)
    with _folder() as folder:
        path = folder / "model" / "last.safetensors"
        save_weights(state.average, state.average.state_dict(), path, {"run": "a"})
        loaded = load_system(path)
    if loaded.config != state.system.config:
        raise Broken(f"the configuration {state.system.config} is stored and read as {loaded.config}")
    assert type(loaded) is type(state.system) and loaded.shape == state.system.shape
    ours, theirs = (system.generate(9, "stored").values for system in (state.average, loaded))
    if not torch.equal(ours, theirs):
        worst = (ours - theirs).abs().max().item()
        raise Broken(f"samples of the stored weights are up to {worst:.3g} off: register what sample reads as a buffer")


@SYSTEM.add(stored_weights_give_the_same_samples)
def samplers_names_all_that_sample_uses(case: Case) -> None:
    """Of the moving average only these are averaged: a network that is not named is sampled raw, in training mode."""
    state = case.fresh()
    _own_modules(state)
    # Without decay the average is what the system samples with, after every step.
    for _ in case.run(state, 3, decay=0):
        for mine, theirs in zip(state.average.samplers(), state.system.samplers(), strict=True):
            if not same(mine, theirs):
                raise Broken(f"the average of {type(theirs).__name__} is not what it averages")
        raw = case.fresh(seed=9).system
        raw.load_state_dict(state.system.state_dict())
        ours, theirs_ = (system.generate(5).values for system in (raw.eval(), state.average))
        if not torch.equal(ours, theirs_):
            worst = (ours - theirs_).abs().max().item()
            raise Broken(f"the average samples up to {worst:.3g} off the system: is a module missing from samplers()?")
    before = state.average.generate(5).values
    with torch.no_grad():
        for parameter in state.system.parameters():
            parameter.add_(1.0)
    if not torch.equal(state.average.generate(5).values, before):
        raise Broken("samples of the average move with the raw weights: is a module missing from samplers()?")


def _own_modules(state: TrainingState) -> None:
    system, average = state.system, state.average
    if not system.samplers():
        raise Broken("samplers() names no module: name those that sample calls")
    known = {id(part) for part in system.modules()}
    own = {id(part) for module in system.samplers() for part in module.modules()}
    if not any(True for module in system.samplers() for _ in module.parameters()) or not own & known:
        raise Broken("samplers() returns modules that are not the system's: return those that __init__ assigned")
    copied = {value.data_ptr() for module in average.samplers() for value in module.state_dict().values()}
    if not copied.isdisjoint(value.data_ptr() for value in system.state_dict().values()):
        raise Broken("the average shares tensors of samplers() with the system: are they registered modules?")


@SYSTEM.add(samplers_names_all_that_sample_uses, once=True)
def the_average_shares_all_that_it_does_not_sample_with(case: Case) -> None:
    """A copied critic costs memory; a network left in evaluation mode stops updating its batch statistics."""
    state = case.fresh()
    system, average = state.system, state.average
    own = {id(part) for module in system.samplers() for part in module.modules()}
    theirs = dict(average.named_modules())
    for key, part in system.named_modules():
        if id(part) in own and theirs[key] is part:
            raise Broken(f"{key} is sampled with and is not the average's own")
        if not any(id(inner) in own for inner in part.modules()) and theirs[key] is not part:
            raise Broken(f"{key} is not sampled with, and was copied for the average: do not define __deepcopy__")
    for phase in state.phases:
        case.loss(phase, 0)
        resting = [key for key, module in system.named_modules() if not module.training]
        if resting:
            raise Broken(f"the loss of phase {phase.name} leaves {_some(resting)} in evaluation mode: no .eval()")
    case.finished(state, 1)
    if any(module.training for part in average.samplers() for module in part.modules()):
        raise Broken("what the average samples with is in training mode: does sample or a loss call .train()?")
    if any(parameter.requires_grad for module in average.samplers() for parameter in module.parameters()):
        raise Broken("the average's weights require gradients: does sample call .requires_grad_()?")


# ---- many at once


@SYSTEM.add(a_loss_is_a_function_of_its_arguments, a_step_asks_the_device_for_no_number)
def it_stacks_under_vmap_or_says_why_not(case: Case) -> None:
    """Small runs are fastest as one program of many replicas; one that cannot must say so in `unstackable`."""
    if case.fresh().system.unstackable is not None:
        return
    for index in range(len(case.fresh().phases)):
        states = [case.fresh(seed=seed) for seed in (0, 1)]
        batches = [case.batches(seed)[0] for seed in (0, 1)]
        name = states[0].phases[index].name
        draws = [drawn(states[0].phases[index], seed) for seed in (0, 1)]
        before = [_copy(state.system.state_dict()) for state in states]
        given = zip(states, batches, draws, strict=True)
        alone = [_differentiated(state, index, batch, draw) for state, batch, draw in given]
        for state, weights in zip(states, before, strict=True):
            state.system.load_state_dict(weights)
        try:
            stack = Stack(states)
            totals = stack.loss(index, batches, draws).total
            leaves = trained(stack.phases[index])
            together = [totals, *torch.autograd.grad(totals.sum(), leaves, allow_unused=True), *stack.system.buffers()]
        except Exception as error:
            remedy = "no .item() and no if on tensors, or declare unstackable = 'why'"
            raise Broken(f"phase {name}: {say(error)[:160]}; {remedy}") from error
        for replica, tensors in enumerate(alone):
            for one, two in [(a, b[replica]) for a, b in zip(tensors, together, strict=True) if a is not None]:
                size, off = one.abs().max().item(), (one - two).abs().max().item()
                if not off <= _STACKED * size + 1e-6:
                    raise Broken(f"phase {name}: stacked, a loss, gradient or buffer is {off:.3g} off {size:.3g}")


def _differentiated(state: TrainingState, index: int, batch: Samples, draws: dict[str, Tensor]) -> list[Tensor | None]:
    """The loss of a phase, its gradients, and the buffers as the loss leaves them."""
    loss = state.phases[index].loss(batch, draws, state.step).total
    gradients = torch.autograd.grad(loss, trained(state.phases[index]), allow_unused=True)
    return [loss, *gradients, *(buffer.clone() for buffer in state.system.buffers())]


@SYSTEM.add(a_loss_is_a_function_of_its_arguments)
def what_only_the_optimisers_read_leaves_the_losses_alone(case: Case) -> None:
    """Replicas that differ there are trained as one program, with the loss of the first: it must be the loss of all."""
    unknown = case.kind.optimizer_only - case.kind.Config.model_fields.keys()
    if unknown:
        raise Broken(f"optimizer_only names {_some(sorted(unknown))}, which Config does not have")
    for name in sorted(case.kind.optimizer_only):
        plain, other = case.fresh(), _with_another(case, name)
        other.system.load_state_dict(plain.system.state_dict())
        outline, changed = (
            [(phase.name, dict(phase.noise), phase.repeat) for phase in state.phases] for state in (plain, other)
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
    """A state whose configuration has another value at `name`, a number."""
    value = getattr(case.config, name)
    for another in (value / 2, value * 2, value + 1, value + 0.5) if isinstance(value, int | float) else ():
        try:
            if another != value:
                return case.fresh(seed=0, **{name: another})
        except ValueError:
            continue
    raise Broken(f"optimizer_only names {name} = {value}: only a number of the optimiser's can differ among replicas")


# ---- words


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="aigc-lab-check-") as folder:
        yield Path(folder)


def _some(names: list[str]) -> str:
    """The first three, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _bases(kind: type) -> str:
    return ", ".join(base.__name__ for base in kind.__bases__)
