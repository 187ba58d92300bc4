"""The Gumbel-softmax GAN: what its players minimise, its temperature, its phases resumed, and what it draws."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from few_steps import assert_resumes, trained
from pydantic import ValidationError
from torch import Tensor

from aigc_lab import noise
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.data.shared.batches import Batches
from aigc_lab.nets.decoding import Sampling
from aigc_lab.nets.relaxed import gumbel_of
from aigc_lab.systems.base import refuse_idle
from aigc_lab.systems.gumbel_gan import GumbelGAN
from aigc_lab.systems.lstm_lm import LSTMLM
from aigc_lab.systems.shared.relaxed_gan import annealed
from aigc_lab.systems.transformer_lm import TransformerLM
from aigc_lab.training.optimizers import trained as trained_by
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import TrainingState

SMALL: dict[str, Any] = {
    "embedding": 6,
    "hidden": 8,
    "critic_embedding": 5,
    "filters": 0.03,
    "pretrain_steps": 3,
    "critic_steps": 2,
    "n_critic": 2,
}
COOLING: dict[str, Any] = {"temperature": 2.0, "temperature_end": 0.25, "temperature_steps": 3}


@pytest.fixture(scope="module")
def data() -> PyDoc:
    return PyDoc(PyDoc.Config(max_length=8, max_words=40), Path())


def state_of(data: Any, *, seed: int = 0, **options: Any) -> TrainingState:
    config = GumbelGAN.Config(**SMALL | options)
    return TrainingState.fresh(GumbelGAN, config, data.shape, seed=seed, batch_size=4, device="cpu")


# ---- the temperature


def test_the_temperature_is_relgans_inverse_or_a_line() -> None:
    most, steps = 100.0, 50
    for step in (0, 7, 50, 90):
        beta = most ** (min(step, steps) / steps)
        assert 1 / annealed("exponential", 1.0, 1 / most, step / steps) == pytest.approx(beta)
    assert [annealed("linear", 5.0, 1.0, done) for done in (0.0, 0.25, 1.0, 3.0)] == [5.0, 4.0, 1.0, 1.0]


def test_it_falls_over_the_adversarial_steps_and_is_logged(data: PyDoc) -> None:
    state = state_of(data, **COOLING)
    (curve,) = trained(data, state)
    logged = [scalars.get("dynamics/temperature") for scalars in curve]
    assert logged[:5] == [None] * 5
    assert logged[5:] == pytest.approx([2.0, 1.0, 0.5, 0.25])
    system: Any = state.system
    assert [system.temperature(step) for step in (0, 5)] == [2.0, 2.0], "the critic's own steps have the first"
    constant: Any = state_of(data, temperature=0.7, temperature_end=None).system
    assert {constant.temperature(step) for step in (0, 9999)} == {0.7}


@pytest.mark.parametrize("key", ["temperature", "temperature_end"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_is_above_0(key: str, value: float) -> None:
    with pytest.raises(ValidationError, match=key):
        GumbelGAN.Config.model_validate({key: value})


def test_an_adversarial_phase_that_never_runs_is_refused(data: PyDoc) -> None:
    phases = state_of(data).phases
    with pytest.raises(ValueError, match="phase generator would never run: starts at 5 of 5 steps"):
        refuse_idle(phases, 5)
    refuse_idle(phases, 6)


# ---- the players


def word_by_word(system: Any, uniform: Tensor, temperature: float, hard: bool) -> Tensor:
    """Weights of sentences [N, L, V] from the whole forward pass of all words so far."""
    words, first = len(system.vocabulary), system.first
    padding = F.one_hot(torch.zeros(len(uniform), dtype=torch.int64), words).float()
    before, going = [padding], torch.ones(len(uniform), 1)
    for place in range(uniform.shape[1]):
        scores = system.output(system.decoder(torch.stack(before, 1))[:, -1]) + gumbel_of(uniform[:, place])
        drawn = F.pad((scores / temperature).softmax(1), (first, 0))
        if hard:
            drawn = F.one_hot(scores.argmax(1) + first, words) + drawn - drawn.detach()
        before.append(going * drawn + (1 - going) * padding)
        going = going * (1 - drawn[:, 1:2])
    return torch.stack(before[1:], 1)


@pytest.mark.parametrize("decoder", ["lstm", "gru", "transformer"])
@pytest.mark.parametrize("estimator", ["soft", "straight-through"])
def test_both_players_read_relaxed_sentences_at_the_steps_temperature(
    data: PyDoc, decoder: str, estimator: str
) -> None:
    state = state_of(data, decoder=decoder, estimator=estimator, critic_l2=0.3, critic="gru", **COOLING)
    system: Any = state.system
    _, critic, generator = state.phases
    batch = Batches(data.load("train"), 4, 0)[0]
    draws = {name: noise.draw(what, name) for name, what in critic.noise.items()}
    made = word_by_word(system, draws["words"], 1.0, estimator == "straight-through")
    drop = (draws["dropout"] >= 0.25) / 0.75

    def scores(read: Tensor, kept: Tensor | float = 1.0) -> Tensor:
        score: Tensor = system.judge(system.critic.features(read @ system.critic.embedding.weight) * kept).squeeze(1)
        return score

    real = F.one_hot(batch.padded(system.length), len(system.vocabulary)).float()
    told = F.softplus(-scores(real, drop[:4])).mean() + F.softplus(scores(made.detach(), drop[4:])).mean()
    weights = 0.15 * sum(weight.square().sum() for weight in system.judge.parameters())
    for phase, expected in ((critic, told + weights), (generator, F.softplus(-scores(made)).mean())):
        loss = phase.loss(batch, draws, 6).total
        leaves = trained_by(phase)
        torch.testing.assert_close(loss, expected)
        ours, theirs = (torch.autograd.grad(each, leaves) for each in (loss, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        assert all(gradient.any() for gradient in ours[:1])


# ---- resume, replicas, samples


@pytest.mark.parametrize("at", [2, 4, 7], ids=["pretraining", "critic", "adversarial"])
@pytest.mark.parametrize("decoder", ["gru", "transformer"])
def test_a_run_killed_in_any_phase_goes_on_to_the_same_bits(data: PyDoc, at: int, decoder: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"decoder": decoder, "estimator": "straight-through", **COOLING}
    straight, first, other = (state_of(data, seed=seed, **options) for seed in (0, 0, 1))
    assert_resumes(data, straight, first, other, at, tmp_path / "state.safetensors")


def test_a_transformer_against_a_cnn_is_trained_in_stacks_and_the_others_say_why_not(data: PyDoc) -> None:
    options: dict[str, Any] = {"decoder": "transformer", "optimizer": "adam", **COOLING}
    states = [state_of(data, seed=seed, **options) for seed in (0, 1)]
    together = trained(data, *states, course=Stacked)
    for seed, state, curve in zip((0, 1), states, together, strict=True):
        alone = state_of(data, seed=seed, **options)
        (expected,) = trained(data, alone)
        assert state.system.unstackable is None
        for one, two in zip(curve, expected, strict=True):
            assert one == pytest.approx(two, rel=2e-3, abs=1e-4)
    for decoder, critic in (("lstm", "cnn"), ("gru", "cnn"), ("transformer", "gru")):
        system = state_of(data, decoder=decoder, critic=critic).system
        assert "no batching rule under vmap" in str(system.unstackable)


@pytest.mark.parametrize(
    ("decoder", "kind", "options"),
    [
        ("lstm", LSTMLM, {"embedding": 6, "hidden": 8}),
        ("transformer", TransformerLM, {"width": 8, "layers": 1, "heads": 4}),
    ],
)
def test_its_sentences_are_those_of_a_language_model_of_its_weights(
    data: PyDoc, decoder: str, kind: Any, options: dict[str, Any]
) -> None:
    state = state_of(data, decoder=decoder)
    trained(data, state)
    gan: Any = state.average
    model = kind(kind.Config(**options), data.shape).eval()
    for mine, theirs in zip(model.samplers(), gan.samplers(), strict=True):
        mine.load_state_dict(theirs.state_dict())
    uniform, sampling = torch.rand(6, 8), Sampling(temperature=0.8, top_k=9)
    words = data.load("holdout").take(slice(0, 9)).values
    with torch.no_grad():
        for each in (Sampling(), sampling):
            made = gan.sample(uniform, sampling=each)
            assert torch.equal(made.values, model.sample(uniform, sampling=each).values)
        assert torch.equal(gan.token_nll(words), model.token_nll(words))


@pytest.mark.parametrize("estimator", ["soft", "straight-through"])
def test_a_generator_says_what_its_critic_counts(data: PyDoc, estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A critic that counts one word, and takes a sentence for real by how often it stands there."""
    state = state_of(data, decoder="gru", estimator=estimator, temperature=0.5)
    system: Any = state.system
    generator, liked = state.phases[2], 7

    def share() -> float:
        return float((system.generate(200, "after").values == liked).float().mean())

    monkeypatch.setattr(system, "scores", lambda words, dropout=None: words[:, :, liked].sum(1))
    batch, weights = data.load("train").take(slice(0, 4)), trained_by(generator)
    adam, before = torch.optim.Adam(weights, 0.05), share()
    for step in range(5, 85):
        draws = {name: noise.draw(what, step) for name, what in generator.noise.items()}
        loss = generator.loss(batch, draws, step).total
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = gradient
        adam.step()
    assert before < 0.1 and share() > 0.9
