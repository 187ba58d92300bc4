"""n-grams as numbers, and statistics of their counts: exact, by sorting, without hashes that could collide."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aigc_lab.text.corpus import UNKNOWN, Corpus, Ints

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class Grams(NamedTuple):
    """n-grams of a corpus, of one n: the n-gram that begins at token `at[i]` has the number `ids[i]`.

    Numbers are 0 … len(keys) − 1. `keys` are ascending: the key of an n-gram is (number of its first n − 1 tokens) ·
    (number of words) + its last token, so that equal numbers mean equal tokens.
    """

    at: Ints
    ids: Ints
    keys: Ints


class Counts(NamedTuple):
    """Counts of n-grams in sentences: an entry [E] for each pair that occurs, by n-gram, then by sentence.

    n-grams have the numbers 0 … different − 1.
    """

    gram: Ints
    sentence: Ints
    times: Ints
    different: int


def comparable(*corpora: Corpus) -> None:
    """Raises `ValueError` if the corpora have different words."""
    if any(each.words != corpora[0].words for each in corpora):
        raise ValueError("two corpora with different words cannot be compared")


def joined(*corpora: Corpus) -> Corpus:
    """Corpus of all sentences, one corpus after the other. Raises `ValueError` if the corpora have different words."""
    comparable(*corpora)
    starts = np.zeros(sum(map(len, corpora)) + 1, dtype=np.int64)
    np.cumsum(np.concatenate([each.lengths for each in corpora]), out=starts[1:])
    return replace(corpora[0], tokens=np.concatenate([each.tokens for each in corpora]), starts=starts)


def apart(*corpora: Corpus) -> list[Corpus]:
    """Corpora with every `<unk>` replaced by a word of its own, so that unknown words match nothing. Raises
    `ValueError` if the corpora have different words.
    """
    comparable(*corpora)
    words = corpora[0].words
    unknown = words.index(UNKNOWN) if UNKNOWN in words else -1
    places = [np.flatnonzero(each.tokens == unknown) for each in corpora]
    total = sum(map(len, places))
    if unknown < 0 or not total:
        return list(corpora)
    words += tuple(f"{UNKNOWN}{number}" for number in range(total))
    renumbered, next_word = [], len(words) - total
    for each, at in zip(corpora, places, strict=True):
        tokens = each.tokens.copy()
        tokens[at] = np.arange(next_word, next_word + len(at))
        next_word += len(at)
        renumbered.append(replace(each, tokens=tokens, words=words))
    return renumbered


def orders(corpus: Corpus, largest: int) -> list[Grams]:
    """Unigrams, bigrams and so on up to n = `largest`. Raises `ValueError` if that is below 1."""
    if largest < 1:
        raise ValueError(f"an n-gram has at least 1 token, not {largest}")
    ends = corpus.starts[1:][corpus.owners]
    at = np.arange(len(corpus.tokens))
    ids = np.zeros(len(at), dtype=np.int64)
    by_order: list[Grams] = []
    for n in range(1, largest + 1):
        inside = at + n <= ends[at]
        at, ids = at[inside], ids[inside]
        keys, ids = np.unique(ids * len(corpus.words) + corpus.tokens[at + n - 1], return_inverse=True)
        by_order.append(Grams(at, ids, keys))
    return by_order


def count(grams: Grams, corpus: Corpus) -> Counts:
    """Counts of the n-grams in each sentence of their corpus."""
    pairs, times = np.unique(grams.ids * len(corpus) + corpus.owners[grams.at], return_counts=True)
    gram, sentence = np.divmod(pairs, max(1, len(corpus)))
    return Counts(gram, sentence, times, len(grams.keys))


def distinct(corpus: Corpus, n: int) -> float:
    """Distinct-n (Li et al. 2016, section 5.1): share of n-grams that are different, in (0, 1].

    It falls with the number of sentences: compare equal numbers only. Raises `ValueError` if no sentence has n tokens,
    and for n < 1.
    """
    grams = orders(corpus, n)[-1]
    _refuse_zero(len(grams.ids), f"no sentence has {n} tokens")
    return len(grams.keys) / len(grams.ids)


def distinct_without(corpus: Corpus, groups: Ints, n: int) -> Floats:
    """Distinct-n without the sentences of each group [G].

    `groups` [N] is the group 0 … G − 1 of each sentence. Raises `ValueError` if no n-gram remains without a group.
    """
    size = group_count(groups, corpus)
    grams = orders(corpus, n)[-1]
    of = groups[corpus.owners[grams.at]]
    totals = len(of) - np.bincount(of, minlength=size)
    _refuse_zero(totals, f"no sentence has {n} tokens")
    shares: Floats = _different_without(grams.ids, of, size) / totals
    return shares


def repetition(corpus: Corpus, n: int) -> Floats:
    """rep-n of each sentence [N], in [0, 1): share of its n-grams that occur earlier in it (Welleck et al. 2020, eq.
    9).

    That is 1 − different / all n-grams of the sentence, and 0 for fewer than two n-grams. Raises `ValueError` for n <
    1.
    """
    counts = count(orders(corpus, n)[-1], corpus)
    different = np.bincount(counts.sentence, minlength=len(corpus))
    total = np.maximum(corpus.lengths - n + 1, 0)
    share: Floats = 1 - different / np.maximum(total, 1)
    return np.where(total > 0, share, 0.0)


def unique_sentences(corpus: Corpus) -> float:
    """Share of sentences that are different, in (0, 1]. Raises `ValueError` without a sentence."""
    _refuse_zero(len(corpus), "there is no sentence")
    return 1 - duplicates(corpus) / len(corpus)


def unique_without(corpus: Corpus, groups: Ints) -> Floats:
    """Share of different sentences without those of each group [G].

    `groups` [N] is the group 0 … G − 1 of each sentence. Raises `ValueError` if no sentence remains without a group.
    """
    size = group_count(groups, corpus)
    totals = len(corpus) - np.bincount(groups, minlength=size)
    _refuse_zero(totals, "there is no sentence")
    number = {sentence: row for row, sentence in enumerate(dict.fromkeys(_sentences(corpus)))}
    ids = np.array([number[sentence] for sentence in _sentences(corpus)])
    shares: Floats = _different_without(ids, groups, size) / totals
    return shares


def duplicates(corpus: Corpus) -> int:
    """Number of sentences that repeat an earlier one."""
    return len(corpus) - len(set(_sentences(corpus)))


def known_sentences(corpus: Corpus, train: Corpus) -> Bools:
    """Whether each sentence [N] occurs in `train`; novelty is 1 − mean.

    Raises `ValueError` if the corpora have different words.
    """
    comparable(corpus, train)
    seen = set(_sentences(train))
    return np.array([sentence in seen for sentence in _sentences(corpus)], dtype=np.bool_)


def group_count(groups: Ints, corpus: Corpus) -> int:
    """Number of groups G. Raises `ValueError` unless `groups` [N] is the group 0 … G − 1 of each sentence."""
    if groups.shape != (len(corpus),) or len(groups) == 0 or groups.min() < 0:
        raise ValueError(f"{len(corpus)} sentences need as many numbers of groups, from 0 and at least one")
    return int(groups.max()) + 1


def _sentences(corpus: Corpus) -> Sequence[bytes]:
    """Hashable form of each sentence."""
    return [corpus.sentence(row).tobytes() for row in range(len(corpus))]


def _refuse_zero(counts: Ints | int, nothing: str) -> None:
    if np.any(np.equal(counts, 0)):
        raise ValueError(nothing)


def _different_without(ids: Ints, groups: Ints, size: int) -> Ints:
    """Number of different ids without each group [G]: all but those that only the group has."""
    total = int(ids.max()) + 1
    first, last = np.full(total, size), np.full(total, -1)
    np.minimum.at(first, ids, groups)
    np.maximum.at(last, ids, groups)
    return total - np.bincount(first[first == last], minlength=size)
