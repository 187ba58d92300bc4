"""Rankings of the VAE family that papers publish, on 3,000 small digits: the order is asserted, not the figures.

Published, on the 28×28 pixels of MNIST with their authors' networks (nats an image, test set; lower is better):

- Burda et al. 2016, table 1, one stochastic layer, NLL from 5000 draws: VAE 86.76 (k = 1), 86.47 (k = 5), 86.35
  (k = 50); IWAE 85.54 (k = 5), 84.78 (k = 50). Two layers: VAE 85.33, 85.01, 84.78; IWAE 83.89 (k = 5), 82.90 (k = 50).
- Tomczak & Welling 2018, table 1, static MNIST: VAE 88.56 with the normal prior, 85.57 with the VampPrior; two levels
  86.05 and 83.19.
- Ghosh et al. 2020, table 1, FID of samples on MNIST, from N(0, I) and from a mixture of ten Gaussians: VAE 19.21 and
  17.66, RAE-L2 22.22 and 8.69. A fid is of Inception's features, and compares with no fd_clf.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import WriterHere
from torch import Tensor

import aigc_lab
from aigc_lab import plugins
from aigc_lab.data.mnist_5k import MNIST5k
from aigc_lab.data.shared.batches import Batches
from aigc_lab.metrics.elbo import codes
from aigc_lab.samples import Images
from aigc_lab.systems.base import System
from aigc_lab.tracking import writer
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState

DATA = MNIST5k(MNIST5k.Config(size=16), Path())


def binarised(split: Any) -> Images:
    return Images((DATA.load(split).values >= 128).byte() * 255)


def nll(name: str, steps: int = 800, **options: Any) -> Tensor:
    """−log p(x) [1000] in nats by 200 importance-weighted draws, of the holdout's digits after training."""
    kind: Any = plugins.find(System, name)
    config = kind.Config.model_validate({"width": 16, "lr": 2e-3, **options})
    state = TrainingState.fresh(kind, config, DATA.shape, seed=0, batch_size=64, device="cpu")
    batches = Batches(binarised("train"), 64, 0)
    for _ in train_one(state, batches, seed=0, steps=steps, every=steps, decay=0.99, precision="fp32"):
        pass
    average: Any = state.average
    return codes(average, binarised("holdout"), 200).nll


@cache
def plain() -> Tensor:
    return nll("vae")


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("iwae", {"importance": 5}),
        ("vamp_vae", {"pseudo_inputs": 50, "anneal_steps": 400}),
        ("hvae", {"anneal_steps": 400}),
    ],
)
def test_a_tighter_bound_or_a_richer_prior_gives_a_likelier_model(name: str, options: dict[str, Any]) -> None:
    """Beside a VAE, at equal steps, on the same images: by 1.2 nats with IWAE of k = 5 in its paper, 3.0 with the
    VampPrior (Tomczak & Welling), and 1.5 with two levels (Burda et al., k = 1).
    """
    vae, other = plain(), nll(name, **options)
    gain = vae - other
    error = gain.std().item() / len(gain) ** 0.5
    print(f"IW-NLL: vae {vae.mean():.2f}, {name} {other.mean():.2f} nats; gain {gain.mean():.2f} ± {1.96 * error:.2f}")
    assert gain.mean().item() > 1.96 * error


@pytest.mark.nightly
def test_a_mixture_draws_better_codes_of_an_autoencoder_than_the_prior(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A RAE's codes follow no prior, so that its paper draws them from a mixture; a flow does as well."""
    for name in ("AIGC_LAB_HOME", "AIGC_LAB_REGISTRY_URL", "AIGC_LAB_OPTUNA_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(writer, "Writer", WriterHere)
    highs, lows = {}, {}
    for sampler in ("prior", "gmm", "flow"):
        run = aigc_lab.train(
            {
                "name": sampler,
                "data": {"name": "mnist_5k", "size": 16},
                "system": {"name": "rae", "width": 16, "lr": 2e-3, "sampler": sampler},
                "training": {"steps": 400, "batch_size": 64, "evaluate_every": 400, "ema": 0.99, "threads": 1},
                "evaluation": {"name": "image-small", "samples": 1000},
                "objective": {"minimize": "fd_clf"},
            }
        )
        (score,) = [each for each in run["scores"] if each["name"] == "fd_clf" and each["split"] == "holdout"]
        lows[sampler], highs[sampler] = score["low"], score["high"]
        print(f"rae, {sampler}: fd_clf {score['value']:.1f} [{score['low']:.1f}, {score['high']:.1f}]")
    assert highs["gmm"] < lows["prior"]
    assert highs["flow"] < lows["prior"]
