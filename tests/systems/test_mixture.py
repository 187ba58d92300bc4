"""The mixture that samples' latents are drawn from: until it is fitted, fitted, stored, and in a run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import WriterHere
from safetensors.torch import load_file
from torch import Tensor

import aigc_lab
from aigc_lab.data.digits import Digits
from aigc_lab.noise import Draw
from aigc_lab.systems.shared.autoencoder import ImageAutoencoder
from aigc_lab.systems.shared.mixture import GaussianMixture, component
from aigc_lab.systems.vae import VAE
from aigc_lab.tracking import writer
from aigc_lab.training.checkpoint import load_system, save_weights
from aigc_lab.training.stack import Stack
from aigc_lab.training.state import TrainingState

MEANS = torch.tensor([[-6.0, 0.0], [6.0, 3.0]])
SCALES = torch.tensor([[[1.0, 0.0], [0.8, 0.6]], [[0.5, 0.0], [0.0, 2.0]]])
DIGITS = Digits(Digits.Config(), Path())


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def clusters(n: int) -> Tensor:
    """Codes of two Gaussians, a quarter of them of the first."""
    of = (torch.arange(n) % 4 > 0).long()
    return MEANS[of] + (SCALES[of] @ normal(n, 2, 1)).squeeze(2)


def built(**options: Any) -> VAE:
    config = VAE.Config.model_validate({"width": 4, "latent_size": 5, **options})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VAE(config, DIGITS.shape).eval()


def test_until_it_is_fitted_it_is_the_prior() -> None:
    numbers = normal(50, 6)
    assert torch.equal(GaussianMixture(4, 5)(numbers), numbers[:, :5])
    plain, mixed = built(), built(sampler="gmm")
    assert plain.latents(7) == Draw((7, 5)) and mixed.latents(7) == Draw((7, 6))
    assert torch.equal(plain.sample(numbers[:, :5]).values, mixed.sample(numbers).values)


def test_what_is_drawn_has_the_law_of_what_it_was_fitted_to() -> None:
    mixture = GaussianMixture(2, 2)
    mixture.fit(clusters(4000))
    drawn = mixture(normal(40_000, 3, seed=1))
    first = drawn[:, 0] < 0
    assert first.float().mean().item() == pytest.approx(0.25, abs=0.02)
    for number, part in enumerate((drawn[first], drawn[~first])):
        torch.testing.assert_close(part.mean(0), MEANS[number], rtol=0, atol=0.15)
        torch.testing.assert_close(torch.cov(part.T), SCALES[number] @ SCALES[number].T, rtol=0.1, atol=0.1)
    again = GaussianMixture(2, 2)
    again.fit(clusters(4000))
    assert all(torch.equal(a, b) for a, b in zip(mixture.buffers(), again.buffers(), strict=True))


def test_a_component_is_picked_by_its_quantile() -> None:
    weights = torch.tensor([0.2, 0.0, 0.5, 0.3])
    quantiles = torch.tensor([0.0001, 0.19, 0.21, 0.69, 0.71, 0.9999])
    assert component(weights, torch.special.ndtri(quantiles)).tolist() == [0, 0, 2, 2, 3, 3]
    assert component(weights, torch.tensor([-9.0, 9.0, 40.0])).tolist() == [0, 3, 3]


def test_few_codes_and_broken_ones() -> None:
    mixture = GaussianMixture(10, 2)
    mixture.fit(torch.tensor([[float("nan"), 0.0]]))
    assert mixture.weights.tolist() == [1.0] + [0.0] * 9 and not mixture.means.any()
    mixture.fit(clusters(4))
    assert mixture.weights.count_nonzero() == 4 and mixture.weights.sum().item() == pytest.approx(1)
    assert mixture(normal(100, 3)).isfinite().all()


def test_codes_of_train_are_drawn_from_their_posteriors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    system, seen = built(sampler="gmm", mixture=3), []
    train = DIGITS.load("train")
    monkeypatch.setattr(GaussianMixture, "fit", lambda self, codes, labels: seen.append(codes))
    system.fit_sampler(train)
    monkeypatch.undo()
    (codes,) = seen
    assert codes.shape == (len(train), 5)
    with torch.no_grad():
        mean, log_variance = system.encode(train.unit())
    # Each image once, in another order: the draws' law is that of all posteriors together.
    torch.testing.assert_close(codes.mean(0), mean.mean(0), rtol=0, atol=0.1)
    spread = mean.var(0) + log_variance.exp().mean(0)
    torch.testing.assert_close(codes.var(0), spread, rtol=0.15, atol=0)
    assert (spread > 1.5 * mean.var(0)).all()

    system.fit_sampler(train)
    assert isinstance(system.mixture, GaussianMixture) and system.mixture.weights[1] > 0
    save_weights(system, system.state_dict(), tmp_path / "last.safetensors", {"run": "a"})
    loaded = load_system(tmp_path / "last.safetensors")
    assert torch.equal(loaded.generate(9, "x").values, system.generate(9, "x").values)
    assert not torch.equal(loaded.generate(9, "x").values, built(sampler="gmm", mixture=3).generate(9, "x").values)


def test_a_run_keeps_the_mixture_of_the_weights_that_it_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stored set of weights has the mixture that is fitted to its own codes of train."""
    for name in ("AIGC_LAB_HOME", "AIGC_LAB_REGISTRY_URL", "AIGC_LAB_OPTUNA_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(writer, "Writer", WriterHere)
    training = {"steps": 9, "batch_size": 32, "log_every": 3, "evaluate_every": 6, "keep_every": 3, "threads": 1}
    run = aigc_lab.train(
        {
            "name": "mixed",
            "data": {"name": "digits"},
            "system": {"name": "vae", "width": 4, "latent_size": 3, "sampler": "gmm", "mixture": 2},
            "training": {**training, "ema": 0.9},
            "evaluation": {"name": "vae", "metrics": ["reconstruction"], "samples": 200},
            "objective": {"minimize": "reconstruction_mse"},
        },
        seed=0,
    )
    assert run is not None
    files = {path.stem: path for path in tmp_path.rglob("*.safetensors")}
    assert {"last", "step-000003", "step-000006"} <= files.keys()
    for path in files.values():
        system, stored = load_system(path), load_file(path)
        assert isinstance(system, ImageAutoencoder) and isinstance(system.mixture, GaussianMixture)
        assert system.mixture.means.any()
        system.fit_sampler(DIGITS.load("train"))
        for key, value in system.mixture.state_dict().items():
            assert torch.equal(stored[f"mixture.{key}"], value), f"{path.stem}: {key}"


def test_a_replica_of_a_stack_is_fitted_alone() -> None:
    config = VAE.Config(width=4, latent_size=3, sampler="gmm", mixture=2)
    states = [TrainingState.fresh(VAE, config, DIGITS.shape, seed=n, batch_size=8, device="cpu") for n in (0, 1)]
    stack, train = Stack(states), DIGITS.load("train")
    states[1].average.fit_sampler(train)
    together: Any = stack.average
    assert not together.mixture.means[0].any() and together.mixture.means[1].any()
    alone = TrainingState.fresh(VAE, config, DIGITS.shape, seed=1, batch_size=8, device="cpu").average
    alone.fit_sampler(train)
    mixtures: list[Any] = [each.mixture for each in (states[1].average, alone)]
    torch.testing.assert_close(mixtures[0].means, mixtures[1].means)
