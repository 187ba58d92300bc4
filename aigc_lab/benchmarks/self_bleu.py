"""Self-BLEU-2 to 5 of made-up sentences with Zipf's frequencies beside NLTK's, which scores some and is scaled up."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from aigc_lab.benchmarks.base import Benchmark, Case, Setting, Size, Unmeasured
from aigc_lab.text.bleu import self_bleu
from aigc_lab.text.corpus import Corpus

_SENTENCES: Mapping[Size, int] = {"full": 10_000, "quick": 2_000, "tiny": 40}
_NLTK: Mapping[Size, int] = {"full": 4, "quick": 4, "tiny": 2}
_ROUNDS: Mapping[Size, int] = {"full": 5, "quick": 3, "tiny": 2}
_WEIGHTS = [(1 / n,) * n for n in (2, 3, 4, 5)]


class SelfBleu(Benchmark):
    """On one thread; a device other than the processor changes nothing."""

    seconds: ClassVar[Mapping[Size, float]] = {"full": 10, "quick": 5, "tiny": 1}

    def cases(self, setting: Setting) -> Iterator[Case | Unmeasured]:
        count, few = _SENTENCES[setting.size], _NLTK[setting.size]
        texts = sentences(count)
        split, corpus = [text.split() for text in texts], numbered(texts)
        yield Case(
            f"Self-BLEU-2 to 5 of {count:,} sentences",
            f"NLTK, {few} of them",
            run=lambda: self_bleu(corpus),
            beside=lambda: nltk_scores(range(few), split),
            units=count,
            units_beside=few,
            unit="sentences",
            rounds=_ROUNDS[setting.size],
            clock="cpu",
        )


def sentences(count: int) -> list[str]:
    """Sentences of 7 to 14 words of a vocabulary of 5,000, the same in every call."""
    source = np.random.default_rng(0)
    share = 1 / np.arange(1, 5_001)
    lengths = source.integers(7, 15, count)
    return [
        " ".join(f"w{word}" for word in source.choice(len(share), length, p=share / share.sum())) for length in lengths
    ]


def numbered(texts: list[str]) -> Corpus:
    """Corpus of texts that are split at spaces."""
    split = [text.split() for text in texts]
    words = tuple(dict.fromkeys(word for sentence in split for word in sentence))
    number = {word: place for place, word in enumerate(words)}
    return Corpus.of([[number[word] for word in sentence] for sentence in split], words)


def nltk_scores(rows: range | list[int], split: list[list[str]]) -> list[list[float]]:
    """BLEU-2 to 5 of some sentences with all others as references, by NLTK, smoothed as ours."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smooth = SmoothingFunction().method1
    return [sentence_bleu(split[:row] + split[row + 1 :], split[row], _WEIGHTS, smooth) for row in rows]
