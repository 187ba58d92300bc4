"""Corpus BLEU of sentences in pairs by sacreBLEU (Post 2018), 0 to 100, with its own signature in ours."""

from typing import ClassVar

from aigc_lab.config import Strict
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.text import TextMetric, corpus_of, groups_of, jackknifed
from aigc_lab.text.paired_bleu import corpus_bleu


class CorpusBLEU(TextMetric):
    """Corpus BLEU of line i against the reference's line i, of our tokens; n is the number of pairs. The interval is a
    delete-group jackknife's over the pairs.
    """

    paired: ClassVar[bool] = True
    version: ClassVar[int] = 2  # unknown words match nothing

    class Config(Strict):
        pass

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"corpus_bleu": "higher"}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        real = evidence.real
        generated, reference = corpus_of(evidence.generated), corpus_of(real.reference)
        pairs = min(len(generated), len(reference))
        value, without, sacrebleu_signature = corpus_bleu(generated, reference, groups_of(pairs) if pairs > 2 else None)
        signature = self.signature(evidence, f"pairs:lines:{pairs}", sacrebleu_signature)

        def between(floor: base.Part, against: base.Part) -> dict[str, float]:
            return {"corpus_bleu": corpus_bleu(corpus_of(floor), corpus_of(against))[0]}

        floor = self.floors(evidence, signature, between, used=lambda n, m: "unbiased")["corpus_bleu"]
        interval = jackknifed(value, without)
        return [self.score("corpus_bleu", interval, pairs, floor, signature, within=(0.0, 100.0))]
