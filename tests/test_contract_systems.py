"""What every file in `systems/` must do, found by name: a new system is tested without touching this file."""

import itertools
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from aigc_lab import noise, plugins
from aigc_lab.batches import Batches
from aigc_lab.checkpoint import load_system, restore_state, save_state, save_weights
from aigc_lab.data.digits import Digits
from aigc_lab.data.ring import Ring
from aigc_lab.samples import Modality, Samples, Shape
from aigc_lab.systems.base import Phase, System
from aigc_lab.trainer import Progress, State, train, trained

BATCH = 12
# Knobs that only make networks larger.
SMALL = {"width": 8, "hidden": 16, "latent_size": 6}
SHAPES = {
    Modality.IMAGES: Shape(Modality.IMAGES, (1, 16, 16), classes=10),
    Modality.POINTS: Shape(Modality.POINTS, (2,), classes=8),
}


@lru_cache
def data(modality: Modality) -> Samples:
    """Real training data of the modality, the few hundred samples that these tests need."""
    dataset = Digits if modality == Modality.IMAGES else Ring
    return dataset(dataset.Config(), Path()).load("train").take(slice(0, 300))


def variants() -> Iterator[Any]:
    """Every system with its defaults, and with each other value of each choice that its Config offers."""
    for name in plugins.names("systems"):
        fields = plugins.find(System, name).Config.model_fields  # type: ignore[type-abstract]
        yield pytest.param(name, {}, id=name)
        for field, info in fields.items():
            for choice in get_args(info.annotation) if get_origin(info.annotation) is Literal else ():
                if choice != info.default:
                    yield pytest.param(name, {field: choice}, id=f"{name}-{field}={choice}")
        if "n_critic" in fields:
            yield pytest.param(name, {"n_critic": 2}, id=f"{name}-n_critic=2")


every_variant = pytest.mark.parametrize(("name", "options"), list(variants()))
every_system = pytest.mark.parametrize("name", plugins.names("systems"))


def found(name: str) -> type[System]:
    return plugins.find(System, name)  # type: ignore[type-abstract]


def fresh(name: str, options: dict[str, Any], *, seed: int = 0) -> State:
    kind = found(name)
    small = {key: value for key, value in SMALL.items() if key in kind.Config.model_fields}
    config = kind.Config(**(small | options))
    return State.fresh(kind, config, SHAPES[kind.modality], seed=seed, batch_size=BATCH, device="cpu")


def batches(state: State, *, seed: int = 0) -> Batches:
    return Batches(data(state.system.modality), BATCH, seed)


def run(state: State, steps: int, *, seed: int = 0, every: int = 1, decay: float = 0.9) -> Iterator[Progress]:
    return train(state, batches(state, seed=seed), seed=seed, steps=steps, every=every, decay=decay, precision="fp32")


def finished(state: State, steps: int, **options: Any) -> State:
    for _ in run(state, steps, **options):
        pass
    return state


def drawn(phase: Phase, *key: int) -> dict[str, Tensor]:
    return {name: noise.draw(what, *key, name) for name, what in phase.noise.items()}


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


@every_system
def test_unknown_keys_are_refused(name: str) -> None:
    config = found(name).Config
    config()
    with pytest.raises(ValidationError, match="no_such_knob"):
        config.model_validate({"no_such_knob": 1})


@every_variant
def test_losses_are_finite_and_stay_on_the_device(name: str, options: dict[str, Any]) -> None:
    state = fresh(name, options)
    assert len({phase.name for phase in state.phases}) == len(state.phases) > 0
    for phase in state.phases:
        assert trained(phase)
        loss = phase.loss(batches(state)[0], drawn(phase, 0), 0)
        for key, value in {"total": loss.total, **loss.parts, **loss.dynamics}.items():
            assert isinstance(value, Tensor) and value.ndim == 0, key
            assert value.isfinite(), key


@every_variant
def test_every_trained_parameter_gets_a_gradient(name: str, options: dict[str, Any]) -> None:
    """At a general point: initial weights may be symmetric, and a hinge critic's last bias starts with none."""
    state = fresh(name, options)
    source = torch.Generator().manual_seed(1)
    without = {(phase.name, key) for phase in state.phases for key in range(len(trained(phase)))}
    for attempt in range(6):
        with torch.no_grad():
            for parameter in state.system.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=source) * 0.3)
        for phase in state.phases:
            loss = phase.loss(batches(state)[attempt], drawn(phase, attempt), attempt)
            gradients = torch.autograd.grad(loss.total, trained(phase))
            assert all(gradient.isfinite().all() for gradient in gradients)
            without -= {(phase.name, key) for key, gradient in enumerate(gradients) if gradient.any()}
    assert not without
    # Whatever could be trained is trained by some phase.
    reached = {id(parameter) for phase in state.phases for parameter in trained(phase)}
    idle = [key for key, value in state.system.named_parameters() if value.requires_grad and id(value) not in reached]
    assert not idle


@every_variant
def test_a_loss_is_a_function_of_its_arguments(name: str, options: dict[str, Any]) -> None:
    state = finished(fresh(name, options), 2)
    buffers = {key for key, _ in state.system.named_buffers()}
    for phase in state.phases:
        before = {key: value.clone() for key, value in state.system.state_dict().items()}
        shared = torch.get_rng_state()
        draws = drawn(phase, 7)
        kept = {key: value.clone() for key, value in draws.items()}
        first, again = (phase.loss(batches(state)[3], draws, 2) for _ in range(2))
        assert torch.equal(first.total, again.total)
        for one, two in ((first.parts, again.parts), (first.dynamics, again.dynamics)):
            assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
        changed = {key for key, value in state.system.state_dict().items() if not torch.equal(value, before[key])}
        assert changed <= buffers
        assert torch.equal(torch.get_rng_state(), shared), "it draws from the shared stream"
        assert all(torch.equal(kept[key], draws[key]) for key in draws), "it changes its noise in place"


@every_variant
def test_a_phase_changes_only_what_it_trains(name: str, options: dict[str, Any]) -> None:
    for index in range(len(fresh(name, options).phases)):
        state = fresh(name, options)
        state.phases = [state.phases[index]]
        before = {key: value.clone() for key, value in state.system.named_parameters()}
        mine = {id(parameter) for parameter in trained(state.phases[0])}
        finished(state, 1)
        for key, value in state.system.named_parameters():
            assert torch.equal(value, before[key]) or id(value) in mine, f"{state.phases[0].name} changes {key}"


@every_variant
def test_samples_have_the_declared_shape_and_range(name: str, options: dict[str, Any]) -> None:
    state = finished(fresh(name, options), 2)
    for system in (fresh(name, options).average, state.average):
        samples = system.generate(7, "samples")
        assert samples.modality == system.modality
        assert samples.values.shape == (7, *system.shape.size)
        assert samples.values.dtype == torch.float32 and samples.values.device.type == "cpu"
        assert samples.values.isfinite().all()
        assert len({row.numpy().tobytes() for row in samples.values}) == 7
        if system.modality == Modality.IMAGES:
            assert samples.values.min() >= 0 and samples.values.max() <= 1


@every_system
def test_more_samples_of_one_key_begin_with_the_same(name: str) -> None:
    system = finished(fresh(name, {}), 1).average
    few, some, many = (system.generate(count, "key", 1, block=8).values for count in (3, 8, 21))
    assert torch.equal(many[:3], few) and torch.equal(many[:8], some)
    # Blocks are fresh draws, and so are other keys.
    assert len({row.numpy().tobytes() for row in many}) == 21
    assert not torch.equal(system.generate(3, "key", 2, block=8).values, few)


@every_variant
def test_a_seed_decides_the_weights_to_the_bit(name: str, options: dict[str, Any]) -> None:
    first = finished(fresh(name, options, seed=5), 3, seed=5)
    torch.manual_seed(99)
    again = finished(fresh(name, options, seed=5), 3, seed=5)
    assert same(first.system, again.system) and same(first.average, again.average)
    assert not same(finished(fresh(name, options, seed=6), 3, seed=5).system, first.system), "other initial weights"
    assert not same(finished(fresh(name, options, seed=5), 3, seed=6).system, first.system), "other noise and order"


@every_variant
def test_a_restored_run_goes_on_as_if_never_stopped(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    straight = fresh(name, options, seed=1)
    curve = [progress.scalars for progress in run(straight, 6, seed=1, every=3)]

    first = fresh(name, options, seed=1)
    begin = [progress.scalars for progress in run(first, 3, seed=1, every=3)]
    save_state(first, tmp_path / "state.safetensors")
    # Nothing of the new object may survive: it starts from other weights, and has already taken a step.
    second = finished(fresh(name, options, seed=2), 1, seed=2)
    restore_state(second, tmp_path / "state.safetensors")
    assert second.step == 3
    rest = [progress.scalars for progress in run(second, 6, seed=1, every=3)]

    assert [*begin, *rest] == curve
    assert same(second.system, straight.system) and same(second.average, straight.average)
    for phase in straight.phases:
        ours, theirs = (state.optimizers[phase.name].state_dict()["state"] for state in (second, straight))
        assert ours.keys() == theirs.keys() and ours
        for index, key in itertools.product(theirs, next(iter(theirs.values()))):
            assert torch.equal(ours[index][key], theirs[index][key])


@every_variant
def test_stored_weights_give_the_same_samples(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    state = finished(fresh(name, options), 3)
    path = tmp_path / "model" / "last.safetensors"
    save_weights(state.average, state.average.state_dict(), path, {"run": "a"})
    loaded = load_system(path)
    assert type(loaded) is type(state.system) and loaded.config == state.system.config
    assert loaded.shape == state.system.shape
    assert torch.equal(loaded.generate(9, "stored").values, state.average.generate(9, "stored").values)


@every_system
def test_what_it_does_not_make_is_refused(name: str) -> None:
    kind = found(name)
    for modality, shape in SHAPES.items():
        if modality != kind.modality:
            with pytest.raises(ValueError, match=f"{kind.modality}.*{modality}"):
                kind(kind.Config(), shape)
    if kind.modality == Modality.IMAGES:
        odd = Shape(Modality.IMAGES, (1, 15, 17), classes=10)
        try:
            system = kind(kind.Config(), odd)
        except ValueError as error:
            assert "15×17" in str(error)  # noqa: PT017 -- a system that can make any size need not refuse this one
        else:
            assert system.eval().generate(2).values.shape == (2, 1, 15, 17)


@every_system
def test_the_average_shares_all_that_it_does_not_sample_with(name: str) -> None:
    state = fresh(name, {})
    system, average = state.system, state.average
    own = {id(part) for module in system.samplers() for part in module.modules()}
    theirs = dict(average.named_modules())
    for key, part in system.named_modules():
        if id(part) in own:
            assert theirs[key] is not part
        elif not any(id(inner) in own for inner in part.modules()):
            assert theirs[key] is part
    copied = {value.data_ptr() for module in average.samplers() for value in module.state_dict().values()}
    assert copied.isdisjoint(value.data_ptr() for value in system.state_dict().values())
    assert all(parameter.requires_grad for parameter in system.parameters())
    assert not any(parameter.requires_grad for module in average.samplers() for parameter in module.parameters())
    before = {key: value.clone() for key, value in system.named_parameters()}
    finished(state, 1)
    assert all(module.training for module in system.modules())
    assert not any(module.training for part in average.samplers() for module in part.modules())
    assert all(not torch.equal(before[key], value) for key, value in system.named_parameters())


@every_variant
def test_without_decay_the_average_is_what_the_system_samples_with(name: str, options: dict[str, Any]) -> None:
    state = fresh(name, options)
    for _ in run(state, 3, decay=0):
        for mine, theirs in zip(state.average.samplers(), state.system.samplers(), strict=True):
            assert same(mine, theirs)
        # `samplers` names all that `sample` uses: the system samples as its average does.
        raw = fresh(name, options, seed=9).system
        raw.load_state_dict(state.system.state_dict())
        assert torch.equal(raw.eval().generate(5).values, state.average.generate(5).values)


@every_variant
def test_every_phase_alone_lowers_its_own_loss(name: str, options: dict[str, Any]) -> None:
    """With the other networks held still, each phase is a plain minimisation, and it must get somewhere."""
    faster = {"lr": 2e-3} if "lr" in found(name).Config.model_fields else {}
    for index in range(len(fresh(name, options).phases)):
        state = fresh(name, options | faster)
        state.phases = [state.phases[index]]
        curve = [progress.scalars[f"loss/{state.phases[0].name}/total"] for progress in run(state, 40, every=10)]
        assert curve[-1] < curve[0], f"{state.phases[0].name}: {curve}"


@every_variant
def test_the_fused_optimiser_steps_as_plain_adam_does(name: str, options: dict[str, Any], monkeypatch: Any) -> None:
    """The fused kernel pairs parameters, gradients and moments by their place in memory: a gradient of another layout
    would be applied to the wrong weights, and nothing would say so.
    """
    fused = finished(fresh(name, options), 4)
    monkeypatch.setattr(
        "aigc_lab.trainer.build_optimizer",
        lambda config, parameters: torch.optim.Adam(
            parameters, lr=config.lr, betas=config.betas, eps=config.eps, fused=False, foreach=False
        ),
    )
    plain = finished(fresh(name, options), 4)
    for (key, ours), theirs in zip(fused.system.named_parameters(), plain.system.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}")  # type: ignore[misc]
