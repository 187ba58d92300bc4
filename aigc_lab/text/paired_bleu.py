"""Corpus BLEU of sentence pairs by sacreBLEU (Post 2018), of our tokens."""

from typing import Any

import numpy as np
import numpy.typing as npt

from aigc_lab.text import ngrams
from aigc_lab.text.corpus import Corpus, Ints


def corpus_bleu(
    hypotheses: Corpus, references: Corpus, groups: Ints | None = None
) -> tuple[float, npt.NDArray[np.float64] | None, str]:
    """Corpus BLEU in [0, 100] of sentence i with reference i, up to the shorter corpus.

    Returns the score, the scores without each of the `groups` of pairs ([G], None without groups), and sacreBLEU's
    signature with commas for its bars. `<unk>` matches nothing.
    """
    from sacrebleu.metrics.bleu import BLEU

    pairs = min(len(hypotheses), len(references))
    corpora = ngrams.apart(hypotheses.take(slice(0, pairs)), references.take(slice(0, pairs)))
    generated, real = (each.texts() for each in corpora)
    measure: Any = BLEU(tokenize="none", force=True)

    def of(rows: list[int]) -> float:
        score = measure.corpus_score([generated[row] for row in rows], [[real[row] for row in rows]]).score
        return min(float(score), 100.0)  # of equal sentences rounding makes a little more

    value, signature = of(list(range(pairs))), "sacrebleu:" + str(measure.get_signature()).replace("|", ",")
    if groups is None:
        return value, None, signature
    subsets = [np.flatnonzero(groups != group).tolist() for group in range(int(groups.max()) + 1)]
    return value, np.array([of(rows) for rows in subsets]), signature
