"""The normalising flow that samples' latents are drawn from: its densities, its fit, and the systems that store one."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from aigc_lab import plugins
from aigc_lab.data.digits import Digits
from aigc_lab.data.shared.batches import Batches
from aigc_lab.noise import Draw
from aigc_lab.systems.base import System
from aigc_lab.systems.shared.autoencoder import ImageAutoencoder
from aigc_lab.systems.shared.flow import Flow, moments
from aigc_lab.systems.shared.mixture import GaussianMixture
from aigc_lab.systems.shared.samplers import Sampler
from aigc_lab.training.checkpoint import load_system, restore_state, save_state, save_weights
from aigc_lab.training.loop import train_one
from aigc_lab.training.stack import Stack
from aigc_lab.training.state import TrainingState

DIGITS = Digits(Digits.Config(), Path())
SMALL = {"width": 4, "latent_size": 3, "sampler": "flow"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aigc_lab.systems.shared.flow._STEPS", 50)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def warped(layers: int, size: int) -> Flow:
    """A flow far from the identity, in double precision."""
    flow = Flow(layers, size).double()
    for number, buffer in enumerate(flow.buffers()):
        buffer.add_(0.15 * normal(*buffer.shape, seed=number))
    flow.scale.copy_(flow.scale.tril())
    flow.scale.diagonal().abs_().add_(0.5)
    return flow


def ring(n: int, seed: int) -> Tensor:
    angle = 2 * math.pi * torch.rand(n, generator=torch.Generator().manual_seed(seed))
    return 3 * torch.stack([angle.cos(), angle.sin()], 1) + 0.3 * normal(n, 2, seed=seed + 1)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_it_is_inverted_and_knows_its_determinant(size: int) -> None:
    flow, numbers = warped(6, size), normal(20, size).double()
    latents = flow(numbers)
    assert (latents - numbers).abs().max() > 0.2
    torch.testing.assert_close(flow.inverse(latents), numbers)
    for row, latent in zip(numbers, latents, strict=True):
        jacobian: Any = torch.autograd.functional.jacobian(lambda u: flow(u[None])[0], row)  # type: ignore[no-untyped-call]
        density = -0.5 * (row.square() + math.log(2 * math.pi)).sum() - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(flow.log_density(latent[None])[0], density)


def test_each_pair_of_latents_is_coupled() -> None:
    """Any two latents are in different halves of some coupling, each way: enough layers connect all."""
    flow, size = warped(6, 8), 8
    jacobian: Any = torch.autograd.functional.jacobian(lambda u: flow(u[None])[0], normal(size).double())  # type: ignore[no-untyped-call]
    assert (jacobian.abs() > 1e-9).all()


@pytest.mark.parametrize("size", [1, 2])
def test_a_gaussian_is_learned(size: int) -> None:
    mixed = torch.tensor([[1.5, 0.0], [0.9, 0.4]])[:size, :size]
    codes, other = (1.0 + normal(n, size, seed=n) @ mixed.T for n in (3000, 2000))
    flow = Flow(4, size)
    flow.fit(codes)
    law = MultivariateNormal(torch.ones(size), scale_tril=mixed)
    assert flow.log_density(other).mean().item() == pytest.approx(law.log_prob(other).mean().item(), abs=0.02)  # type: ignore[no-untyped-call]
    drawn = flow(normal(20_000, size, seed=5))
    torch.testing.assert_close(drawn.mean(0), torch.ones(size), rtol=0, atol=0.08)
    torch.testing.assert_close(torch.cov(drawn.T).reshape(size, size), mixed @ mixed.T, rtol=0.08, atol=0.08)


def test_a_ring_is_learned_better_than_by_a_gaussian() -> None:
    codes, other = ring(3000, 1), ring(2000, 7)
    flow = Flow(8, 2)
    flow.fit(codes)
    mean, scale = moments(codes)
    gaussian: Any = MultivariateNormal(mean, scale_tril=scale).log_prob(other).mean()  # type: ignore[no-untyped-call]
    assert flow.log_density(other).mean() > gaussian + 0.8
    drawn = flow(normal(20_000, 2, seed=5))
    # The hole of the ring: a Gaussian of these moments puts 35 % there.
    assert (drawn.norm(dim=1) < 2).float().mean() < 0.12
    torch.testing.assert_close(drawn.norm(dim=1).median(), torch.tensor(3.0), rtol=0, atol=0.1)
    # A density: its integral over the plane is 1.
    axis = torch.linspace(-8, 8, 161)
    total = flow.log_density(torch.cartesian_prod(axis, axis)).exp().sum() * 0.1**2
    assert total.item() == pytest.approx(1, abs=0.05)


@pytest.mark.usefixtures("quick")
def test_the_same_codes_give_the_same_bits() -> None:
    """Whatever it was fitted to before, and whoever draws beside it."""
    flow, again = Flow(3, 2), Flow(3, 2)
    flow.fit(ring(500, 1))
    again.fit(ring(300, 4))
    shared = torch.get_rng_state()
    again.fit(ring(500, 1))
    assert torch.equal(torch.get_rng_state(), shared)
    assert all(torch.equal(a, b) for a, b in zip(flow.buffers(), again.buffers(), strict=True))
    assert flow.weight_3.any(), "the couplings stayed the identity"  # type: ignore[operator]


@pytest.mark.usefixtures("quick")
def test_few_codes_and_broken_ones() -> None:
    flow, numbers = Flow(3, 4), normal(50, 4)
    assert torch.equal(flow(numbers), numbers), "until it is fitted it is the prior"
    before = [buffer.clone() for buffer in flow.buffers()]
    flow.fit(torch.tensor([[math.inf, 0.0, 0.0, 0.0]] * 30))
    assert all(torch.equal(a, b) for a, b in zip(before, flow.buffers(), strict=True))
    for n in (1, 5, 40):  # too few to hold some out, fewer than latents, and enough for neither
        flow.fit(2 + normal(n, 4))
        assert flow(numbers).isfinite().all()
        torch.testing.assert_close(flow(numbers).mean(0), (2 + normal(n, 4)).mean(0), rtol=0, atol=1.2)
    flow.fit(torch.ones(60, 4))  # a collapsed code has no variance
    torch.testing.assert_close(flow(numbers), torch.ones(50, 4), rtol=0, atol=0.01)


def with_samplers() -> list[str]:
    """The systems that have the knob, by what their keys say."""
    kinds: dict[str, Any] = {name: plugins.find(System, name) for name in plugins.names("systems")}
    keys = {name: getattr(kind.Config, "model_fields", {}).get("sampler") for name, kind in kinds.items()}
    return [name for name, key in keys.items() if key is not None and key.annotation == Sampler]


def test_every_vae_and_autoencoder_of_images_has_the_knob() -> None:
    adversarial, coded = {"vae_gan"}, {"rae", "wae_mmd", "vq_vae"}
    bounds = {"vae", "beta_tc_vae", "factor_vae", "info_vae", "iwae", "vamp_vae", "hvae", "cvae"}
    assert set(with_samplers()) == bounds | coded | adversarial


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", with_samplers())
def test_every_autoencoder_takes_each_sampler(name: str, tmp_path: Path) -> None:
    """The networks begin alike whatever the sampler, which no phase trains, and what is stored samples the same."""
    kind: Any = plugins.find(System, name)
    of_vectors: dict[str, Any] = {"width": 4, "codes": 8, "embedding": 3, "hidden": 8, "heads": 2, "principal": 5}
    options = of_vectors if name == "vq_vae" else SMALL | ({"pseudo_inputs": 9} if name == "vamp_vae" else {})
    states = {}
    for sampler in ("prior", "gmm", "flow"):
        config = kind.Config.model_validate({**options, "mixture": 2, "sampler": sampler})
        states[sampler] = TrainingState.fresh(kind, config, DIGITS.shape, seed=0, batch_size=8, device="cpu")
    weights = {sampler: dict(state.system.named_parameters()) for sampler, state in states.items()}
    for sampler in ("gmm", "flow"):
        # An autoregressive prior is one of the samplers, and its networks are built for that one.
        left = {key for key in weights["prior"] if name != "vq_vae" or not key.startswith(("prior.", "output."))}
        assert weights[sampler].keys() == left
        assert all(torch.equal(value, weights["prior"][key]) for key, value in weights[sampler].items())
        average: Any = states[sampler].average
        extra = {"gmm": 1, "flow": 0}[sampler]
        assert average.latents(5) == Draw((5, (5 if name == "vq_vae" else average.code_size) + extra))
        average.check_train(DIGITS.load("train").take(slice(0, 200)))
        before = average.generate(9, "x").values
        average.fit_sampler(DIGITS.load("train").take(slice(0, 200)))
        assert not torch.equal(average.generate(9, "x").values, before)
        save_weights(average, average.state_dict(), tmp_path / f"{sampler}.safetensors", {"run": "a"})
        stored = load_system(tmp_path / f"{sampler}.safetensors")
        assert torch.equal(stored.generate(9, "x").values, average.generate(9, "x").values)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("sampler", ["gmm", "flow"])
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_moving_average_leaves_what_was_fitted_alone(sampler: str, decay: float) -> None:
    kind: Any = plugins.find(System, "vae")
    config = kind.Config.model_validate({**SMALL, "sampler": sampler})
    state = TrainingState.fresh(kind, config, DIGITS.shape, seed=0, batch_size=8, device="cpu")
    train, average = DIGITS.load("train"), state.average
    assert isinstance(average, ImageAutoencoder) and isinstance(state.system, ImageAutoencoder)
    assert average.fitted is not None and state.system.fitted is not None
    average.fit_sampler(train)
    fitted = {key: value.clone() for key, value in average.fitted.state_dict().items()}
    untouched = {key: value.clone() for key, value in state.system.fitted.state_dict().items()}
    decoder = [weight.clone() for weight in average.decoder.parameters()]
    for _ in train_one(state, Batches(train, 8, 0), seed=0, steps=3, every=3, decay=decay, precision="fp32"):
        pass
    assert all(torch.equal(value, fitted[key]) for key, value in average.fitted.state_dict().items())
    assert all(torch.equal(value, untouched[key]) for key, value in state.system.fitted.state_dict().items())
    assert not any(torch.equal(a, b) for a, b in zip(decoder, average.decoder.parameters(), strict=True))


@pytest.mark.usefixtures("quick")
def test_a_resumed_run_has_the_same_sampler(tmp_path: Path) -> None:
    kind: Any = plugins.find(System, "rae")
    config, train = kind.Config.model_validate(SMALL), DIGITS.load("train")
    straight, resumed = (
        TrainingState.fresh(kind, config, DIGITS.shape, seed=0, batch_size=8, device="cpu") for _ in range(2)
    )

    def to(state: TrainingState, steps: int) -> None:
        for _ in train_one(state, Batches(train, 8, 0), seed=0, steps=steps, every=1, decay=0.9, precision="fp32"):
            pass
        state.average.fit_sampler(train)

    to(straight, 2)
    save_state(straight, tmp_path / "state.safetensors")
    restore_state(resumed, tmp_path / "state.safetensors")
    for steps in (2, 4):
        to(straight, steps)
        to(resumed, steps)
        for a, b in zip(straight.average.state_dict().values(), resumed.average.state_dict().values(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.usefixtures("quick")
def test_a_replica_of_a_stack_is_fitted_alone() -> None:
    kind: Any = plugins.find(System, "vae")
    config, train = kind.Config.model_validate(SMALL), DIGITS.load("train")
    states = [TrainingState.fresh(kind, config, DIGITS.shape, seed=n, batch_size=8, device="cpu") for n in (0, 1)]
    together: Any = Stack(states).average
    states[1].average.fit_sampler(train)
    assert not together.flow.mean[0].any() and together.flow.mean[1].any()
    alone = TrainingState.fresh(kind, config, DIGITS.shape, seed=1, batch_size=8, device="cpu").average
    alone.fit_sampler(train)
    flows: list[Any] = [each.flow for each in (states[1].average, alone)]
    assert isinstance(alone, ImageAutoencoder) and not isinstance(alone.fitted, GaussianMixture)
    torch.testing.assert_close(flows[0].mean, flows[1].mean)
