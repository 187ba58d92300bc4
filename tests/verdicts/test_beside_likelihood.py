"""Is a text GAN better than maximum likelihood: sentences of models that are known to be better, worse or the same."""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from made_curves import CURVE, made_curve

from aigc_lab.scoring.temperature_curve import point
from aigc_lab.text.corpus import Corpus
from aigc_lab.text.ngram_model import NgramModel
from aigc_lab.verdicts.beside_likelihood import Answer, Beside, is_measured, judge

Floats = npt.NDArray[np.float64]
WORDS, LENGTH, N = 24, 10, 150
TEMPERATURES = (0.5, 0.7, 0.85, 1.0, 1.15, 1.4)


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    shares: Floats = powers / powers.sum(-1, keepdims=True)
    return shares


@cache
def models() -> tuple[Floats, Floats]:
    """Logits of the word after two words [W, W, W]: of the truth, and of a model that knows less of the first."""
    truth = np.random.default_rng(7).normal(0, 3.0, (WORDS, WORDS, WORDS))
    likely = softmax(truth)
    return truth, np.log(0.35 * likely + 0.65 * likely.mean(0, keepdims=True))


def sentences(logits: Floats, count: int, key: int, temperature: float = 1.0) -> npt.NDArray[np.int64]:
    """Each word by a uniform number: the same key gives the same numbers at all temperatures."""
    uniform = np.random.default_rng(key).random((LENGTH, count, 1))
    sums = softmax(logits / temperature).cumsum(-1)
    before = last = np.zeros(count, dtype=np.int64)
    words = []
    for place in range(LENGTH):
        before, last = last, np.minimum((uniform[place] > sums[before, last]).sum(1), WORDS - 1)
        words.append(last)
    return np.stack(words, 1)


@cache
def real() -> tuple[Corpus, NgramModel]:
    corpus = corpus_of(sentences(models()[0], 400, 1))
    return corpus, NgramModel.fit(corpus)


def corpus_of(words: npt.NDArray[np.int64]) -> Corpus:
    return Corpus.of(list(words), (*(f"w{number}" for number in range(WORDS)), "<unk>"))


def curve_of(*of_temperature: tuple[float, npt.NDArray[np.int64]]) -> dict[str, Any]:
    points = [{"temperature": at} | point(corpus_of(words), *real()) for at, words in of_temperature]
    return {"n": N, "points": points}


@cache
def likelihood(key: int = 2) -> dict[str, Any]:
    model = models()[1]
    return curve_of(*((at, sentences(model, N, key, at)) for at in TEMPERATURES))


def judged(words: npt.NDArray[np.int64]) -> Beside:
    return judge([curve_of((1.0, words))], [likelihood()])


def test_a_model_that_knows_more_is_better() -> None:
    found = judged(sentences(models()[0], N, 3))
    assert found.answer == Answer.YES
    assert any(each.answer == Answer.YES and each.low > 0 for each in found.planes)


def test_shuffled_words_are_worse() -> None:
    cold = sentences(models()[1], N, 3, 0.6)
    found = judged(np.random.default_rng(0).permuted(cold, axis=1))
    assert found.answer == Answer.NO
    assert any(each.answer == Answer.NO and each.high < 0 for each in found.planes)


@pytest.mark.parametrize("temperature", [0.6, 0.93, 1.27])
def test_the_model_itself_at_another_temperature_is_neither(temperature: float) -> None:
    wrong = sum(
        judged(sentences(models()[1], N, key, temperature)).answer != Answer.CANNOT_TELL for key in (11, 12, 13)
    )
    assert wrong == 0


def test_the_errors_of_a_point_are_those_of_sentences_drawn_again() -> None:
    """Standard errors by the jackknife against the spread over 24 draws."""
    draws = [point(corpus_of(sentences(models()[1], N, key)), *real()) for key in range(100, 124)]
    for name in ("bleu_4", "self_bleu_4", "lm_forward", "lm_reverse"):
        spread = np.std([draw[name] for draw in draws], ddof=1)
        without = np.array([draw["without"][name] for draw in draws])
        told = np.sqrt(((without - without.mean(1, keepdims=True)) ** 2).sum(1) * 19 / 20).mean()
        assert 0.65 < told / spread < 1.6, name


def test_replicates_are_the_scores_without_a_group() -> None:
    words, (corpus, learned) = sentences(models()[1], 40, 5), real()
    whole = point(corpus_of(words), corpus, learned)
    groups = np.random.default_rng(0).permutation(40) % 20  # `metrics.shared.text.groups_of`
    for group in (0, 7):
        left = point(corpus_of(words[groups != group]), corpus, learned)
        for name, values in whole["without"].items():
            if name != "bleu_4":
                assert values[group] == pytest.approx(left[name]), name
    assert point(corpus_of(words[:2]), corpus, learned)["without"] is None


# ---- the rule, on curves made by hand


@pytest.mark.parametrize(
    ("own", "answers", "answer"),
    [
        ((0.4, 0.6, 5.2, 3.6), ("cannot tell", "cannot tell"), "cannot tell"),
        ((0.4, 0.7, 5.2, 3.6), ("yes", "cannot tell"), "yes"),
        ((0.4, 0.7, 5.2, 3.4), ("yes", "yes"), "yes"),
        ((0.4, 0.6, 5.2, 3.9), ("cannot tell", "no"), "no"),
        ((0.4, 0.7, 5.2, 3.9), ("yes", "no"), "cannot tell"),
        # Less diverse than the curve: better may be another temperature's, worse is worse.
        ((0.8, 0.9, 6.5, 2.5), ("cannot tell", "cannot tell"), "cannot tell"),
        ((0.8, 0.5, 6.5, 3.5), ("no", "no"), "no"),
        # More diverse than the curve: worse may be another temperature's, better is better.
        ((0.1, 0.1, 4.5, 5.0), ("cannot tell", "cannot tell"), "cannot tell"),
        ((0.1, 0.5, 4.5, 4.0), ("yes", "yes"), "yes"),
    ],
)
def test_the_rule(own: tuple[float, float, float, float], answers: tuple[str, str], answer: str) -> None:
    found = judge([made_curve({1.0: own})], [made_curve(CURVE)])
    assert (tuple(str(each.answer) for each in found.planes), str(found.answer)) == (answers, answer)
    assert [(each.diversity, each.quality) for each in found.planes] == [own[:2], own[2:]]


def test_beyond_the_curve_it_says_which_temperatures_lack() -> None:
    narrow = judge([made_curve({1.0: (0.8, 0.9, 6.5, 2.5)})], [made_curve(CURVE)])
    assert {each.why for each in narrow.planes} == {"less diverse than the curve reaches: add temperatures below 0.5"}
    diverse = judge([made_curve({1.0: (0.1, 0.1, 4.5, 5.0)})], [made_curve(CURVE)])
    assert {each.why for each in diverse.planes} == {"more diverse than the curve reaches: add temperatures above 1.4"}
    turned = CURVE | {1.4: (0.5, 0.2, 5.6, 4.4)}
    diverse = judge([made_curve({1.0: (0.1, 0.1, 4.5, 5.0)})], [made_curve(turned)])
    assert {each.why for each in diverse.planes} == {"more diverse than maximum likelihood at any temperature"}


def test_between_two_branches_it_is_neither_better_nor_worse() -> None:
    turned = CURVE | {1.4: (0.5, 0.2, 5.8, 4.4)}
    found = judge([made_curve({1.0: (0.45, 0.5, 5.5, 3.8)})], [made_curve(turned)])
    assert found.answer == Answer.CANNOT_TELL
    assert {each.why for each in found.planes} == {"between two temperatures of maximum likelihood that are as diverse"}


def test_beyond_two_branches_no_temperature_is_as_diverse() -> None:
    turned = CURVE | {1.4: (0.6, 0.2, 6.0, 4.4)}
    found = judge([made_curve({1.0: (0.9, 0.5, 7.0, 3.8)})], [made_curve(turned)])
    assert [(str(each.answer), each.why) for each in found.planes] == [
        ("cannot tell", "less diverse than the curve reaches: add temperatures below 0.5")
    ] * 2


def test_of_the_language_models_less_is_better() -> None:
    found = judge([made_curve({1.0: (0.4, 0.6, 5.2, 3.4)})], [made_curve(CURVE)])
    assert found.planes[1].better_by == pytest.approx(0.2, abs=0.01)


def test_both_intervals_hold_together() -> None:
    """By hand: 97.5 % each, of a standard error of 0.01 and an exact curve, with Student's t of 19 degrees."""
    point, flat = (0.4, 0.6, 5.2, 3.6), {at: (of, 0.5, back, 3.0) for at, (of, _, back, _) in CURVE.items()}
    found = judge([made_curve({1.0: point}, 0.01)], [made_curve(flat, 0.0)])
    # The jackknife's error of ±0.01 / √19 in 20 groups is 0.01, but for their mean.
    for each in found.planes:
        own = made_curve({1.0: point}, 0.01)["points"][0]["without"][each.plane.quality]
        error = np.sqrt(np.var(own) * 20 * 19 / 20)
        assert each.high - each.low == pytest.approx(2 * 2.433440 * error, rel=1e-4)


def test_a_curve_of_an_earlier_version_has_no_errors() -> None:
    curve = made_curve(CURVE)
    assert is_measured(curve)
    del curve["points"][0]["without"]
    assert not is_measured(curve)
