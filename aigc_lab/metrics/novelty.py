"""The share of generated sentences that are not in the training split, word for word."""

from typing import ClassVar

from aigc_lab.config import Strict
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.text import TextMetric, corpus_of
from aigc_lab.statistics.intervals import clopper_pearson
from aigc_lab.text.ngrams import known_sentences


class Novelty(TextMetric):
    """Share in [0, 1], with Clopper and Pearson's interval. Real sentences repeat some of the training set too: the
    floor, unless equal sentences were kept in one split.
    """

    needs: ClassVar[frozenset[base.Need]] = frozenset({"train"})
    tells: ClassVar[base.Fault] = "copies"

    class Config(Strict):
        pass

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"novelty": "higher"}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        generated, train = corpus_of(evidence.generated), corpus_of(evidence.train)
        signature = self.signature(evidence, f"train:{len(train)}")

        def of_one(part: base.Part) -> dict[str, float]:
            return {"novelty": 1 - float(known_sentences(corpus_of(part), train).mean())}

        floor = self.floors_alone(evidence, signature, of_one)["novelty"]
        new, count = int((~known_sentences(generated, train)).sum()), len(generated)
        interval = (new / count, *clopper_pearson(new, count))
        return [self.score("novelty", interval, count, floor, signature)]
