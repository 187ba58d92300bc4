"""The VAE systems against models whose likelihood, prior or density ratio is known.

The linear system has the decoder ½ + Wz with orthogonal columns of W and the likelihood N(·, σ²), so that its exact
posterior is a diagonal Gaussian, and log p(x) that of a Gaussian.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    kl_divergence,
)

from aigc_lab import noise, plugins
from aigc_lab.data.digits import Digits
from aigc_lab.data.shared.batches import Batches
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.base import Autoencoder, Coder, OwnPrior, Real, Score
from aigc_lab.metrics.elbo import ELBO, codes
from aigc_lab.metrics.reconstruction import Reconstruction
from aigc_lab.objectives import mmd
from aigc_lab.samples import Images
from aigc_lab.scoring.collapse_judge import with_code
from aigc_lab.scoring.evidence import score
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import Loss, Phase, System
from aigc_lab.systems.factor_vae import FactorVAE
from aigc_lab.systems.rae import RAE, squared_jacobian
from aigc_lab.systems.shared.image_vae import Code
from aigc_lab.systems.vae import VAE
from aigc_lab.systems.vae_gan import VAEGAN
from aigc_lab.systems.vq_vae import VQVAE
from aigc_lab.systems.wae_mmd import WAEMMD
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState
from aigc_lab.verdicts.conclusion import Collapse

SHAPE = Shape(Modality.IMAGES, (1, 16, 16))
PIXELS, LATENTS, SIGMA = 256, 3, 0.3
WEIGHT = torch.linalg.qr(torch.randn(PIXELS, LATENTS, generator=torch.Generator().manual_seed(1))).Q * torch.tensor(
    [1.5, 0.8, 0.2]
)
SMALL = {"width": 4, "latent_size": 5}


def logs(law: Distribution, values: Tensor) -> Tensor:
    found: Tensor = law.log_prob(values)
    return found


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def built(name: str, **options: Any) -> Any:
    kind: Any = plugins.find(System, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = {key: value for key, value in SMALL.items() if key in kind.Config.model_fields}
        return kind(kind.Config.model_validate({**small, **options}), SHAPE)


def pictures(n: int, seed: int = 3) -> Images:
    return Images(torch.rand((n, 1, 16, 16), generator=torch.Generator().manual_seed(seed)))


def draws(phase: Phase, *key: int) -> dict[str, Tensor]:
    return {name: noise.draw(what, *key, name) for name, what in phase.noise.items()}


def loss(system: System, batch: Images, step: int = 0, number: int = 0, phase: int = 0) -> Loss:
    chosen = system.phases(len(batch))[phase]
    return chosen.loss(batch, draws(chosen, number), step)


# ---- the bound and the likelihood


class Encoder(nn.Module):
    """The exact posterior, `wide` times as wide and `off` away from its mean."""

    def __init__(self, wide: float, off: float) -> None:
        super().__init__()
        self.variance = 1 / (1 + WEIGHT.square().sum(0) / SIGMA**2)
        self.wide, self.off = wide, off

    def forward(self, signed: Tensor) -> Tensor:
        mean = signed.flatten(1) / 2 @ WEIGHT * self.variance / SIGMA**2
        return torch.cat([mean + self.off, (self.variance * self.wide**2).log().expand_as(mean)], 1)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())

    def forward(self, latents: Tensor) -> Tensor:
        return (0.5 + latents @ self.weight.T).reshape(-1, 1, 16, 16)


def linear(name: str, wide: float = 1.0, off: float = 0.0, **options: Any) -> Any:
    system = built(name, likelihood="gaussian", sigma=SIGMA, latent_size=LATENTS, **options)
    system.encoder, system.decoder = Encoder(wide, off), Decoder()
    return system


def modelled(n: int) -> Images:
    """Images of the linear model. They leave [0, 1], which no Gaussian likelihood minds."""
    return Images((0.5 + normal(n, LATENTS) @ WEIGHT.T + SIGMA * normal(n, PIXELS, seed=1)).reshape(n, 1, 16, 16))


def log_evidence(images: Images) -> float:
    covariance = (WEIGHT @ WEIGHT.T).double() + SIGMA**2 * torch.eye(PIXELS, dtype=torch.float64)
    away = images.values.double().flatten(1) - 0.5
    distance = (away * torch.linalg.solve(covariance, away.T).T).sum(1)
    return float(-0.5 * (distance + torch.logdet(covariance) + PIXELS * math.log(2 * math.pi)).mean())


def mean_loss(system: Any, batch: Images, count: int = 100) -> tuple[float, float]:
    """Mean of the loss over draws of the noise, and its standard error."""
    with torch.no_grad():
        found = torch.stack([loss(system, batch, number=number).total for number in range(count)]).double()
    return found.mean().item(), found.std().item() / math.sqrt(count)


@pytest.mark.parametrize(
    ("name", "options"),
    [("vae", {}), ("beta_tc_vae", {"beta": 1.0}), ("info_vae", {"alpha": 0.0, "mmd_weight": 1.0})],
)
def test_the_elbo_reaches_the_likelihood_at_its_optimum_alone(name: str, options: dict[str, Any]) -> None:
    batch = modelled(40)
    truth = -log_evidence(batch)
    value, error = mean_loss(linear(name, **options), batch)
    assert value == pytest.approx(truth, abs=5 * error + 0.02) and error < 0.1
    other = linear(name, wide=1.5, off=0.1, **options)
    variance = other.encoder.variance
    exact, used = Normal(0.0, variance.sqrt()), Normal(0.1, 1.5 * variance.sqrt())
    value, error = mean_loss(other, batch)
    gap = kl_divergence(used, exact).sum().item()
    assert gap > 0.5 and value == pytest.approx(truth + gap, abs=5 * error + 0.02)


@pytest.mark.parametrize("importance", [1, 7])
def test_every_importance_weight_of_the_exact_posterior_is_the_likelihood(importance: int) -> None:
    batch = modelled(20)
    with torch.no_grad():
        found = loss(linear("iwae", importance=importance), batch)
    assert found.total.item() == pytest.approx(-log_evidence(batch), abs=5e-3)


def test_the_weighted_bound_rises_with_its_draws_and_stays_below_the_likelihood() -> None:
    batch = modelled(40)
    truth = log_evidence(batch)
    bounds = {}
    for importance in (1, 4, 32):
        value, error = mean_loss(linear("iwae", wide=1.5, off=0.1, importance=importance), batch)
        bounds[importance] = -value
        assert error < 0.1
    elbo = -mean_loss(linear("vae", wide=1.5, off=0.1), batch)[0]
    assert bounds[1] == pytest.approx(elbo, abs=0.3)
    assert bounds[1] + 0.5 < bounds[4] < bounds[32] < truth + 0.02
    with torch.no_grad():
        found = loss(linear("iwae", wide=1.5, importance=32), batch)
    assert -found.total > found.parts["elbo"]


def test_chunks_give_the_same_gradient() -> None:
    batch, found = modelled(6), {}
    for chunk in (None, 2, 3, 4):
        system: Any = linear("iwae", wide=1.3, importance=5, chunk=chunk)
        total = loss(system, batch).total
        found[chunk] = total, torch.autograd.grad(total, system.decoder.parameters())[0]
    for chunk in (2, 3, 4):
        torch.testing.assert_close(found[chunk], found[None])
    assert linear("iwae", chunk=2).unstackable and linear("iwae").unstackable is None


def test_chunks_move_the_statistics_of_batch_normalisation_once() -> None:
    system = built("iwae", importance=4, chunk=2)
    layers = [part for part in system.decoder.modules() if isinstance(part, nn.BatchNorm2d)]
    total: Any = loss(system, pictures(6)).total
    before = [layer.running_mean.clone() for layer in layers if layer.running_mean is not None]
    total.backward()
    assert layers and all(layer.track_running_stats for layer in layers)
    assert [int(layer.num_batches_tracked) for layer in layers if layer.num_batches_tracked is not None] == [2] * len(
        layers
    )
    for layer, mean in zip(layers, before, strict=True):
        assert layer.running_mean is not None and torch.equal(layer.running_mean, mean)


# ---- the terms of a loss


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_a_vae_weighs_its_kl_as_it_is_told(likelihood: str) -> None:
    options: dict[str, Any] = {"likelihood": likelihood, "beta": 3.0, "annealing": "linear", "anneal_steps": 10}
    system, batch = built("vae", free_bits=0.15, **options), pictures(12)
    found = loss(system, batch, step=4)
    mean, log_variance = system.encode(batch.values)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    each = kl_divergence(posterior, Normal(0.0, 1.0)).mean(0)
    assert (each < 0.15).any() and (each > 0.15).any()
    decoded = system.decoder(mean + posterior.stddev * draws(system.phases(12)[0], 0)["latents"])
    scale = math.exp(-1.5)
    law: Any = Bernoulli(logits=decoded) if likelihood == "bernoulli" else Normal(decoded, scale)
    law.validate_args = False
    if likelihood == "bernoulli":
        nll = F.binary_cross_entropy_with_logits(decoded, batch.values, reduction="none").sum((1, 2, 3)).mean()
    else:
        nll = -logs(law, batch.values).sum((1, 2, 3)).mean()
        assert found.dynamics["sigma"].item() == pytest.approx(scale)
    torch.testing.assert_close(found.total, nll + 0.4 * 3.0 * each.clamp_min(0.15).sum(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.parts["kl"], each.sum())
    assert found.dynamics["kl_weight"].item() == pytest.approx(0.4)


def test_a_scale_belongs_to_the_gaussian_likelihood() -> None:
    with pytest.raises(ValidationError, match="sigma is of the Gaussian likelihood, and likelihood is bernoulli"):
        VAE.Config(sigma=0.1)
    system, batch = built("vae", likelihood="gaussian", sigma=0.1), pictures(4)
    latents = normal(4, 5)
    truth = logs(Normal(system.decoder(latents), 0.1), batch.values).sum((1, 2, 3))
    torch.testing.assert_close(system.eval().log_likelihood(batch.values, latents).shape, truth.shape)
    assert "log_sigma" not in dict(system.named_parameters()) and "log_sigma" in system.state_dict()


def test_a_wae_is_an_error_and_a_distance() -> None:
    system, batch = built("wae_mmd", mmd_weight=7.0), pictures(12)
    found = loss(system, batch)
    code = system.encoder(2 * batch.values - 1)
    error = (system.decoder(code) - batch.values).square().sum((1, 2, 3)).mean()
    prior = draws(system.phases(12)[0], 0)["prior"]
    distance = mmd.unbiased("imq", code, prior, 2 * 5)
    torch.testing.assert_close(found.total, error + 7 * distance, rtol=1e-4, atol=1e-4)


def test_an_info_vae_adds_the_distance_of_all_codes() -> None:
    batch, weights = pictures(12), {"alpha": 0.25, "mmd_weight": 11.0}
    plain, more = loss(built("vae"), batch), loss(built("info_vae", **weights), batch)
    added = more.total - more.parts["reconstruction"]
    torch.testing.assert_close(plain.parts["reconstruction"], more.parts["reconstruction"])
    torch.testing.assert_close(added, 0.75 * plain.parts["kl"] + (0.25 + 11 - 1) * more.parts["mmd"])


def test_the_parts_of_beta_tc_have_weights_of_their_own() -> None:
    system = built("beta_tc_vae", mutual_information=2.0, beta=5.0, dimension_wise=3.0)
    found = loss(system, pictures(12))
    parts = [found.parts[name] for name in ("mutual_information", "total_correlation", "dimension_wise")]
    added = sum(weight * part for weight, part in zip((2.0, 5.0, 3.0), parts, strict=True))
    torch.testing.assert_close(found.total, found.parts["reconstruction"] + added)
    with pytest.raises(ValidationError, match="dataset_size, the number of images of train"):
        type(system).Config(estimate="stratified")
    stratified = built("beta_tc_vae", estimate="stratified", dataset_size=10)
    with pytest.raises(ValueError, match="dataset_size 10 is less than the batch of 12"):
        stratified.phases(12)
    assert loss(stratified, pictures(10)).total.isfinite()


# ---- RAE


def test_random_directions_give_the_jacobians_norm() -> None:
    decoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5))
    latents = normal(2, 3)
    jacobian = torch.func.vmap(torch.func.jacrev(decoder))(latents)
    truth = jacobian.square().sum((1, 2))
    count = 4000
    found = squared_jacobian(decoder, latents.repeat(count, 1), normal(2 * count, 5, seed=1)).reshape(count, 2)
    error = found.std(0) / math.sqrt(count)
    assert ((found.mean(0) - truth).abs() < 5 * error).all() and (error < 0.1 * truth).all()


def test_a_rae_weighs_its_terms() -> None:
    batch, options = pictures(6), {"code_weight": 0.5, "regulariser_weight": 0.25}
    system = built("rae", **options)
    found = loss(system, batch)
    code = system.encoder(2 * batch.values - 1)
    error = (system.decoder(code) - batch.values).square().sum((1, 2, 3)).mean()
    weights = sum(weight.square().sum() for weight in system.decoder.parameters())
    truth = error + 0.25 * code.square().sum(1).mean() + 0.25 * weights
    torch.testing.assert_close(found.total, truth, rtol=1e-4, atol=1e-4)
    assert "regulariser" not in loss(built("rae", regulariser="none"), batch).parts


# ---- own priors and posteriors


def test_the_vampprior_is_the_mixture_of_its_pseudo_inputs_posteriors() -> None:
    system = built("vamp_vae", pseudo_inputs=4).eval()
    with torch.no_grad():
        for weight in system.encoder.parameters():
            weight.mul_(3)
        means, log_variances = system.encode(system.pseudo_inputs.sigmoid())
        law = MixtureSameFamily(Categorical(torch.ones(4)), Independent(Normal(means, (0.5 * log_variances).exp()), 1))
        latents = normal(30, 5)
        torch.testing.assert_close(system.log_prior(latents), logs(law, latents))
        images, drawn = pictures(30).values, normal(30, 5, seed=2)
        mean, log_variance = system.encode(images)
        posterior = Normal(mean, (0.5 * log_variance).exp())
        z, ratio = system.draw_posterior(images, drawn)
        torch.testing.assert_close(z, mean + posterior.stddev * drawn)
        torch.testing.assert_close(ratio, logs(law, z) - logs(posterior, z).sum(1), rtol=1e-4, atol=1e-4)
        # A quantile of 0.6 is that of the third component of four.
        last = torch.special.ndtri(torch.tensor([[0.1], [0.3], [0.6], [0.9]]))
        picked = system.prior(torch.cat([latents[:4], last], 1))
        torch.testing.assert_close(picked, means + (0.5 * log_variances).exp() * latents[:4])
    with pytest.raises(ValueError, match="free_bits"):
        built("vamp_vae", free_bits=0.1)


def test_the_ladder_is_two_gaussians_of_which_one_is_the_others_prior() -> None:
    """Its ratio, in units of the prior, is that of the densities of z₁ and z₂ themselves."""
    system = built("hvae", top_size=2, hidden=16).eval()
    images, drawn = pictures(10).values, normal(10, 7)
    with torch.no_grad():
        for part in (system.up, system.down, system.bottom):
            for weight in part.parameters():
                weight.mul_(3)
        latents, ratio = system.draw_posterior(images, drawn)
        features = F.leaky_relu(system.encoder(2 * images - 1), 0.2)
        top_mean, top_variance = system.up(features).chunk(2, 1)
        upper = Normal(top_mean, (0.5 * top_variance).exp())
        top = top_mean + upper.stddev * drawn[:, :2]
        prior_mean, prior_variance = system.down(top).chunk(2, 1)
        mean, variance = system.bottom(features).chunk(2, 1)
        precisions = (-variance).exp(), (-prior_variance).exp()
        product = Normal(
            (mean * precisions[0] + prior_mean * precisions[1]) / (precisions[0] + precisions[1]),
            (precisions[0] + precisions[1]) ** -0.5,
        )
        bottom = product.mean + product.stddev * drawn[:, 2:]
        torch.testing.assert_close(system.lower(latents), bottom, rtol=1e-4, atol=1e-4)
        prior = Normal(prior_mean, (0.5 * prior_variance).exp())
        truth = logs(Normal(0.0, 1.0), top).sum(1) + logs(prior, bottom).sum(1)
        truth = truth - logs(upper, top).sum(1) - logs(product, bottom).sum(1)
        torch.testing.assert_close(ratio, truth, rtol=1e-3, atol=1e-3)
        code = system.coded(images, drawn)
        lower = kl_divergence(product, prior).sum(1) + kl_divergence(upper, Normal(0.0, 1.0)).sum(1)
        own = kl_divergence(Normal(code.mean, (0.5 * code.log_variance).exp()), Normal(0.0, 1.0)).sum(1)
        torch.testing.assert_close(own, lower, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["vamp_vae", "hvae"])
def test_scores_of_an_own_prior_are_of_its_own_draws(name: str) -> None:
    options = {"pseudo_inputs": 4} if name == "vamp_vae" else {"top_size": 2, "hidden": 8}
    system, images = built(name, **options).eval(), pictures(103)
    assert issubclass(type(system), OwnPrior) and not isinstance(built("vae"), OwnPrior)
    found = codes(system, images, 12)
    with torch.no_grad():
        part = images.values[100:]
        drawn = noise.draw(noise.Draw((100, 10, system.code_size)), "elbo", 1, 0)[:3]
        for number in (0, 9):
            latents, ratio = system.draw_posterior(part, drawn[:, number])
            weight = system.log_likelihood(part, latents) + ratio
            torch.testing.assert_close(found.log_weights[100:, number].float(), weight, rtol=1e-4, atol=1e-3)
            assert found.log_ratios is not None
            torch.testing.assert_close(found.log_ratios[100:, number].float(), ratio, rtol=1e-3, atol=1e-3)
    assert found.log_ratios is not None
    torch.testing.assert_close(found.kl, -found.log_ratios.mean(1))


# ---- other players


@pytest.mark.parametrize("correlation", [0.8, 0.0])
def test_the_discriminator_learns_the_density_ratio(correlation: float, monkeypatch: pytest.MonkeyPatch) -> None:
    system = built("factor_vae", latent_size=2, hidden=32, layers=2)
    mix = torch.tensor([[1.0, 0.0], [correlation, math.sqrt(1 - correlation**2)]])
    monkeypatch.setattr(FactorVAE, "coded", lambda self, images, drawn: Code(drawn, drawn, drawn, drawn @ mix.T))
    phase = system.phases(256)[1]
    assert phase.name == "discriminator"
    optimizer = torch.optim.Adam(system.discriminator.parameters(), 3e-3)
    batch = pictures(256)
    for step in range(250):
        optimizer.zero_grad()
        phase.loss(batch, draws(phase, step), step).total.backward()
        optimizer.step()
    codes_ = normal(4000, 2) @ mix.T
    with torch.no_grad():
        found = system.log_density_ratio(codes_)
    rho = correlation
    exact = -0.5 * math.log(1 - rho**2) - (rho**2 * codes_.square().sum(1) - 2 * rho * codes_.prod(1)) / (
        2 * (1 - rho**2)
    )
    assert found.mean().item() == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.12)
    if rho:
        assert torch.corrcoef(torch.stack([found, exact]))[0, 1] > 0.9
    else:
        assert found.abs().mean() < 0.15


def test_the_factor_vae_pays_for_what_its_discriminator_sees() -> None:
    system, batch = built("factor_vae", gamma=4.0, hidden=16), pictures(12)
    found = loss(system, batch)
    code = system.coded(batch.values, draws(system.phases(12)[0], 0)["latents"]).latents
    correlation = system.discriminator(code).mean()
    total = found.parts["reconstruction"] + found.parts["kl"] + 4 * correlation
    torch.testing.assert_close(found.total, total, rtol=1e-4, atol=1e-4)
    gaussian = built("factor_vae", likelihood="gaussian", hidden=16).phases(12)[0]
    assert sum(weight.numel() == 1 and not weight.ndim for each in gaussian.trains for weight in each.parameters()) == 1


@pytest.mark.parametrize("network", ["dcgan", "infogan"])
def test_the_three_players_of_vae_gan(network: str) -> None:
    system, batch = built("vae_gan", network=network, feature_weight=0.5, beta=2.0, loss="minimax"), pictures(12)
    encoder, decoder, critic = (loss(system, batch, phase=number) for number in range(3))
    drawn = draws(system.phases(12)[1], 0)
    mean, log_variance = system.encoder(2 * batch.values - 1).chunk(2, 1)
    kl = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1).mean()
    copies = system.decoder(mean + (0.5 * log_variance).exp() * drawn["latents"]).tanh()
    fakes = system.decoder(drawn["prior"]).tanh()
    features = [system.features(images).flatten(1) for images in (2 * batch.values - 1, copies)]
    nats = -logs(Normal(features[1], 1.0), features[0]).sum(1).mean()
    verdicts = [system.verdict(system.features(images)).flatten() for images in (2 * batch.values - 1, copies, fakes)]
    ones = [torch.ones(12), torch.zeros(12), torch.zeros(12)]
    entropy = [F.binary_cross_entropy_with_logits(*pair) for pair in zip(verdicts, ones, strict=True)]
    torch.testing.assert_close(encoder.total, 2 * kl + nats, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decoder.total, 0.5 * nats - entropy[1] - entropy[2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(critic.total, sum(entropy), rtol=1e-4, atol=1e-4)
    assert [phase.joint for phase in system.phases(12)] == ["all"] * 3


# ---- VQ-VAE


def test_gradients_pass_the_codebook_as_if_it_were_not_there() -> None:
    system, batch = built("vq_vae", codes=7, embedding=3, commitment=0.5), pictures(4)
    captured: list[Tensor] = []
    system.encoder.register_forward_hook(lambda module, inputs, output: captured.append(output))
    system.decoder.register_forward_hook(lambda module, inputs, output: captured.append(inputs[0]))
    found = loss(system, batch)
    encoded, decoded = captured[0], captured[1]
    at_encoder, at_decoder = torch.autograd.grad(found.total, [encoded, decoded])
    distance = torch.cdist(encoded.permute(0, 2, 3, 1).flatten(0, 2), system.codebook)
    nearest = system.codebook[distance.argmin(1)].reshape(4, 4, 4, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(decoded, nearest)
    torch.testing.assert_close(at_encoder, at_decoder + 0.5 * 2 * (encoded - nearest) / 4)
    image_error = (system.decoder(nearest) - batch.values).square().sum() / 4
    torch.testing.assert_close(found.parts["squared_error"], image_error, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.parts["commitment"], (encoded - nearest).square().sum() / 4)


@pytest.mark.parametrize("restart", [0.0, 0.5])
def test_the_codebook_is_the_moving_average_of_what_is_nearest(restart: float) -> None:
    system = built("vq_vae", codes=3, embedding=2, decay=0.75, restart=restart)
    system.codebook.copy_(torch.tensor([[0.0, 0.0], [10.0, 0.0], [99.0, 99.0]]))
    system.sums.copy_(system.codebook)
    counts, sums = torch.ones(3), system.codebook.clone()
    batch = torch.tensor([[1.0, 0.0], [9.0, 1.0], [8.0, 1.0], [0.0, 2.0]])
    for _ in range(6):
        indices = system.nearest(batch)
        assert indices.tolist() == [0, 1, 1, 0]
        assert system._note(batch, indices, torch.tensor([0.0, 0.3, 0.99])).tolist() == [2, 2, 0]
        system._follow(0)
        counts = 0.75 * counts + 0.25 * torch.tensor([2.0, 2.0, 0.0])
        sums = 0.75 * sums + 0.25 * torch.tensor([[1.0, 2.0], [17.0, 2.0], [0.0, 0.0]])
        if restart and counts[2] < 0.5 * counts.sum() / 3:
            assert torch.equal(system.codebook[2], batch[3]) and system.counts[2] == 1
            return
        torch.testing.assert_close(system.codebook, sums / counts[:, None], rtol=1e-4, atol=1e-4)
    assert not restart


def test_its_prior_gives_a_code_the_probability_that_it_is_drawn_with() -> None:
    """By the loss place after place, and by the share of samples: the two ways to read the prior."""
    system = built("vq_vae", codes=2, embedding=3, hidden=8, heads=2)
    batch = pictures(5)
    indices = system.nearest(system._encoded(batch.values))
    with torch.no_grad():
        nats = torch.zeros(())
        for row in indices:
            for place in range(16):
                before = torch.cat([torch.zeros(1, dtype=torch.long), row[:place] + 1])
                features = system.prior(before[None])[0, -1]
                nats = nats - system.output(features).log_softmax(0)[row[place]] / 5
        torch.testing.assert_close(loss(system, batch, phase=1).total, nats, rtol=1e-3, atol=1e-3)
        uniform = torch.rand((4000, 16), generator=torch.Generator().manual_seed(0))
        drawn = system.drawn(uniform)
        for first in (0, 1):
            rows = drawn[drawn[:, 0] == first]
            features = system.prior(torch.tensor([[0, first + 1]]))[0]
            chance = system.output(features).softmax(1)
            assert len(rows) / 4000 == pytest.approx(chance[0, first].item(), abs=0.04)
            assert (rows[:, 1] == 1).float().mean().item() == pytest.approx(chance[1, 1].item(), abs=0.06)


# ---- what scores and verdicts are told


def test_the_second_phase_learns_on_codes_that_no_longer_move() -> None:
    kind: Any = VQVAE
    config = kind.Config.model_validate({"width": 4, "codes": 8, "embedding": 4, "hidden": 8, "prior_start": 2})
    state = TrainingState.fresh(kind, config, SHAPE, seed=0, batch_size=6, device="cpu")
    seen = [{key: value.clone() for key, value in state.system.state_dict().items()}]
    seen += [
        {key: value.clone() for key, value in state.system.state_dict().items()}
        for _ in train_one(state, Batches(pictures(30), 6, 0), seed=0, steps=4, every=1, decay=0.0, precision="fp32")
    ]

    def moved(first: int, last: int) -> set[str]:
        """The parts whose weights, or codebook, differ between two steps."""
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        keys = [key for key in seen[0] if not key.endswith(statistics)]
        return {key.split(".")[0] for key in keys if not torch.equal(seen[first][key], seen[last][key])}

    assert {"encoder", "decoder", "codebook"} <= moved(0, 2) and not moved(0, 2) & {"prior", "output"}
    assert moved(2, 4) == {"prior", "output"}


def scored(metric: Any, system: Any) -> list[Score]:
    dataset = Digits(Digits.Config(), Path())
    reference, known = (dataset.load(split).take(slice(0, 150)) for split in ("reference", "train"))
    store = FeatureStore(dataset, cache=Path(), weights=WeightsPolicy(), device="cpu")
    return score([metric], known, Real(reference, known, reference, known), dataset, store, "reference", system.eval())


@pytest.mark.parametrize("kind", [WAEMMD, RAE, VAEGAN, VQVAE])
def test_what_has_no_density_is_refused_as_one_and_reconstructed(kind: Any) -> None:
    assert issubclass(kind, Coder) and not issubclass(kind, Autoencoder)
    system = built(plugins.name_of(kind))
    with pytest.raises(ValueError, match=r"one with an encoder \(encode, decode, log_likelihood\)"):
        scored(ELBO(ELBO.Config()), system)
    assert [each.name for each in scored(Reconstruction(Reconstruction.Config()), system)] == ["reconstruction_mse"]


@pytest.mark.parametrize("name", ["vae", "beta_tc_vae", "info_vae", "iwae", "vamp_vae", "factor_vae", "hvae"])
def test_a_code_that_says_nothing_is_the_verdict(name: str) -> None:
    options: dict[str, Any] = {"vamp_vae": {"pseudo_inputs": 4}, "hvae": {"top_size": 2, "hidden": 8}}.get(name, {})
    system = built(name, **options)
    with torch.no_grad():
        for part in (system.encoder, getattr(system, "up", None), getattr(system, "bottom", None)):
            for weight in () if part is None else part.parameters():
                weight.zero_()
    said = with_code(None, scored(ELBO(ELBO.Config(importance=1)), system), system)
    assert said is not None and said.verdict == Collapse.POSTERIOR
    assert said.reason.startswith(f"0 of {7 if name == 'hvae' else 5} latents are used")
    assert "likelihood:bernoulli" in said.signature


@pytest.mark.parametrize("name", ["wae_mmd", "rae", "vae_gan", "vq_vae"])
def test_a_decoder_that_paints_one_image_is_the_verdict(name: str) -> None:
    system, reference = built(name), Digits(Digits.Config(), Path()).load("reference").take(slice(0, 150))
    with torch.no_grad():
        for weight in system.decoder.parameters():
            weight.zero_()
    said = with_code(None, scored(Reconstruction(Reconstruction.Config()), system), system, reference)
    assert said is not None and said.verdict == Collapse.POSTERIOR and "no better than by their mean" in said.reason
