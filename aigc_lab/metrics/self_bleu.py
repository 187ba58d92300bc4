"""Self-BLEU-n (Zhu et al. 2018): how much generated sentences are like each other; diversity, less is more."""

from typing import ClassVar

from pydantic import Field

from aigc_lab.config import Order, Strict
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.text import TextMetric, corpus_of, groups_of, jackknifed
from aigc_lab.text import bleu


class SelfBLEU(TextMetric):
    """Mean BLEU in [0, 1] of each sentence with all others as its references, exact. Real sentences have some too: the
    floor, at the same n. Values below it mean noise, not more diversity.

    The interval is a delete-group jackknife's, because a sentence counts as a hypothesis and as a reference of the
    others.
    """

    least: ClassVar[int] = 2
    tells: ClassVar[base.Fault] = "collapse"

    version: ClassVar[int] = 2  # unknown words match nothing
    draws: ClassVar[int] = 3

    class Config(Strict):
        orders: list[Order] = Field([2, 3, 4, 5], min_length=1)

    @property
    def gives(self) -> dict[str, base.Better]:
        return {f"self_bleu_{n}": "lower" for n in self.config.orders}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        generated, orders = corpus_of(evidence.generated), self.config.orders
        if len(generated) < 2:
            raise ValueError("a sentence alone has no others to be compared with; give two at the very least")
        signature = self.signature(evidence, "smooth:method1", f"orders:{','.join(map(str, orders))}")

        def of_one(part: base.Part) -> dict[int, float]:
            return {n: float(values.mean()) for n, values in bleu.self_bleu(corpus_of(part), orders).items()}

        floor = self.floors_alone(evidence, signature, of_one)
        generated_scores, count = bleu.self_bleu(generated, orders), len(generated)
        without = bleu.self_bleu_without(generated, groups_of(count), orders) if count > 2 else {}
        return [
            self.score(
                f"self_bleu_{n}",
                jackknifed(float(generated_scores[n].mean()), without.get(n)),
                count,
                floor[n],
                signature,
            )
            for n in orders
        ]
