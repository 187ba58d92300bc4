"""NLL_gen, NLL_div and NLL_oracle in nats a word (Yu et al. 2017, Zhu et al. 2018): likelihood under three models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from aigc_lab.config import Strict
from aigc_lab.errors import NotFinite
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.conditioning import conditions
from aigc_lab.metrics.shared.text import Interval, TextMetric, ratio_of
from aigc_lab.statistics.intervals import Z95
from aigc_lab.text.likelihood import Likelihood, token_nll
from aigc_lab.text.vocabulary import EOS, PAD

if TYPE_CHECKING:
    from aigc_lab.data.base import Dataset
    from aigc_lab.samples import Samples

_BLOCK = 250


class NLL(TextMetric):
    """Negative log-likelihood in nats a word, ±1.96 standard errors over n sentences.

    `nll_gen`: unseen real sentences under the model. `nll_div`: generated sentences under the model itself; it equals
    nll_gen for a perfect model, and lower means less diverse than the data. `nll_oracle`: generated sentences under the
    oracle that made the data (`oracle: true`). One good sentence repeated beats the oracle's own: read nll_oracle
    beside nll_gen.

    The start token is no word. `eos` says whether the end of a sentence counts as one; sentences of fixed length have
    none. The floor of `nll_oracle` is the oracle's score of real sentences, its entropy. The floor of the others is the
    model's score of as many training sentences. A conditional model scores each sentence given its class, which is in
    the signature: it knows more, and is not ranked with one that is not told the class.
    """

    needs: ClassVar[frozenset[base.Need]] = frozenset({"likelihood", "train"})
    least: ClassVar[int] = 2
    describes: ClassVar[frozenset[str]] = frozenset({"nll_div"})
    version: ClassVar[int] = 2  # a seeded choice of the splits, not their first
    draws: ClassVar[int] = 5

    class Config(Strict):
        oracle: bool = Field(False, description="score by the truth too: of data that an oracle made")
        eos: bool = Field(True, description="count the end of a sentence as a word")

    @property
    def gives(self) -> dict[str, base.Better]:
        directions: dict[str, base.Better] = {"nll_gen": "lower", "nll_div": "lower"}
        return directions | ({"nll_oracle": "lower"} if self.config.oracle else {})

    def check(self, dataset: Dataset, samples: int) -> None:
        super().check(dataset, samples)
        if self.config.oracle and dataset.likelihood is None:
            raise ValueError(
                f"oracle: nobody knows what made the sentences of dataset {dataset.name}; "
                "take one that an oracle made (data.name: oracle), or leave oracle out"
            )

    def meaningless(self, evidence: base.Evidence) -> dict[str, str]:
        return {"nll_gen": base.SEEN} if base.seen(evidence) else {}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        system, real, n = evidence.system, evidence.real, len(evidence.generated)
        assert isinstance(system, Likelihood)
        ends = f"eos:{'counted' if self.config.eos else 'left out'}"
        oracle = ["oracle"] if self.config.oracle else []
        signature = self.signature(evidence, ends, "per:word", *conditions(system), *oracle)
        train, reference = (_choice(samples, n) for samples in (evidence.train, real.reference))
        by_heart = _with_error(self._of(system, train))
        estimates = {
            "nll_gen": (self._of(system, reference), by_heart),
            "nll_div": (self._of(system, evidence.generated), by_heart),
        }
        truth = evidence.dataset.likelihood
        if self.config.oracle and truth is not None:
            floor = self.floors_alone(evidence, signature, lambda part: {"": self._of(truth, part.samples)[0]})[""]
            estimates["nll_oracle"] = self._of(truth, evidence.generated), floor
        within = (0.0, float("inf"))
        return [
            self.score(name, interval, n, floor, signature, within) for name, (interval, floor) in estimates.items()
        ]

    def _of(self, model: Likelihood, samples: Samples) -> Interval:
        """NLL of the sentences in nats a word. Raises `NotFinite` if one is not finite."""
        import torch

        device = next(model.parameters()).device if isinstance(model, torch.nn.Module) else torch.device("cpu")
        whole, sums, counts = samples.canonical(), [], []
        with torch.inference_mode():
            for first in range(0, len(whole), _BLOCK):
                part = whole.take(slice(first, first + _BLOCK))
                block = part.values[:, : max(1, int((part.values != PAD).sum(1).max()))]
                counted = block != PAD if self.config.eos else (block != PAD) & (block != EOS)
                labels = None if part.labels is None else part.labels.to(device)
                nll = token_nll(model, block.to(device), labels).double().cpu()
                sums.append((nll * counted).sum(1))
                counts.append(counted.sum(1))
        total, words = torch.cat(sums), torch.cat(counts)
        if not total.isfinite().all():
            raise NotFinite(f"{int((~total.isfinite()).sum())} of {len(total)} sentences have no finite likelihood")
        return ratio_of(total.numpy(), words.numpy().astype(np.float64))


def _with_error(interval: Interval) -> base.Floor:
    value, low, high = interval
    return base.Floor.known(value, (high - low) / (2 * Z95))


def _choice(samples: Samples, count: int) -> Samples:
    """Seeded choice of at most `count` samples: a split may lie in the order of its source."""
    from aigc_lab.extractors.base import choice

    return samples if len(samples) <= count else samples.take(choice(len(samples), count))
