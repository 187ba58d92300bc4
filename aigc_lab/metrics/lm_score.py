"""Forward and reverse language-model score (Zhao et al. 2018, Cífka et al. 2018): quality, and diversity with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from aigc_lab.config import Order, Strict
from aigc_lab.metrics import base
from aigc_lab.text_metric import Interval, TextMetric, corpus_of, ratio_of

if TYPE_CHECKING:
    from aigc_lab.text.corpus import Corpus


class LMScore(TextMetric):
    """Nats a word, the end of the sentence counted as one. `lm_forward` is what a model trained on the reference says
    of generated sentences: it is low for sentences that are likely, one of them over and over included. `lm_reverse` is
    what a model trained on the generated sentences says of the reference: it is low only where those are as diverse as
    real ones. Both depend on how many sentences the scorer learns from, which the signature says.

    `ngram` is an interpolated Kneser-Ney model (Chen & Goodman 1999); `lstm` a small network trained from a fixed seed,
    for some passes over the sentences, one tenth of which say when to stop: tens of seconds. ±1.96 standard errors over
    the sentences that are scored: the scorer is taken as it is.
    """

    least: ClassVar[int] = 2

    class Config(Strict):
        scorer: Literal["ngram", "lstm"] = "ngram"
        order: Order = Field(4, description="n of the n-gram model")

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"lm_forward": "lower", "lm_reverse": "lower"}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        config, real = self.config, evidence.real
        generated, reference = corpus_of(evidence.generated), corpus_of(real.reference)
        kind = f"kneser-ney:{config.order}" if config.scorer == "ngram" else "lstm:1"
        signature = self.signature(evidence, f"scorer:{kind}", "per:word+eos")

        def floors() -> dict[str, float]:
            floor, against = corpus_of(real.floor), corpus_of(real.against)
            return {"lm_forward": self._nll(against, floor)[0], "lm_reverse": self._nll(floor, against)[0]}

        floor = self.of_real(evidence, signature, floors)
        found = {"lm_forward": self._nll(reference, generated), "lm_reverse": self._nll(generated, reference)}
        within = (0.0, float("inf"))
        return [self.score(name, of, len(generated), floor[name], signature, within) for name, of in found.items()]

    def _nll(self, learned: Corpus, scored: Corpus) -> Interval:
        """What a model of the first says of the second."""
        if self.config.scorer == "lstm":
            from aigc_lab.text_scorer import lstm_nll

            return ratio_of(*lstm_nll(learned, scored))
        from aigc_lab.text.ngram_model import NgramModel

        return ratio_of(*NgramModel.fit(learned, order=self.config.order).nll(scored))
