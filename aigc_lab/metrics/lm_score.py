"""Forward and reverse language-model score (Zhao et al. 2018, Cífka et al. 2018): quality, and diversity with it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from aigc_lab.config import Order, Strict
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.text import Interval, TextMetric, corpus_of, ratio_of

if TYPE_CHECKING:
    from aigc_lab.text.corpus import Corpus


class LMScore(TextMetric):
    """Nats a word, the end of the sentence counted as one. `lm_forward` is what a model trained on the reference says
    of generated sentences: it is low for sentences that are likely, one of them over and over included. `lm_reverse` is
    what a model trained on the generated sentences says of the reference: it is low only where those are as diverse as
    real ones. Both depend on how many sentences the scorer learns from, and on how many words it knows: those of the
    reference and `<unk>` for all others, which the signature says.

    `ngram` is an interpolated Kneser-Ney model (Chen & Goodman 1999); `lstm` a small network trained from a fixed seed,
    for some passes over the sentences, one tenth of which say when to stop: tens of seconds. ±1.96 standard errors over
    the sentences that are scored: the scorer is taken as it is.
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
        found = {"lm_forward": self._nll(reference, generated), "lm_reverse": self._nll(generated, reference)}
        within = (0.0, float("inf"))
        return [self.score(name, of, len(generated), floor[name], signature, within) for name, of in found.items()]

    def drawn(self, real: base.Real) -> int:
        return 1 if self.config.scorer == "lstm" else super().drawn(real)  # tens of seconds each

    def _nll(self, learned: Corpus, scored: Corpus) -> Interval:
        """What a model of the first says of the second."""
        if self.config.scorer == "lstm":
            from aigc_lab.metrics.shared.lstm_scorer import lstm_nll

            return ratio_of(*lstm_nll(learned, scored))
        from aigc_lab.text.ngram_model import NgramModel

        return ratio_of(*NgramModel.fit(learned, order=self.config.order).nll(scored))


def vocabulary_of(corpus: Corpus) -> str:
    """How many words a model of the corpus knows, and which, as signatures say it."""
    return f"words:{len(corpus.words)}:{hashlib.sha256(' '.join(corpus.words).encode()).hexdigest()[:8]}"
