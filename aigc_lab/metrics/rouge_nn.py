"""ROUGE-L F1 (Lin 2004) of each generated sentence with the reference sentence that is most like it."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from aigc_lab.config import Count, Strict
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.text import TextMetric, corpus_of, mean_of
from aigc_lab.text.corpus import Corpus
from aigc_lab.text.rouge import rouge_nn


class NearestROUGE(TextMetric):
    """Mean F1 in [0, 1] for unconditional text, whose sentences have no partner. ±1.96 standard errors over the
    hypotheses.

    Cost grows with hypotheses × references, so both are seeded choices of limited size. The score rises with the number
    of references.
    """

    version: ClassVar[int] = 2  # unknown words match nothing
    draws: ClassVar[int] = 3

    class Config(Strict):
        hypotheses: Count = Field(1000, ge=2, description="generated sentences, at most")
        references: Count = Field(1000, ge=2, description="reference sentences, at most")

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"rouge_nn": "higher"}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        config, real = self.config, evidence.real
        generated = _choice(corpus_of(evidence.generated), config.hypotheses)
        reference = _choice(corpus_of(real.reference), config.references)
        signature = self.signature(
            evidence, f"of:{len(generated)}≤{config.hypotheses}", f"refs:{len(reference)}≤{config.references}", "f1"
        )

        def between(floor: base.Part, against: base.Part) -> dict[str, float]:
            first = _choice(corpus_of(floor), config.hypotheses)
            return {"rouge_nn": float(rouge_nn(first, _choice(corpus_of(against), config.references)).mean())}

        floors = self.floors(evidence, signature, between, used=lambda n, m: min(m, config.references))
        interval = mean_of(rouge_nn(generated, reference))
        return [self.score("rouge_nn", interval, len(generated), floors["rouge_nn"], signature)]


def _choice(corpus: Corpus, most: int) -> Corpus:
    if len(corpus) <= most:
        return corpus
    return corpus.take(np.sort(np.random.default_rng(0).permutation(len(corpus))[:most]))
