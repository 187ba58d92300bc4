"""BLEU with every reference sentence, and Self-BLEU by leaving one out: exact, in time linear in the text.

Per n-gram the largest count in a reference sentence is all that BLEU needs (Papineni et al. 2002, section 2.1). Where
a corpus is its own reference, the largest count among *other* sentences is the largest or the second-largest of all,
so one pass serves all sentences. NLTK compares each sentence with each other.
"""

from collections.abc import Sequence

import numpy as np

from aigc_lab.text import ngrams
from aigc_lab.text.corpus import Corpus, Ints
from aigc_lab.text.ngrams import Bools, Counts, Floats

ORDERS = (2, 3, 4, 5)
# In place of a numerator that is 0: NLTK's SmoothingFunction().method1 (Chen and Cherry 2014, smoothing 1).
_EPSILON = 0.1


def bleu(hypotheses: Corpus, references: Corpus, orders: Sequence[int] = ORDERS) -> dict[int, Floats]:
    """Sentence BLEU-n [N] of each hypothesis for each n of `orders`, in [0, 1], every reference sentence its reference.

    Weights are 1/n; the precision of order k is Σ min(count, largest count in a reference) / max(1, length − k + 1).
    Without a known unigram the score is 0; any other numerator of 0 becomes 0.1. The brevity penalty takes the
    reference length that is closest, the shorter of two. NLTK's `sentence_bleu` with `method1` gives the same numbers,
    where no word is unknown: `<unk>` matches nothing.

    Raises `ValueError` where there is no reference, no order, or an order below 1, or where the words differ.

    >>> words = ("a", "dog", "runs", "sleeps")
    >>> made, real = Corpus.of([[0, 1, 2], [0, 1, 3]], words), Corpus.of([[0, 1, 3]], words)
    >>> {n: scores.round(3).tolist() for n, scores in bleu(made, real, (1, 2)).items()}
    {1: [0.667, 1.0], 2: [0.577, 1.0]}
    """
    _known(orders)
    if len(references) == 0:
        raise ValueError("BLEU needs at least 1 reference sentence, not 0")
    both = ngrams.joined(*ngrams.apart(hypotheses, references))
    found = ngrams.orders(both, max(orders))
    matches = [_matches(ngrams.count(grams, both), len(hypotheses)) for grams in found]
    return _scores(matches, hypotheses.lengths, _closest(hypotheses.lengths, references.lengths), orders)


def self_bleu(corpus: Corpus, orders: Sequence[int] = ORDERS) -> dict[int, Floats]:
    """BLEU-n [N] of each sentence for each n of `orders`, in [0, 1], with all other sentences as its references.

    The mean is Self-BLEU-n (Zhu et al. 2018, section 3.2). A sentence that occurs twice has itself as a reference, but
    for its unknown words, which match nothing.

    Raises `ValueError` for fewer than 2 sentences, and where there is no order or one below 1.
    """
    _known(orders)
    everyone = np.ones(len(corpus), dtype=np.bool_)
    return _self_bleu(corpus, _ranked_counts(corpus, max(orders)), everyone, orders)


def self_bleu_without(corpus: Corpus, groups: Ints, orders: Sequence[int] = ORDERS) -> dict[int, Floats]:
    """Self-BLEU-n, the mean, of what is left of the corpus without each group of sentences: [G] for each n of `orders`.

    `groups` [N] has the group 0 … G − 1 of each sentence. A group is neither hypothesis nor reference: these are the
    replicates of a delete-group jackknife. n-grams are found and counted once for all groups.

    Raises `ValueError` where fewer than 2 sentences are left, and as `self_bleu` does.
    """
    _known(orders)
    size = ngrams.group_count(groups, corpus)
    ranked = _ranked_counts(corpus, max(orders))
    means = {n: np.zeros(size) for n in orders}
    for group in range(size):
        for n, scores in _self_bleu(corpus, ranked, groups != group, orders).items():
            means[n][group] = scores.mean()
    return means


def _known(orders: Sequence[int]) -> None:
    if not orders or min(orders) < 1:
        raise ValueError(f"BLEU needs orders of at least 1, not {list(orders)}")


def _self_bleu(corpus: Corpus, ranked: Sequence[Counts], kept: Bools, orders: Sequence[int]) -> dict[int, Floats]:
    """Self-BLEU of each of the sentences that are `kept` [N]."""
    lengths = corpus.lengths[kept]
    if len(lengths) < 2:
        raise ValueError(f"Self-BLEU needs at least 2 sentences, not {len(lengths)}")
    matches = [np.maximum(lengths - n + 1, 0) - _unmatched(each, kept)[kept] for n, each in enumerate(ranked, 1)]
    return _scores(matches, lengths, _closest_other(lengths), orders)


def _matches(counts: Counts, hypotheses: int) -> Ints:
    """Σ min(count, largest count in a reference) [N] of the sentences before number `hypotheses`, by those after."""
    own = counts.sentence < hypotheses
    largest = np.zeros(counts.different, dtype=np.int64)
    np.maximum.at(largest, counts.gram[~own], counts.times[~own])
    clipped = np.minimum(counts.times[own], largest[counts.gram[own]])
    return np.bincount(counts.sentence[own], clipped, minlength=hypotheses).astype(np.int64)


def _ranked_counts(corpus: Corpus, largest: int) -> list[Counts]:
    """The counts of each order with the sentences of an n-gram by their counts, the largest last."""
    ranked = []
    (corpus,) = ngrams.apart(corpus)
    for grams in ngrams.orders(corpus, largest):
        counts = ngrams.count(grams, corpus)
        order = np.lexsort((counts.times, counts.gram))
        ranked.append(counts._replace(sentence=counts.sentence[order], times=counts.times[order]))
    return ranked


def _unmatched(ranked: Counts, kept: Bools) -> Ints:
    """How many n-grams of each sentence [N] no other sentence matches, where only those that are `kept` [N] are there.

    Only a sentence with the largest count of an n-gram has more of it than another; the second-largest is matched.
    """
    there = kept[ranked.sentence]
    gram, sentence, times = ranked.gram[there], ranked.sentence[there], ranked.times[there]
    largest = np.flatnonzero(np.diff(gram, append=-1))
    alone = np.diff(largest, prepend=-1) == 1
    second = np.where(alone, 0, times[largest - 1])
    return np.bincount(sentence[largest], times[largest] - second, minlength=len(kept)).astype(np.int64)


def _closest(lengths: Ints, references: Ints) -> Ints:
    """The reference length that is closest to each length, the shorter of two as close."""
    known = np.unique(references)
    after = np.searchsorted(known, lengths)
    above, below = known[np.minimum(after, len(known) - 1)], known[np.maximum(after - 1, 0)]
    return np.where(np.abs(lengths - below) <= np.abs(above - lengths), below, above)


def _closest_other(lengths: Ints) -> Ints:
    """The length among the others that is closest to each, the shorter of two as close."""
    known, own, times = np.unique(lengths, return_inverse=True, return_counts=True)
    far = 3 * known[-1]  # in place of what is shorter than the shortest, longer than the longest
    below, above = np.append(-far, known[:-1]), np.append(known[1:], far)
    other = np.where(known - below <= above - known, below, above)
    closest: Ints = np.where(times > 1, known, other)[own]
    return closest


def _scores(matches: Sequence[Ints], lengths: Ints, closest: Ints, orders: Sequence[int]) -> dict[int, Floats]:
    """BLEU-n from the clipped matches [N] of the orders 1, 2, …; the lengths; and the closest reference lengths."""
    penalty = np.minimum(0.0, 1 - closest / np.maximum(lengths, 1))
    logarithms = np.zeros(len(lengths))
    scores = {}
    for n, hits in enumerate(matches, 1):
        logarithms += np.log(np.where(hits > 0, hits, _EPSILON) / np.maximum(lengths - n + 1, 1))
        scores[n] = np.where(matches[0] > 0, np.exp(logarithms / n + penalty), 0.0)
    return {n: scores[n] for n in orders}
