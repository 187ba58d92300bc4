"""The share of different sentences among the generated ones, at a fixed number of them."""

from typing import ClassVar

from aigc_lab.config import Strict
from aigc_lab.metrics import base
from aigc_lab.statistics import clopper_pearson
from aigc_lab.text import ngrams
from aigc_lab.text_metric import TextMetric, corpus_of, groups_of, jackknifed

_FEW = 10


class Unique(TextMetric):
    """1 where no two are alike. The interval is a delete-group jackknife's, or that of Clopper and Pearson where fewer
    than 10 sentences repeat another: those the groups do not know (measured: 25 % coverage at 0.3 repeats, then 99 %).
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
        floor = self.of_real(evidence, signature, lambda: ngrams.unique_sentences(corpus_of(evidence.real.floor)))
        value, count, repeats = ngrams.unique_sentences(generated), len(generated), ngrams.duplicates(generated)
        if repeats < _FEW:
            of = (value, *clopper_pearson(count - repeats, count))
        else:
            of = jackknifed(value, ngrams.unique_without(generated, groups_of(count)))
        return [self.score("unique", of, count, floor, signature)]
