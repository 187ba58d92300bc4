"""ROUGE F1 (Lin 2004) as the rouge-score package computes it, from our tokens; unknown words match nothing.

The longest common subsequence is computed bit-parallel for many pairs at a time: a bit for each token of the reference,
in one pass over the tokens of the hypothesis (Crochemore et al. 2001; Hyyrö 2004).
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from aigc_lab.text import ngrams
from aigc_lab.text.corpus import Corpus, Ints
from aigc_lab.text.ngrams import Floats

Bits = npt.NDArray[np.uint64]

_WORD = 64
_ONES = np.uint64(2**64 - 1)
# How many tokens a block of references has at the most, short ones filled up: 4 MiB.
_CELLS = 2**20


def rouge_n(hypotheses: Corpus, references: Corpus, n: int) -> Floats:
    """ROUGE-n F1 [N] of each hypothesis with the reference of the same row, in [0, 1] (Lin 2004, section 2).

    Raises `ValueError` for different numbers of sentences, different words, and n < 1.
    """
    hypotheses, references = _paired(hypotheses, references)
    both, pairs = ngrams.joined(hypotheses, references), len(hypotheses)
    counts = ngrams.count(ngrams.orders(both, n)[-1], both)
    own = counts.sentence < pairs
    keys = counts.gram * pairs + counts.sentence % max(1, pairs)
    _, mine, theirs = np.intersect1d(keys[own], keys[~own], assume_unique=True, return_indices=True)
    common = np.minimum(counts.times[own][mine], counts.times[~own][theirs])
    overlap = np.bincount(counts.sentence[own][mine], common, minlength=pairs).astype(np.int64)
    return _f1(overlap, np.maximum(hypotheses.lengths - n + 1, 0), np.maximum(references.lengths - n + 1, 0))


def rouge_l(hypotheses: Corpus, references: Corpus) -> Floats:
    """ROUGE-L F1 [N] of each hypothesis with the reference of the same row, in [0, 1] (Lin 2004, section 3.1).

    Raises `ValueError` for different numbers of sentences, and for different words.

    >>> words = ("a", "dog", "runs", "fast")
    >>> rouge_l(Corpus.of([[0, 1, 3]], words), Corpus.of([[0, 1, 2, 3]], words)).round(3).tolist()  # 2·1·¾ / (1 + ¾)
    [0.857]
    """
    hypotheses, references = _paired(hypotheses, references)
    common = np.zeros(len(hypotheses), dtype=np.int64)
    for block in _blocks(references.lengths):
        rows = block[np.argsort(-hypotheses.lengths[block], kind="stable")]
        common[rows] = _common(hypotheses.take(rows), references.take(rows))
    return _f1(common, hypotheses.lengths, references.lengths)


def rouge_nn(hypotheses: Corpus, references: Corpus) -> Floats:
    """Largest ROUGE-L F1 [N] of each hypothesis with any reference, in [0, 1].

    Cost grows with hypotheses × references. Raises `ValueError` without a reference, and for different words.
    """
    hypotheses, references = ngrams.apart(hypotheses, references)
    if len(references) == 0:
        raise ValueError("ROUGE needs at least 1 reference sentence, not 0")
    best = np.zeros(len(hypotheses))
    for block in _blocks(references.lengths):
        np.maximum(best, _best(hypotheses, references.take(block)), out=best)
    return best


def _paired(hypotheses: Corpus, references: Corpus) -> list[Corpus]:
    if len(hypotheses) != len(references):
        raise ValueError(f"ROUGE pairs sentences: {len(hypotheses)} hypotheses have {len(references)} references")
    return ngrams.apart(hypotheses, references)


def _f1(overlap: Ints, hypothesis: Ints, reference: Ints) -> Floats:
    """F1 from the number of common tokens or n-grams; 0 if there are none."""
    precision = overlap / np.maximum(hypothesis, 1)
    recall = overlap / np.maximum(reference, 1)
    total = precision + recall
    return np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1), 0.0)


def _blocks(lengths: Ints) -> Iterator[Ints]:
    """Row indices of references with equally many words of bits, in blocks that fit into memory; empty references are
    left out.
    """
    words = -(-lengths // _WORD)
    for width in np.unique(words[words > 0]):
        rows = np.flatnonzero(words == width)
        size = max(1, _CELLS // (_WORD * int(width)))
        yield from (rows[first : first + size] for first in range(0, len(rows), size))


def _places(corpus: Corpus) -> Ints:
    """Position of each token [T] in its sentence."""
    return np.arange(len(corpus.tokens)) - corpus.starts[corpus.owners]


def _width(references: Corpus) -> int:
    """Number of words of bits that the longest reference needs."""
    return -(-int(references.lengths.max()) // _WORD)


def _advance(rows: Bits, matches: Bits) -> Bits:
    """State after one more token of the hypotheses: V ← (V + (V & M)) | (V & ~M), over [words, pairs] with carries.

    A bit of V that is 0 is a token of the reference by which the subsequence grew.
    """
    after = np.empty_like(rows)
    carry = np.zeros(rows.shape[1], dtype=np.uint64)
    for word, (row, match) in enumerate(zip(rows, matches, strict=True)):
        grown = row + (row & match)
        total = grown + carry
        carry = ((grown < row) | (total < grown)).astype(np.uint64)
        after[word] = total | (row & ~match)
    return after


def _length(rows: Bits) -> Ints:
    """Length of the subsequence [pairs]: the number of 0 bits. Bits beyond the reference match nothing and stay 1."""
    ones: Ints = np.bitwise_count(rows).sum(0, dtype=np.int64)
    return _WORD * len(rows) - ones


def _common(hypotheses: Corpus, references: Corpus) -> Ints:
    """Length of the longest common subsequence of each pair [P]; the longest hypothesis comes first, no reference is
    empty.
    """
    width = _width(references)
    table = np.full((len(references), _WORD * width), -1, dtype=np.int32)
    table[references.owners, _places(references)] = references.tokens
    tokens = hypotheses.tokens.astype(np.int32)
    rows = np.full((width, len(hypotheses)), _ONES)
    for place in range(int(hypotheses.lengths[0])):
        longer = np.searchsorted(-hypotheses.lengths, -place)
        equal = table[:longer] == tokens[hypotheses.starts[:longer] + place, None]
        matches: Bits = np.packbits(equal, axis=1, bitorder="little").view("<u8").T
        rows[:, :longer] = _advance(rows[:, :longer], matches)
    return _length(rows)


def _best(hypotheses: Corpus, references: Corpus) -> Floats:
    """Largest ROUGE-L F1 of each hypothesis [N] with any of the references, none of which is empty."""
    # A column for each word of each reference, in the order of the words: where in the sentence it is, as bits.
    keys, column = np.unique(references.tokens * len(references) + references.owners, return_inverse=True)
    word, reference = np.divmod(keys, len(references))
    starts = np.searchsorted(word, np.arange(len(references.words) + 1))
    places = _places(references)
    masks = np.zeros((_width(references), len(keys)), dtype=np.uint64)
    np.bitwise_or.at(masks, (places // _WORD, column), np.left_shift(np.uint64(1), (places % _WORD).astype(np.uint64)))
    best = np.zeros(len(hypotheses))
    for row in range(len(hypotheses)):
        sentence = hypotheses.sentence(row)
        rows = np.full((len(masks), len(references)), _ONES)
        for token in sentence:
            # A reference without the word stays as it is.
            having = slice(starts[token], starts[token + 1])
            rows[:, reference[having]] = _advance(rows[:, reference[having]], masks[:, having])
        best[row] = _f1(_length(rows), np.array(len(sentence)), references.lengths).max()
    return best
