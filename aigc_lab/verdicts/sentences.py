"""Evidence of a collapse of text beside sentence vectors: whether sentences read like real ones, and whether their
phrases repeat.

A sentence's vector is a mean over its words, and that of random words lies in the middle of all real ones. Half noise
was PARTIAL in all of 20 sets of captions, and noise TOTAL, until a language model said which sentences are unlike real
ones.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_lab.statistics.intervals import GROUPS, T95_OF_GROUPS, Z95, jackknife_error
from aigc_lab.text import bleu, ngrams
from aigc_lab.text.corpus import Corpus
from aigc_lab.text.ngram_model import NgramModel
from aigc_lab.text.ngrams import Bools, Floats

if TYPE_CHECKING:
    from aigc_lab.verdicts.collapse import Beside
    from aigc_lab.verdicts.conclusion import CollapseVerdict

# Real sentences that may be stranger than what counts as real.
_STRANGE = 0.025
# Phrases are compared by Self-BLEU of this order, with so many draws of real sentences.
_ORDER, _DRAWS = 4, 20
_LEAST = 20
_DIFFERENT = 40  # real sentences, at least
# Least 1 − Self-BLEU of real sentences: if they share nearly all phrases, there is nothing to compare.
_PHRASES = 0.02


class Sentences:
    """Real sentences as a reference for strangeness, by an n-gram model of the sentences that the generator was trained
    on. If these are unknown, the model is of one half of the real sentences and is calibrated on the other.

    Raises `ValueError` for fewer than 40 different real sentences.
    """

    def __init__(self, real: Corpus, train: Corpus | None = None) -> None:
        self._real, self._half = _ordered(real)
        different = len(real) - ngrams.duplicates(real)
        if different < _DIFFERENT:
            raise ValueError(f"{different} different real sentences say nothing of others: give at least {_DIFFERENT}")
        self._train = train
        #: what is known of real phrases, by how many sentences; whoever keeps nulls may give its own dictionary
        self.nulls: dict[str, Any] = {}

    @cached_property
    def _model(self) -> NgramModel:
        return NgramModel.fit(self._real.take(~self._half) if self._train is None else self._train)

    @cached_property
    def _usual(self) -> tuple[float, float]:
        """Surprise of unseen real sentences in nats a word: the median and the 97.5 % quantile."""
        surprises = _surprise(self._model, self._real.take(self._half) if self._train is None else self._real)
        middle, most = np.quantile(surprises, [0.5, 1 - _STRANGE]).tolist()
        return middle, max(most, middle + 1e-6)

    def strangeness(self, sentences: Corpus) -> Floats:
        """Strangeness of each sentence [N]: 0 at the median surprise of real ones or below, 1 at their 97.5 % quantile,
        linear beyond.
        """
        middle, most = self._usual
        strange: Floats = np.maximum(_surprise(self._model, sentences) - middle, 0) / (most - middle)
        return strange

    def beside(self, sentences: Corpus) -> Beside:
        """Facts about the sentences for the judge of their vectors."""
        import torch

        from aigc_lab.verdicts.collapse import Beside, alike

        return Beside(alike(sentences.texts()), torch.from_numpy(self.strangeness(sentences)))

    def with_phrases(self, verdict: CollapseVerdict, sentences: Corpus) -> CollapseVerdict:
        """Verdict with the diversity of phrases, 1 − Self-BLEU-4, over that of as many real sentences.

        Significantly below half it is a collapse by itself; not significantly above half it withholds NONE.
        """
        from aigc_lab.verdicts.conclusion import Collapse, round_up

        generated, _ = _ordered(sentences.take(self.strangeness(sentences) <= 1))
        n = min(len(generated), len(self._real) // 2)
        if n < _LEAST:
            return verdict
        generated = generated.take(np.sort(np.random.default_rng(0).permutation(len(generated))[:n]))
        if self._null(n)[0] < _PHRASES:
            return verdict
        value, low, high = self.variety(generated)
        with_ratio = replace(verdict, phrases=value)
        reason = f"phrases vary {value:.2f} [{low:.2f}, {high:.2f}] times as much as real ones (1 − Self-BLEU-{_ORDER})"
        if high < 0.5 and verdict.verdict in (Collapse.NONE, Collapse.INCONCLUSIVE):
            return replace(with_ratio, verdict=Collapse.PARTIAL, reason=reason)
        if low < 0.5 and verdict.verdict == Collapse.NONE:
            # The interval narrows with the root of n.
            enough = round_up(n * ((high - low) / 2 / max(abs(value - 0.5), 0.005)) ** 2)
            reason += f", and {enough:,} sentences like real ones would decide ({n:,} were compared)"
            return replace(with_ratio, verdict=Collapse.INCONCLUSIVE, reason=reason)
        return with_ratio

    def variety(self, generated: Corpus) -> tuple[float, float, float]:
        """Ratio of 1 − Self-BLEU to that of as many real sentences, with its 95 % interval."""
        usual, spread = self._null(len(generated))
        value, error = _different(generated), T95_OF_GROUPS * jackknife_error(_without(generated))
        ratio, margin = value / usual, math.hypot(error, Z95 * spread * value) / usual
        return ratio, max(ratio - margin, 0.0), ratio + margin

    def _null(self, n: int) -> tuple[float, float]:
        """1 − Self-BLEU of n real sentences: the mean, and its relative error for other real sentences."""
        key = f"phrases {n} of {self._real.digest()}"
        if key not in self.nulls:
            random = np.random.default_rng(0)
            draws = [np.sort(random.permutation(len(self._real))[:n]) for _ in range(_DRAWS)]
            values = np.array([_different(self._real.take(each)) for each in draws])
            # Draws of the same real sentences share some of them: twice their spread is what others would have.
            middle, spread = float(values.mean()), float(values.std(ddof=1))
            self.nulls[key] = [middle, 2 * spread / middle if middle else 0.0]
        mean, error = self.nulls[key]
        return mean, error


def _ordered(sentences: Corpus) -> tuple[Corpus, Bools]:
    """Sentences in an order that does not depend on how they come, and the mask [N] of one half of the different ones;
    equal sentences are in one half.
    """
    hashes = [hashlib.sha256(text.encode()).digest() for text in sentences.texts()]
    order = np.array(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=np.int64)
    numbers = {each: number for number, each in enumerate(sorted(set(hashes)))}
    return sentences.take(order), np.array([numbers[hashes[at]] % 2 == 1 for at in order], dtype=np.bool_)


def _surprise(model: NgramModel, sentences: Corpus) -> Floats:
    """Mean −log p of a word, the end included, in nats [N]."""
    nats, words = model.nll(sentences)
    mean: Floats = nats / words
    return mean


def _different(sentences: Corpus) -> float:
    return 1 - float(bleu.self_bleu(sentences, [_ORDER])[_ORDER].mean())


def _without(sentences: Corpus) -> Floats:
    groups = np.random.default_rng(0).permutation(len(sentences)) % GROUPS
    return bleu.self_bleu_without(sentences, groups, [_ORDER])[_ORDER]


def of_splits(splits: Sequence[Corpus], train: Corpus | None) -> Sentences:
    """Reference of several splits of real sentences together."""
    return Sentences(ngrams.joined(*splits), train)
