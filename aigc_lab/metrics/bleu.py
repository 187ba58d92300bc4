"""BLEU-n of generated sentences with every reference sentence as their reference (Yu et al. 2017): quality."""

from typing import ClassVar

from pydantic import Field

from aigc_lab.config import Order, Strict
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.text import TextMetric, corpus_of, mean_of
from aigc_lab.text import bleu


class BLEU(TextMetric):
    """Mean sentence BLEU of the generated sentences, with weights 1/n and NLTK's `method1`, ±1.96 standard errors over
    them.

    The reference set is taken as fixed. BLEU rises with the number of references, so that number is in the signature.
    One good sentence repeated scores high: read it beside Self-BLEU.
    """

    version: ClassVar[int] = 2  # unknown words match nothing
    draws: ClassVar[int] = 3

    class Config(Strict):
        orders: list[Order] = Field([2, 3, 4, 5], min_length=1)

    @property
    def gives(self) -> dict[str, base.Better]:
        return {f"bleu_{n}": "higher" for n in self.config.orders}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        real, orders = evidence.real, self.config.orders
        generated, reference = corpus_of(evidence.generated), corpus_of(real.reference)
        signature = self.signature(evidence, "smooth:method1", f"orders:{','.join(map(str, orders))}")

        def between(floor: base.Part, against: base.Part) -> dict[int, float]:
            scores = bleu.bleu(corpus_of(floor), corpus_of(against), orders)
            return {n: float(values.mean()) for n, values in scores.items()}

        floor = self.floors(evidence, signature, between, used=lambda n, m: m)
        generated_scores = bleu.bleu(generated, reference, orders)
        return [
            self.score(f"bleu_{n}", mean_of(generated_scores[n]), len(generated), floor[n], signature) for n in orders
        ]
