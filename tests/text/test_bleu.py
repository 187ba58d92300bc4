"""BLEU and Self-BLEU against NLTK, which compares each sentence with each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from aigc_lab.text.bleu import bleu, self_bleu, self_bleu_without
from aigc_lab.text.corpus import Corpus

ORDERS = (1, 2, 3, 4, 5)
SENTENCE = st.text("abc", max_size=9)

# Each is a corpus of sentences whose words are letters.
ADVERSARIAL = {
    "empty ones": ["", "", "ab"],
    "only empty ones": ["", ""],
    "an empty one beside others": ["abcab", "", "abc", "bca"],
    "copies": ["abcd", "abcd", "abcd", "dcba"],
    "two copies only": ["abcabc", "abcabc"],
    "shorter than n": ["a", "ab", "abc", "abcd"],
    "lengths as close": ["abcd", "ab", "abcdef", "abc", "abcde"],
    "lengths as close, twice": ["abcd", "ab", "ab", "abcdef", "abcdef"],
    "nothing in common": ["aaaa", "bbbb", "cccc"],
    "words again and again": ["aaaaaa", "aaa", "aab", "baaaa", "aaaaaa"],
    "far lengths": ["a", "b" * 40, "ab" * 9],
}


def letters(*sentences: str) -> Corpus:
    """Sentences whose words are letters."""
    return Corpus.of([["abcdefgh".index(letter) for letter in sentence] for sentence in sentences], tuple("abcdefgh"))


def theirs(hypothesis: str, references: list[str], n: int) -> float:
    smooth = SmoothingFunction().method1
    split = [list(reference) for reference in references]
    return float(sentence_bleu(split, list(hypothesis), weights=(1 / n,) * n, smoothing_function=smooth))


def agree_bleu(hypotheses: list[str], references: list[str]) -> None:
    ours = bleu(letters(*hypotheses), letters(*references), ORDERS)
    for n in ORDERS:
        expected = [theirs(hypothesis, references, n) for hypothesis in hypotheses]
        assert ours[n].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def agree_self_bleu(sentences: list[str]) -> None:
    ours = self_bleu(letters(*sentences), ORDERS)
    for n in ORDERS:
        expected = [theirs(each, sentences[:row] + sentences[row + 1 :], n) for row, each in enumerate(sentences)]
        assert ours[n].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def zipf(sentences: int, seed: int) -> list[str]:
    source = np.random.default_rng(seed)
    lengths = source.integers(0, 15, sentences)
    return ["".join("abcdefgh"[min(7, word - 1)] for word in source.zipf(1.5, length)) for length in lengths]


@settings(max_examples=60, deadline=None)
@given(st.lists(SENTENCE, max_size=5), st.lists(SENTENCE, min_size=1, max_size=5))
def test_bleu_is_that_of_nltk(hypotheses: list[str], references: list[str]) -> None:
    agree_bleu(hypotheses, references)


@settings(max_examples=60, deadline=None)
@given(st.lists(SENTENCE, min_size=2, max_size=7))
def test_self_bleu_is_that_of_nltk(sentences: list[str]) -> None:
    agree_self_bleu(sentences)


@pytest.mark.parametrize("sentences", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_adversarial_corpora_score_as_with_nltk(sentences: list[str]) -> None:
    agree_self_bleu(sentences)
    agree_bleu(sentences, sentences)
    agree_bleu(sentences, sentences[:1])
    agree_bleu(sentences[:1], sentences[1:])


def test_larger_corpora_score_as_with_nltk() -> None:
    agree_self_bleu(zipf(60, 0))
    agree_bleu(zipf(30, 1), zipf(60, 2))


def test_bleu_worked_by_hand() -> None:
    """Of "aab" the a is there twice and in the second reference too, the b in the first; two tokens are closest."""
    scores = bleu(letters("aab", "aab"), letters("ab", "aa"), (1, 2, 3))
    assert [scores[n][0] for n in (1, 2, 3)] == pytest.approx([1, 1, 0.1 ** (1 / 3)])
    # r = 5 of 3 and 5 is no closer to 4 than 3 is; the shorter gives no penalty, and r = 5 alone gives exp(1 − 5/4).
    assert bleu(letters("aaaa"), letters("aaa", "aaaaa"), (1,))[1] == pytest.approx([1])
    assert bleu(letters("aaaa"), letters("aaaaa"), (1,))[1] == pytest.approx([np.exp(1 - 5 / 4)])


def test_orders_do_not_depend_on_which_others_are_asked_for() -> None:
    corpus = letters(*zipf(40, 3))
    every = self_bleu(corpus, ORDERS)
    assert list(every) == [1, 2, 3, 4, 5] and list(self_bleu(corpus)) == [2, 3, 4, 5]
    assert list(self_bleu(corpus, (5, 2))) == [5, 2]
    assert self_bleu(corpus, (5, 2))[5].tolist() == every[5].tolist()
    assert bleu(corpus, corpus, (3,))[3].tolist() == bleu(corpus, corpus)[3].tolist()


@given(st.permutations(range(40)))
@settings(max_examples=10, deadline=None)
def test_order_of_sentences_is_the_order_of_scores(order: list[int]) -> None:
    rows, corpus = np.array(order), letters(*zipf(40, 4))
    for n, scores in self_bleu(corpus).items():
        assert self_bleu(corpus.take(rows))[n].tolist() == scores[rows].tolist()
    for n, scores in bleu(corpus, corpus).items():
        assert bleu(corpus.take(rows), corpus)[n].tolist() == scores[rows].tolist()
        assert bleu(corpus, corpus.take(rows))[n].tolist() == scores.tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SENTENCE, st.integers(0, 3)), min_size=2, max_size=12))
def test_without_a_group_is_the_corpus_without_it(pairs: list[tuple[str, int]]) -> None:
    corpus, groups = letters(*(sentence for sentence, _ in pairs)), np.array([group for _, group in pairs])
    rests = [corpus.take(groups != group) for group in range(groups.max() + 1)]
    if min(map(len, rests)) < 2:
        with pytest.raises(ValueError, match="at least 2 sentences"):
            self_bleu_without(corpus, groups)
        return
    replicates = self_bleu_without(corpus, groups, ORDERS)
    for n in ORDERS:
        expected = [self_bleu(rest, (n,))[n].mean() for rest in rests]
        assert replicates[n].tolist() == pytest.approx(expected, abs=1e-14)


def test_twenty_groups_of_a_larger_corpus() -> None:
    corpus = letters(*zipf(300, 5))
    groups = np.random.default_rng(6).permutation(300) % 20
    replicates = self_bleu_without(corpus, groups)
    for n, values in replicates.items():
        expected = [self_bleu(corpus.take(groups != group))[n].mean() for group in range(20)]
        assert values.tolist() == pytest.approx(expected, abs=1e-14)


def test_too_little_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="at least 1 reference sentence"):
        bleu(letters("a"), letters())
    for few in (letters(), letters("abc")):
        with pytest.raises(ValueError, match=f"at least 2 sentences, not {len(few)}"):
            self_bleu(few)
    for wrong in ((), (0, 2), (-1,)):
        with pytest.raises(ValueError, match="orders of at least 1"):
            self_bleu(letters("a", "b"), wrong)
        with pytest.raises(ValueError, match="orders of at least 1"):
            bleu(letters("a", "b"), letters("a"), wrong)
    with pytest.raises(ValueError, match="2 sentences need"):
        self_bleu_without(letters("a", "b"), np.array([0]))
    with pytest.raises(ValueError, match="different words"):
        bleu(letters("a"), Corpus.of([[0]], ("z",)))


def test_no_hypothesis_has_no_score() -> None:
    assert {n: scores.tolist() for n, scores in bleu(letters(), letters("a")).items()} == {2: [], 3: [], 4: [], 5: []}
