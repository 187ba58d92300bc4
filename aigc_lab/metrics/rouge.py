"""ROUGE-1, -2 and -L (Lin 2004) of sentences in pairs, F1: each line with the reference's line of the same number."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from aigc_lab.config import Strict
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.text import TextMetric, corpus_of, mean_of
from aigc_lab.text.rouge import rouge_l, rouge_n

if TYPE_CHECKING:
    from aigc_lab.text.corpus import Corpus


class ROUGE(TextMetric):
    """Mean F1 in [0, 1] as in the package rouge-score, of our tokens and without stemming. n is the number of pairs;
    ±1.96 standard errors over them.

    It is meaningful if line i was generated for line i of the reference. For unpaired text it measures how similar two
    random sentences are; use `rouge_nn` there.
    """

    paired: ClassVar[bool] = True
    version: ClassVar[int] = 2  # unknown words match nothing

    class Config(Strict):
        pass

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"rouge_1": "higher", "rouge_2": "higher", "rouge_l": "higher"}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        real = evidence.real
        generated, reference = corpus_of(evidence.generated), corpus_of(real.reference)
        pairs = min(len(generated), len(reference))
        signature = self.signature(evidence, f"pairs:lines:{pairs}", "f1")

        def between(floor: base.Part, against: base.Part) -> dict[str, float]:
            intervals = _paired(corpus_of(floor), corpus_of(against))
            return {name: value for name, (value, _, _) in intervals.items()}

        # A mean over pairs: of how many is for its interval to say.
        floor = self.floors(evidence, signature, between, used=lambda n, m: "unbiased")
        return [
            self.score(name, interval, pairs, floor[name], signature)
            for name, interval in _paired(generated, reference).items()
        ]


def _paired(first: Corpus, second: Corpus) -> dict[str, tuple[float, float, float]]:
    pairs = slice(0, min(len(first), len(second)))
    hypotheses, references = first.take(pairs), second.take(pairs)
    f1 = {
        "rouge_1": rouge_n(hypotheses, references, 1),
        "rouge_2": rouge_n(hypotheses, references, 2),
        "rouge_l": rouge_l(hypotheses, references),
    }
    return {name: mean_of(values) for name, values in f1.items()}
