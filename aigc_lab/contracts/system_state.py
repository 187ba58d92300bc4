"""The state of a system: what its seed decides, what is stored of it, and the moving average that is sampled."""

import itertools

import torch

from aigc_lab.contracts.base import Broken, Contracts
from aigc_lab.contracts.system_case import Case, differing, listed, same, temporary_folder
from aigc_lab.contracts.system_losses import a_loss_is_a_function_of_its_arguments
from aigc_lab.contracts.system_samples import more_samples_of_one_key_begin_with_the_same
from aigc_lab.training.checkpoint import load_system, restore_state, save_state, save_weights
from aigc_lab.training.state import TrainingState

STATE: Contracts[Case] = Contracts()
_CAPTURE = "keep what changes from step to step in registered buffers, or declare uncapturable = 'why'"


@STATE.add(a_loss_is_a_function_of_its_arguments)
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


@STATE.add(a_seed_decides_the_weights_to_the_bit)
def a_restored_run_goes_on_as_if_never_stopped(case: Case) -> None:
    """A crash would change the result of a sweep: what a loss needs from earlier steps must be a registered buffer."""
    straight = case.fresh(seed=1)
    curve = [progress.scalars for progress in case.run(straight, 6, seed=1, every=3)]
    # It is stopped in the middle of its second interval.
    first = case.fresh(seed=1)
    begin = [progress.scalars for progress in case.run(first, 6, seed=1, every=3, interrupted=lambda: first.step == 4)]
    # Nothing of the new object may survive: it starts from other weights, and has already taken a step.
    second = case.finished(case.fresh(seed=2), 1, seed=2)
    with temporary_folder() as folder:
        save_state(first, folder / "state.safetensors")
        restore_state(second, folder / "state.safetensors")
    assert second.step == 4
    rest = [progress.scalars for progress in case.run(second, 6, seed=1, every=3)]
    for one, two in zip(curve, [*begin, *rest], strict=True):
        for name in [name for name in one if one[name] != two[name]]:
            raise Broken(f"{name} is {one[name]:.6g} without a stop and {two[name]:.6g} after one")
    for part in ("system", "average"):
        whole, resumed = getattr(straight, part).state_dict(), getattr(second, part).state_dict()
        if differing(whole, resumed):
            raise Broken(f"after six steps {listed(differing(whole, resumed))} of the {part} differ")
    for phase in straight.phases:
        ours, theirs = (state.optimizers[phase.name].state_dict()["state"] for state in (second, straight))
        assert ours.keys() == theirs.keys() and (ours or not phase.optimizer.optimizer.memory)
        if not ours:
            continue
        for index, key in itertools.product(theirs, next(iter(theirs.values()))):
            assert torch.equal(ours[index][key], theirs[index][key])


@STATE.add(a_seed_decides_the_weights_to_the_bit)
def its_steps_as_a_program_give_their_bits(case: Case) -> None:
    """Steps that repeat the same operations are run without Python between them: what Python alone keeps is lost."""
    if case.fresh().system.uncapturable is not None:
        return
    plain, programs = case.fresh(seed=3), case.fresh(seed=3)
    curve = [progress.scalars for progress in case.run(plain, 7, seed=3, every=7)]
    again = [progress.scalars for progress in case.run(programs, 7, seed=3, every=7, programs=True)]
    if other := differing(plain.system.state_dict(), programs.system.state_dict()):
        raise Broken(f"after seven steps {listed(other)} differ; {_CAPTURE}")
    if other := [name for one, two in zip(curve, again, strict=True) for name in one if one[name] != two[name]]:
        raise Broken(f"{listed(other)} of seven steps differ; {_CAPTURE}")


@STATE.add(more_samples_of_one_key_begin_with_the_same, a_seed_decides_the_weights_to_the_bit)
def stored_weights_give_the_same_samples(case: Case) -> None:
    """A model is its weights and its configuration: what is neither is lost when it is promoted or served."""
    state = case.finished(case.fresh(), 3)
    with temporary_folder() as folder:
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


@STATE.add(stored_weights_give_the_same_samples)
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
    modules = {id(part) for part in system.modules()}
    own = {id(part) for module in system.samplers() for part in module.modules()}
    if not any(True for module in system.samplers() for _ in module.parameters()) or not own & modules:
        raise Broken("samplers() returns modules that are not the system's: return those that __init__ assigned")
    copied = {value.data_ptr() for module in average.samplers() for value in module.state_dict().values()}
    if not copied.isdisjoint(value.data_ptr() for value in system.state_dict().values()):
        raise Broken("the average shares tensors of samplers() with the system: are they registered modules?")


@STATE.add(samplers_names_all_that_sample_uses, once=True)
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
            raise Broken(f"the loss of phase {phase.name} leaves {listed(resting)} in evaluation mode: no .eval()")
    case.finished(state, 1)
    if any(module.training for part in average.samplers() for module in part.modules()):
        raise Broken("what the average samples with is in training mode: does sample or a loss call .train()?")
    if any(parameter.requires_grad for module in average.samplers() for parameter in module.parameters()):
        raise Broken("the average's weights require gradients: does sample call .requires_grad_()?")
