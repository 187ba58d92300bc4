"""The share of different sentences among the generated ones, at a fixed number of them."""

from typing import ClassVar

from aigc_lab.config import Strict
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.text import TextMetric, corpus_of, groups_of, share_jackknifed
from aigc_lab.text import ngrams


class Unique(TextMetric):
    """Share in (0, 1], 1 if no two sentences are equal. The interval is a delete-group jackknife's, wider where few
    repeat another.
    """

    tells: ClassVar[base.Fault] = "collapse"

    class Config(Strict):
        pass

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"unique": "higher"}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        generated = corpus_of(evidence.generated)
        signature = self.signature(evidence)

        def of_one(part: base.Part) -> dict[str, float]:
            return {"unique": ngrams.unique_sentences(corpus_of(part))}

        floor = self.floors_alone(evidence, signature, of_one)["unique"]
        count = len(generated)
        without = ngrams.unique_without(generated, groups_of(count)) if count > 2 else None
        interval = share_jackknifed(count - ngrams.duplicates(generated), count, without)
        return [self.score("unique", interval, count, floor, signature)]
