"""Samplers of latents given their class, and of vectors: against known mixtures, Jacobians, and by hand."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.distributions import MultivariateNormal

from aigc_lab import noise
from aigc_lab.data.digits import Digits
from aigc_lab.noise import Draw
from aigc_lab.samples import Images
from aigc_lab.systems.cvae import CVAE
from aigc_lab.systems.shared.flow import Flow
from aigc_lab.systems.shared.mixture import ClassMixtures, GaussianMixture
from aigc_lab.systems.shared.principal import PrincipalComponents
from aigc_lab.systems.vq_vae import VQVAE
from aigc_lab.training.checkpoint import load_system, save_weights

DIGITS = Digits(Digits.Config(), Path())

# Of three classes: where their codes lie, and the Cholesky factors of how they are spread.
CENTRES = torch.tensor([[-8.0, 0.0], [0.0, 5.0], [8.0, -3.0]])
FACTORS = torch.tensor([[[1.0, 0.0], [0.8, 0.6]], [[0.5, 0.0], [0.0, 2.0]], [[1.5, 0.0], [-0.7, 0.3]]])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aigc_lab.systems.shared.flow._STEPS", 50)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def coded(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Codes of the three classes, a half, a third and a sixth of them, and their labels."""
    labels = torch.tensor([0, 0, 0, 1, 1, 2])[torch.arange(n) % 6]
    return CENTRES[labels] + (FACTORS[labels] @ normal(n, 2, 1, seed=seed)).squeeze(2), labels


def law(label: int) -> Any:
    return MultivariateNormal(CENTRES[label], scale_tril=FACTORS[label])


# ---- a mixture of each class


def test_a_class_is_drawn_from_the_mixture_of_its_own_codes() -> None:
    mixtures = ClassMixtures(3, 1, 2)
    mixtures.fit(*coded(6000))
    asked = torch.arange(30_000) * 5 % 3
    drawn = mixtures(normal(30_000, 3, seed=1), asked)
    for label in range(3):
        own = drawn[asked == label]
        torch.testing.assert_close(own.mean(0), CENTRES[label], rtol=0, atol=0.15)
        torch.testing.assert_close(torch.cov(own.T), FACTORS[label] @ FACTORS[label].T, rtol=0.12, atol=0.1)
    # Each is what the mixture of one class alone draws of the same numbers.
    codes, labels = coded(6000)
    alone = GaussianMixture(1, 2)
    alone.fit(codes[labels == 2])
    numbers = normal(9, 3, seed=2)
    torch.testing.assert_close(mixtures(numbers, torch.full((9,), 2)), alone(numbers))


def test_each_row_picks_a_component_by_the_weights_of_its_own_class() -> None:
    mixtures = ClassMixtures(2, 3, 1)
    mixtures.weights.copy_(torch.tensor([[0.2, 0.3, 0.5], [0.7, 0.0, 0.3]]))
    mixtures.means.copy_(torch.tensor([[[10.0], [11.0], [12.0]], [[20.0], [21.0], [22.0]]]))
    mixtures.scales.zero_()
    quantiles = torch.special.ndtri(torch.tensor([0.1, 0.1, 0.4, 0.6, 0.6, 0.9, 0.9]))
    numbers = torch.stack([torch.zeros(7), quantiles], 1)
    drawn = mixtures(numbers, torch.tensor([0, 1, 0, 0, 1, 0, 1])).flatten()
    assert drawn.tolist() == [10, 20, 11, 12, 20, 12, 22]


def test_until_they_are_fitted_all_classes_have_the_prior_and_those_without_codes_keep_it() -> None:
    mixtures, numbers, asked = ClassMixtures(4, 3, 2), normal(40, 3), torch.arange(40) % 4
    assert torch.equal(mixtures(numbers, asked), numbers[:, :2])
    mixtures.fit(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]))
    assert torch.equal(mixtures(numbers, asked), numbers[:, :2])
    mixtures.fit(*coded(600))
    drawn = mixtures(numbers, asked)
    assert torch.equal(drawn[asked == 3], numbers[asked == 3, :2])
    assert not torch.equal(drawn[asked == 2], numbers[asked == 2, :2])
    with pytest.raises(ValueError, match="pass labels"):
        mixtures(numbers)


# ---- a flow given the class


def warped(classes: int) -> Flow:
    flow = Flow(6, 3, classes).double()
    for number, buffer in enumerate(flow.buffers()):
        buffer.add_(0.15 * normal(*buffer.shape, seed=number))
    flow.scale.copy_(flow.scale.tril())
    flow.scale.diagonal().abs_().add_(0.5)
    return flow


def test_given_the_class_it_is_inverted_and_knows_its_determinant() -> None:
    flow, numbers, labels = warped(4), normal(8, 3).double(), torch.arange(8) % 4
    latents = flow(numbers, labels)
    torch.testing.assert_close(flow.inverse(latents, labels), numbers)
    for row, latent, label in zip(numbers, latents, labels, strict=True):
        jacobian: Any = torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
            lambda u, of=label[None]: flow(u[None], of)[0], row
        )
        density = -0.5 * (row.square() + math.log(2 * math.pi)).sum() - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(flow.log_density(latent[None], label[None])[0], density)
    assert not torch.allclose(flow(numbers, labels), flow(numbers, (labels + 1) % 4))
    with pytest.raises(ValueError, match="pass labels"):
        flow(numbers)


def test_the_flow_learns_each_classs_law_and_integrates_to_one() -> None:
    flow = Flow(4, 2, 3)
    flow.fit(*coded(4000))
    codes, labels = coded(3000, seed=3)
    axis = torch.linspace(-16, 16, 161)
    plane, cell = torch.cartesian_prod(axis, axis), 0.2**2
    for label in range(3):
        own = codes[labels == label]
        found = flow.log_density(own, torch.full((len(own),), label)).mean().item()
        assert found == pytest.approx(law(label).log_prob(own).mean().item(), abs=0.12)
        total = flow.log_density(plane, torch.full((len(plane),), label)).exp().sum().item() * cell
        assert total == pytest.approx(1, abs=0.03)
        drawn = flow(normal(4000, 2, seed=4), torch.full((4000,), label))
        torch.testing.assert_close(drawn.mean(0), CENTRES[label], rtol=0, atol=0.3)


def test_a_single_latent_has_a_gaussian_of_each_class() -> None:
    labels = torch.arange(2000) % 2
    codes = torch.where(labels == 0, -3.0, 2.0)[:, None] + torch.where(labels == 0, 0.5, 1.5)[:, None] * normal(2000, 1)
    flow = Flow(2, 1, 2)
    flow.fit(codes, labels)
    for label, (mean, spread) in enumerate([(-3.0, 0.5), (2.0, 1.5)]):
        drawn = flow(normal(4000, 1, seed=5), torch.full((4000,), label))
        assert drawn.mean().item() == pytest.approx(mean, abs=0.1)
        assert drawn.std().item() == pytest.approx(spread, rel=0.08)


# ---- of a conditional VAE


def conditional(**options: Any) -> CVAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CVAE(CVAE.Config.model_validate({"width": 4, "latent_size": 2, **options}), DIGITS.shape).eval()


@pytest.mark.parametrize(("sampler", "extra"), [("gmm", 1), ("flow", 0)])
def test_a_sample_is_decoded_of_a_latent_of_its_class(
    sampler: str, extra: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes that lie where their label says: so do the latents of samples, whatever classes are asked for beside."""
    system: Any = conditional(sampler=sampler, mixture=1, flow_layers=3)
    train = DIGITS.load("train").take(slice(0, 600))

    def code(images: Tensor, normal: Tensor, *, labels: Tensor) -> Tensor:
        return torch.stack([6.0 * labels, -3.0 * labels], 1) + 0.5 * normal

    monkeypatch.setattr(system, "code", code)
    system.fit_sampler(train)
    monkeypatch.undo()
    asked = torch.arange(40) * 3 % 10
    latents = noise.draw(system.latents(40), "test")
    assert latents.shape == (40, 2 + extra)
    drawn = system.fitted(latents, asked)
    middle = torch.stack([6.0 * asked, -3.0 * asked], 1)
    assert (drawn - middle).abs().max() < 3, "of another class's codes"
    assert torch.equal(system.sample(latents, labels=asked).values, system.decode(drawn, labels=asked))
    with pytest.raises(ValueError, match="pass labels"):
        system.sample(latents)
    save_weights(system, system.state_dict(), tmp_path / "last.safetensors", {"run": "a"})
    stored = load_system(tmp_path / "last.safetensors")
    asked = torch.tensor([4, 4, 0, 9])
    assert torch.equal(stored.generate(4, "x", labels=asked).values, system.generate(4, "x", labels=asked).values)


def test_codes_are_those_of_pictures_with_their_own_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    system, seen = conditional(sampler="gmm", mixture=1), []
    monkeypatch.setattr(ClassMixtures, "fit", lambda self, codes, labels: seen.append((codes, labels)))
    train = DIGITS.load("train")
    system.fit_sampler(train)
    ((codes, labels),) = seen
    assert torch.equal(labels.bincount(), train.labels.bincount())  # type: ignore[union-attr]
    assert train.labels is not None
    with torch.no_grad():
        mean, log_variance = system.encode(train.unit(), labels=train.labels)
    for label in range(10):
        own, known = codes[labels == label], mean[train.labels == label]
        spread = known.var(0) + log_variance[train.labels == label].exp().mean(0)
        assert ((own.mean(0) - known.mean(0)).abs() < 5 * (spread / len(own)).sqrt()).all()


def test_a_class_with_too_few_codes_is_named_before_training() -> None:
    train = DIGITS.load("train")
    assert train.labels is not None
    rows = torch.cat([(train.labels != 7).nonzero()[:, 0], (train.labels == 7).nonzero()[:9, 0]])
    few = train.take(rows)
    with pytest.raises(
        ValueError,
        match="class 7 has 9 codes of train, and its mixture of 2 components over 9 latents needs 10: take fewer than "
        "9 latents and at most 9 components, or set sampler to flow or prior",
    ):
        conditional(sampler="gmm", mixture=2, latent_size=9).check_train(few)
    conditional(sampler="gmm", mixture=9, latent_size=8).check_train(few)
    with pytest.raises(ValueError, match="its mixture of 10 components over 8 latents needs 10"):
        conditional(sampler="gmm", mixture=10, latent_size=8).check_train(few)
    with pytest.raises(ValueError, match="class 7 has 9 codes of train, and a flow given the class needs 10 of each"):
        conditional(sampler="flow").check_train(few)
    named = replace(DIGITS.shape, class_names=tuple("abcdefghij"))
    with pytest.raises(ValueError, match="class h has 9 codes"):
        CVAE(CVAE.Config(width=4, sampler="flow"), named).check_train(few)
    conditional().check_train(few)


# ---- principal components


def test_principal_components_are_those_of_the_codes() -> None:
    """Codes of three directions: in their space the sampler sees independent numbers of known variances."""
    directions = torch.linalg.qr(normal(40, 3)).Q
    spreads = torch.tensor([4.0, 2.0, 1.0])
    codes = 5 + (normal(5000, 3, seed=1) * spreads) @ directions.T + 0.01 * normal(5000, 40, seed=2)
    sampler = PrincipalComponents(40, GaussianMixture(1, 2), 2)
    numbers = normal(20_000, 3, seed=3)
    assert sampler.extra == 1 and torch.equal(sampler(numbers)[:, :2], numbers[:, :2])
    sampler.fit(codes)
    torch.testing.assert_close(sampler.basis.T @ sampler.basis, torch.eye(2))
    overlap = (sampler.basis.T @ directions).abs()
    torch.testing.assert_close(overlap, torch.eye(2, 3), rtol=0, atol=0.05)
    drawn = sampler(numbers)
    torch.testing.assert_close(drawn.mean(0), codes.mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close((drawn @ directions).std(0), torch.tensor([4.0, 2.0, 0.0]), rtol=0.05, atol=0.15)
    before = sampler.basis.clone()
    sampler.fit(torch.full((30, 40), math.nan))
    assert torch.equal(sampler.basis, before)


# ---- of a VQ-VAE


def quantised(**options: Any) -> VQVAE:
    small = {"width": 4, "codes": 9, "embedding": 3, "hidden": 8, "heads": 2, "principal": 6, "mixture": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VQVAE(VQVAE.Config.model_validate({**small, **options}), DIGITS.shape).eval()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("sampler", "extra"), [("gmm", 1), ("flow", 0)])
def test_samples_are_decoded_of_the_codes_nearest_to_what_was_drawn(sampler: str, extra: int) -> None:
    system = quantised(sampler=sampler)
    train = DIGITS.load("train").take(slice(0, 600))
    assert system.latents(5) == Draw((5, 6 + extra)) and [phase.name for phase in system.phases(8)] == ["autoencoder"]
    with torch.no_grad():
        vectors = system._encoded(train.unit()).flatten(1)
        system.codebook.copy_(vectors.reshape(-1, 3)[torch.arange(9) * 97])
    system.fit_sampler(train)
    assert system.fitted is not None
    torch.testing.assert_close(system.fitted.mean, vectors.mean(0), rtol=1e-4, atol=1e-4)
    latents = noise.draw(system.latents(20), "test")
    with torch.no_grad():
        drawn = system.fitted(latents).reshape(20, 16, 3)
        found = system.indices(latents)
        for row in range(20):
            for place in range(16):
                distances = (system.codebook - drawn[row, place]).square().sum(1)
                assert distances[found[row, place]] <= distances.min() + 1e-5
        sampled = system.sample(latents).values
        assert torch.equal(sampled, system.decode(system.codebook[found].flatten(1)))
    assert len(set(found.flatten().tolist())) > 2, "all of one code"
    # What is drawn has the spread of what it was fitted to, along the components that it has.
    many = system.fitted(noise.draw(system.latents(4000), "more"))
    spread = system.fitted.project(vectors).std(0)
    torch.testing.assert_close(system.fitted.project(many).std(0), spread, rtol=0.15, atol=0.01)


def test_the_prior_stays_the_default_and_what_it_leaves_out_is_refused() -> None:
    system = quantised()
    assert system.fitted is None and system.latents(3) == Draw((3, 16), "unit")
    assert [phase.name for phase in system.phases(8)] == ["autoencoder", "prior"]
    with pytest.raises(ValidationError, match="prior_start is of the autoregressive prior, which sampler gmm takes"):
        VQVAE.Config(sampler="gmm", prior_start=5)
    train = DIGITS.load("train")
    with pytest.raises(ValueError, match="covariance of 40 principal components cannot be fitted to 40 codes of train"):
        quantised(sampler="flow", principal=40).check_train(train.take(slice(0, 40)))
    with pytest.raises(ValueError, match="mixture: 50 components are more than train has samples"):
        quantised(sampler="gmm", mixture=50).check_train(train.take(slice(0, 40)))
    # No more components than numbers: 16 places of 3.
    assert quantised(sampler="flow", principal=500).latents(2) == Draw((2, 48))


def test_codes_of_a_vq_vae_are_fitted_with_its_own_encoder() -> None:
    """Other pictures, other mixture: a function of the weights and of train alone."""
    train = DIGITS.load("train")
    system, again, other = (quantised(sampler="gmm") for _ in range(3))
    for each, samples in ((system, train), (again, train), (other, Images(255 - train.values))):
        each.fit_sampler(samples)
    assert all(torch.equal(a, b) for a, b in zip(system.buffers(), again.buffers(), strict=True))
    assert system.fitted is not None and other.fitted is not None
    assert not torch.allclose(system.fitted.mean, other.fitted.mean)
