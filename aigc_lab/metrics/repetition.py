"""rep-n (Welleck et al. 2020): the share of a sentence's n-grams that it had before."""

from typing import ClassVar

from pydantic import Field

from aigc_lab.config import Order, Strict
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.text import TextMetric, corpus_of, mean_of
from aigc_lab.text import ngrams


class Repetition(TextMetric):
    """Mean over sentences, in [0, 1), ±1.96 standard errors. Real sentences repeat a little too: a value near the floor
    is right, and neither more nor less is better.
    """

    describes: ClassVar[frozenset[str]] = frozenset({"repetition"})

    class Config(Strict):
        order: Order = Field(2, description="n")

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"repetition": "lower"}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        generated, n = corpus_of(evidence.generated), self.config.order
        signature = self.signature(evidence, f"order:{n}")

        def of_one(part: base.Part) -> dict[str, float]:
            return {"repetition": float(ngrams.repetition(corpus_of(part), n).mean())}

        floor = self.floors_alone(evidence, signature, of_one)["repetition"]
        interval = mean_of(ngrams.repetition(generated, n))
        return [self.score("repetition", interval, len(generated), floor, signature)]
