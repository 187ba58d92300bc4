"""Relaxed words: Gumbel numbers, the two estimators' gradients, and sentences whose words are weights of all words."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import integrate, stats
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.nets.recurrent import RecurrentDecoder
from aigc_lab.nets.relaxed import gumbel_of, relaxed_sentences, relaxed_word
from aigc_lab.nets.transformer import TransformerDecoder
from aigc_lab.text.vocabulary import EOS, PAD

WORDS, LENGTH = 7, 5


def uniform(*size: int) -> Tensor:
    return noise.draw(noise.Draw(size, "unit"), "test of relaxed words")


# ---- Gumbel numbers


def test_gumbel_numbers_are_their_quantiles_and_finite_at_both_ends() -> None:
    quantiles = torch.tensor([2.0**-24, 1e-3, 0.25, 0.5, 0.999, 1 - 2.0**-24])
    expected = stats.gumbel_r.ppf(quantiles.double().numpy())
    np.testing.assert_allclose(gumbel_of(quantiles).numpy(), expected, rtol=1e-6)
    ends = gumbel_of(torch.tensor([0.0, 2.0**-24, 1 - 2.0**-24, 1.0]))
    assert ends.isfinite().all() and ends[0] < ends[1] < ends[2] == ends[3]
    assert stats.kstest(gumbel_of(uniform(20_000)).numpy(), "gumbel_r").pvalue > 0.01


@pytest.mark.parametrize("hard", [True, False])
def test_the_largest_of_logits_and_gumbel_numbers_follows_the_softmax(hard: bool) -> None:
    count, logits = 20_000, torch.tensor([1.0, -1.5, 0.0, 2.0, -4.0])
    weights = relaxed_word(logits.expand(count, 5), gumbel_of(uniform(count, 5)), 0.7, hard=hard)
    drawn = torch.bincount(weights.argmax(1), minlength=5).numpy()
    assert stats.chisquare(drawn, count * logits.double().softmax(0).numpy()).pvalue > 0.01
    torch.testing.assert_close(weights.sum(1), torch.ones(count))
    if hard:
        assert {*weights.flatten().tolist()} == {0.0, 1.0}, "exactly one word"


def test_a_word_is_drawn_where_its_weight_is_not_alone_the_largest() -> None:
    """At a high temperature all weights are equal in single precision; the scores are not."""
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    assert relaxed_word(logits, torch.zeros(1, 3), 1e9, hard=True).tolist() == [[0, 1, 0]]


# ---- the estimators' bias, of a sentence of one of two words

LOGIT, COUNT = 0.8, 200_000


def linear(weight: Tensor) -> Tensor:
    return 3 * weight - 1


def quadratic(weight: Tensor) -> Tensor:
    return 3 * weight.square() - 1


def cubic(weight: Tensor) -> Tensor:
    return 3 * weight**3 - 1


def gradients(reward: Callable[[Tensor], Tensor], temperature: float, hard: bool) -> Tensor:
    """d reward / d logit of the second word, of each of COUNT sentences."""
    logit = torch.full((COUNT,), LOGIT, requires_grad=True)

    def predict(words: Tensor, memory: None) -> tuple[Tensor, None]:
        return torch.stack([torch.zeros_like(logit), logit], 1), None

    gumbel = gumbel_of(uniform(COUNT, 1, 2))
    weights = relaxed_sentences(predict, None, gumbel, 3, temperature, words=5, hard=hard)
    return torch.autograd.grad(reward(weights[:, 0, 4]).sum(), logit)[0].double()


def by_quadrature(reward: Callable[[Tensor], Tensor], temperature: float, hard: bool) -> float:
    """E[reward'(w) · y (1 − y) / t] of y = σ((logit + x) / t), x logistic as the difference of two Gumbel numbers is; w
    is y, or with `hard` whether it is above a half.
    """

    def integrand(x: float) -> float:
        y = 1 / (1 + math.exp(min(-(LOGIT + x) / temperature, 700)))
        weight = torch.tensor(float(y > 0.5) if hard else y, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(reward(weight), weight)
        return float(slope) * y * (1 - y) / temperature * float(stats.logistic.pdf(x))

    around = [-LOGIT + step * temperature for step in (-20, -5, 0, 5, 20)]
    value, error = integrate.quad(integrand, -40, 40, points=around, limit=100, epsabs=1e-6)
    assert error < 1e-5
    return float(value)


# Of the expected reward of words, which is 2 for the second and −1 for the first, whichever of the three it is.
TRUE = 3 * math.exp(-LOGIT) / (1 + math.exp(-LOGIT)) ** 2


@pytest.mark.parametrize("temperature", [2.0, 0.5, 0.1])
@pytest.mark.parametrize("reward", [linear, quadratic])
@pytest.mark.parametrize("hard", [False, True])
def test_the_estimators_gradient_has_the_bias_of_its_closed_form(
    reward: Callable[[Tensor], Tensor], hard: bool, temperature: float
) -> None:
    found, exact = gradients(reward, temperature, hard), by_quadrature(reward, temperature, hard)
    error = found.std().item() / math.sqrt(COUNT)
    assert abs(found.mean().item() - exact) < 4 * error, "the mean is what quadrature says"
    if temperature == 2:
        assert abs(found.mean().item() - TRUE) > 10 * error, "and not the true gradient"


@pytest.mark.parametrize("reward", [linear, quadratic, cubic])
def test_the_bias_vanishes_with_the_temperature_but_for_straight_through(reward: Callable[[Tensor], Tensor]) -> None:
    """What a straight-through word is worth is read off the slopes at both words: half as much again as a cubic is."""
    soft, hard = (by_quadrature(reward, 0.005, hard) for hard in (False, True))
    assert soft == pytest.approx(TRUE, rel=0.01)
    assert hard == pytest.approx(TRUE * (1.5 if reward is cubic else 1), rel=0.01)
    found = gradients(reward, 0.1, hard=True)
    if reward is cubic:
        assert found.mean().item() - TRUE > 10 * found.std().item() / math.sqrt(COUNT)


# ---- decoders that read weights

DECODERS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: RecurrentDecoder(WORDS, 5, 6, 2),
    "gru": lambda: RecurrentDecoder(WORDS, 5, 6, 2, cell="gru"),
    "gru with context": lambda: RecurrentDecoder(WORDS, 5, 6, 1, 3, cell="gru"),
    "transformer": lambda: TransformerDecoder(WORDS, LENGTH, 8, 2, 2),
}


def decoder_of(name: str) -> tuple[Any, dict[str, Tensor]]:
    """A decoder with weights large enough to tell words apart, and what its `step` is given beside words."""
    torch.manual_seed(3)
    decoder = DECODERS[name]()
    for weight in decoder.parameters():
        nn.init.normal_(weight, std=0.5)
    return decoder.double(), {"context": torch.randn(3, 3).double()} if "context" in name else {}


@pytest.mark.parametrize("name", DECODERS)
def test_steps_over_weights_are_the_whole_forward_with_its_gradients(name: str) -> None:
    decoder, told = decoder_of(name)
    words = torch.randint(0, WORDS, (3, LENGTH))
    one_hot = F.one_hot(words, WORDS).double()
    torch.testing.assert_close(decoder(one_hot, **told), decoder(words, **told))
    weights = torch.randn(3, LENGTH, WORDS).double().softmax(2).requires_grad_()
    whole = decoder(weights, **told)
    leaves, along = [weights, *decoder.parameters()], torch.randn_like(whole)
    expected = torch.autograd.grad((whole * along).sum(), leaves)
    for places in ([1] * LENGTH, [2, 1, 2]):
        memory, parts = decoder.start(3, LENGTH, **told), []
        for part in torch.split(weights, places, 1):
            features, memory = decoder.step(part, memory, **told)
            parts.append(features)
        torch.testing.assert_close(torch.cat(parts, 1), whole)
        found = torch.autograd.grad((torch.cat(parts, 1) * along).sum(), leaves)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("recorded", [(True, False), (False, True)])
def test_gradients_may_be_recorded_of_some_steps(name: str, recorded: tuple[bool, bool]) -> None:
    decoder, told = decoder_of(name)
    words = torch.randint(0, WORDS, (3, LENGTH))
    memory, parts = decoder.start(3, LENGTH, **told), []
    for part, gradients_too in zip(torch.split(words, [2, LENGTH - 2], 1), recorded, strict=True):
        with torch.set_grad_enabled(gradients_too):
            features, memory = decoder.step(part, memory, **told)
        parts.append(features)
    torch.testing.assert_close(torch.cat(parts, 1), decoder(words, **told))


# ---- sentences


def model(name: str, first: int) -> tuple[Any, nn.Linear, Callable[[Tensor, Any], tuple[Tensor, Any]]]:
    decoder, _ = decoder_of(name)
    output = nn.Linear(decoder.width, WORDS - first).double()

    def predict(words: Tensor, memory: Any) -> tuple[Tensor, Any]:
        features, memory = decoder.step(words, memory)
        return output(features[:, -1]), memory

    return decoder, output, predict


def by_loop(decoder: Any, output: nn.Linear, gumbel: Tensor, first: int, temperature: float, hard: bool) -> Tensor:
    """One sentence after the other, read anew for every word; each weight by itself."""
    sentences = []
    for numbers in gumbel:
        before, going = [F.one_hot(torch.tensor(PAD), WORDS).double()], torch.tensor(1.0).double()
        for row in numbers:
            scores = output(decoder(torch.stack(before)[None])[0, -1]) + row
            total = sum((score / temperature).exp() for score in scores)
            drawn = [torch.tensor(0.0).double()] * first + [(score / temperature).exp() / total for score in scores]
            if hard:
                best = first + max(range(len(scores)), key=lambda number: scores[number].item())
                drawn = [soft + float(number == best) - soft.detach() for number, soft in enumerate(drawn)]
            mixed = [going * weight + (1 - going) * float(number == PAD) for number, weight in enumerate(drawn)]
            before.append(torch.stack(mixed))
            going = going * (1 - drawn[EOS])
        sentences.append(torch.stack(before[1:]))
    return torch.stack(sentences)


@pytest.mark.parametrize("name", ["lstm", "gru", "transformer"])
@pytest.mark.parametrize("first", [EOS, 3], ids=["with an end", "of one length"])
@pytest.mark.parametrize("hard", [False, True])
def test_relaxed_sentences_are_what_an_explicit_loop_says(name: str, first: int, hard: bool) -> None:
    decoder, output, predict = model(name, first)
    gumbel = gumbel_of(uniform(4, LENGTH, WORDS - first).double())
    found = relaxed_sentences(predict, decoder.start(4, LENGTH), gumbel, first, 0.8, words=WORDS, hard=hard)
    expected = by_loop(decoder, output, gumbel, first, 0.8, hard)
    torch.testing.assert_close(found, expected)
    assert not found[:, :, 1:first].any()
    torch.testing.assert_close(found.sum(2), torch.ones(4, LENGTH).double())
    leaves, along = [*decoder.parameters(), *output.parameters()], torch.randn_like(found)
    ours, theirs = (torch.autograd.grad((each * along).sum(), leaves) for each in (found, expected))
    torch.testing.assert_close(ours, theirs)
    assert max(gradient.abs().max().item() for gradient in ours) > 1e-3


@pytest.mark.parametrize("hard", [False, True])
@torch.no_grad()
def test_near_temperature_0_words_are_those_that_are_drawn(hard: bool) -> None:
    """And `<pad>` stands behind `<eos>`."""
    count, ended = 40, 0
    decoder, output, predict = model("lstm", EOS)
    gumbel = gumbel_of(uniform(count, LENGTH, WORDS - EOS).double())
    weights = relaxed_sentences(predict, decoder.start(count, LENGTH), gumbel, EOS, 1e-6, words=WORDS, hard=hard)
    for row, numbers in zip(weights, gumbel, strict=True):
        sentence: list[int] = []
        for place in range(LENGTH):
            logits = output(decoder(torch.tensor([[PAD, *sentence]]))[0, -1])
            over = EOS in sentence
            sentence.append(PAD if over else int((logits + numbers[place]).argmax()) + EOS)
            ended += over
        torch.testing.assert_close(row, F.one_hot(torch.tensor(sentence), WORDS).double())
    assert ended > 10


def test_the_next_place_says_how_long_a_sentence_should_be() -> None:
    """More `<pad>` at the second place means more of `<eos>` at the first."""
    logits = torch.zeros(1, WORDS - EOS, requires_grad=True)
    for hard in (False, True):
        calls = iter([logits, torch.zeros(1, WORDS - EOS)])
        gumbel = torch.zeros(1, 2, WORDS - EOS)
        weights = relaxed_sentences(
            lambda words, calls: (next(calls), calls), calls, gumbel, EOS, 1.0, words=WORDS, hard=hard
        )
        (gradient,) = torch.autograd.grad(weights[0, 1, PAD], logits)
        share = 1 / (WORDS - EOS)
        torch.testing.assert_close(gradient[0, 0].item(), share * (1 - share))
        torch.testing.assert_close(gradient[0, 1:], torch.full((WORDS - EOS - 1,), -share * share))
