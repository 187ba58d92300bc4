"""Corpus BLEU of sentences in pairs: sacreBLEU's (Post 2018), of our tokens."""

from typing import Any

import numpy as np
import numpy.typing as npt

from aigc_lab.text import ngrams
from aigc_lab.text.corpus import Corpus, Ints


def corpus_bleu(
    hypotheses: Corpus, references: Corpus, groups: Ints | None = None
) -> tuple[float, npt.NDArray[np.float64] | None, str]:
    """BLEU in [0, 100] of sentence i with reference i, as many as both have; the same without each of the `groups` of
    the pairs [G], where these are given; and sacreBLEU's signature with commas in the place of its bars. An unknown
    word (`<unk>`) matches nothing.
    """
    from sacrebleu.metrics.bleu import BLEU

    pairs = min(len(hypotheses), len(references))
    kept = ngrams.apart(hypotheses.take(slice(0, pairs)), references.take(slice(0, pairs)))
    made, real = (each.texts() for each in kept)
    measure: Any = BLEU(tokenize="none", force=True)

    def of(rows: list[int]) -> float:
        score = measure.corpus_score([made[row] for row in rows], [[real[row] for row in rows]]).score
        return min(float(score), 100.0)  # of equal sentences rounding makes a little more

    value, signature = of(list(range(pairs))), "sacrebleu:" + str(measure.get_signature()).replace("|", ",")
    if groups is None:
        return value, None, signature
    left = [np.flatnonzero(groups != group).tolist() for group in range(int(groups.max()) + 1)]
    return value, np.array([of(rows) for rows in left]), signature
