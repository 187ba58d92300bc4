"""What autoencoders cannot learn from is said in one line before any training; many draws are decoded in chunks."""

from pathlib import Path
from typing import Any

import pytest
import torch

from aigc_lab.data.digits import Digits
from aigc_lab.errors import UsageError
from aigc_lab.experiment.checks import check_data, check_experiment
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.metrics import elbo
from aigc_lab.samples import Images
from aigc_lab.systems.iwae import IWAE
from aigc_lab.systems.vae import VAE

DIGITS = Digits(Digits.Config(), Path())
TRAIN = len(DIGITS.load("train"))
EXPERIMENT = """\
data: {name: digits}
system: SYSTEM
training: {steps: 40, batch_size: 32, log_every: 10, evaluate_every: 20, threads: 1}
evaluation: {name: image-small, samples: 200}
objective: {minimize: fd_clf}
"""
# As many as there are is enough.
FITTING = [
    "{name: vq_vae, codes: TRAIN, width: 4}",
    "{name: vamp_vae, pseudo_inputs: TRAIN, width: 4}",
    "{name: rae, mixture: TRAIN, width: 4}",
    "{name: rae, sampler: flow, width: 4}",
    "{name: vq_vae, prior_start: 39, width: 4}",
    "{name: vae, likelihood: gaussian, width: 4}",
]
REFUSED = [
    (
        "{name: vq_vae, codes: 2000, width: 4}",
        "vq_vae: codes: 2000 vectors of the codebook are more than train has samples; set it to TRAIN or less",
    ),
    (
        "{name: vamp_vae, pseudo_inputs: {choice: [10, 2000]}, width: 4}",
        "vamp_vae: pseudo_inputs: 2000 components of the prior are more than train has samples; set it to TRAIN or",
    ),
    (
        "{name: rae, mixture: 2000, width: 4}",
        "rae: mixture: 2000 components are more than train has samples; set it to TRAIN or less",
    ),
    (
        "{name: vamp_vae, latent_size: 3000, sampler: flow, width: 4}",
        "vamp_vae: the covariance of 3000 latents cannot be fitted to TRAIN codes of train: take fewer than TRAIN "
        "latents, or set sampler to prior",
    ),
    (
        "{name: vq_vae, prior_start: 40, width: 4}",
        "vq_vae: phase prior would never run: starts at 40 of 40 steps; set training.steps above 40, or let it start "
        "earlier: prior_start 40 must be less than 40",
    ),
]


def checked(system: str, folder: Path) -> None:
    (folder / "mine.yaml").write_text(EXPERIMENT.replace("SYSTEM", system.replace("TRAIN", str(TRAIN))))
    experiment = load_experiment(str(folder / "mine.yaml"), data_dir=folder)
    check_experiment(experiment)
    check_data(experiment)


@pytest.mark.parametrize(("system", "said"), REFUSED)
def test_more_than_the_data_can_fill_is_refused(system: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"mine\.yaml:2: system[^:]*: " + said.replace("TRAIN", str(TRAIN))) as error:
        checked(system, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("system", FITTING)
def test_as_many_as_there_are_is_enough(system: str, tmp_path: Path) -> None:
    checked(system, tmp_path)


@pytest.mark.parametrize("name", ["vae", "beta_tc_vae", "hvae", "iwae", "vamp_vae"])
def test_a_bernoulli_likelihood_is_of_pixels_between_0_and_1(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = {split: Images(DIGITS.load(split).signed()) for split in ("train", "reference", "holdout")}
    monkeypatch.setattr(Digits, "load", lambda self, split: signed[split])
    extra = ", pseudo_inputs: 9" if name == "vamp_vae" else ""
    with pytest.raises(
        UsageError,
        match=rf"mine\.yaml:2: system: {name}: likelihood bernoulli is of pixels in \[0, 1\], and those of train go "
        "from -1 to 1: scale them, or set likelihood to gaussian",
    ):
        checked(f"{{name: {name}, width: 4{extra}}}", tmp_path)
    checked(f"{{name: {name}, width: 4, likelihood: gaussian{extra}}}", tmp_path)
    monkeypatch.undo()
    unit = Images(DIGITS.load("train").unit())
    assert unit.values.min() == 0 and unit.values.max() == 1
    VAE(VAE.Config(width=4), DIGITS.shape).check_train(unit)
    unit.values[3, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="go from nan to nan"):
        VAE(VAE.Config(width=4), DIGITS.shape).check_train(unit)


@pytest.mark.parametrize(
    ("importance", "chunk", "at_once"), [(50, None, [50]), (120, None, [50, 50, 20]), (7, 3, [3, 3, 1])]
)
def test_many_latents_of_an_image_are_decoded_in_chunks(importance: int, chunk: int | None, at_once: list[int]) -> None:
    config = IWAE.Config(width=4, latent_size=3, importance=importance, chunk=chunk)
    system, seen = IWAE(config, DIGITS.shape), []
    plain = system.block
    system.block = lambda images, latents: (seen.append(latents.shape[1]), plain(images, latents))[1]  # type: ignore[method-assign, func-returns-value]
    (phase,) = system.phases(2)
    draws = {name: torch.randn(what.size) for name, what in phase.noise.items()}
    loss = phase.loss(DIGITS.load("train").take(slice(0, 2)), draws, 0)
    assert seen == at_once and loss.total.isfinite()
    assert (system.unstackable is None) == (len(at_once) == 1)


def test_an_importance_weighted_score_never_holds_all_its_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many latents an image has, so many are drawn and decoded at a time."""
    system: Any = VAE(VAE.Config(width=4, latent_size=3), DIGITS.shape).eval()
    order: list[str] = []
    drawn, weighed = elbo._draws, elbo._log_weights

    def draws(*given: Any) -> Any:
        for each in drawn(*given):
            order.append("drawn")
            yield each

    def log_weights(*given: Any) -> Any:
        order.append("used")
        return weighed(*given)

    monkeypatch.setattr(elbo, "_draws", draws)
    monkeypatch.setattr(elbo, "_log_weights", log_weights)
    elbo.codes(system, DIGITS.load("train").take(slice(0, 5)), 35)
    assert order == ["drawn", "used"] * 4
