"""Scores of an autoencoder whose likelihood, posterior, KL and information are known: probabilistic components.

x = Wz + μ + σε with orthogonal columns of W, so that the exact posterior is a diagonal Gaussian.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Normal, kl_divergence

from aigc_lab import noise
from aigc_lab.data.digits import Digits
from aigc_lab.extractors.base import choice
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.base import Autoencoder, Metric, Real, Score, mean_interval
from aigc_lab.metrics.elbo import ELBO, active_units, codes, mutual_information
from aigc_lab.metrics.reconstruction import Reconstruction, squared_errors
from aigc_lab.samples import Images
from aigc_lab.scoring.evidence import score
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.vae import VAE
from aigc_lab.training.averages import average_of

SIZE = (1, 3, 4)
PIXELS, LATENTS = 12, 3


def normal(*size: int, seed: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logs(law: Distribution, values: Tensor) -> Tensor:
    found: Tensor = law.log_prob(values)
    return found


@dataclass(frozen=True)
class Linear:
    """`wide` times the posterior's σ, and `off` away from its mean: 1 and 0 for the exact one."""

    weight: Tensor
    sigma: float = 0.3
    wide: float = 1.0
    off: float = 0.0

    @property
    def variance(self) -> Tensor:
        return 1 / (1 + self.weight.square().sum(0) / self.sigma**2)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = (images.double().flatten(1) - 0.5) @ self.weight * self.variance / self.sigma**2
        return mean + self.off, (self.variance * self.wide**2).log().expand_as(mean)

    def _centre(self, latents: Tensor) -> Tensor:
        return 0.5 + latents.double() @ self.weight.T

    def decode(self, latents: Tensor) -> Tensor:
        return self._centre(latents).reshape(-1, *SIZE)

    def log_likelihood(self, images: Tensor, latents: Tensor) -> Tensor:
        pixels = Normal(self._centre(latents), self.sigma, validate_args=False)
        return logs(pixels, images.double().flatten(1)).sum(1)

    def log_evidence(self, images: Images) -> Tensor:
        """The exact log p(x) [n]."""
        # Written out: torch's own multivariate normal takes seconds to import.
        covariance = self.weight @ self.weight.T + self.sigma**2 * torch.eye(PIXELS, dtype=torch.float64)
        away = images.values.double().flatten(1) - 0.5
        distance = (away * torch.linalg.solve(covariance, away.T).T).sum(1)
        found: Tensor = -0.5 * (distance + torch.logdet(covariance) + PIXELS * math.log(2 * math.pi))
        return found


def linear(scales: tuple[float, ...] = (0.8, 0.4, 0.02), **options: float) -> Linear:
    columns = torch.linalg.qr(normal(PIXELS, LATENTS, seed=1)).Q
    return Linear(columns * torch.tensor(scales, dtype=torch.float64), **options)


def drawn(system: Linear, n: int, seed: int = 2) -> Images:
    pixels = 0.5 + normal(n, LATENTS, seed=seed) @ system.weight.T + system.sigma * normal(n, PIXELS, seed=seed + 100)
    return Images(pixels.reshape(n, *SIZE))


COLLAPSED = linear((0.0, 0.0, 0.0))


def test_with_the_exact_posterior_every_bound_is_the_likelihood() -> None:
    system = linear()
    images = drawn(system, 250)  # the last block is not a whole one
    truth, found = system.log_evidence(images), codes(system, images, 12)
    torch.testing.assert_close(found.elbo, truth, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.nll, -truth, rtol=0, atol=1e-5)


def test_more_importance_samples_come_down_to_the_likelihood() -> None:
    system = linear(wide=1.6, off=0.1)
    images = drawn(system, 200)
    truth = -system.log_evidence(images).mean()
    bounds = {latents: codes(system, images, latents) for latents in (1, 5, 25, 400)}
    above = [(found.nll.mean() - truth).item() for found in bounds.values()]
    assert above == sorted(above, reverse=True) and above[0] > 0.5
    assert 0 < above[-1] + 0.01 < 0.03
    # The gap of the ELBO is the KL between the two posteriors.
    mean, log_variance = linear().encode(images.values)
    exact, used = Normal(mean, (0.5 * log_variance).exp()), Normal(mean + 0.1, 1.6 * (0.5 * log_variance).exp())
    gap = kl_divergence(used, exact).sum(1).mean().item()
    assert -bounds[400].elbo.mean() - truth == pytest.approx(gap, rel=0.02)
    for found in bounds.values():
        assert (found.elbo <= -found.nll + 1e-9).all()


def test_the_kl_is_torchs() -> None:
    found = codes(linear(wide=1.3, off=0.2), drawn(linear(), 120), 1)
    posterior = Normal(found.mean, (0.5 * found.log_variance).exp())
    torch.testing.assert_close(found.kl, kl_divergence(posterior, Normal(0.0, 1.0)).sum(1))


def test_more_images_and_more_latents_begin_with_the_same_draws() -> None:
    system = linear(wide=1.5)
    images = drawn(system, 230)
    many, few = codes(system, images, 25), codes(system, images.take(slice(0, 130)), 13)
    torch.testing.assert_close(many.log_weights[:130, :13], few.log_weights, rtol=0, atol=1e-9)
    assert many.log_weights.std(1).min() > 0


def test_the_information_is_that_of_a_gaussian_channel() -> None:
    system = linear((0.3, 0.2, 0.05))
    mean, log_variance = system.encode(drawn(system, 4000).values)
    truth = -0.5 * system.variance.log().sum().item()
    value, error = mutual_information(mean, log_variance)
    assert abs(value - truth) < 4 * error + 0.02 and error < 0.05 < truth
    assert truth < math.log(4000)


def test_the_informations_error_is_its_spread_over_sets() -> None:
    system = linear((0.3, 0.2, 0.05))
    found = [mutual_information(*system.encode(drawn(system, 300, seed=10 + k).values)) for k in range(60)]
    spread = torch.tensor([value for value, _ in found]).std().item()
    error = sum(error for _, error in found) / len(found)
    assert error == pytest.approx(spread, rel=0.35)


def test_the_informations_error_is_that_of_each_images_influence() -> None:
    """Each image is in the others' sum too: how the estimate moves when it weighs a little more."""
    system = linear((2.0, 1.0, 1.0))
    mean, log_variance = system.encode(drawn(system, 80).values)
    value, error = mutual_information(mean, log_variance, rows=33)
    spread = (0.5 * log_variance).exp()
    latents = mean + spread * noise.draw(noise.Draw((80, LATENTS)), "elbo", "information").double()
    log_q = logs(Normal(mean, spread), latents.unsqueeze(1)).sum(2)

    def information(weights: Tensor) -> Tensor:
        return weights @ (log_q.diagonal() - (log_q + weights.log()).logsumexp(1))

    even = torch.full((80,), 1 / 80, dtype=torch.float64)
    assert value == pytest.approx(information(even).item(), abs=1e-9)
    each = torch.eye(80, dtype=torch.float64)
    moved = [information(even + 1e-6 * (each[k] - even)) - information(even) for k in range(80)]
    assert error == pytest.approx(torch.stack(moved).std().item() / 1e-6 / math.sqrt(80), rel=1e-3)


def test_the_information_saturates_at_its_cap() -> None:
    """Codes that do not overlap: all that n images can tell is which of the n it was."""
    mean = torch.arange(200.0, dtype=torch.float64).unsqueeze(1) * 100
    value, error = mutual_information(mean, torch.zeros_like(mean), rows=70)
    assert value == pytest.approx(math.log(200), abs=1e-12) and error < 1e-9


def test_units_near_the_threshold_are_in_doubt() -> None:
    spreads = torch.tensor([1.0, 0.101, 0.099, 0.01], dtype=torch.float64)
    rows = torch.linalg.qr(normal(1000, 5, seed=3) - normal(1000, 5, seed=3).mean(0)).Q[:, :4] * math.sqrt(999)
    assert active_units(rows * spreads) == (2, 1, 3)


def test_a_collapsed_posterior_knows_nothing() -> None:
    found = scored(ELBO, COLLAPSED)
    for name in ("kl", "active_units", "mutual_information"):
        assert (found[name].value, found[name].low, found[name].high) == pytest.approx((0, 0, 0), abs=1e-12)
    assert found["iw_nll"].value == pytest.approx(-found["elbo"].value, abs=1e-9)


def scored(kind: type[Metric], system: Autoencoder | None, train: bool = True, **options: Any) -> dict[str, Score]:
    """Scores on 230 images of the linear model, with as many others to train on."""
    dataset = Few(Digits.Config(), Path())
    reference, known, other = (drawn(linear(), n, seed=k) for k, n in enumerate((230, 300, 120)))
    real = Real(reference, other, reference, known if train else None)
    store = FeatureStore(dataset, cache=Path(), weights=WeightsPolicy(), device="cpu")
    made = score([kind(kind.Config(**options))], other, real, dataset, store, "reference", system)
    return {each.name: each for each in made}


class Few(Digits):
    digest = "0" * 64

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, SIZE)


def test_scores_are_of_the_reference_and_the_floor_of_the_training_samples() -> None:
    system = linear(wide=1.2)
    reference, known = drawn(linear(), 230, seed=0), drawn(linear(), 300, seed=1).take(choice(300, 230))
    here, there = codes(system, reference, 7), codes(system, known, 7)
    found = scored(ELBO, system, importance=7)
    assert list(found) == list(ELBO(ELBO.Config()).gives)
    wanted = {"elbo": (here.elbo, there.elbo), "iw_nll": (here.nll, there.nll), "kl": (here.kl, there.kl)}
    for name, (values, floor) in wanted.items():
        assert (found[name].value, found[name].low, found[name].high) == mean_interval(values)
        assert found[name].floor == floor.mean().item() != found[name].value
    assert {each.n for each in found.values()} == {230}
    assert found["active_units"].value == 2
    parts = found["elbo"].signature.split("|")
    assert {"scored:230≤1000", "K:7", f"cap:{math.log(230):.3f}", "v:2"} <= set(parts)
    assert {each.n for each in scored(ELBO, system, limit=100).values()} == {100}


def test_a_reconstruction_is_compared_pixel_by_pixel() -> None:
    system = linear()
    (found,) = scored(Reconstruction, system).values()
    images = drawn(system, 230, seed=0)
    again = system.decode(system.encode(images.values)[0])
    assert found.value == pytest.approx(((again - images.values) ** 2).mean().item(), rel=1e-9)
    assert found.low < found.value < found.high and found.n == 230
    # One that encodes nothing gives the mean image, and its error is the variance of a pixel.
    (trivial,) = scored(Reconstruction, COLLAPSED).values()
    assert trivial.value == pytest.approx(((images.values - 0.5) ** 2).mean().item(), rel=1e-9)
    assert found.high < trivial.low


@pytest.mark.parametrize("kind", [ELBO, Reconstruction])
def test_what_is_missing_is_named(kind: type[Metric]) -> None:
    name = kind.__module__.rpartition(".")[2]
    with pytest.raises(ValueError, match=f"{name} needs the system"):
        scored(kind, None)
    with pytest.raises(ValueError, match=f"{name} needs what the generator was trained on"):
        scored(kind, linear(), train=False)


def test_a_likelihood_that_is_no_number_is_counted() -> None:
    broken = replace(linear(), sigma=float("nan"))
    with pytest.raises(ValueError, match="120 of 120 samples"):
        codes(broken, drawn(linear(), 120), 2)
    with pytest.raises(ValueError, match="120 of 120 samples"):
        squared_errors(broken, drawn(linear(), 120))


# ---- the system that ships


def small(likelihood: str) -> VAE:
    config = VAE.Config.model_validate({"likelihood": likelihood, "width": 4, "latent_size": 5})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VAE(config, Shape(Modality.IMAGES, (1, 16, 16))).eval()


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_a_vae_says_its_likelihood_in_nats(likelihood: str) -> None:
    system = small(likelihood)
    assert isinstance(system, Autoencoder)
    images = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(4))
    latents = noise.draw(system.latents(6), "test")
    with torch.no_grad():
        found, logits = system.log_likelihood(images, latents), system.decoder(latents)
        decoded = system.decode(latents)
        if system.log_sigma is None:
            images = images.round()
            found, truth = system.log_likelihood(images, latents), logs(Bernoulli(logits=logits), images)
            torch.testing.assert_close(decoded, logits.sigmoid())
        else:
            truth = logs(Normal(logits, system.log_sigma.exp()), images)
            torch.testing.assert_close(decoded, logits.clamp(0, 1))
    torch.testing.assert_close(found, truth.sum((1, 2, 3)))
    assert torch.equal(system.sample(latents).values, decoded)


def test_nats_of_two_likelihoods_have_two_signatures() -> None:
    """A density's nats and a probability's are never ranked together, whatever their sizes."""
    dataset = Digits(Digits.Config(), Path())
    reference, known = (dataset.load(split).take(slice(0, 100)) for split in ("reference", "train"))
    real, store = (
        Real(reference, known, reference, known),
        FeatureStore(dataset, cache=Path(), weights=WeightsPolicy(), device="cpu"),
    )
    metric = ELBO(ELBO.Config(importance=1))
    for likelihood in ("bernoulli", "gaussian"):
        found = score([metric], known, real, dataset, store, "reference", small(likelihood))
        assert all(f"|likelihood:{likelihood}|" in each.signature for each in found)


def test_the_average_of_a_vae_encodes_with_its_own_weights() -> None:
    """Shared with the system in training, the encoder would see each image through the others beside it."""
    system = small("gaussian").train()
    average: Any = average_of(system)
    images = Digits(Digits.Config(), Path()).load("holdout").take(slice(0, 8)).unit()
    latents = noise.draw(system.latents(8), "test")
    with torch.no_grad():
        together, alone = average.encode(images)[0], average.encode(images[:1])[0]
        likelihood = average.log_likelihood(images, latents)
        torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
        for parameter in system.parameters():
            parameter.add_(1.0)
        assert torch.equal(average.encode(images)[0], together)
        assert torch.equal(average.log_likelihood(images, latents), likelihood)
