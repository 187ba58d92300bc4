"""n-grams and what is counted of them, against counting in plain Python."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigc_lab.text import ngrams
from aigc_lab.text.corpus import Corpus

SENTENCES = st.lists(st.text("abc", max_size=8), min_size=1, max_size=8)
GROUPS = st.integers(0, 2)


def letters(*sentences: str) -> Corpus:
    """Sentences whose words are letters."""
    return Corpus.of([["abcdefgh".index(letter) for letter in sentence] for sentence in sentences], tuple("abcdefgh"))


def grams(sentence: str, n: int) -> list[str]:
    return [sentence[at : at + n] for at in range(len(sentence) - n + 1)]


@given(SENTENCES, st.integers(1, 5))
def test_equal_numbers_are_equal_ngrams(sentences: list[str], n: int) -> None:
    corpus = letters(*sentences)
    found = ngrams.orders(corpus, n)[-1]
    text = "".join(sentences)
    named: dict[int, str] = {}
    for at, number in zip(found.at.tolist(), found.ids.tolist(), strict=True):
        assert named.setdefault(number, text[at : at + n]) == text[at : at + n]
    assert Counter(named.values()) == Counter(set().union(*(grams(each, n) for each in sentences)))
    assert sorted(named) == list(range(len(found.keys)))


@given(SENTENCES, st.integers(1, 4))
def test_counts_are_those_of_each_sentence(sentences: list[str], n: int) -> None:
    corpus = letters(*sentences)
    found = ngrams.orders(corpus, n)[-1]
    counts = ngrams.count(found, corpus)
    text = "".join(sentences)
    name = dict(zip(found.ids.tolist(), [text[at : at + n] for at in found.at.tolist()], strict=True))
    table = {
        (name[gram], row): times
        for gram, row, times in zip(counts.gram.tolist(), counts.sentence.tolist(), counts.times.tolist(), strict=True)
    }
    assert table == Counter((gram, row) for row, each in enumerate(sentences) for gram in grams(each, n))
    assert counts.different == len(found.keys)
    places = list(zip(counts.gram.tolist(), counts.sentence.tolist(), strict=True))
    assert places == sorted(places)


def test_keys_do_not_collide_where_there_are_many_words() -> None:
    """(0, V) and (1, 0) would be one, if the factor were the largest token and not the number of words."""
    corpus = Corpus.of([[0, 2], [1, 0], [1, 2], [0, 2]], ("x", "y", "z"))
    assert ngrams.orders(corpus, 2)[-1].ids.tolist() == [0, 1, 2, 0]


def test_joined_corpora_share_numbers() -> None:
    both = ngrams.joined(letters("ab", ""), letters("", "cab"))
    assert both.texts() == ["a b", "", "", "c a b"]
    bigrams = ngrams.orders(both, 2)[-1]
    assert bigrams.ids[0] == bigrams.ids[2] != bigrams.ids[1]


def test_corpora_with_different_words_are_refused() -> None:
    other = Corpus.of([[0]], ("z",))
    for call in (ngrams.joined, ngrams.known_sentences):
        with pytest.raises(ValueError, match="different words"):
            call(letters("a"), other)


@given(SENTENCES, st.integers(1, 4))
def test_distinct_is_different_over_all(sentences: list[str], n: int) -> None:
    every = [gram for each in sentences for gram in grams(each, n)]
    if every:
        assert ngrams.distinct(letters(*sentences), n) == len(set(every)) / len(every)
    else:
        with pytest.raises(ValueError, match=f"no sentence has {n} tokens"):
            ngrams.distinct(letters(*sentences), n)


@given(SENTENCES, st.integers(1, 4))
def test_repetition_counts_what_the_sentence_had_before(sentences: list[str], n: int) -> None:
    expected = []
    for sentence in sentences:
        mine = grams(sentence, n)
        again = [gram in mine[:place] for place, gram in enumerate(mine)]
        expected.append(sum(again) / len(mine) if mine else 0.0)
    assert ngrams.repetition(letters(*sentences), n).tolist() == pytest.approx(expected, abs=1e-15)


def test_repetition_of_known_sentences() -> None:
    assert ngrams.repetition(letters("aaaa", "abab", "abcd", "ab", "a", ""), 2).tolist() == pytest.approx(
        [2 / 3, 1 / 3, 0, 0, 0, 0], abs=1e-15
    )


@given(SENTENCES, SENTENCES)
def test_sentences_are_compared_whole(sentences: list[str], train: list[str]) -> None:
    corpus = letters(*sentences)
    assert ngrams.unique_sentences(corpus) == pytest.approx(len(set(sentences)) / len(sentences), abs=1e-15)
    assert ngrams.duplicates(corpus) == sum(each in sentences[:row] for row, each in enumerate(sentences))
    assert ngrams.known_sentences(corpus, letters(*train)).tolist() == [each in train for each in sentences]


@given(st.lists(st.tuples(st.text("ab", max_size=4), GROUPS), min_size=1, max_size=9), st.integers(1, 3))
def test_without_a_group_is_the_corpus_without_it(pairs: list[tuple[str, int]], n: int) -> None:
    corpus, groups = letters(*(sentence for sentence, _ in pairs)), np.array([group for _, group in pairs])
    rests = [corpus.take(groups != group) for group in range(groups.max() + 1)]
    if all(rest.lengths.max(initial=0) >= n for rest in rests):
        expected = [ngrams.distinct(rest, n) for rest in rests]
        assert ngrams.distinct_without(corpus, groups, n).tolist() == pytest.approx(expected, abs=1e-15)
    else:
        with pytest.raises(ValueError, match=f"no sentence has {n} tokens"):
            ngrams.distinct_without(corpus, groups, n)
    if all(map(len, rests)):
        expected = [ngrams.unique_sentences(rest) for rest in rests]
        assert ngrams.unique_without(corpus, groups).tolist() == pytest.approx(expected, abs=1e-15)
    else:
        with pytest.raises(ValueError, match="there is no sentence"):
            ngrams.unique_without(corpus, groups)


@pytest.mark.parametrize("groups", [[0], [0, 1, 0], [0, -1]])
def test_groups_that_are_none_are_refused(groups: list[int]) -> None:
    for call in (ngrams.unique_without, partial(ngrams.distinct_without, n=1)):
        with pytest.raises(ValueError, match="2 sentences need"):
            call(letters("a", "b"), np.array(groups))


def test_nothing_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="there is no sentence"):
        ngrams.unique_sentences(letters())
    for call in (ngrams.distinct, ngrams.repetition):
        with pytest.raises(ValueError, match="at least 1 token, not 0"):
            call(letters("a"), 0)


@given(SENTENCES, st.data())
def test_order_of_sentences_is_the_order_of_values(sentences: list[str], data: st.DataObject) -> None:
    rows = np.array(data.draw(st.permutations(range(len(sentences)))))
    corpus = letters(*sentences)
    assert ngrams.repetition(corpus.take(rows), 2).tolist() == ngrams.repetition(corpus, 2)[rows].tolist()
