"""Words drawn of probabilities: exactly those, sharpened or cut as asked; and word by word as all at once."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aigc_lab.nets import decoding
from aigc_lab.nets.decoding import Sampling, chosen, pick, pick_by_groups
from aigc_lab.nets.recurrent import RecurrentDecoder
from aigc_lab.nets.transformer import TransformerDecoder
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.lstm_lm import LSTMLM
from aigc_lab.systems.transformer_lm import TransformerLM
from aigc_lab.text.vocabulary import EOS, PAD, SPECIAL, Vocabulary

Floats = npt.NDArray[np.float64]
ENDED = Vocabulary((*SPECIAL, *"abcdefg"))
OPEN = Vocabulary((*SPECIAL, *"abcdefg"), ends=False)
LENGTH = 19


def rows(*shape: int, seed: int = 0, spread: float = 2.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=spread, size=shape)).float()


def softmax(logits: Floats) -> Floats:
    likely = np.exp(logits - logits.max())
    total: Floats = likely / likely.sum()
    return total


# ---- one word


PROBABILITIES = {
    "even": [0.25, 0.25, 0.25, 0.25],
    "uneven": [0.05, 0.6, 0.3, 0.05],
    "nothing before": [0, 0, 0.4, 0.6],
    "nothing behind": [0.4, 0.6, 0, 0],
    "nothing between": [0.3, 0, 0, 0.7],
    "one alone": [0, 1, 0],
    "one word": [1.0],
    "of less than one": [0.0, 0.1, 0.2, 0.0],
    "of more than one": [3.0, 0.0, 1.0],
}


PICKS = pytest.mark.parametrize("pick", [pick, pick_by_groups], ids=["pick", "by groups"])
Pick = Callable[[Tensor, Tensor], Tensor]


@PICKS
@pytest.mark.parametrize("probabilities", PROBABILITIES.values(), ids=PROBABILITIES)
def test_a_word_is_drawn_as_often_as_its_probability_says(probabilities: list[float], pick: Pick) -> None:
    cells = 4096  # the uniform numbers in the middle of as many cells: a word has its share of them, up to one
    uniform = (torch.arange(cells) + 0.5) / cells
    words = pick(torch.tensor(probabilities, dtype=torch.float32).expand(cells, -1), uniform)
    share = np.array(probabilities) / sum(probabilities)
    counts = np.bincount(words.numpy(), minlength=len(probabilities))
    assert np.abs(counts - share * cells).max() <= 1
    assert set(np.flatnonzero(counts)) == set(np.flatnonzero(share))
    assert (words.diff() >= 0).all()  # the inverse of a distribution function


@PICKS
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.just(0.0), st.floats(2.0**-100, 1, width=32)), min_size=1, max_size=30).filter(any),
    st.one_of(
        st.sampled_from([0.0, 2.0**-149, 2.0**-24, 0.5, 1 - 2.0**-24]), st.floats(0, 1, exclude_max=True, width=32)
    ),
)
def test_no_word_without_probability_is_drawn(pick: Pick, probabilities: list[float], uniform: float) -> None:
    word = int(pick(torch.tensor([probabilities]), torch.tensor([uniform], dtype=torch.float32))[0])
    assert 0 <= word < len(probabilities) and probabilities[word] > 0


@PICKS
def test_the_ends_of_the_uniform_numbers_are_the_first_and_the_last_word(pick: Pick) -> None:
    probabilities = torch.tensor([[0, 0, 0.1, 0, 0.7, 0.2, 0, 0]]).expand(3, -1)
    last = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)).item()
    assert pick(probabilities, torch.tensor([0.0, last, 1.0])).tolist() == [2, 5, 5]


@PICKS
def test_many_small_probabilities_whose_sum_is_not_quite_one(pick: Pick) -> None:
    probabilities = torch.full((2, 50_000), 1 / 50_000)
    last = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)).item()
    assert pick(probabilities, torch.tensor([0.0, last])).tolist() == [0, 49_999]


@PICKS
def test_a_row_draws_the_same_whoever_is_beside_it(pick: Pick) -> None:
    probabilities, uniform = rows(64, 300).softmax(1), torch.rand(64, generator=torch.Generator().manual_seed(0))
    together = pick(probabilities, uniform)
    alone = [pick(probabilities[row : row + 1], uniform[row : row + 1]).item() for row in range(64)]
    assert together.tolist() == alone


@pytest.mark.parametrize("count", [1, 2, 7, 100, 5003])
def test_by_groups_the_same_words_are_drawn(count: int) -> None:
    probabilities, uniform = rows(500, count).softmax(1), torch.rand(500, generator=torch.Generator().manual_seed(0))
    exact = probabilities.double().cumsum(1)
    uniform[-1] = 1.0
    expected = torch.searchsorted(exact, uniform.double()[:, None] * exact[:, -1:], right=True).squeeze(1)
    expected[-1] = count - 1
    drawn = pick_by_groups(probabilities, uniform)
    assert drawn[-1] == count - 1
    # Rounding may move a word by one of its neighbours where a number falls on the border of both.
    assert (drawn != expected).sum() <= 2 and (drawn - expected).abs().max() <= 1


def test_words_chosen_by_blocks_of_rows_are_those_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    features, weight, uniform = rows(50, 6), rows(6, 30), torch.rand(50, generator=torch.Generator().manual_seed(0))
    sizes = []

    def logits(some: Tensor) -> Tensor:
        sizes.append(len(some))
        return some @ weight

    monkeypatch.setattr(decoding, "block_rows", lambda words, device: {30: 16}[words])
    drawn = chosen(logits, features, uniform, 30, 3)
    assert sizes == [16, 16, 16, 2]
    assert torch.equal(drawn, pick(Sampling().probabilities(features @ weight), uniform) + 3)


# ---- sharpened, and cut


def test_temperature_one_is_the_softmax_to_the_bit() -> None:
    logits = rows(50, 70, spread=10.0)
    shifted = logits - logits.max(1, keepdim=True).values
    assert torch.equal(Sampling().probabilities(logits), (shifted / 1).softmax(1))


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 1.7, 20.0])
def test_temperature_is_a_power_of_the_probabilities(temperature: float) -> None:
    logits = rows(20, 40)
    found = Sampling(temperature).probabilities(logits).double().numpy()
    for row, probabilities in zip(logits.double().numpy(), found, strict=True):
        powers = softmax(row) ** (1 / temperature)
        np.testing.assert_allclose(probabilities, powers / powers.sum(), rtol=2e-4, atol=1e-7)


def test_temperature_zero_is_the_likeliest_word() -> None:
    logits = rows(30, 50)
    found = Sampling(0).probabilities(logits)
    assert torch.equal(found.argmax(1), logits.argmax(1)) and torch.equal(found.sum(1), torch.ones(30))
    assert torch.equal(found.max(1).values, torch.ones(30))
    assert pick(found, torch.linspace(0, 0.999, 30)).tolist() == logits.argmax(1).tolist()


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-39, 1e-20, 1e-6])
def test_a_temperature_near_zero_is_like_zero(temperature: float) -> None:
    logits = rows(30, 50, spread=30.0)
    assert torch.equal(Sampling(temperature).probabilities(logits), Sampling(0).probabilities(logits))


def test_large_logits_do_not_overflow() -> None:
    for temperature in (0.001, 1.0, 99.0):
        assert Sampling(temperature).probabilities(torch.tensor([[3e38, -3e38, 0.0]])).tolist() == [[1.0, 0.0, 0.0]]


def kept_by_hand(logits: Floats, temperature: float, k: int | None, p: float | None) -> Floats:
    """What the words of the docstring say, one word after the other."""
    likely = softmax(logits / temperature)
    if k is not None:
        likely = np.array([each if (likely > each).sum() < k else 0 for each in likely])
        likely = likely / likely.sum()
    if p is not None:
        left: list[int] = []
        for word in np.argsort(-likely, kind="stable"):
            left.append(int(word))
            if likely[left].sum() >= p:
                break
        likely = np.array([each if word in left else 0 for word, each in enumerate(likely)])
        likely = likely / likely.sum()
    return likely


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    words=st.integers(1, 25),
    temperature=st.sampled_from([0.4, 1.0, 2.5]),
    k=st.one_of(st.none(), st.integers(1, 30)),
    # Between: nearer to one than single precision can tell, the rounding of a sum decides about the last word.
    p=st.one_of(st.none(), st.floats(0.01, 0.999), st.just(1.0)),
)
def test_top_k_and_top_p_keep_exactly_the_right_words(
    seed: int, words: int, temperature: float, k: int | None, p: float | None
) -> None:
    logits = rows(1, words, seed=seed)
    found = Sampling(temperature, k, p).probabilities(logits)[0].double().numpy()
    expected = kept_by_hand(logits[0].double().numpy(), temperature, k, p)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert ((found > 0) == (expected > 0)).all()
    assert found.sum() == pytest.approx(1, abs=1e-6)


def test_cut_rows_are_cut_each_by_itself() -> None:
    logits = rows(40, 20)
    for sampling in (Sampling(top_k=3), Sampling(top_p=0.6), Sampling(0.7, 5, 0.9)):
        alone = torch.cat([sampling.probabilities(row[None]) for row in logits])
        torch.testing.assert_close(sampling.probabilities(logits), alone)
    assert (Sampling(top_k=3).probabilities(logits) > 0).sum(1).tolist() == [3] * 40


def test_words_as_likely_as_the_last_that_is_kept_are_kept() -> None:
    logits = torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0]])
    assert Sampling(top_k=2).probabilities(logits)[0].tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3, 0])
    assert Sampling(top_k=1, temperature=0).probabilities(logits)[0].tolist() == [1, 0, 0, 0, 0]


def test_half_the_probability_is_the_one_word_that_has_it() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    for p, kept in ((0.49, 1), (0.51, 2), (0.74, 2), (0.76, 3), (0.9, 4), (1.0, 4), (1e-9, 1)):
        assert int((Sampling(top_p=p).probabilities(logits) > 0).sum()) == kept


@pytest.mark.parametrize(
    ("options", "told"),
    [
        *[({"temperature": value}, "temperature") for value in (-0.1, 100.0, math.nan, math.inf, -math.inf)],
        *[({"top_k": value}, f"top-k {value}: keep at least") for value in (0, -3)],
        *[({"top_p": value}, "top-p") for value in (0.0, -0.2, 1.01, math.nan)],
    ],
)
def test_numbers_that_mean_nothing_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Sampling(**options)


# ---- sentences


def test_every_word_is_told_of_the_word_before_and_of_the_memory() -> None:
    """A world with one rule: after what was said n times before comes word n. The memory is all that knows it."""
    heard: list[list[int]] = []

    def predict(words: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        assert words.shape == (3, 1)
        heard.append(words.flatten().tolist())
        logits = torch.full((3, 7), -torch.inf)
        logits[torch.arange(3), memory] = 0.0
        return logits, memory + 1

    made = decoding.sentences(predict, torch.tensor([0, 1, 2]), torch.full((3, 4), 0.5), OPEN, 3, Sampling())
    assert made.tolist() == [[3, 4, 5, 6], [4, 5, 6, 7], [5, 6, 7, 8]]
    assert heard == [[PAD, PAD, PAD], *made.T.tolist()[:3]]


def test_uniform_numbers_are_used_in_their_places() -> None:
    uniform = torch.rand(200, 5, generator=torch.Generator().manual_seed(1))
    even = torch.zeros(200, 8)
    made = decoding.sentences(lambda words, memory: (even, memory), None, uniform, OPEN, 2, Sampling())
    assert torch.equal(made, (uniform * 8).long() + 2)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 30])
def test_behind_an_end_is_nothing(length: int) -> None:
    uniform = torch.rand(300, length, generator=torch.Generator().manual_seed(2))
    even = torch.zeros(300, 9)  # of <eos>, <unk> and 7 words
    made = decoding.sentences(lambda words, memory: (even, memory), None, uniform, ENDED, 1, Sampling())
    drawn = (uniform * 9).long() + 1
    before = ((drawn == EOS).cumsum(1) - (drawn == EOS).long()) == 0
    assert torch.equal(made, drawn.masked_fill(~before, PAD))


def test_no_more_is_asked_when_all_have_ended() -> None:
    calls = []

    def predict(words: Tensor, memory: None) -> tuple[Tensor, None]:
        calls.append(1)
        return torch.tensor([[0.0, -torch.inf]]).expand(4, -1), None

    made = decoding.sentences(predict, None, torch.rand(4, 50), ENDED, 1, Sampling())
    assert len(calls) < 10 and made[:, 0].tolist() == [EOS] * 4 and not made[:, 1:].any()


SYSTEMS: dict[str, tuple[Any, dict[str, int]]] = {
    "lstm": (LSTMLM, {"hidden": 12, "layers": 2}),
    "transformer": (TransformerLM, {"width": 12, "layers": 2, "heads": 3}),
}


def system_of(name: str, vocabulary: Vocabulary, spread: float = 1.5) -> Any:
    kind, options = SYSTEMS[name]
    torch.manual_seed(3)
    made: Any = kind(kind.Config(**options), Shape(Modality.TEXT, (LENGTH,), vocabulary=vocabulary))
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=spread / max(1, weight.shape[-1]) ** 0.5)
    return made.eval()


def by_hand(system: Any, uniform: Tensor, sampling: Sampling, prefix: tuple[int, ...]) -> list[list[int]]:
    """Each word from the whole forward over all words before it, drawn by numpy."""
    made = np.zeros((len(uniform), LENGTH), dtype=np.int64)
    before = torch.full((len(uniform), 1), PAD)
    for place in range(LENGTH):
        logits = system.output(system.decoder(before))[:, -1].double().numpy()
        for row, numbers in enumerate(uniform.double().numpy()):
            if place < len(prefix):
                made[row, place] = prefix[place]
            elif EOS not in made[row, :place]:
                mass = np.cumsum(kept_by_hand(logits[row], sampling.temperature, sampling.top_k, sampling.top_p))
                made[row, place] = np.searchsorted(mass, numbers[place] * mass[-1], side="right") + system.first
        before = torch.from_numpy(np.insert(made[:, : place + 1], 0, PAD, axis=1))
    found: list[list[int]] = made.tolist()
    return found


@pytest.mark.parametrize("vocabulary", [ENDED, OPEN], ids=["ended", "open"])
@pytest.mark.parametrize("name", SYSTEMS)
@torch.inference_mode()
def test_sentences_are_those_of_the_whole_forward(name: str, vocabulary: Vocabulary) -> None:
    system = system_of(name, vocabulary)
    uniform = torch.rand(12, LENGTH, generator=torch.Generator().manual_seed(4))
    for sampling in (Sampling(), Sampling(0.6), Sampling(1.3, top_k=3), Sampling(top_p=0.8), Sampling(0.9, 5, 0.7)):
        for prefix in ((), (5,), (5, 9, 5)):
            whole = Sampling(sampling.temperature, sampling.top_k, sampling.top_p, prefix)
            made = system.sample(uniform, sampling=whole)
            assert made.values.tolist() == by_hand(system, uniform, sampling, prefix)
            made.check()
            assert torch.equal(made.canonical().values, made.values)
    if vocabulary.ends:
        ends = (system.sample(uniform).values == EOS).any(1)
        assert 0 < ends.sum() < 12  # some end, and some do not
    else:
        assert system.sample(uniform).values.min() > 2


@torch.inference_mode()
def test_a_prefix_is_what_every_sentence_begins_with() -> None:
    system = system_of("lstm", ENDED)
    prefix = system.prefix(["b", "<unk>", "g"])
    assert prefix == (4, 2, 9)
    made = system.sample(torch.rand(9, LENGTH), sampling=Sampling(prefix=prefix)).values
    assert made[:, :3].tolist() == [[4, 2, 9]] * 9 and len({tuple(row) for row in made.tolist()}) > 5
    full = tuple([4] * (LENGTH + 5))
    assert system.sample(torch.rand(2, LENGTH), sampling=Sampling(prefix=full)).values.tolist() == [[4] * LENGTH] * 2
    for words in (["h"], ["a", "B"], ["<eos>"], ["<pad>"], [""]):
        with pytest.raises(ValueError, match="not among the 10 words of this model, which come from its training data"):
            system.prefix(words)
    with pytest.raises(ValueError, match=f"{LENGTH} words to begin with, and this model's sentences have {LENGTH}"):
        system.prefix(["a"] * LENGTH)


@torch.inference_mode()
def test_the_likeliest_words_need_no_luck() -> None:
    for name in SYSTEMS:
        system = system_of(name, OPEN)
        made = system.sample(torch.rand(5, LENGTH), sampling=Sampling(0))
        assert len({tuple(row) for row in made.values.tolist()}) == 1


# ---- word by word, and all at once


def decoders() -> list[tuple[str, Any, Tensor | None]]:
    torch.manual_seed(5)
    context = rows(6, 4, seed=9)
    made: list[tuple[str, Any, Tensor | None]] = [
        ("lstm", RecurrentDecoder(10, 8, 12), None),
        ("two layers", RecurrentDecoder(10, 8, 12, 2), None),
        ("context", RecurrentDecoder(10, 8, 12, 2, 4), context),
        ("transformer", TransformerDecoder(10, LENGTH, 12, 2, 3), None),
        ("one head", TransformerDecoder(10, LENGTH, 8, 3, 1), None),
    ]
    for _, decoder, _ in made:
        for weight in decoder.parameters():
            torch.nn.init.normal_(weight, std=0.7)
    return made


@pytest.mark.parametrize(("name", "decoder", "context"), decoders(), ids=[name for name, _, _ in decoders()])
@pytest.mark.parametrize(
    "steps", [[1] * LENGTH, [3, 1, 7, 8], [LENGTH], [18, 1]], ids=["words", "parts", "whole", "last"]
)
@torch.inference_mode()
def test_steps_give_what_the_whole_forward_gives(
    name: str, decoder: Any, context: Tensor | None, steps: list[int]
) -> None:
    words = torch.from_numpy(np.random.default_rng(6).integers(0, 10, (6, LENGTH)))
    whole = decoder(words, context)
    memory = decoder.start(6, LENGTH, context)
    if "transformer" in name or "head" in name:
        for filled in memory[:2]:
            filled.fill_(math.nan)  # what is not written yet is not read
    given = {} if context is None else {"context": context}
    parts = []
    for part in torch.split(words, steps, 1):
        features, memory = decoder.step(part, memory, **given)
        parts.append(features)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)
    assert whole.std() > 0.1 and (whole[:, 1:] - whole[:, :-1]).abs().max() > 0.1
    # Nothing that follows a word changes what is said of it.
    other = words.clone()
    other[:, 11:] = (other[:, 11:] + 1) % 10
    torch.testing.assert_close(decoder(other, context)[:, :11], whole[:, :11], rtol=0, atol=1e-5)
    assert (decoder(other, context)[:, 11:] - whole[:, 11:]).abs().max() > 0.01
