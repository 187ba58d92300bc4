"""The Kneser-Ney model against its definition in dictionaries, against sums that must be 1, and a known source."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aigc_lab.text.corpus import Corpus
from aigc_lab.text.ngram_model import NgramModel

WORDS = "abcde"
START, END = "<", ">"
SENTENCES = st.lists(st.text("abc", max_size=6), min_size=1, max_size=8)


def letters(*sentences: str) -> Corpus:
    """Sentences whose words are letters."""
    return Corpus.of([[WORDS.index(letter) for letter in sentence] for sentence in sentences], tuple(WORDS))


class Defined:
    """Interpolated modified Kneser-Ney as it is defined, one probability at a time."""

    def __init__(self, sentences: Sequence[str], order: int) -> None:
        marked = [START + sentence + END for sentence in sentences]
        counts = {
            n: Counter(each[at : at + n] for each in marked for at in range(len(each) - n + 1))
            for n in range(1, order + 1)
        }
        self.order = order
        self.adjusted = {
            n: {
                gram: times
                if n == order or gram.startswith(START)
                else len({longer[0] for longer in counts[n + 1] if longer[1:] == gram})
                for gram, times in counts[n].items()
                if gram != START
            }
            for n in counts
        }
        self.discounts = {n: self.estimated(list(table.values())) for n, table in self.adjusted.items()}

    @staticmethod
    def estimated(counts: Sequence[int]) -> tuple[float, ...]:
        n1, n2, n3, n4 = (counts.count(i) for i in (1, 2, 3, 4))
        if n1 and n2 and n3:
            y = n1 / (n1 + 2 * n2)
            found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
            if all(0 < discount <= i for i, discount in enumerate(found, 1)):
                return found
        return 0.75, 0.75, 0.75

    def probability(self, word: str, context: str) -> float:
        return self.interpolated(word, context[max(0, len(context) - self.order + 1) :])

    def interpolated(self, word: str, context: str) -> float:
        n = len(context) + 1
        shorter = self.interpolated(word, context[1:]) if context else 1 / (len(WORDS) + 1)
        after = {gram: a for gram, a in self.adjusted[n].items() if gram[:-1] == context}
        if not after:
            return shorter
        discount = {gram: self.discounts[n][min(a, 3) - 1] for gram, a in after.items()}
        own = after.get(context + word, 0) - discount.get(context + word, 0)
        return (own + sum(discount.values()) * shorter) / sum(after.values())

    def nll(self, sentence: str) -> float:
        marked = START + sentence + END
        return -sum(math.log(self.probability(marked[at], marked[:at])) for at in range(1, len(marked)))


def agree(train: list[str], scored: list[str], order: int) -> Defined:
    nll, tokens = NgramModel.fit(letters(*train), order).nll(letters(*scored))
    defined = Defined(train, order)
    assert nll.tolist() == pytest.approx([defined.nll(sentence) for sentence in scored], rel=1e-10)
    assert tokens.tolist() == [len(sentence) + 1 for sentence in scored]
    return defined


def chain(sentences: int, seed: int) -> list[str]:
    """Sentences in which a letter mostly follows the one before it in the alphabet."""
    source = np.random.default_rng(seed)
    steps = [source.choice(4, size=source.integers(0, 9), p=[0.1, 0.7, 0.15, 0.05]) for _ in range(sentences)]
    return ["".join(WORDS[place] for place in np.cumsum(each) % 4) for each in steps]


@settings(max_examples=80, deadline=None)
@given(SENTENCES, st.lists(st.text("abcde", max_size=6), max_size=4), st.integers(1, 5))
def test_probabilities_are_those_of_the_definition(train: list[str], other: list[str], order: int) -> None:
    agree(train, train + other, order)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_larger_corpora_have_discounts_of_their_own(order: int) -> None:
    defined = agree(chain(60, 0), chain(20, 1), order)
    if order > 2:
        assert any(discounts != (0.75, 0.75, 0.75) for discounts in defined.discounts.values())


def test_a_discount_of_nothing_is_not_used() -> None:
    """n₁ = 4, n₂ = n₃ = 1: D₂ = 2 − 3 · 4/6 = 0."""
    defined = agree(["aaabbcde"], ["abcde", "bb", ""], 1)
    assert sorted(defined.adjusted[1].values()) == [1, 1, 1, 1, 2, 3]
    assert defined.discounts[1] == (0.75, 0.75, 0.75)


@settings(max_examples=20, deadline=None)
@given(SENTENCES, st.integers(1, 4))
def test_probabilities_sum_to_one_after_any_context(train: list[str], order: int) -> None:
    assert_sums(NgramModel.fit(letters(*train), order), 3)


def assert_sums(model: NgramModel, longest: int) -> None:
    end, start = len(WORDS), len(WORDS) + 1
    for context in contexts(longest):
        streams = [[start, *context, word] for word in range(end + 1)]
        found = model._probabilities(np.array(list(itertools.chain(*streams))))
        last = found[len(context) + 1 :: len(context) + 2]
        assert last.min() > 0
        assert last.sum() == pytest.approx(1, abs=1e-12)


def contexts(longest: int) -> Iterator[tuple[int, ...]]:
    for length in range(longest + 1):
        yield from itertools.product(range(len(WORDS)), repeat=length)


def test_probabilities_of_a_larger_corpus_sum_to_one() -> None:
    assert_sums(NgramModel.fit(letters(*chain(200, 2))), 4)


def test_one_sentence_worked_by_hand() -> None:
    """Unigrams a and the end, once each: (1 − 0.75) / 2 + 1.5 / 2 / 6 of six tokens."""
    nll, tokens = NgramModel.fit(letters("a"), 1).nll(letters("a", "b", ""))
    known, unknown = 0.25 / 2 + 0.75 / 6, 0.75 / 6
    assert np.exp(-nll).tolist() == pytest.approx([known**2, unknown * known, known])
    assert tokens.tolist() == [2, 2, 1]


def test_a_known_source_is_found() -> None:
    """Held-out text costs what it costs under the chain that made it, up to a few percent for having to learn it."""
    step = [0.1, 0.7, 0.15, 0.05]
    held_out = chain(500, 4)
    true = 0.0
    for sentence in held_out:
        places = [0, *(WORDS.index(letter) for letter in sentence)]
        true -= sum(math.log(step[(b - a) % 4]) for a, b in itertools.pairwise(places)) + math.log(1 / 9)
    nll, _ = NgramModel.fit(letters(*chain(4000, 3))).nll(letters(*held_out))
    unigram, _ = NgramModel.fit(letters(*chain(4000, 3)), 1).nll(letters(*held_out))
    # A chain of letters does not know its length, so the end costs more than the 9 equal lengths say.
    assert 0.98 * true < nll.sum() < 1.1 * true < unigram.sum()


def test_corpora_of_empty_sentences_have_a_model() -> None:
    nll, tokens = NgramModel.fit(letters("", "")).nll(letters("", "ab"))
    assert np.isfinite(nll).all() and nll[0] < nll[1]
    assert tokens.tolist() == [1, 3]


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(30)))
def test_order_of_sentences_is_the_order_of_values(order: list[int]) -> None:
    rows, train, scored = np.array(order), letters(*chain(30, 5)), letters(*chain(30, 6))
    expected = NgramModel.fit(train).nll(scored)[0]
    assert NgramModel.fit(train).nll(scored.take(rows))[0].tolist() == expected[rows].tolist()
    assert NgramModel.fit(train.take(rows)).nll(scored)[0].tolist() == pytest.approx(expected.tolist(), rel=1e-12)


def test_nothing_and_other_words_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 sentence"):
        NgramModel.fit(letters())
    with pytest.raises(ValueError, match="at least 1 token, not 0"):
        NgramModel.fit(letters("a"), 0)
    with pytest.raises(ValueError, match="other words"):
        NgramModel.fit(letters("a")).nll(Corpus.of([[0]], ("z",)))
    nll, tokens = NgramModel.fit(letters("a")).nll(letters())
    assert (len(nll), len(tokens)) == (0, 0)
