"""Forward and reverse language-model score (Zhao et al. 2018, Cífka et al. 2018): quality, and diversity with it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from aigc_lab.config import Order, Strict
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.text import Interval, TextMetric, corpus_of, ratio_of

if TYPE_CHECKING:
    from aigc_lab.data.base import Dataset
    from aigc_lab.text.corpus import Corpus


class LMScore(TextMetric):
    """Negative log-likelihood in nats a word, the end of a sentence counted as one.

    `lm_forward` is the score of generated sentences under a model trained on the reference: low for likely sentences,
    even one of them repeated. `lm_reverse` is the score of the reference under a model trained on the generated
    sentences: low only if these are as diverse as real ones. Both depend on the number of training sentences and on the
    vocabulary (words of the reference, and `<unk>` for others), which are in the signature.

    `ngram` is an interpolated Kneser-Ney model (Chen & Goodman 1999). `lstm` is a small network trained from a fixed
    seed with early stopping on a tenth of the sentences, which takes tens of seconds. ±1.96 standard errors over the
    scored sentences, the model taken as fixed.
    """

    least: ClassVar[int] = 2
    version: ClassVar[int] = 2  # the words are the reference's
    draws: ClassVar[int] = 3

    class Config(Strict):
        scorer: Literal["ngram", "lstm"] = "ngram"
        order: Order = Field(4, description="n of the n-gram model")

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"lm_forward": "lower", "lm_reverse": "lower"}

    def learning(self, dataset: Dataset) -> base.Learning | None:
        """Both networks of `lstm`, each with the steps of one that learns the reference and does not stop early."""
        if self.config.scorer != "lstm":
            return None
        from aigc_lab.metrics.shared.lstm_scorer import most_steps, take_steps

        reference = corpus_of(dataset.load("reference"))
        return base.Learning(2, most_steps(len(reference)), lambda steps: take_steps(reference, steps))

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        config, whole = self.config, corpus_of(evidence.real.reference)
        reference, generated = whole.in_words_of(whole), corpus_of(evidence.generated).in_words_of(whole)
        kind = f"kneser-ney:{config.order}" if config.scorer == "ngram" else "lstm:1"
        signature = self.signature(evidence, f"scorer:{kind}", "per:word+eos", vocabulary_of(reference))

        def between(*parts: base.Part) -> dict[str, float]:
            held = corpus_of(parts[1])
            floor, against = (corpus_of(part).in_words_of(held) for part in parts)
            return {"lm_forward": self._nll(against, floor)[0], "lm_reverse": self._nll(floor, against)[0]}

        floor = self.floors(evidence, signature, between)
        intervals = {"lm_forward": self._nll(reference, generated), "lm_reverse": self._nll(generated, reference)}
        within = (0.0, float("inf"))
        return [
            self.score(name, interval, len(generated), floor[name], signature, within)
            for name, interval in intervals.items()
        ]

    def drawn(self, real: base.Real) -> int:
        return 1 if self.config.scorer == "lstm" else super().drawn(real)  # tens of seconds each

    def _nll(self, learned: Corpus, scored: Corpus) -> Interval:
        """NLL of the sentences `scored` under a model trained on `learned`, in nats a word."""
        if self.config.scorer == "lstm":
            from aigc_lab.metrics.shared.lstm_scorer import lstm_nll

            return ratio_of(*lstm_nll(learned, scored))
        from aigc_lab.text.ngram_model import NgramModel

        return ratio_of(*NgramModel.fit(learned, order=self.config.order).nll(scored))


def vocabulary_of(corpus: Corpus) -> str:
    """Part of a signature: the size of a corpus's vocabulary, and a hash of its words."""
    return f"words:{len(corpus.words)}:{hashlib.sha256(' '.join(corpus.words).encode()).hexdigest()[:8]}"
