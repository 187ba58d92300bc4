"""Language models and the text VAE: what their losses are, what they learn, and when they stop."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import WriterHere
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from aigc_lab import noise, plugins
from aigc_lab.api import sweep
from aigc_lab.commands import verify
from aigc_lab.data.base import Dataset
from aigc_lab.data.oracle import OracleText
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.data.shared.batches import Batches
from aigc_lab.host.settings import Settings
from aigc_lab.metrics.elbo import active_units, codes
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import artifacts_by_run, list_sweeps, list_trials, objective_histories, run_outcomes
from aigc_lab.samples import Text
from aigc_lab.serving import lookup
from aigc_lab.shape import Modality
from aigc_lab.sweeps import optuna_storage
from aigc_lab.systems.base import System
from aigc_lab.systems.lstm_lm import LSTMLM
from aigc_lab.systems.shared.kl_term import kl_weight
from aigc_lab.systems.shared.language import kept
from aigc_lab.systems.shared.text_gan import TextGAN
from aigc_lab.systems.text_vae import TextVAE
from aigc_lab.systems.transformer_lm import TransformerLM
from aigc_lab.text.vocabulary import PAD, UNK
from aigc_lab.tracking import writer
from aigc_lab.training.loop import train_one
from aigc_lab.training.optimizers import shortened
from aigc_lab.training.state import TrainingState


@cache
def prose() -> PyDoc:
    return PyDoc(PyDoc.Config(max_length=15, max_words=200), Path())


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> OracleText:
    """Twelve words, six places: enough structure that half of its uncertainty can be learned in seconds."""
    return OracleText(OracleText.Config(words=12, length=6, train=1500, scored=500), tmp_path_factory.mktemp("data"))


def state_of(
    kind: type[System], data: Dataset, options: dict[str, Any], *, batch: int = 32, seed: int = 0
) -> TrainingState:
    return TrainingState.fresh(kind, kind.Config(**options), data.shape, seed=seed, batch_size=batch, device="cpu")


def taught(kind: type[System], data: Dataset, options: dict[str, Any], steps: int, **more: Any) -> TrainingState:
    state = state_of(kind, data, options, **more)
    batches = Batches(data.load("train"), state.batch_size, 0)
    for _ in train_one(state, batches, seed=0, steps=steps, every=steps, decay=0.9, precision="fp32"):
        pass
    return state


# ---- likelihood


@pytest.mark.parametrize(("kind", "options"), [(LSTMLM, {"hidden": 8, "layers": 2}), (TransformerLM, {"width": 8})])
def test_the_loss_is_the_mean_over_words_of_what_follows_each_word(kind: Any, options: dict[str, Any]) -> None:
    """Against the probabilities that decoding uses, one word at a time."""
    state = state_of(kind, prose(), options | {"dropout": 0.0})
    system: Any = state.system.eval()
    batch = Batches(prose().load("train"), 8, 0)[3]
    total, count = 0.0, 0
    for row in batch.values:
        memory = system.decoder.start(1, system.length)
        word = torch.tensor([[PAD]])
        for target in row[row != PAD]:
            features, memory = system.decoder.step(word, memory)
            total -= F.log_softmax(system.output(features[0, -1]).double(), 0)[target - 1].item()
            count, word = count + 1, target.reshape(1, 1)
    loss = state.phases[0].loss(batch, {}, 0).total.item()
    assert loss == pytest.approx(total / count, rel=1e-5)
    nll = system.token_nll(batch.values)
    assert nll.sum().item() == pytest.approx(total, rel=1e-5)
    assert not nll[batch.values == PAD].any()


def test_probabilities_of_all_sentences_add_up_to_one() -> None:
    """Of sentences of one length, without an end: the marks have no probability."""
    data = OracleText(OracleText.Config(words=3, length=3, train=100, scored=100), Path())
    for kind, options in ((LSTMLM, {}), (TransformerLM, {"width": 8})):
        system: Any = state_of(kind, data, options).system.eval()
        every = torch.cartesian_prod(*[torch.arange(3, 6)] * 3)
        assert system.token_nll(every).sum(1).neg().exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_dropout_keeps_the_mean_and_whole_sentences() -> None:
    uniform = noise.draw(noise.Draw((2000, 50), "unit"), "test")
    factors = kept(uniform, 0.3)
    assert factors.shape == (2000, 1, 50)
    assert sorted({*factors.flatten().tolist()}) == [0.0, pytest.approx(1 / 0.7)]
    assert factors.mean().item() == pytest.approx(1, abs=0.01)
    # What is dropped is dropped at every place of a sentence, and the noise decides what.
    state = state_of(LSTMLM, prose(), {"dropout": 0.5}, batch=8)
    batch, phase = Batches(prose().load("train"), 8, 0)[0], state.phases[0]
    keep_all = {"dropout": torch.ones(8, 64)}
    plain = state_of(LSTMLM, prose(), {"dropout": 0.0}, batch=8)
    plain.system.load_state_dict(state.system.state_dict())
    with torch.no_grad():
        for name in ("decoder.embedding.weight", "output.weight"):
            state.system.get_parameter(name).div_(2)  # each kept number is doubled
    first, second = phase.loss(batch, keep_all, 0).total, plain.phases[0].loss(batch, {}, 0).total
    assert first.item() == pytest.approx(second.item(), rel=1e-5)


def test_a_long_gradient_is_shortened_as_torch_does() -> None:
    source = torch.Generator().manual_seed(0)
    gradients = tuple(torch.randn(size, generator=source) for size in ((3, 4), (5,), ()))
    for limit in (0.5, 100.0):
        weights = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(weights, limit)
        for ours, weight in zip(shortened(gradients, limit), weights, strict=True):
            assert weight.grad is not None
            torch.testing.assert_close(ours, weight.grad)
    assert shortened(gradients, None) is gradients


def test_the_practical_preset_is_what_keys_do_not_say() -> None:
    config = LSTMLM.Config.model_validate({"preset": "practical", "hidden": 64})
    assert (config.embedding, config.hidden, config.dropout) == (128, 64, 0.3)
    paper = LSTMLM.Config()
    assert (paper.embedding, paper.hidden, paper.layers, paper.dropout, paper.lr) == (32, 32, 1, 0.0, 1e-2)


# ---- the text VAE


@pytest.mark.parametrize(
    ("annealing", "expected"),
    [
        ("none", [1, 1, 1, 1, 1, 1]),
        ("linear", [0, 0.125, 0.25, 0.625, 1, 1]),
        # Four parts of 200 steps: up over 100, then 100 at 1.
        ("cyclical", [0, 1, 0, 1, 1, 1]),
    ],
)
def test_the_weight_of_kl(annealing: str, expected: list[float]) -> None:
    assert [kl_weight(step, annealing, 800, 4) for step in (0, 100, 200, 500, 800, 5000)] == expected
    assert kl_weight(450, "cyclical", 800, 4) == 0.5


@pytest.mark.parametrize(("free_bits", "beta"), [(0.0, 1.0), (0.4, 0.5)])
def test_its_loss_is_made_of_what_it_says(free_bits: float, beta: float) -> None:
    options = {
        "hidden": 16,
        "embedding": 8,
        "latent_size": 6,
        "free_bits": free_bits,
        "beta": beta,
        "word_dropout": 0.4,
    }
    state = state_of(TextVAE, prose(), options | {"anneal_steps": 10}, batch=8)
    system: Any = state.system
    with torch.no_grad():  # a code that says something
        for weight in system.encoder.parameters():
            weight.mul_(3)
    batch, phase = Batches(prose().load("train"), 8, 0)[1], state.phases[0]
    draws = {name: noise.draw(what, "test", name) for name, what in phase.noise.items()}
    found = phase.loss(batch, draws, 4)
    mean, log_variance = system.encode(batch.values)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    kl = kl_divergence(posterior, Normal(0.0, 1.0))
    latents = mean + posterior.stddev * draws["latents"]
    inputs = F.pad(batch.values[:, :-1], (1, 0), value=PAD)
    replaced = 0
    for row in range(8):
        for place in range(1, inputs.shape[1]):
            if inputs[row, place] != PAD and draws["words"][row, place] < 0.4:
                inputs[row, place], replaced = UNK, replaced + 1
    assert replaced > 10
    logits = system.output(system.decoder(inputs, latents))
    reconstruction = sum(
        -F.log_softmax(logits[row, place], 0)[word - 1]
        for row in range(8)
        for place, word in enumerate(batch.values[row])
        if word != PAD
    )
    expected = reconstruction / 8 + 0.4 * beta * kl.mean(0).clamp_min(free_bits).sum()
    assert found.total.item() == pytest.approx(float(expected.detach()), rel=1e-5)
    assert found.parts["kl"].item() == pytest.approx(kl.sum(1).mean().item(), rel=1e-5)
    assert found.dynamics["kl_weight"].item() == pytest.approx(0.4)
    assert (kl.mean(0) < 0.4).any() and (kl.mean(0) > 0.4).any()


def test_padding_says_nothing_to_the_encoder() -> None:
    system: Any = state_of(TextVAE, prose(), {"hidden": 8, "embedding": 8, "latent_size": 3}).system.eval()
    rows = prose().load("train").values[:20]
    whole = system.encode(rows)[0]
    for row, code in zip(rows, whole, strict=True):
        alone = system.encode(row[row != PAD].unsqueeze(0))[0]
        torch.testing.assert_close(alone[0], code, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def vaes() -> dict[str, System]:
    """One whose decoder is strong and whose KL weighs from the start, and one that must use its code."""
    small = {"hidden": 64, "embedding": 32, "latent_size": 8, "lr": 3e-3}
    collapsed = taught(TextVAE, prose(), small | {"annealing": "none", "word_dropout": 0.0}, 250)
    used = small | {"annealing": "linear", "anneal_steps": 250, "word_dropout": 0.7, "free_bits": 0.3}
    return {"collapsed": collapsed.average, "used": taught(TextVAE, prose(), used, 250).average}


def test_without_annealing_the_posterior_collapses(vaes: dict[str, System]) -> None:
    held_out = prose().load("holdout")
    found = {name: codes(system, held_out, 2) for name, system in vaes.items()}  # type: ignore[arg-type]
    assert found["collapsed"].kl.mean() < 0.1
    assert active_units(found["collapsed"].mean)[0] <= 3
    assert found["used"].kl.mean() > 1
    assert active_units(found["used"].mean)[0] == 8


def test_the_weighted_bound_falls_with_the_number_of_latents(vaes: dict[str, System]) -> None:
    held_out = prose().load("holdout").take(slice(0, 60))
    bounds = [codes(vaes["used"], held_out, count).nll.mean().item() for count in (1, 5, 30)]  # type: ignore[arg-type]
    assert bounds[0] > bounds[1] > bounds[2]
    elbo = codes(vaes["used"], held_out, 30).elbo.mean().item()  # type: ignore[arg-type]
    assert bounds[2] < -elbo


def test_decoding_a_code_is_its_likeliest_words(vaes: dict[str, System]) -> None:
    system: Any = vaes["used"]
    latents = noise.draw(noise.Draw((5, 8)), "test")
    words = system.decode(latents)
    logits = system.output(system.decoder(F.pad(words[:, :-1], (1, 0), value=PAD), latents))
    for row in range(5):
        said = words[row] != PAD
        assert torch.equal(logits[row].argmax(1)[said] + 1, words[row][said])


# ---- learning


def per_word(model: Any, text: Text) -> float:
    nll: Tensor = model.token_nll(text.values)
    return (nll.sum() / (text.values != PAD).sum()).item()


@pytest.mark.parametrize(
    ("kind", "options", "steps"), [(LSTMLM, {}, 600), (TransformerLM, {"width": 32, "lr": 3e-3}, 600)]
)
def test_a_model_of_an_oracle_comes_near_its_entropy(
    kind: Any, options: dict[str, Any], steps: int, oracle: Any
) -> None:
    holdout = oracle.load("holdout")
    entropy, uniform = per_word(oracle.likelihood, holdout), math.log(12)
    model: Any = taught(kind, oracle, options, steps).average
    assert entropy < uniform - 0.5, "there is something to learn"
    with torch.no_grad():
        own, said = per_word(oracle.likelihood, model.generate(500, "test")), per_word(model, holdout)
    # Most of what there is to learn, in the sentences that it makes and in what it says of real ones.
    assert own < entropy + 0.45 * (uniform - entropy)
    assert entropy < said < entropy + 0.3 * (uniform - entropy)


OVERFITTING = {
    "name": "overfitting",
    "data": {"name": "oracle", "words": 12, "length": 6, "train": 120, "scored": 200},
    "system": {"name": "lstm_lm"},
    "training": {
        "steps": 600,
        "batch_size": 32,
        "log_every": 10,
        "evaluate_every": 20,
        "patience": 3,
        "ema": 0.0,
        "threads": 1,
    },
    "evaluation": {"name": "text-oracle", "samples": 200},
    "objective": {"minimize": "nll_gen"},
    "search": {"sampler": "grid", "trials": 1, "seeds": 1},
}


@pytest.mark.usefixtures("without_mlflow")
def test_a_run_ends_when_held_out_likelihood_is_no_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIGC_LAB_DATA_DIR", str(tmp_path / "data"))
    sweep(OVERFITTING, home=tmp_path / "home")
    with Registry.open(f"sqlite:///{tmp_path}/home/registry.db", home=tmp_path / "home", create=False) as registry:
        (found,) = list_sweeps(registry)
        (run,) = list_runs(registry, found["sweep"])
        history = objective_histories(registry, found["sweep"])[run["run"]]
        files = {file["name"]: Path(file["path"]) for file in artifacts_by_run(registry, found["sweep"])[run["run"]]}
    assert run["state"] == "FINISHED"
    values, steps = [entry["value"] for entry in history], [entry["step"] for entry in history]
    best = values.index(min(values))
    # It overfits 120 sentences: the best was three evaluations before the end, and the end long before 600 steps.
    assert len(values) - 1 - best == 3
    assert steps == [20 * number for number in range(1, len(steps) + 1)] and steps[-1] < 300
    names = {score["name"] for score in run["scores"]}
    assert {"nll_gen", "nll_div", "nll_oracle", "self_bleu_2", "unique"} <= names
    lines = files["samples"].read_text("utf-8").splitlines()
    assert len(lines) == 20 and all(len(line.split()) == 6 for line in lines)
    curves = json.loads(files["curves"].read_text("utf-8"))
    assert curves["loss/model/total"]["step"][-1] == steps[-1]


def test_with_patience_the_selected_weights_are_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is ranked, told to the search, promoted and sampled from is the best evaluation, not the overfitted end."""
    monkeypatch.setenv("AIGC_LAB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(writer, "Writer", WriterHere)
    (row,) = sweep(OVERFITTING, home=tmp_path / "home").to_dict("records")
    settings = Settings.load(tmp_path / "home")
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        run = show_run(registry, f"{row['sweep']}.0.0")
        (trial,) = list_trials(registry, row["sweep"])
        (outcome,) = run_outcomes(registry, row["sweep"])
        weights = lookup.weights_of_run(registry, run["run"], "last")
        assert verify.verify_sweeps(registry, settings).problems == []
        history = objective_histories(registry, row["sweep"])[run["run"]]
    best = min(history, key=lambda entry: entry["value"])
    assert history[-1]["value"] > best["value"]
    assert (outcome["value"], trial["value"]) == (best["value"], best["value"])
    assert optuna_storage.trial_states(settings.optuna_url, row["sweep"])[0] == ("COMPLETE", best["value"])
    assert {file["kind"]: file["step"] for file in run["checkpoints"]} == {
        "last": best["step"],
        "selected": best["step"],
    }
    assert len({file["sha256"] for file in run["checkpoints"]}) == 1
    assert run["scores"] == run["scores_selected"]
    shown = {score["name"]: score["value"] for score in run["scores"]}
    assert (row["value"], row["reference"]) == (shown["nll_gen"], best["value"])
    # The stored weights are those of that step: they say of the holdout what was recorded.
    model: Any = weights.load("cpu").system
    data = OracleText(OracleText.Config(words=12, length=6, train=120, scored=200), tmp_path)
    with torch.no_grad():
        assert per_word(model, data.load("holdout")) == pytest.approx(shown["nll_gen"], rel=1e-5)


LEARNED: dict[str, tuple[dict[str, Any], int]] = {
    "lstm_lm": ({"preset": "practical", "embedding": 32, "hidden": 64}, 300),
    "transformer_lm": ({"width": 64, "lr": 2e-3}, 300),
    "text_vae": ({"embedding": 32, "hidden": 64, "latent_size": 8, "lr": 3e-3, "anneal_steps": 200}, 300),
}


@pytest.mark.nightly
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in plugins.names("systems")
        if plugins.find(System, name).modality == Modality.TEXT  # type: ignore[type-abstract]
        and not issubclass(plugins.find(System, name), TextGAN)  # type: ignore[type-abstract]
    ],
)
def test_every_system_of_text_learns(name: str) -> None:
    """By what a 4-gram model of its sentences says of real ones. A system without a line in LEARNED fails here. Text
    GANs have none: what they learn here is their pretraining's likelihood; test_text_gans.py asks what becomes of it.
    """
    from aigc_lab.text.ngram_model import NgramModel

    options, steps = LEARNED[name]
    kind = plugins.find(System, name)  # type: ignore[type-abstract]
    real = prose().load("holdout").corpus

    def reverse(system: System) -> float:
        made = system.generate(1000, "test")
        assert isinstance(made, Text)
        nll, words = NgramModel.fit(made.corpus).nll(real)
        return float(nll.sum() / words.sum())

    before = reverse(state_of(kind, prose(), options).average)
    after = reverse(taught(kind, prose(), options, steps).average)
    known, words = NgramModel.fit(prose().load("train").corpus).nll(real)
    floor = float(known.sum() / words.sum())
    print(f"{name}: reverse LM {before:.3f} -> {after:.3f} after {steps} steps; of real sentences {floor:.3f}")
    assert after - floor < 0.5 * (before - floor)
