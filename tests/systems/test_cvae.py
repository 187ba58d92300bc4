"""CVAE, and metrics of a conditional coder, against a linear-Gaussian model whose log p(x|y) is known."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.data.digits import Digits
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.base import Autoencoder, Metric, Real, Score
from aigc_lab.metrics.disentanglement import means
from aigc_lab.metrics.elbo import ELBO, codes
from aigc_lab.metrics.reconstruction import Reconstruction, squared_errors
from aigc_lab.samples import Images
from aigc_lab.scoring.collapse_judge import with_code
from aigc_lab.scoring.evidence import score
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.cvae import CVAE
from aigc_lab.systems.vae import VAE
from aigc_lab.verdicts.conclusion import Collapse

CLASSES, LATENTS, PIXELS, SIGMA = 3, 2, 256, 0.3
SHAPE = Shape(Modality.IMAGES, (1, 16, 16), CLASSES)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


# x = μ_y + W_y z + σε: the columns of each W are orthogonal, so that the exact posterior is a diagonal Gaussian.
CENTRES = 0.5 + 0.2 * normal(CLASSES, PIXELS, seed=1)
WEIGHTS = torch.linalg.qr(normal(CLASSES, PIXELS, LATENTS, seed=2)).Q * torch.tensor([1.5, 0.7])


class Encoder(nn.Module):
    """The exact posterior of pictures with planes of their class, all in [−1, 1]; `wide` times as wide as it is."""

    def __init__(self, wide: float = 1.0) -> None:
        super().__init__()
        self.variance = 1 / (1 + WEIGHTS[0].square().sum(0) / SIGMA**2)
        self.wide = wide

    def forward(self, signed: Tensor) -> Tensor:
        assert torch.equal(signed[:, 1:].std((2, 3)), torch.zeros(len(signed), CLASSES))
        of = signed[:, 1:, 0, 0].argmax(1)
        away = (signed[:, 0].flatten(1) + 1) / 2 - CENTRES[of]
        mean = (away[:, None] @ WEIGHTS[of])[:, 0] * self.variance / SIGMA**2
        return torch.cat([mean, (self.variance * self.wide**2).log().expand_as(mean)], 1)


class Decoder(nn.Module):
    """The mean of x for latents with the class beside them."""

    def forward(self, joined: Tensor) -> Tensor:
        of = joined[:, LATENTS:].argmax(1)
        means: Tensor = CENTRES[of] + (WEIGHTS[of] @ joined[:, :LATENTS, None])[:, :, 0]
        return means.reshape(-1, 1, 16, 16)


def built(**options: Any) -> CVAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CVAE(CVAE.Config.model_validate({"width": 4, "latent_size": LATENTS, **options}), SHAPE)


def linear(wide: float = 1.0) -> CVAE:
    system = built(likelihood="gaussian", sigma=SIGMA)
    system.encoder, system.decoder = Encoder(wide), Decoder()
    return system.eval()


def modelled(n: int, seed: int = 0) -> Images:
    labels = torch.arange(n) * 7 % CLASSES
    z, epsilon = normal(n, LATENTS, seed=seed), normal(n, PIXELS, seed=seed + 50)
    pixels = CENTRES[labels] + (WEIGHTS[labels] @ z[:, :, None])[:, :, 0] + SIGMA * epsilon
    return Images(pixels.reshape(n, 1, 16, 16), labels)


def log_evidence(images: Images) -> Tensor:
    """The exact log p(x|y) [n]."""
    assert images.labels is not None
    found = []
    for pixels, label in zip(images.values.flatten(1).double(), images.labels.tolist(), strict=True):
        weight = WEIGHTS[label].double()
        covariance = weight @ weight.T + SIGMA**2 * torch.eye(PIXELS, dtype=torch.float64)
        away = pixels - CENTRES[label]
        distance = away @ torch.linalg.solve(covariance, away)
        found.append(-0.5 * (distance + torch.logdet(covariance) + PIXELS * math.log(2 * math.pi)))
    return torch.stack(found)


def test_the_bound_is_log_p_of_x_given_its_class_for_the_exact_posterior_alone() -> None:
    images = modelled(130)  # two blocks, the second not a whole one
    truth = log_evidence(images)
    found = codes(linear(), images, 11)  # two parts of latents, the second of one
    torch.testing.assert_close(found.elbo, truth, rtol=0, atol=2e-3)
    torch.testing.assert_close(found.nll, -truth, rtol=0, atol=2e-3)
    wide = codes(linear(1.5), images, 50)
    gap = LATENTS * (0.5 * 1.5**2 - 0.5 - math.log(1.5))  # KL of a Gaussian from one of 1/1.5 its spread
    assert (truth - wide.elbo).mean().item() == pytest.approx(gap, abs=0.05)
    assert -wide.nll.mean() > wide.elbo.mean() + 0.1 and -wide.nll.mean() < truth.mean() + 0.01


def test_another_pictures_class_lowers_it() -> None:
    images = modelled(60)
    assert images.labels is not None
    other = replace(images, labels=(images.labels + 1) % CLASSES)
    right, wrong = (codes(linear(), each, 2).elbo for each in (images, other))
    assert (wrong < right).all() and (right - wrong).mean() > 10
    # Labels that belong to their rows: an order of both gives the numbers of before in that order.
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    exact, moved = codes(linear(), images, 1).elbo, codes(linear(), images.take(order), 1).elbo
    torch.testing.assert_close(moved, exact[order], rtol=0, atol=2e-3)


def test_copies_and_means_are_of_the_pictures_class() -> None:
    images = modelled(300, seed=4)  # two blocks of each metric
    assert images.labels is not None
    errors = squared_errors(linear(), images)
    by_class = [squared_errors(linear(), images.take(images.labels == label)) for label in range(CLASSES)]
    for label, alone in enumerate(by_class):
        torch.testing.assert_close(errors[images.labels == label], alone)
    assert errors.mean().item() == pytest.approx(SIGMA**2, rel=0.25)
    clipped = linear().encode(images.values, labels=images.labels)[0]
    torch.testing.assert_close(means(linear(), images).float(), clipped)


def test_the_loss_is_the_bound_of_the_batchs_classes() -> None:
    system, images = linear().train(), modelled(30)
    (phase,) = system.phases(30)
    with torch.no_grad():
        losses = torch.stack(
            [
                phase.loss(images, {name: noise.draw(what, k, name) for name, what in phase.noise.items()}, 0).total
                for k in range(60)
            ]
        )
        assert losses.mean().item() == pytest.approx(-log_evidence(images).mean().item(), abs=0.3)
        weighed = built(beta=3.0)
        draws = {"latents": normal(30, LATENTS)}
        found = weighed.phases(30)[0].loss(Images(images.values.clamp(0, 1), images.labels), draws, 0)
    torch.testing.assert_close(found.total, found.parts["reconstruction"] + 3 * found.parts["kl"])


def test_samples_are_decoded_with_the_class_asked_for() -> None:
    system = linear()
    latents, labels = noise.draw(system.latents(9), "test"), torch.arange(9) % CLASSES
    sampled = system.sample(latents, labels=labels).values.flatten(1)
    expected = CENTRES[labels] + (WEIGHTS[labels] @ latents[:, :, None])[:, :, 0]
    torch.testing.assert_close(sampled, expected.clamp(0, 1))
    drawn = built().generate(4, "key", labels=torch.tensor([2, 2, 0, 1]))
    assert drawn.labels is not None and drawn.labels.tolist() == [2, 2, 0, 1]
    with pytest.raises(ValueError, match="pass labels"):
        system.sample(latents)


def test_what_it_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="conditional, and the dataset has no labels"):
        CVAE(CVAE.Config(), replace(SHAPE, classes=None))


# ---- what scores say of it

TEN = Shape(Modality.IMAGES, (1, 16, 16), 10)


def scored(kind: type[Metric], system: Any, labels: bool = True, **options: Any) -> list[Score]:
    dataset = Digits(Digits.Config(), Path())
    reference, known = (dataset.load(split).take(slice(0, 150)) for split in ("reference", "train"))
    if not labels:
        reference = replace(reference, labels=None)
    store = FeatureStore(dataset, cache=Path(), weights=WeightsPolicy(), device="cpu")
    real = Real(reference, known, reference, known)
    return score([kind(kind.Config(**options))], known, real, dataset, store, "reference", system.eval())


@pytest.mark.parametrize("kind", [ELBO, Reconstruction])
def test_scores_given_a_class_are_never_ranked_with_those_of_pictures_alone(kind: type[Metric]) -> None:
    conditional = CVAE(CVAE.Config(width=4, latent_size=5), TEN)
    plain = VAE(VAE.Config(width=4, latent_size=5), TEN)
    assert isinstance(conditional, Autoencoder)
    options: dict[str, Any] = {"importance": 1} if kind is ELBO else {}
    given, alone = (scored(kind, system, **options)[0].signature.split("|") for system in (conditional, plain))
    assert [part for part in given if part != "given:class"] == alone and given.count("given:class") == 1
    with pytest.raises(ValueError, match="needs labels, and the reference samples come without their classes"):
        scored(kind, conditional, labels=False, **options)
    assert scored(kind, plain, labels=False, **options)


def test_a_code_that_says_nothing_beside_the_class_is_the_verdict() -> None:
    """The encoder gives N(0, I) for every picture: what the decoder knows is the class alone."""
    system = CVAE(CVAE.Config(width=4, latent_size=5), TEN)
    with torch.no_grad():
        for weight in system.encoder.parameters():
            weight.zero_()
    scores = scored(ELBO, system, importance=1)
    assert {each.name: each.value for each in scores}["kl"] == 0
    said = with_code(None, scores, system)
    assert said is not None and said.verdict == Collapse.POSTERIOR and "given:class" in said.signature
    assert said.reason.startswith("0 of 5 latents are used")


@dataclass
class Whole:
    """A coder without labels, which a helper for conditional ones leaves alone."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.flatten(1), torch.zeros(len(images), PIXELS)

    def decode(self, latents: Tensor) -> Tensor:
        return latents.reshape(-1, 1, 16, 16)


def test_a_coder_of_pictures_alone_gets_no_labels() -> None:
    assert squared_errors(Whole(), modelled(5)).max() == 0
