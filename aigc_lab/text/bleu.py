"""BLEU with every reference sentence, and Self-BLEU by leaving one out: exact, in time linear in the text.

BLEU needs only the largest count of each n-gram in a reference sentence (Papineni et al. 2002, section 2.1). If a
corpus is its own reference, the largest count among the *other* sentences is the largest or the second-largest of all,
so one pass serves all sentences. NLTK compares every pair of sentences.
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
    """Sentence BLEU-n [N] in [0, 1] of each hypothesis, for each n of `orders`, with every reference sentence as its
    reference.

    Weights are 1/n; the precision of order k is Σ min(count, largest count in a reference) / max(1, length − k + 1).
    Without a matching unigram the score is 0; any other numerator of 0 becomes 0.1. The brevity penalty takes the
    closest reference length, the shorter of two. NLTK's `sentence_bleu` with `method1` gives the same numbers if no
    word is unknown: here `<unk>` matches nothing.

    Raises `ValueError` without a reference or an order, for an order below 1, and for corpora with different words.

    >>> words = ("a", "dog", "runs", "sleeps")
    >>> made, real = Corpus.of([[0, 1, 2], [0, 1, 3]], words), Corpus.of([[0, 1, 3]], words)
    >>> {n: scores.round(3).tolist() for n, scores in bleu(made, real, (1, 2)).items()}
    {1: [0.667, 1.0], 2: [0.577, 1.0]}
    """
    _check_orders(orders)
    if len(references) == 0:
        raise ValueError("BLEU needs at least 1 reference sentence, not 0")
    both = ngrams.joined(*ngrams.apart(hypotheses, references))
    by_order = ngrams.orders(both, max(orders))
    matches = [_matches(ngrams.count(grams, both), len(hypotheses)) for grams in by_order]
    return _scores(matches, hypotheses.lengths, _closest(hypotheses.lengths, references.lengths), orders)


def self_bleu(corpus: Corpus, orders: Sequence[int] = ORDERS) -> dict[int, Floats]:
    """BLEU-n [N] in [0, 1] of each sentence, for each n of `orders`, with all other sentences as its references.

    The mean is Self-BLEU-n (Zhu et al. 2018, section 3.2). A sentence that occurs twice has itself as a reference,
    except for its unknown words, which match nothing.

    Raises `ValueError` for fewer than 2 sentences, without an order, and for an order below 1.
    """
    _check_orders(orders)
    everyone = np.ones(len(corpus), dtype=np.bool_)
    return _self_bleu(corpus, _ranked_counts(corpus, max(orders)), everyone, orders)


def self_bleu_without(corpus: Corpus, groups: Ints, orders: Sequence[int] = ORDERS) -> dict[int, Floats]:
    """Mean Self-BLEU-n of the corpus without each group of sentences, [G] for each n of `orders`: replicates of a
    delete-group jackknife.

    `groups` [N] is the group 0 … G − 1 of each sentence, which is left out as hypothesis and as reference. n-grams are
    counted once for all groups.

    Raises `ValueError` if fewer than 2 sentences remain, and as `self_bleu` does.
    """
    _check_orders(orders)
    size = ngrams.group_count(groups, corpus)
    ranked = _ranked_counts(corpus, max(orders))
    means = {n: np.zeros(size) for n in orders}
    for group in range(size):
        for n, scores in _self_bleu(corpus, ranked, groups != group, orders).items():
            means[n][group] = scores.mean()
    return means


def _check_orders(orders: Sequence[int]) -> None:
    if not orders or min(orders) < 1:
        raise ValueError(f"BLEU needs orders of at least 1, not {list(orders)}")


def _self_bleu(corpus: Corpus, ranked: Sequence[Counts], mask: Bools, orders: Sequence[int]) -> dict[int, Floats]:
    """Self-BLEU of the sentences in the mask [N]."""
    lengths = corpus.lengths[mask]
    if len(lengths) < 2:
        raise ValueError(f"Self-BLEU needs at least 2 sentences, not {len(lengths)}")
    matches = [np.maximum(lengths - n + 1, 0) - _unmatched(each, mask)[mask] for n, each in enumerate(ranked, 1)]
    return _scores(matches, lengths, _closest_other(lengths), orders)


def _matches(counts: Counts, hypotheses: int) -> Ints:
    """Clipped matches Σ min(count, largest count in a reference) [N] of the first `hypotheses` sentences, by those
    after.
    """
    own = counts.sentence < hypotheses
    largest = np.zeros(counts.different, dtype=np.int64)
    np.maximum.at(largest, counts.gram[~own], counts.times[~own])
    clipped = np.minimum(counts.times[own], largest[counts.gram[own]])
    return np.bincount(counts.sentence[own], clipped, minlength=hypotheses).astype(np.int64)


def _ranked_counts(corpus: Corpus, largest: int) -> list[Counts]:
    """Counts of each order, the sentences of an n-gram sorted by their counts, the largest last."""
    ranked = []
    (corpus,) = ngrams.apart(corpus)
    for grams in ngrams.orders(corpus, largest):
        counts = ngrams.count(grams, corpus)
        order = np.lexsort((counts.times, counts.gram))
        ranked.append(counts._replace(sentence=counts.sentence[order], times=counts.times[order]))
    return ranked


def _unmatched(ranked: Counts, mask: Bools) -> Ints:
    """Number of n-grams of each sentence [N] that no other sentence in the mask [N] matches.

    Only the sentence with the largest count of an n-gram has more of it than all others: the excess over the
    second-largest.
    """
    there = mask[ranked.sentence]
    gram, sentence, times = ranked.gram[there], ranked.sentence[there], ranked.times[there]
    largest = np.flatnonzero(np.diff(gram, append=-1))
    alone = np.diff(largest, prepend=-1) == 1
    second = np.where(alone, 0, times[largest - 1])
    return np.bincount(sentence[largest], times[largest] - second, minlength=len(mask)).astype(np.int64)


def _closest(lengths: Ints, references: Ints) -> Ints:
    """Reference length closest to each length [N], the shorter of two."""
    candidates = np.unique(references)
    after = np.searchsorted(candidates, lengths)
    above, below = candidates[np.minimum(after, len(candidates) - 1)], candidates[np.maximum(after - 1, 0)]
    return np.where(np.abs(lengths - below) <= np.abs(above - lengths), below, above)


def _closest_other(lengths: Ints) -> Ints:
    """Length among the other sentences closest to each [N], the shorter of two."""
    values, own, times = np.unique(lengths, return_inverse=True, return_counts=True)
    far = 3 * values[-1]  # in place of what is shorter than the shortest, longer than the longest
    below, above = np.append(-far, values[:-1]), np.append(values[1:], far)
    other = np.where(values - below <= above - values, below, above)
    closest: Ints = np.where(times > 1, values, other)[own]
    return closest


def _scores(matches: Sequence[Ints], lengths: Ints, closest: Ints, orders: Sequence[int]) -> dict[int, Floats]:
    """BLEU-n from the clipped matches [N] of the orders 1, 2, …, the lengths [N] and the closest reference
    lengths [N].
    """
    penalty = np.minimum(0.0, 1 - closest / np.maximum(lengths, 1))
    logarithms = np.zeros(len(lengths))
    scores = {}
    for n, hits in enumerate(matches, 1):
        logarithms += np.log(np.where(hits > 0, hits, _EPSILON) / np.maximum(lengths - n + 1, 1))
        scores[n] = np.where(matches[0] > 0, np.exp(logarithms / n + penalty), 0.0)
    return {n: scores[n] for n in orders}
