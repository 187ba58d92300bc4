"""InfoGAN: its bound against an information that is known, its codes against their laws, its gradient by hand."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor
from torch.distributions import Normal

from aigc_lab import noise
from aigc_lab.data.shapes import Shapes
from aigc_lab.metrics.base import Autoencoder, Coder, Evidence, Real
from aigc_lab.metrics.disentanglement import Disentanglement, means
from aigc_lab.metrics.reconstruction import Reconstruction
from aigc_lab.objectives.information import categorical_bound, uniform_bound
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.infogan import InfoGAN

SHAPE = Shape(Modality.IMAGES, (1, 16, 16))
SMALL = {"width": 4, "latent_size": 6, "categorical": 2, "categories": 3, "continuous": 2}


def built(**options: Any) -> InfoGAN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        system = InfoGAN(InfoGAN.Config.model_validate({**SMALL, **options}), SHAPE)
        with torch.no_grad():
            for weight in system.parameters():  # of a size at which every output counts
                weight.mul_(3) if weight.ndim > 1 else weight.add_(0.1 * torch.randn_like(weight))
    return system


def batch(n: int) -> Images:
    return Images(torch.rand((n, 1, 16, 16), generator=torch.Generator().manual_seed(3)))


def drawn(system: InfoGAN, n: int, *key: int) -> Tensor:
    return noise.draw(system.latents(n), *key, "latents")


# ---- the bound


def test_the_bound_is_the_information_of_an_enumerable_channel_for_its_posterior_alone() -> None:
    """Two uniform codes of 3 classes, of which a channel makes one of 5 values: all of p(c, x) is enumerated."""
    source = torch.Generator().manual_seed(0)
    channel = torch.rand((3, 3, 5), generator=source, dtype=torch.float64).pow(3)
    joint = channel / channel.sum(2, keepdim=True) / 9
    marginal, product = joint.sum((0, 1)), joint.sum((0, 1)) / 9
    both = (joint * (joint / product).log()).sum().item()
    # Q is a product over codes; it is the posterior where the codes are independent given x, as for one code.
    first = joint.sum(1)
    truth = (first * (first / (marginal / 3)).log()).sum().item()

    def bound(of: Tensor, posterior: Tensor) -> float:
        """E L over p(c, x) of one code, `of` [3, 5], by Q [5, 3]."""
        codes, values = (each.flatten() for each in torch.meshgrid(torch.arange(3), torch.arange(5), indexing="ij"))
        nats = categorical_bound(posterior.log()[values][:, None], F.one_hot(codes, 3).double()[:, None])
        return float((of.flatten() * nats).sum())

    exact = (first / marginal).T
    assert bound(first, exact) == pytest.approx(truth, abs=1e-12)
    for seed in range(5):
        other = exact * torch.rand(exact.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        other = other / other.sum(1, keepdim=True)
        gap = (marginal[:, None] * exact * (exact / other).log()).sum().item()
        assert gap > 1e-3 and bound(first, other) == pytest.approx(truth - gap, abs=1e-12)
    # Of both codes: the sum of what each is told apart, never above what x tells of the pair.
    second = joint.sum(0)
    codes = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    logits = torch.stack([(first / marginal).T, (second / marginal).T], 1).log()
    nats = torch.stack([categorical_bound(logits, F.one_hot(code, 3).double().expand(5, 2, 3)) for code in codes])
    found = float((joint.reshape(9, 5) * nats).sum())
    alone = truth + (second * (second / (marginal / 3)).log()).sum().item()
    assert found == pytest.approx(alone, abs=1e-12) and found < both


def test_the_bound_of_a_continuous_code_is_the_information_of_a_gaussian_channel() -> None:
    """c uniform, x = c + σε with a small σ: the posterior is N(x, σ²) but at the ends, and I = ln 2 − ½ ln 2πeσ²."""
    sigma, source = 0.01, torch.Generator().manual_seed(0)
    codes = torch.rand((40_000, 1), generator=source, dtype=torch.float64) * 2 - 1
    read = codes + sigma * torch.randn(codes.shape, generator=source, dtype=torch.float64)
    truth = math.log(2) - 0.5 * math.log(2 * math.pi * math.e * sigma**2)
    log_variance = torch.full_like(codes, 2 * math.log(sigma))
    assert uniform_bound(read, log_variance, codes).mean().item() == pytest.approx(truth, abs=0.02)
    assert uniform_bound(read, log_variance + 1, codes).mean().item() < truth - 0.1
    blind = uniform_bound(torch.zeros_like(codes), torch.full_like(codes, math.log(1 / 3)), codes).mean().item()
    assert -0.5 < blind < 0  # a Gaussian of the codes' own variance, beside their uniform law
    two = uniform_bound(read.expand(-1, 2), log_variance.expand(-1, 2), codes.expand(-1, 2))
    torch.testing.assert_close(two, 2 * uniform_bound(read, log_variance, codes))


# ---- the codes


@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_codes_have_their_laws(law: str) -> None:
    system = built(latent_law=law)
    latents = drawn(system, 9000)
    inputs = system.inputs(latents)
    assert torch.equal(inputs.noise, latents[:, :6]) and inputs.categorical.shape == (9000, 2, 3)
    assert torch.equal(inputs.categorical.sum(2), torch.ones(9000, 2))
    pairs = torch.einsum("na,nb->ab", inputs.categorical[:, 0], inputs.categorical[:, 1]).flatten()
    # Pearson's χ² of 9 equal cells: 99.9 % of it lie below 26.1 with 8 degrees of freedom.
    assert ((pairs - 1000) ** 2 / 1000).sum() < 26.1
    continuous = inputs.continuous.sort(0).values
    assert continuous.min() >= -1 and continuous.max() <= 1
    even = torch.linspace(-1, 1, 9000)[:, None]
    assert (continuous - even).abs().max() < 2 * 1.95 / math.sqrt(9000)  # Kolmogorov & Smirnov, 99.9 %
    assert torch.corrcoef(inputs.continuous.T)[0, 1].abs() < 0.04


@pytest.mark.parametrize("extreme", [-40.0, 40.0])
def test_the_ends_of_the_law_are_classes_too(extreme: float) -> None:
    inputs = built(latent_law="normal").inputs(torch.full((1, 10), extreme))
    assert inputs.categorical.sum() == 2 and inputs.continuous.abs().max() == 1


def test_a_picture_is_of_its_own_code_alone() -> None:
    """Made and read beside others, a sample has the code that it has alone; another code makes another picture."""
    system = built().eval()
    latents = drawn(system, 5)
    with torch.no_grad():
        together = system.sample(latents).values
        mean, log_variance = system.encode(together)
        for row in range(5):
            alone = system.sample(latents[row : row + 1]).values
            torch.testing.assert_close(alone, together[row : row + 1])
            torch.testing.assert_close(system.encode(alone)[0], mean[row : row + 1], rtol=1e-4, atol=1e-5)
        other = latents.clone()
        other[2, 6] = (latents[2, 6] + 2) % 2 - 1  # half of the law further: another class
        moved = (system.sample(other).values != together).flatten(1).any(1)
    assert moved.tolist() == [False, False, True, False, False]
    assert mean.shape == log_variance.shape == (5, 8)
    torch.testing.assert_close(mean[:, :6].reshape(5, 2, 3).sum(2), torch.ones(5, 2))
    chances = mean[:, :6]
    torch.testing.assert_close(log_variance[:, :6].exp(), chances * (1 - chances), rtol=1e-4, atol=1e-6)


def test_a_decoded_code_is_the_sample_with_noise_zero() -> None:
    system = built().eval()
    latents = drawn(system, 7)
    latents[:, :6] = 0
    inputs = system.inputs(latents)
    codes = torch.cat([inputs.categorical.flatten(1), inputs.continuous], 1)
    with torch.no_grad():
        expected = system.sample(latents).values
        torch.testing.assert_close(system.decode(codes), expected)
        # The largest number says the class, and the ends of a continuous code are its last values.
        soft = torch.cat([0.4 * inputs.categorical.flatten(1) + 0.3, inputs.continuous], 1)
        torch.testing.assert_close(system.decode(soft), expected)
        ends = codes.clone()
        ends[:, 6:] = 1.0
        beyond = ends.clone()
        beyond[:, 6:] = 7.0
        torch.testing.assert_close(system.decode(beyond), system.decode(ends))


# ---- the loss


def by_hand(system: InfoGAN, latents: Tensor) -> tuple[Tensor, Tensor]:
    """L_I of both kinds of code by torch's own laws, from the raw outputs of the critic's body."""
    inputs = system.inputs(latents)
    outputs = system.critic.body(system.generator(latents))
    categorical = sum(
        math.log(3) - F.cross_entropy(outputs[:, 1 + 3 * code : 4 + 3 * code], inputs.categorical[:, code].argmax(1))
        for code in range(2)
    )
    law: Any = Normal(outputs[:, 7:9], (0.5 * outputs[:, 9:11]).exp())
    continuous = law.log_prob(inputs.continuous).sum(1).mean() + 2 * math.log(2)
    assert isinstance(categorical, Tensor)
    return categorical, continuous


def test_the_information_term_and_its_gradient() -> None:
    system, images = built(information_weight=2.0, continuous_weight=0.5), batch(8)
    critic, generator, information = system.phases(8)
    assert [phase.name for phase in (critic, generator, information)] == ["critic", "generator", "information"]
    draws = {"latents": drawn(system, 8)}
    categorical, continuous = by_hand(system, draws["latents"])
    scores = system.critic.body(system.generator(draws["latents"]))[:, 0]
    expected = F.softplus(-scores).mean() - 2.0 * categorical - 0.5 * continuous
    found = generator.loss(images, draws, 0)
    torch.testing.assert_close(found.total, expected)
    torch.testing.assert_close(found.parts["information"], categorical + continuous)
    weights = list(system.generator.parameters())
    for mine, hand in zip(
        torch.autograd.grad(found.total, weights), torch.autograd.grad(expected, weights), strict=True
    ):
        torch.testing.assert_close(mine, hand, rtol=1e-3, atol=1e-5)
    of_q = information.loss(images, draws, 0).total
    torch.testing.assert_close(of_q, -sum(by_hand(system, draws["latents"])))
    at_generator = torch.autograd.grad(of_q, weights, allow_unused=True)
    assert all(gradient is None for gradient in at_generator)
    last: Tensor = list(system.critic.parameters())[-2]
    gradient = torch.autograd.grad(information.loss(images, draws, 0).total, last)[0]
    assert not gradient[0].any() and gradient[1:].flatten(1).any(1).all()  # the score's row, and those of Q
    gradient = torch.autograd.grad(critic.loss(images, draws, 0).total, last)[0]
    assert gradient[0].any() and not gradient[1:].any()


def test_an_update_of_the_generator_draws_its_pictures_once() -> None:
    system, drawings = built(), []
    system.generator.register_forward_hook(lambda *_: drawings.append(1))
    _, generator, _ = system.phases(8)
    layers = [layer for layer in system.generator.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    generator.loss(batch(8), {"latents": drawn(system, 8)}, 0)
    assert len(drawings) == 1
    assert layers and all(int(layer.num_batches_tracked or 0) == 1 for layer in layers)


def test_what_bounds_the_critic_holds_after_the_information_phase_too() -> None:
    system = built(loss="wasserstein", clip=0.01)
    *_, information = system.phases(8)
    assert information.after is not None and built().phases(8)[2].after is None
    with torch.no_grad():
        information.after(0)
    assert all(weight.abs().max() <= 0.01 for weight in system.critic.parameters())
    # A penalty's memory moves with the critic's phase alone.
    system = built(penalty="lecam")
    system.get_buffer("real_seen").fill_(1.0)
    *_, information = system.phases(8)
    assert information.after is not None
    with torch.no_grad():
        information.after(0)
    assert not system.get_buffer("real_anchor").any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"categorical": 0, "continuous": 0}, "an InfoGAN without a code is a GAN"),
        ({"packing": 2}, "a code is read from one picture, and packing is 2"),
        ({"conditional": "concat"}, "leave conditional none, or use another GAN"),
        ({"auxiliary_weight": 0.5}, "auxiliary_weight is of conditional auxiliary: leave it out"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        InfoGAN.Config.model_validate(options)


@pytest.mark.parametrize("options", [{"categorical": 0}, {"continuous": 0}])
def test_codes_of_one_kind(options: dict[str, int]) -> None:
    system = built(**options)
    losses = [phase.loss(batch(8), {"latents": drawn(system, 8)}, 0).total for phase in system.phases(8)]
    assert torch.stack(losses).isfinite().all()
    with torch.no_grad():
        mean, _ = system.eval().encode(batch(3).values)
        assert mean.shape == (3, system.code_size) and system.decode(mean).shape == (3, 1, 16, 16)
    assert system.one_hot_sizes == (() if "categorical" in options else (3, 3))


# ---- scores


def test_its_codes_are_compared_with_factors_and_are_no_reconstruction() -> None:
    dataset = Shapes(Shapes.Config(size=16, channels=1, train=300, reference=300, holdout=300), Path())
    system = built().eval()
    assert isinstance(system, Coder) and not isinstance(system, Autoencoder)
    images = dataset.load("reference")

    def unused(*_: object) -> Any:
        raise AssertionError

    evidence = Evidence(images, Real(images, images, images, images), dataset, unused, unused, "signed", system)
    metric = Disentanglement(Disentanglement.Config(limit=200, fitted=200))
    metric.refuse_lacking(evidence)
    assert means(system, images).shape == (300, 8)
    with pytest.raises(ValueError, match="reconstruction needs a system that copies what it encodes"):
        Reconstruction(Reconstruction.Config()).refuse_lacking(evidence)
