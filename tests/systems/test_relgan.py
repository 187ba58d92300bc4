"""RelGAN: its memory and its critic against plain loops, its loss and its temperature against closed forms."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from few_steps import assert_programs, assert_resumes, trained
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.data.oracle import OracleText
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.data.shared.batches import Batches
from aigc_lab.nets.decoding import Sampling, pick
from aigc_lab.nets.relational import RelationalDecoder
from aigc_lab.nets.relaxed import gumbel_of
from aigc_lab.nets.rollouts import joined, repeated
from aigc_lab.nets.text_critics import ManyViewCNN, TextCNN
from aigc_lab.shape import Shape
from aigc_lab.systems.relgan import RelGAN
from aigc_lab.text.vocabulary import EOS, PAD
from aigc_lab.training.loop import train_one
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Replica, TrainingState

Array = NDArray[np.float64]

SMALL: dict[str, Any] = {
    "embedding": 6,
    "slots": 2,
    "head_size": 4,
    "critic_embedding": 6,
    "representations": 3,
    "filters": 0.02,
    "critic_hidden": 5,
    "pretrain_steps": 3,
    "critic_steps": 2,
    "n_critic": 2,
    "beta_max": 16.0,
    "temperature_steps": 4,
}


@pytest.fixture(scope="module")
def data() -> PyDoc:
    return PyDoc(PyDoc.Config(max_length=8, max_words=40), Path())


def state_of(data: Any, *, seed: int = 0, **options: Any) -> TrainingState:
    config = RelGAN.Config(**SMALL | options)
    return TrainingState.fresh(RelGAN, config, data.shape, seed=seed, batch_size=4, device="cpu")


def relgan(data: Any, **options: Any) -> Any:
    return state_of(data, **options).system


# ---- the memory


def generalise(module: nn.Module) -> None:
    """Makes it float64, with weights that no initialisation makes special."""
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.5)


def array(tensor: Tensor) -> Array:
    return tensor.detach().numpy().astype(np.float64)


def layer(linear: nn.Linear, x: Array) -> Array:
    y: Array = x @ array(linear.weight).T
    return y if linear.bias is None else y + array(linear.bias)


def normed(norm: nn.LayerNorm, x: Array) -> Array:
    y: Array = (x - x.mean()) / np.sqrt(x.var() + norm.eps)
    return y * array(norm.weight) + array(norm.bias)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def remembered(decoder: RelationalDecoder, slots: Array, word: int) -> Array:
    """The slots [slots, width] of one sentence after one more word, slot by slot and head by head in NumPy."""
    core, size = decoder.core, decoder.core.width // decoder.core.heads
    entered = layer(core.input, array(decoder.embedding.weight)[word])
    rows = [*slots, entered]
    projected = [normed(core.attention_norm, layer(core.attention, row)).reshape(3, core.heads, size) for row in rows]
    after = []
    for slot, (query, _, _) in zip(slots, projected, strict=False):
        read = []
        for head in range(core.heads):
            likeness = np.array([query[head] @ row[1, head] for row in projected]) / np.sqrt(size)
            weights = np.exp(likeness) / np.exp(likeness).sum()
            read.append(sum(weight * row[2, head] for weight, row in zip(weights, projected, strict=True)))
        mixed = normed(core.norm_1, slot + np.concatenate(read))
        first, _, second = core.mlp
        assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
        mixed = normed(core.norm_2, mixed + layer(second, np.maximum(layer(first, mixed), 0)))
        gates = layer(core.input_gates, entered) + layer(core.slot_gates, np.tanh(slot))
        write, keep = sigmoid(gates[: core.width]), sigmoid(gates[core.width :] + 1)
        after.append(write * np.tanh(mixed) + keep * slot)
    return np.stack(after)


@pytest.mark.parametrize("slots", [1, 3])
def test_a_relational_memory_is_what_a_plain_loop_over_slots_and_heads_says(slots: int) -> None:
    torch.manual_seed(0)
    decoder, words = RelationalDecoder(7, 5, slots, 2, 3), torch.randint(0, 7, (2, 4))
    generalise(decoder)
    features = array(decoder(words))
    for row, sentence in enumerate(words.tolist()):
        memory = np.eye(slots, 6)
        for place, word in enumerate(sentence):
            memory = remembered(decoder, memory, word)
            np.testing.assert_allclose(features[row, place], memory.ravel(), rtol=1e-10)


def test_a_closed_gate_keeps_a_slot_and_an_open_one_writes_to_it() -> None:
    torch.manual_seed(0)
    core = RelationalDecoder(7, 5, 2, 2, 3).core
    slots, key, value = torch.randn(4, 2, 6), torch.randn(4, 2, 3), torch.randn(4, 2, 3)
    shut, wide = torch.full((4, 6), -1e4), torch.full((4, 6), 1e4)
    torch.testing.assert_close(core(slots, key, value, torch.cat([shut, wide], 1)), slots)
    written = core(slots, key, value, torch.cat([wide, shut], 1))
    assert not torch.allclose(written, slots) and written.abs().max() <= 1


def test_the_memory_word_by_word_is_that_of_all_words_at_once() -> None:
    torch.manual_seed(0)
    decoder, words, context = RelationalDecoder(7, 5, 3, 2, 4), torch.randint(0, 7, (3, 6)), torch.randn(3, 5)
    at_once, steps, memory = decoder(words, context), [], decoder.start(3, 6, context)
    for part in torch.split(words, [1, 2, 3], 1):
        features, memory = decoder.step(part, memory, context)
        steps.append(features)
    torch.testing.assert_close(torch.cat(steps, 1), at_once)
    assert at_once.shape == (3, 6, decoder.width) and not torch.equal(at_once, decoder(words))


def test_memories_are_repeated_and_joined_by_sentence() -> None:
    torch.manual_seed(0)
    decoder, words = RelationalDecoder(7, 5, 3, 2, 4), torch.randint(0, 7, (2, 4))
    _, memory = decoder.step(words, decoder.start(2, 8))
    twice, more = repeated(memory, 2), torch.randint(0, 7, (6, 2))
    features, _ = decoder.step(more, joined(twice, memory))
    for row, sentence in enumerate([0, 0, 1, 1, 0, 1]):
        whole = decoder(torch.cat([words[sentence], more[row]])[None])
        torch.testing.assert_close(features[row], whole[0, 4:])


def test_weights_of_words_go_through_the_memory_as_the_words_do_and_get_a_gradient() -> None:
    torch.manual_seed(0)
    decoder, words = RelationalDecoder(7, 5, 2, 2, 3), torch.randint(0, 7, (3, 4))
    generalise(decoder)
    weights = nn.functional.one_hot(words, 7).double().requires_grad_()
    torch.testing.assert_close(decoder(weights), decoder(words))
    # The last feature depends on every word, so its gradient reaches each of them; torch's own numbers say how.
    assert torch.autograd.gradcheck(decoder, (torch.rand(2, 3, 7, dtype=torch.float64, requires_grad=True),))
    (gradient,) = torch.autograd.grad(decoder(weights)[:, -1].sum(), weights)
    assert gradient.abs().sum(2).all()


# ---- the critic


def test_a_many_view_critic_reads_each_part_of_a_words_vector_by_itself() -> None:
    torch.manual_seed(0)
    words, weights = torch.randint(0, 9, (2, 6)), torch.rand(2, 6, 9)
    critic = ManyViewCNN(9, 8, 6, {2: 3, 4: 2}, views=4)
    alone = TextCNN(9, 2, 6, {2: 3, 4: 2})
    alone.convolutions.load_state_dict(critic.convolutions.state_dict())
    alone.highway.load_state_dict(critic.highway.state_dict())
    for read in (words, weights):
        features = critic.features(critic.embed(read))
        assert features.shape == (2, 4, 5)
        for view in range(4):
            with torch.no_grad():
                alone.embedding.weight.copy_(critic.embedding.weight[:, 2 * view : 2 * view + 2])
            torch.testing.assert_close(features[:, view], alone.features(alone.embed(read)))


def test_completions_are_read_by_every_view() -> None:
    torch.manual_seed(0)
    critic, words = ManyViewCNN(9, 8, 6, {2: 3, 4: 2}, views=4), torch.randint(0, 9, (2, 6))
    tokens = torch.randint(0, 9, (5, 2, 3, 6))
    for kept, row in enumerate(tokens, start=1):
        row[:, :, :kept] = words[:, None, :kept]
    for row, features in zip(tokens, critic.of_completions(words, tokens), strict=True):
        each = [critic.features(critic.embed(sentence[None]))[0] for sentence in row.flatten(0, 1)]
        torch.testing.assert_close(features, torch.stack(each))


def test_a_sentence_gets_a_logit_for_each_view(data: PyDoc) -> None:
    system, words = relgan(data, loss="hinge"), torch.randint(3, 40, (4, 9))
    uniform = torch.rand(4, 3, system.critic.width)
    (below, last), rate = system.judge, system.config.critic_dropout
    features = system.critic.features(system.critic.embed(words))
    logits = system.scores(words, uniform)
    assert logits.shape == (4, 3) and below.bias is None and last.bias is not None
    for row in range(4):
        for view in range(3):
            kept = zip(features[row, view].tolist(), uniform[row, view].tolist(), strict=True)
            left = torch.tensor([x / (1 - rate) if u >= rate else 0.0 for x, u in kept])
            torch.testing.assert_close(logits[row, view], (last.weight @ (below.weight @ left) + last.bias)[0])
    assert relgan(data, critic="cnn").scores(words).shape == (4,)


def test_each_view_of_each_sentence_loses_features_of_its_own(data: PyDoc) -> None:
    state = state_of(data)
    system: Any = state.system
    assert state.phases[1].noise["dropout"].size == (2 * 4, 3, system.critic.width)


@pytest.mark.parametrize("critic", ["views", "cnn", "gru"])
def test_relative_logits_have_no_bias_which_would_get_no_gradient(data: PyDoc, critic: str) -> None:
    assert not [name for name in relgan(data, critic=critic).judge.state_dict() if "bias" in name]
    assert [name for name in relgan(data, critic=critic, loss="hinge").judge.state_dict() if "bias" in name]


# ---- the objective


REAL, MADE = [[1.0, -2.0], [0.5, 3.0]], [[0.0, 1.0], [2.0, -1.0]]


@pytest.mark.parametrize(
    ("loss", "of_critic", "of_generator"),
    [
        # log(1 + e^(made − real)) of each view of each pair, and log(1 + e^(real − made)).
        ("relativistic", [-1.0, 3.0, 1.5, -4.0], [1.0, -3.0, -1.5, 4.0]),
        ("nonsaturating", None, [0.0, -1.0, -2.0, 1.0]),
    ],
)
def test_the_loss_is_the_mean_over_views_and_pairs_of_the_softplus_of_differences(
    data: PyDoc,
    monkeypatch: pytest.MonkeyPatch,
    loss: str,
    of_critic: list[float] | None,
    of_generator: list[float],
) -> None:
    state = state_of(data, loss=loss)
    system: Any = state.system
    real, made = (torch.tensor(scores, requires_grad=True) for scores in (REAL, MADE))
    monkeypatch.setattr(system, "scores", lambda words, dropout=None: made if words.is_floating_point() else real)
    batch = Batches(data.load("train"), 2, 0)[0]
    _, critic, generator = state.phases

    def softplus(differences: list[float]) -> float:
        return sum(math.log1p(math.exp(x)) for x in differences) / 4

    draws = {name: noise.draw(what, name) for name, what in critic.noise.items()}
    expected = softplus(of_critic) if of_critic else softplus([-1, 2, -0.5, -3]) + softplus([0, 1, 2, -1])
    assert critic.loss(batch, draws, 5).total.item() == pytest.approx(expected)
    total = generator.loss(batch, draws, 5).total
    assert total.item() == pytest.approx(softplus(of_generator))
    (gradient,) = torch.autograd.grad(total, made)
    slopes = [-1 / (1 + math.exp(-x)) / 4 for x in of_generator]
    torch.testing.assert_close(gradient.flatten(), torch.tensor(slopes))


def test_the_inverse_temperature_is_a_power_of_its_end(data: PyDoc) -> None:
    system = relgan(data, beta_max=100.0, temperature_steps=50)
    for number in (0, 1, 25, 49, 50):
        assert 1 / system.temperature(5 + number) == pytest.approx(100 ** (number / 50))
    assert [1 / system.temperature(step) for step in (0, 4, 500)] == pytest.approx([1, 1, 100])
    state = state_of(data)
    (curve,) = trained(data, state)
    logged = [1 / scalars["dynamics/temperature"] for scalars in curve[5:]]
    assert logged == pytest.approx([1.0, 2.0, 4.0, 8.0])


def test_the_generator_learns_by_its_words_at_the_steps_inverse_temperature(data: PyDoc) -> None:
    state = state_of(data)
    system: Any = state.system
    batch, step = Batches(data.load("train"), 4, 0)[0], 7
    _, _, generator = state.phases
    uniform = noise.draw(generator.noise["words"], "words")
    # Two adversarial steps of four are done: β = 16^(2/4).
    padding, beta = F.one_hot(torch.zeros(4, dtype=torch.int64), len(system.vocabulary)).float(), 4.0
    before, going = [padding], torch.ones(4, 1)
    for place in range(system.length):
        logits = system.output(system.decoder(torch.stack(before, 1))[:, -1])
        drawn = F.pad((beta * (logits + gumbel_of(uniform[:, place]))).softmax(1), (system.first, 0))
        before.append(going * drawn + (1 - going) * padding)
        going = going * (1 - drawn[:, EOS, None])
    real, made = system.scores(batch.padded(system.length)), system.scores(torch.stack(before[1:], 1))
    expected, total = F.softplus(real.detach() - made).mean(), generator.loss(batch, {"words": uniform}, step).total
    torch.testing.assert_close(total, expected)
    weights = list(system.decoder.parameters())
    ours, theirs = (torch.autograd.grad(loss, weights) for loss in (total, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
    assert all(gradient.any() for gradient in ours)


# ---- training, sentences


def test_both_gradients_are_shortened(data: PyDoc) -> None:
    assert [phase.optimizer.max_norm for phase in state_of(data, max_norm=3.0).phases] == [3.0] * 3


@pytest.mark.parametrize("at", [2, 4, 7], ids=["pretraining", "critic", "adversarial"])
@pytest.mark.parametrize("options", [{}, {"decoder": "lstm", "critic": "cnn", "estimator": "straight-through"}])
def test_a_run_killed_in_any_phase_goes_on_to_the_same_bits(
    data: PyDoc, at: int, options: dict[str, Any], tmp_path: Path
) -> None:
    straight, first, other = (state_of(data, seed=seed, **options) for seed in (0, 0, 1))
    assert_resumes(data, straight, first, other, at, tmp_path / "state.safetensors")


def test_its_steps_are_programs_that_know_their_temperatures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = OracleText(OracleText.Config(words=8, length=5, train=60, scored=50), tmp_path)  # all batches are alike
    options = {"pretrain_steps": 0, "critic_steps": 0, "temperature_steps": 20}  # it falls, and is at its end
    plain, other = (Replica(state_of(data, **options), Batches(data.load("train"), 4, 0), 0) for _ in range(2))
    assert_programs(plain, other, 24, monkeypatch)


def test_its_own_networks_are_trained_in_stacks(data: PyDoc) -> None:
    states = [state_of(data, seed=seed, optimizer="adam") for seed in (0, 1)]
    together = trained(data, *states, course=Stacked)
    for seed, state, curve in zip((0, 1), states, together, strict=True):
        (expected,) = trained(data, state_of(data, seed=seed, optimizer="adam"))
        assert state.system.unstackable is None
        for one, two in zip(curve, expected, strict=True):
            assert one == pytest.approx(two, rel=2e-3, abs=1e-4)
    for others in ({"decoder": "gru"}, {"critic": "gru"}):
        assert "no batching rule under vmap" in str(relgan(data, **others).unstackable)


def test_a_sentence_is_drawn_word_by_word_of_the_memory(data: PyDoc) -> None:
    state = state_of(data)
    trained(data, state)
    system: Any = state.average
    uniform = torch.rand(5, 9)
    with torch.no_grad():
        made = system.sample(uniform).values
        for row, numbers in zip(made.tolist(), uniform, strict=True):
            slow: list[int] = []
            for number in numbers:
                if EOS in slow:
                    slow.append(PAD)
                    continue
                logits = system.output(system.decoder(torch.tensor([[PAD, *slow]]))[:, -1])
                slow.append(int(pick(Sampling().probabilities(logits), number[None])) + system.first)
            assert row == slow


def test_relgan_learns_in_pretraining_and_then_pleases_its_critic(tmp_path: Path) -> None:
    """Maximum likelihood lowers NLL; against a critic that stays as it is, the generator's loss falls."""
    oracle = OracleText(OracleText.Config(words=12, length=6, train=1500, scored=100), tmp_path)
    steps = {"pretrain_steps": 60, "critic_steps": 40, "critic_lr": 3e-3, "adversarial_lr": 3e-3}
    config = RelGAN.Config(**SMALL | steps | {"head_size": 8, "temperature_steps": 100_000})
    state = TrainingState.fresh(RelGAN, config, oracle.shape, seed=0, batch_size=32, device="cpu")
    batches = Batches(oracle.load("train"), 32, 0)
    options: dict[str, Any] = {"every": 20, "decay": 0.0, "precision": "fp32"}
    curve = [progress.scalars for progress in train_one(state, batches, seed=0, steps=100, **options)]
    assert curve[2]["loss/pretraining/total"] < curve[0]["loss/pretraining/total"] - 0.1
    assert curve[4]["loss/critic/total"] < math.log(2) - 0.05
    state.phases = [phase for phase in state.phases if phase.name == "generator"]
    curve = [progress.scalars for progress in train_one(state, batches, seed=0, steps=160, **options)]
    assert curve[2]["loss/generator/total"] < curve[0]["loss/generator/total"] - 0.05


# ---- bad input


def test_what_does_not_fit_is_refused_in_one_line(data: PyDoc) -> None:
    with pytest.raises(
        ValueError, match=r"^representations: 6 channels \(critic_embedding\) .* among 4; choose a divisor$"
    ):
        relgan(data, representations=4)
    with pytest.raises(ValueError, match="^windows: one of 10 words, and a sentence has 9 places; leave out .* 9$"):
        relgan(data, windows=[2, 10])
    assert [convolution.kernel_size for convolution in relgan(data).critic.convolutions] == [(2,), (3,), (4,), (5,)]
    short = Shape(data.shape.modality, (3,), vocabulary=data.shape.vocabulary)
    with torch.device("meta"):
        system: Any = RelGAN(RelGAN.Config(**SMALL), short)
    assert [convolution.kernel_size for convolution in system.critic.convolutions] == [(2,), (3,)]
    shortest = Shape(data.shape.modality, (1,), vocabulary=data.shape.vocabulary)
    with pytest.raises(ValueError, match="^windows: one of 2 words, and a sentence has 1 places"):
        RelGAN(RelGAN.Config(**SMALL), shortest)


@pytest.mark.parametrize("value", [0.5, 0.0, -1.0, float("nan"), float("inf")])
def test_an_inverse_temperature_ends_at_1_or_above(value: float) -> None:
    with pytest.raises(ValidationError, match="beta_max"):
        RelGAN.Config(beta_max=value)
