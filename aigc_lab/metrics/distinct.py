"""Distinct-n (Li et al. 2016): different n-grams as a share of all, at a fixed number of sentences; diversity."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from aigc_lab.config import Order, Strict
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.text import Floats, TextMetric, corpus_of, groups_of, share_jackknifed
from aigc_lab.text import ngrams
from aigc_lab.text.corpus import Corpus


class Distinct(TextMetric):
    """Share in [0, 1] of n-grams that are different. It falls as the number of sentences grows, so the floor has
    equally many.

    More than the floor is no gain: noise has the most. The interval is a delete-group jackknife's, wider where few
    n-grams repeat another.
    """

    tells: ClassVar[base.Fault] = "collapse"

    class Config(Strict):
        orders: list[Order] = Field([1, 2, 3, 4], min_length=1)

    @property
    def gives(self) -> dict[str, base.Better]:
        return {f"distinct_{n}": "higher" for n in self.config.orders}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        generated, orders = corpus_of(evidence.generated), self.config.orders
        signature = self.signature(evidence, f"orders:{','.join(map(str, orders))}")

        def of_one(part: base.Part) -> dict[int, float]:
            real = corpus_of(part)
            return {n: _distinct(real, n) for n in orders}

        floor, count = self.floors_alone(evidence, signature, of_one), len(generated)
        scores = []
        for n in orders:
            value = _distinct(generated, n)
            total = int(np.maximum(generated.lengths - n + 1, 0).sum())
            interval = (
                share_jackknifed(round(value * total), total, _without(generated, n)) if total else (0.0, 0.0, 1.0)
            )
            scores.append(self.score(f"distinct_{n}", interval, count, floor[n], signature))
        return scores


def _without(corpus: Corpus, n: int) -> Floats | None:
    """Values without each group [G]; None for fewer than 3 sentences, or if one group has all n-grams."""
    groups = groups_of(len(corpus))
    if len(corpus) < 3 or len(np.unique(groups[corpus.lengths >= n])) < 2:
        return None
    return ngrams.distinct_without(corpus, groups, n)


def _distinct(corpus: Corpus, n: int) -> float:
    """Distinct-n, and 0 if no sentence has n words."""
    return ngrams.distinct(corpus, n) if int(corpus.lengths.max(initial=0)) >= n else 0.0
