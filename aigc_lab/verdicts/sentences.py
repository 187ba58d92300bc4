"""What the vectors of sentences do not show of a collapse: whether they read like real ones, and whether their phrases
are the same ones over and over.

A sentence's vector is a mean over its words, and that of words drawn at random lies in the middle of all real ones:
half noise was PARTIAL in all of 20 sets of captions, and noise TOTAL, until a language model said which sentences are
unlike real ones.
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
# Where real sentences share nearly all their phrases there is nothing to compare.
_PHRASES = 0.02


class Sentences:
    """Real sentences, none of which a generator was trained on, and those that it was trained on where they are known:
    an n-gram model of these says how strange sentences are. Without, one of half of the real ones does, by how strange
    the other half is to it.

    Raises `ValueError` for fewer than 40 different real sentences, which say nothing of others.
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
        """The surprise of a word in real sentences that the model has not read: the median, and what 2.5 % exceed."""
        found = _surprise(self._model, self._real.take(self._half) if self._train is None else self._real)
        middle, most = np.quantile(found, [0.5, 1 - _STRANGE]).tolist()
        return middle, max(most, middle + 1e-6)

    def strangeness(self, sentences: Corpus) -> Floats:
        """How much less likely than real ones sentences are, word for word [N]: 0 for what is as likely as the median
        of them or more so, 1 for what 2.5 % of them exceed.
        """
        middle, most = self._usual
        strange: Floats = np.maximum(_surprise(self._model, sentences) - middle, 0) / (most - middle)
        return strange

    def beside(self, sentences: Corpus) -> Beside:
        """What a judge of vectors is told of the sentences besides."""
        import torch

        from aigc_lab.verdicts.collapse import Beside, alike

        return Beside(alike(sentences.texts()), torch.from_numpy(self.strangeness(sentences)))

    def with_phrases(self, verdict: CollapseVerdict, sentences: Corpus) -> CollapseVerdict:
        """The verdict with how much of the generated phrases is not another sentence's too, 1 − Self-BLEU-4, beside as
        many real sentences: below half for certain is a collapse of its own; not above it for certain is no NONE.
        """
        from aigc_lab.verdicts.conclusion import Collapse, round_up

        made, _ = _ordered(sentences.take(self.strangeness(sentences) <= 1))
        n = min(len(made), len(self._real) // 2)
        if n < _LEAST:
            return verdict
        made = made.take(np.sort(np.random.default_rng(0).permutation(len(made))[:n]))
        if self._null(n)[0] < _PHRASES:
            return verdict
        value, low, high = self.variety(made)
        found = replace(verdict, phrases=value)
        told = f"phrases vary {value:.2f} [{low:.2f}, {high:.2f}] times as much as real ones (1 − Self-BLEU-{_ORDER})"
        if high < 0.5 and verdict.verdict in (Collapse.NONE, Collapse.INCONCLUSIVE):
            return replace(found, verdict=Collapse.PARTIAL, reason=told)
        if low < 0.5 and verdict.verdict == Collapse.NONE:
            # The interval narrows with the root of n.
            wanted = round_up(n * ((high - low) / 2 / max(abs(value - 0.5), 0.005)) ** 2)
            told += f", and {wanted:,} sentences like real ones would decide ({n:,} were compared)"
            return replace(found, verdict=Collapse.INCONCLUSIVE, reason=told)
        return found

    def variety(self, made: Corpus) -> tuple[float, float, float]:
        """The ratio of 1 − Self-BLEU to that of as many real sentences, with its 95 % interval."""
        usual, spread = self._null(len(made))
        value, error = _different(made), T95_OF_GROUPS * jackknife_error(_without(made))
        ratio, margin = value / usual, math.hypot(error, Z95 * spread * value) / usual
        return ratio, max(ratio - margin, 0.0), ratio + margin

    def _null(self, n: int) -> tuple[float, float]:
        """1 − Self-BLEU of n real sentences: the mean, and the relative error of it as what other real ones have."""
        key = f"phrases {n} of {self._real.digest()}"
        if key not in self.nulls:
            random = np.random.default_rng(0)
            draws = [np.sort(random.permutation(len(self._real))[:n]) for _ in range(_DRAWS)]
            found = np.array([_different(self._real.take(each)) for each in draws])
            # Draws of the same real sentences share some of them: twice their spread is what others would have.
            middle, spread = float(found.mean()), float(found.std(ddof=1))
            self.nulls[key] = [middle, 2 * spread / middle if middle else 0.0]
        mean, error = self.nulls[key]
        return mean, error


def _ordered(sentences: Corpus) -> tuple[Corpus, Bools]:
    """The sentences in an order that is theirs, however they come, and which are of one half of those that differ:
    equal ones are of the same.
    """
    hashes = [hashlib.sha256(text.encode()).digest() for text in sentences.texts()]
    order = np.array(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=np.int64)
    numbers = {each: number for number, each in enumerate(sorted(set(hashes)))}
    return sentences.take(order), np.array([numbers[hashes[at]] % 2 == 1 for at in order], dtype=np.bool_)


def _surprise(model: NgramModel, sentences: Corpus) -> Floats:
    """−log p of a word on the mean, the end included, in nats [N]."""
    nats, words = model.nll(sentences)
    found: Floats = nats / words
    return found


def _different(sentences: Corpus) -> float:
    return 1 - float(bleu.self_bleu(sentences, [_ORDER])[_ORDER].mean())


def _without(sentences: Corpus) -> Floats:
    groups = np.random.default_rng(0).permutation(len(sentences)) % GROUPS
    return bleu.self_bleu_without(sentences, groups, [_ORDER])[_ORDER]


def of_splits(splits: Sequence[Corpus], train: Corpus | None) -> Sentences:
    """Of several splits of real sentences together."""
    return Sentences(ngrams.joined(*splits), train)
