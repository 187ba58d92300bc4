"""ROUGE against the rouge-score package, with letters for words."""

import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

from aigc_lab.text import rouge
from aigc_lab.text.corpus import Corpus
from aigc_lab.text.rouge import rouge_l, rouge_n, rouge_nn

SENTENCE = st.text("abc", max_size=10)


class Letters:
    def tokenize(self, text: str) -> list[str]:
        return list(text)


SCORER = RougeScorer(["rouge1", "rouge2", "rouge3", "rougeL"], tokenizer=Letters())


def letters(*sentences: str) -> Corpus:
    """Sentences whose words are letters."""
    return Corpus.of([["abcdefgh".index(letter) for letter in sentence] for sentence in sentences], tuple("abcdefgh"))


def agree(hypotheses: list[str], references: list[str]) -> None:
    ours, others = letters(*hypotheses), letters(*references)
    scores = {f"rouge{n}": rouge_n(ours, others, n) for n in (1, 2, 3)} | {"rougeL": rouge_l(ours, others)}
    theirs = [SCORER.score(target, made) for made, target in zip(hypotheses, references, strict=True)]
    for kind, values in scores.items():
        assert values.tolist() == pytest.approx([each[kind].fmeasure for each in theirs], rel=1e-12, abs=1e-12)


def drawn(length: int, words: int, seed: int) -> str:
    return "".join("abcdefgh"[word] for word in np.random.default_rng((seed, length)).integers(0, words, length))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SENTENCE, SENTENCE), max_size=6))
def test_pairs_score_as_with_rouge_score(pairs: list[tuple[str, str]]) -> None:
    agree([made for made, _ in pairs], [target for _, target in pairs])


@settings(max_examples=40, deadline=None)
@given(st.lists(SENTENCE, max_size=5), st.lists(SENTENCE, min_size=1, max_size=5))
def test_the_best_reference_is_that_of_all_pairs(hypotheses: list[str], references: list[str]) -> None:
    expected = [SCORER.score_multi(references, made)["rougeL"].fmeasure for made in hypotheses]
    assert rouge_nn(letters(*hypotheses), letters(*references)).tolist() == pytest.approx(expected, abs=1e-12)


# Around what fits in one word of bits, and in two.
LENGTHS = (0, 1, 63, 64, 65, 127, 128, 129, 200)


@pytest.mark.parametrize("words", [1, 2, 8])
def test_long_sentences_carry_from_word_to_word(words: int) -> None:
    pairs = [(drawn(m, words, 1), drawn(n, words, 2)) for m, n in itertools.product(LENGTHS, LENGTHS)]
    agree([made for made, _ in pairs], [target for _, target in pairs])
    some = [drawn(length, words, 3) for length in (0, 70, 130)]
    targets = [target for _, target in pairs[: len(LENGTHS)]]
    expected = [SCORER.score_multi(targets, made)["rougeL"].fmeasure for made in some]
    assert rouge_nn(letters(*some), letters(*targets)).tolist() == pytest.approx(expected, abs=1e-12)


def test_a_carry_goes_through_words_without_a_match() -> None:
    """The a, in the first word of bits, takes the place of the b in the third: one token is common, not two."""
    agree(["ba", "ab", "bac"], ["a" + "c" * 150 + "b"] * 3)
    assert rouge_l(letters("ba"), letters("a" + "c" * 150 + "b"))[0] == pytest.approx(2 * 1 / (2 + 152))


def test_rouge_worked_by_hand() -> None:
    """ "abcd" and "acbd" have "abd" or "acd" in common: 3 of 4 and of 4; 4 unigrams; no bigram."""
    pair = letters("abcd"), letters("acbd")
    assert rouge_l(*pair).tolist() == [0.75]
    assert [rouge_n(*pair, n)[0] for n in (1, 2, 5)] == [1.0, 0.0, 0.0]


def test_blocks_do_not_change_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    hypotheses = letters(*(drawn(length, 4, 5) for length in range(0, 100, 3)))
    references = letters(*(drawn(length, 4, 6) for length in range(99, -1, -3)))
    whole = rouge_l(hypotheses, references), rouge_nn(hypotheses, references)
    monkeypatch.setattr(rouge, "_CELLS", 2 * 64 * 3)
    assert rouge_l(hypotheses, references).tolist() == whole[0].tolist()
    assert rouge_nn(hypotheses, references).tolist() == whole[1].tolist()


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(30)))
def test_order_of_sentences_is_the_order_of_scores(order: list[int]) -> None:
    rows = np.array(order)
    hypotheses = letters(*(drawn(length % 9, 4, length) for length in range(30)))
    references = letters(*(drawn(length % 7, 4, length) for length in range(30)))
    for score in (rouge_l, rouge_nn, partial(rouge_n, n=2)):
        assert (
            score(hypotheses.take(rows), references.take(rows)).tolist() == score(hypotheses, references)[rows].tolist()
        )
    assert rouge_nn(hypotheses, references.take(rows)).tolist() == rouge_nn(hypotheses, references).tolist()


def test_what_cannot_be_compared_is_refused() -> None:
    for score in (rouge_l, partial(rouge_n, n=1)):
        with pytest.raises(ValueError, match="2 hypotheses have 1 references"):
            score(letters("a", "b"), letters("a"))
    for score in (rouge_l, rouge_nn, partial(rouge_n, n=1)):
        with pytest.raises(ValueError, match="different words"):
            score(letters("a"), Corpus.of([[0]], ("z",)))
    with pytest.raises(ValueError, match="at least 1 reference sentence"):
        rouge_nn(letters("a"), letters())
    with pytest.raises(ValueError, match="at least 1 token, not 0"):
        rouge_n(letters("a"), letters("a"), 0)
