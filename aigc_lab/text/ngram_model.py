"""An n-gram language model with interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999, section 3)."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from aigc_lab.text import ngrams
from aigc_lab.text.corpus import Corpus, Ints
from aigc_lab.text.ngrams import Floats, Grams

# Discounts of counts of 0, 1, 2, and 3 or more, if there are too few counts to estimate them.
_DISCOUNTS = np.array([0, 0.75, 0.75, 0.75])
# A key that no n-gram has.
_NONE = np.iinfo(np.int64).max


class _Level(NamedTuple):
    """n-grams of one n. The last entry of each array, which index −1 selects, stands for all n-grams that were never
    seen.
    """

    keys: Ints  # [n-grams + 1], ascending
    own: Floats  # [n-grams + 1]: max(a − D(a), 0) / Σ a
    backoff: Floats  # [contexts + 1]: what the discounts leave, by the number of the (n − 1)-gram


@dataclass(frozen=True)
class NgramModel:
    """Interpolated n-gram model: P(w ∣ h) = (a(hw) − D(a(hw))) / Σ a(h·) + γ(h) P(w ∣ h′), where h′ is the context
    without its first token and γ the mass of the discounts. The recursion ends in the uniform distribution over the
    words and the end of a sentence, so that each has a probability above 0. A context that was never seen has γ = 1.

    a is the count for the longest n-grams and for those that begin a sentence, which nothing precedes; for all others
    it is the number of different tokens that precede them (Heafield et al. 2013, section 3.2). The discounts of each
    order are D₁ = 1 − 2Y n₂/n₁, D₂ = 2 − 3Y n₃/n₂, D₃₊ = 3 − 4Y n₄/n₃ with Y = n₁/(n₁ + 2n₂), where nᵢ n-grams have a =
    i. If n₁, n₂ or n₃ is 0, or a discount is not above 0, all three are 0.75.
    """

    levels: tuple[_Level, ...]
    words: tuple[str, ...]

    @classmethod
    def fit(cls, corpus: Corpus, order: int = 4) -> "NgramModel":
        """Model of n-grams up to n = `order` of a corpus; its vocabulary is the corpus's `words`.

        Raises `ValueError` for an order below 1 and for a corpus without a sentence.
        """
        if len(corpus) == 0:
            raise ValueError("a language model needs at least 1 sentence, not 0")
        stream = _marked(corpus)
        by_order = ngrams.orders(stream, order)
        above = [*by_order[1:], None]
        contexts = [1, *(len(grams.keys) for grams in by_order[:-1])]
        levels = [_level(*each, stream) for each in zip(by_order, above, contexts, strict=True)]
        return cls(tuple(levels), corpus.words)

    def nll(self, corpus: Corpus) -> tuple[Floats, Ints]:
        """−log P of each sentence with its end, in nats [N], and its number of tokens [N], length + 1.

        Raises `ValueError` if the corpus has other words than the model.
        """
        if corpus.words != self.words:
            raise ValueError("a language model cannot score a corpus with other words than its own")
        stream = _marked(corpus)
        surprise = -np.log(self._probabilities(stream.tokens))
        surprise[stream.starts[:-1]] = 0  # a start is given
        return np.bincount(stream.owners, surprise, len(corpus)).astype(np.float64), corpus.lengths + 1

    def _probabilities(self, tokens: Ints) -> Floats:
        """Probability of each token [T] of marked sentences given those before it; undefined at a start."""
        uniform = 1 / (len(self.words) + 1)
        probabilities = np.full(len(tokens), uniform)
        context = np.zeros(len(tokens), dtype=np.int64)
        for level in self.levels:
            keys = context * (len(self.words) + 2) + tokens
            at = np.searchsorted(level.keys, keys)
            grams = np.where(level.keys[at] == keys, at, -1)
            probabilities = level.own[grams] + level.backoff[context] * probabilities
            # No n-gram has a start but as its first token, so none goes on from one sentence to the next.
            context = np.roll(grams, 1)
        return probabilities


def _marked(corpus: Corpus) -> Corpus:
    """Sentences with their end, token V, and their start, token V + 1."""
    size = len(corpus.words)
    starts = corpus.starts + 2 * np.arange(len(corpus) + 1)
    tokens = np.full(starts[-1], size)
    tokens[starts[:-1]] = size + 1
    tokens[np.arange(len(corpus.tokens)) + 2 * corpus.owners + 1] = corpus.tokens
    return replace(corpus, tokens=tokens, starts=starts, words=(*corpus.words, "<eos>", "<bos>"))


def _level(grams: Grams, above: Grams | None, contexts: int, stream: Corpus) -> _Level:
    """Level of the n-grams of a marked corpus; `above` are the (n + 1)-grams, if the model has any."""
    counts = _adjusted(grams, above, stream)
    discounts = _discounts(counts)[np.minimum(counts, 3)]
    context = grams.keys // len(stream.words)
    total = np.bincount(context, counts, minlength=contexts)
    discounted = np.bincount(context, discounts, minlength=contexts)
    # A sentence's end is no context, so nothing was counted after it.
    backoff = np.where(total > 0, discounted / np.maximum(total, 1), 1)
    own = (counts - discounts) / total[context]
    return _Level(np.append(grams.keys, _NONE), np.append(own, 0.0), np.append(backoff, 1.0))


def _adjusted(grams: Grams, above: Grams | None, stream: Corpus) -> Ints:
    """Adjusted count a of each n-gram: its count, or the number of different tokens that precede it."""
    start = len(stream.words) - 1
    counts = np.bincount(grams.ids, minlength=len(grams.keys))
    if above is not None:
        number = np.full(len(stream.tokens), -1)
        number[grams.at] = grams.ids
        place = np.zeros(len(above.keys), dtype=np.int64)  # any place at which each (n + 1)-gram is
        place[above.ids] = above.at
        preceding = np.bincount(number[place + 1], minlength=len(grams.keys))
        begins = np.zeros(len(grams.keys), dtype=np.bool_)
        begins[grams.ids] = stream.tokens[grams.at] == start
        counts = np.where(begins, counts, preceding)
    return np.where(grams.keys == start, 0, counts)  # a start alone is never predicted


def _discounts(counts: Ints) -> Floats:
    """Discounts [4] of counts of 0, 1, 2, and 3 or more."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(np.float64)
    if n[1:4].min() == 0:
        return _DISCOUNTS
    i = np.arange(1, 4)
    estimates = i - (i + 1) * n[1] / (n[1] + 2 * n[2]) * n[i + 1] / n[i]
    # None is above i. With one of 0 a context might leave nothing for what never followed it.
    return np.append(0, estimates) if estimates.min() > 0 else _DISCOUNTS
