"""Every objective brings a generator to the data, from where noise leaves it; every system does, in the nightly tests.

How far samples are from the data is told by the energy distance (Székely & Rizzo 2013), 2 E‖X − Y‖ − E‖X − X′‖ −
E‖Y − Y′‖, computed here from all pairs: 0 for equal laws, and for two sets of real points of these sizes below 0.002.
"""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.data.digits import Digits
from aigc_lab.data.dirac import Dirac
from aigc_lab.data.ring import Ring
from aigc_lab.data.shared.batches import Batches
from aigc_lab.shape import Modality
from aigc_lab.systems.base import System
from aigc_lab.systems.dirac import DiracGAN
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState

# Wide enough that a few hundred steps are enough; the modes are 7.7 standard deviations apart.
RING = Ring(Ring.Config(sigma=0.1, points=20_000), Path())
DIGITS = Digits(Digits.Config(), Path())
SMALL = {"latent_size": 8, "hidden": 64, "critic_layers": 2, "lr": 2e-3}

OBJECTIVES: dict[str, dict[str, Any]] = {
    "minimax": {"loss": "minimax"},
    "nonsaturating": {},
    "least squares": {"loss": "least_squares"},
    "hinge": {"loss": "hinge", "lr": 1e-3, "n_critic": 2},
    "relativistic": {"loss": "relativistic"},
    "wasserstein, clipped": {"loss": "wasserstein", "clip": 0.1, "n_critic": 3, "lr": 1e-3},
    "wasserstein, gradient penalty": {
        "loss": "wasserstein",
        "penalty": "wgan_gp",
        "penalty_weight": 1.0,
        "n_critic": 2,
    },
    "dragan": {"penalty": "dragan", "penalty_weight": 0.1, "lr": 1e-3, "n_critic": 2},
    "r1": {"penalty": "r1"},
    "r2": {"penalty": "r2"},
    "r1 and r2, relativistic": {"penalty": "r1_r2", "loss": "relativistic", "penalty_weight": 0.1},
    "lecam": {"penalty": "lecam"},
    "consensus": {"penalty": "consensus", "steps": 250},
    "instance noise": {"penalty": "instance_noise"},
    "spectral norm": {"spectral_norm": True, "n_critic": 2},
    "packing": {"packing": 2},
    "simultaneous, r1": {"update": "simultaneous", "penalty": "r1"},
}


def energy_distance(one: Tensor, two: Tensor) -> float:
    n, m = len(one), len(two)
    within = torch.cdist(one, one).sum() / (n * (n - 1)) + torch.cdist(two, two).sum() / (m * (m - 1))
    return (2 * torch.cdist(one, two).mean() - within).item()


def learned(
    name: str, dataset: Dataset, options: dict[str, Any], steps: int, batch: int, count: int
) -> tuple[float, float, Tensor]:
    """Energy distance to the holdout before and after training, and samples after it."""
    kind = plugins.find(System, name)  # type: ignore[type-abstract]
    data = dataset.load("train")
    state = TrainingState.fresh(kind, kind.Config(**options), dataset.shape, seed=0, batch_size=batch, device="cpu")
    real = dataset.load("holdout").take(slice(0, count))
    real_values = real.values.float().flatten(1) / (255 if dataset.shape.modality == Modality.IMAGES else 1)

    def distance() -> float:
        return energy_distance(state.average.generate(count, "judged").values.flatten(1), real_values)

    if hasattr(state.system, "augment_strength"):
        cast("Tensor", state.system.augment_strength).fill_(0.1)  # from 0 it takes 100,000 pictures to change anything
    before = distance()
    for _ in train_one(state, Batches(data, batch, 0), seed=0, steps=steps, every=steps, decay=0.95, precision="fp32"):
        pass
    state.average.fit_sampler(data)
    return before, distance(), state.average.generate(count, "judged").values


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_brings_points_to_the_ring(objective: str) -> None:
    options = dict(OBJECTIVES[objective])
    steps = options.pop("steps", 600)
    before, after, points = learned("point_gan", RING, SMALL | options, steps, 128, 1000)
    assert before > 0.5
    assert after < 0.03, "not even a twentieth of where it began"
    nearest = torch.cdist(points, RING.modes.centres)
    held = torch.bincount(nearest.argmin(1)[nearest.amin(1) < 3 * RING.modes.sigma], minlength=8)
    assert (held > 10).sum() >= 7, f"points at the modes: {held.tolist()}"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dcgan", {"width": 8, "penalty": "consistency", "latent_size": 16, "lr": 1e-3, "steps": 180}),
        ("dcgan", {"width": 8, "augment": "diffaugment", "latent_size": 16, "lr": 1e-3}),
        ("dcgan", {"width": 8, "augment": "adaptive", "minibatch_std": True, "latent_size": 16, "lr": 1e-3}),
        (
            "began",
            {
                "width": 8,
                "network": "infogan",
                "latent_size": 16,
                "lr": 1e-3,
                "gamma": 0.7,
                "control": 0.01,
                "steps": 400,
            },
        ),
    ],
)
def test_an_objective_of_pictures_brings_them_to_the_digits(name: str, options: dict[str, Any]) -> None:
    options = dict(options)
    steps = options.pop("steps", 120)
    before, after, _ = learned(name, DIGITS, options, steps, 32, 300)
    assert before > 2
    assert after < before / 4


# ---- every system, at the size of experiments/gans-digits.yaml

SYSTEMS: dict[str, tuple[dict[str, Any], int]] = {
    "beta_tc_vae": ({"width": 32, "lr": 2e-3, "beta": 2.0}, 300),
    "factor_vae": ({"width": 32, "lr": 2e-3, "hidden": 100}, 300),
    "hvae": ({"width": 32, "lr": 2e-3, "anneal_steps": 200}, 300),
    "info_vae": ({"width": 32, "lr": 2e-3}, 300),
    "iwae": ({"width": 32, "lr": 2e-3}, 300),
    "rae": ({"width": 32, "lr": 2e-3}, 300),
    "vae_gan": ({"width": 32, "lr": 2e-3, "sampler": "gmm"}, 300),
    "vamp_vae": ({"width": 32, "lr": 2e-3, "pseudo_inputs": 100, "anneal_steps": 200}, 300),
    "vq_vae": ({"width": 32, "lr": 2e-3, "codes": 64, "embedding": 16}, 300),
    "wae_mmd": ({"width": 32, "lr": 2e-3, "sampler": "gmm"}, 300),
    "began": ({"width": 8, "network": "infogan", "lr": 1e-3, "gamma": 0.7, "control": 0.01, "latent_size": 16}, 1500),
    "cgan": ({"width": 32}, 400),
    "acgan": ({"width": 32}, 400),
    "projgan": ({"width": 16, "lr": 1e-3, "n_critic": 2}, 300),
    "cvae": ({"width": 32, "lr": 2e-3}, 300),
    "dcgan": ({"width": 32}, 400),
    "dragan": ({"width": 32}, 400),
    "infogan": ({"width": 16}, 600),
    "lsgan": ({"width": 32}, 400),
    "mm_gan": ({"width": 32}, 800),
    "ns_gan": ({"width": 32}, 800),
    "r3gan": ({"width": 24, "groups": 6}, 400),
    "sngan": ({"width": 16}, 300),
    "vae": ({"width": 32}, 400),
    "wgan": ({"width": 32}, 400),
    "wgan_gp": ({"width": 32}, 400),
    "point_gan": ({"latent_size": 32, "critic_layers": 3, "lr": 5e-4}, 1500),
    "maxout_gan": ({"hidden": 100, "critic_hidden": 50, "lr": 1e-3, "beta1": 0.5}, 1500),
}


# Text has its own: test_text_systems.py.
TAUGHT = [
    name
    for name in plugins.names("systems")
    if name != "dirac" and plugins.find(System, name).modality != Modality.TEXT  # type: ignore[type-abstract]
]


@pytest.mark.nightly
@pytest.mark.parametrize("name", TAUGHT)
def test_every_system_learns(name: str) -> None:
    """A system without a line in SYSTEMS fails here: it has not been seen to learn."""
    options, steps = SYSTEMS[name]
    images = plugins.find(System, name).modality == Modality.IMAGES  # type: ignore[type-abstract]
    before, after, _ = learned(name, DIGITS if images else RING, options, steps, 64 if images else 128, 500)
    print(f"{name}: energy distance {before:.3f} -> {after:.4f} after {steps} steps")
    assert after < before / 10


@pytest.mark.nightly
def test_the_dirac_gan_comes_to_rest_with_a_penalty() -> None:
    dirac = Dirac(Dirac.Config(), Path())
    state = TrainingState.fresh(
        DiracGAN, DiracGAN.Config(penalty="r1"), dirac.shape, seed=0, batch_size=2, device="cpu"
    )
    batches = Batches(dirac.load("train"), 2, 0)
    for _ in train_one(state, batches, seed=0, steps=500, every=500, decay=0.0, precision="fp32"):
        pass
    assert state.system.summary()["norm"] < 1e-5
