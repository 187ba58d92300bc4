"""How much of a held-out sentence comes back through the mean of its code: BLEU and ROUGE-L of the pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from aigc_lab.config import Count, Strict
from aigc_lab.errors import NotFinite
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.conditioning import conditions, given_labels
from aigc_lab.metrics.shared.text import TextMetric, groups_of, jackknifed, mean_of
from aigc_lab.shape import Modality
from aigc_lab.text.paired_bleu import corpus_bleu
from aigc_lab.text.rouge import rouge_l

if TYPE_CHECKING:
    from aigc_lab.data.base import Dataset
    from aigc_lab.samples import Text


class TextReconstruction(TextMetric):
    """Scores of a system, not of its samples: n real sentences, a seeded choice, are encoded and decoded greedily. The
    floor is the same of as many training sentences.

    `reconstruction_bleu` is sacreBLEU's corpus BLEU, 0 to 100; `reconstruction_rouge_l` is the mean F1. A decoder that
    ignores its code gives one sentence for all, which scores a little above 0 and does not improve with training.
    """

    needs: ClassVar[frozenset[base.Need]] = frozenset({"encoder", "train"})

    version: ClassVar[int] = 3  # a seeded choice of the split, not its first

    class Config(Strict):
        limit: Count = Field(1000, ge=100, description="real sentences that are reconstructed, at most")

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"reconstruction_bleu": "higher", "reconstruction_rouge_l": "higher"}

    def check(self, dataset: Dataset, samples: int) -> None:
        base.check_autoencoded(dataset, samples, "it", Modality.TEXT)

    def meaningless(self, evidence: base.Evidence) -> dict[str, str]:
        return dict.fromkeys(self.gives, base.SEEN) if base.seen(evidence) else {}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        from aigc_lab.samples import Text

        system, reference, train = base.autoencoded(evidence, self.config.limit)
        assert isinstance(reference, Text) and isinstance(train, Text)
        pairs, train_pairs = ((_reconstructed(system, each), each) for each in (reference, train))
        value, without, sacrebleu_signature = corpus_bleu(pairs[0].corpus, pairs[1].corpus, groups_of(len(reference)))
        n = len(reference)
        signature = self.signature(
            evidence, f"scored:{n}≤{self.config.limit}", sacrebleu_signature, *conditions(system)
        )
        floor = corpus_bleu(train_pairs[0].corpus, train_pairs[1].corpus)[0]
        nearness = mean_of(rouge_l(pairs[0].corpus, pairs[1].corpus))
        low = float(rouge_l(train_pairs[0].corpus, train_pairs[1].corpus).mean())
        return [
            self.score("reconstruction_bleu", jackknifed(value, without), n, floor, signature, (0.0, 100.0)),
            self.score("reconstruction_rouge_l", nearness, n, low, signature),
        ]


def _reconstructed(system: base.Coder, text: Text) -> Text:
    import torch

    from aigc_lab.samples import Text

    device = base.device_of(system)
    with torch.inference_mode():
        blocks = [text.take(slice(first, first + 250)).to(device) for first in range(0, len(text), 250)]
        coders = [given_labels(system, block) for block in blocks]
        codes = [coder.encode(block.values)[0] for coder, block in zip(coders, blocks, strict=True)]
        bad = sum(int((~code.isfinite()).any(1).sum()) for code in codes)
        if bad:
            raise NotFinite(f"{bad} of {len(text)} sentences are encoded as NaN or infinity")
        parts = [coder.decode(code).cpu() for coder, code in zip(coders, codes, strict=True)]
    return Text(torch.cat(parts), vocabulary=text.vocabulary)
