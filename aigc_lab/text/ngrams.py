"""n-grams as numbers, and what their counts say of a corpus: exact, by sorting, without hashes that could collide."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aigc_lab.text.corpus import UNKNOWN, Corpus, Ints

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class Grams(NamedTuple):
    """The n-grams of a corpus, of one n: the one whose first token is token `at[i]` of the corpus has number `ids[i]`.

    Numbers are 0 … len(keys) − 1. `keys` are ascending: an n-gram's key is (number of its first n − 1 tokens) · (how
    many words there are) + its last token, so that equal numbers mean equal tokens.
    """

    at: Ints
    ids: Ints
    keys: Ints


class Counts(NamedTuple):
    """How many times a sentence has an n-gram: an entry [E] for each pair that occurs, by n-gram, then by sentence.

    The numbers of the n-grams are 0 … different − 1.
    """

    gram: Ints
    sentence: Ints
    times: Ints
    different: int


def comparable(*corpora: Corpus) -> None:
    """Raises `ValueError` where a number is one word in one corpus and another in another."""
    if any(each.words != corpora[0].words for each in corpora):
        raise ValueError("two corpora with different words cannot be compared")


def joined(*corpora: Corpus) -> Corpus:
    """All sentences, one corpus after the other. Raises `ValueError` where the corpora have different words."""
    comparable(*corpora)
    starts = np.zeros(sum(map(len, corpora)) + 1, dtype=np.int64)
    np.cumsum(np.concatenate([each.lengths for each in corpora]), out=starts[1:])
    return replace(corpora[0], tokens=np.concatenate([each.tokens for each in corpora]), starts=starts)


def apart(*corpora: Corpus) -> list[Corpus]:
    """The corpora with every unknown word (`<unk>`) in the place of a word that nothing else is: two words that nobody
    knows are not known to be the same, and match nothing. Raises `ValueError` where the corpora have different words.
    """
    comparable(*corpora)
    words = corpora[0].words
    unknown = words.index(UNKNOWN) if UNKNOWN in words else -1
    places = [np.flatnonzero(each.tokens == unknown) for each in corpora]
    total = sum(map(len, places))
    if unknown < 0 or not total:
        return list(corpora)
    words += tuple(f"{UNKNOWN}{number}" for number in range(total))
    found, next_word = [], len(words) - total
    for each, at in zip(corpora, places, strict=True):
        tokens = each.tokens.copy()
        tokens[at] = np.arange(next_word, next_word + len(at))
        next_word += len(at)
        found.append(replace(each, tokens=tokens, words=words))
    return found


def orders(corpus: Corpus, largest: int) -> list[Grams]:
    """The unigrams, the bigrams and so on, up to n = `largest`. Raises `ValueError` where that is below 1."""
    if largest < 1:
        raise ValueError(f"an n-gram has at least 1 token, not {largest}")
    ends = corpus.starts[1:][corpus.owners]
    at = np.arange(len(corpus.tokens))
    ids = np.zeros(len(at), dtype=np.int64)
    found: list[Grams] = []
    for n in range(1, largest + 1):
        inside = at + n <= ends[at]
        at, ids = at[inside], ids[inside]
        keys, ids = np.unique(ids * len(corpus.words) + corpus.tokens[at + n - 1], return_inverse=True)
        found.append(Grams(at, ids, keys))
    return found


def count(grams: Grams, corpus: Corpus) -> Counts:
    """The counts of the n-grams in each sentence of the corpus that they are of."""
    pairs, times = np.unique(grams.ids * len(corpus) + corpus.owners[grams.at], return_counts=True)
    gram, sentence = np.divmod(pairs, max(1, len(corpus)))
    return Counts(gram, sentence, times, len(grams.keys))


def distinct(corpus: Corpus, n: int) -> float:
    """Distinct-n (Li et al. 2016, section 5.1): the different n-grams as a share of all n-grams, in (0, 1].

    It falls with the number of sentences: only equal numbers compare. Raises `ValueError` where no sentence has n
    tokens, or where n < 1.
    """
    grams = orders(corpus, n)[-1]
    _some(len(grams.ids), f"no sentence has {n} tokens")
    return len(grams.keys) / len(grams.ids)


def distinct_without(corpus: Corpus, groups: Ints, n: int) -> Floats:
    """Distinct-n without the sentences of each group [G].

    `groups` [N] has the group 0 … G − 1 of each sentence. Raises `ValueError` where nothing is left without a group.
    """
    size = group_count(groups, corpus)
    grams = orders(corpus, n)[-1]
    of = groups[corpus.owners[grams.at]]
    left = len(of) - np.bincount(of, minlength=size)
    _some(left, f"no sentence has {n} tokens")
    kept: Floats = _different_without(grams.ids, of, size) / left
    return kept


def repetition(corpus: Corpus, n: int) -> Floats:
    """rep-n of each sentence [N], in [0, 1): the share of its n-grams that it had before (Welleck et al. 2020, eq. 9).

    That is 1 − different / all of the sentence; 0 where it has fewer than two n-grams. Raises `ValueError` for n < 1.
    """
    counts = count(orders(corpus, n)[-1], corpus)
    different = np.bincount(counts.sentence, minlength=len(corpus))
    total = np.maximum(corpus.lengths - n + 1, 0)
    share: Floats = 1 - different / np.maximum(total, 1)
    return np.where(total > 0, share, 0.0)


def unique_sentences(corpus: Corpus) -> float:
    """Different sentences as a share of all, in (0, 1]. Raises `ValueError` where there is no sentence."""
    _some(len(corpus), "there is no sentence")
    return 1 - duplicates(corpus) / len(corpus)


def unique_without(corpus: Corpus, groups: Ints) -> Floats:
    """The share of different sentences without those of each group [G].

    `groups` [N] has the group 0 … G − 1 of each sentence. Raises `ValueError` where nothing is left without a group.
    """
    size = group_count(groups, corpus)
    left = len(corpus) - np.bincount(groups, minlength=size)
    _some(left, "there is no sentence")
    number = {sentence: row for row, sentence in enumerate(dict.fromkeys(_sentences(corpus)))}
    ids = np.array([number[sentence] for sentence in _sentences(corpus)])
    kept: Floats = _different_without(ids, groups, size) / left
    return kept


def duplicates(corpus: Corpus) -> int:
    """How many sentences repeat an earlier one."""
    return len(corpus) - len(set(_sentences(corpus)))


def known_sentences(corpus: Corpus, train: Corpus) -> Bools:
    """Whether each sentence [N] is one of `train`; novelty is 1 − mean.

    Raises `ValueError` where the two have different words.
    """
    comparable(corpus, train)
    seen = set(_sentences(train))
    return np.array([sentence in seen for sentence in _sentences(corpus)], dtype=np.bool_)


def group_count(groups: Ints, corpus: Corpus) -> int:
    """G, where `groups` [N] has the group 0 … G − 1 of each sentence. Raises `ValueError` where it has not."""
    if groups.shape != (len(corpus),) or len(groups) == 0 or groups.min() < 0:
        raise ValueError(f"{len(corpus)} sentences need as many numbers of groups, from 0 and at least one")
    return int(groups.max()) + 1


def _sentences(corpus: Corpus) -> Sequence[bytes]:
    """Each sentence as what can be looked up."""
    return [corpus.sentence(row).tobytes() for row in range(len(corpus))]


def _some(left: Ints | int, nothing: str) -> None:
    if np.any(np.equal(left, 0)):
        raise ValueError(nothing)


def _different_without(ids: Ints, groups: Ints, size: int) -> Ints:
    """How many different ids are left without each group [G]: all but those that the group alone has."""
    total = int(ids.max()) + 1
    first, last = np.full(total, size), np.full(total, -1)
    np.minimum.at(first, ids, groups)
    np.maximum.at(last, ids, groups)
    return total - np.bincount(first[first == last], minlength=size)
