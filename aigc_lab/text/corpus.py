"""Sentences as numbers: what text metrics read. Nothing here needs torch, so that two files are scored without it."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from aigc_lab.modality import Modality

# A word that a vocabulary does not hold.
UNKNOWN = "<unk>"

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """N sentences, one after the other: `tokens` [T] are numbers of `words`, and sentence i is
    `tokens[starts[i]:starts[i + 1]]`, without any mark of its end; a sentence may be empty.

    Two corpora can be compared when they have the same `words`, which one `tokenizer` made.
    """

    tokens: Ints
    starts: Ints
    words: tuple[str, ...]
    tokenizer: str = "words"

    modality: ClassVar[Modality] = Modality.TEXT
    fixed_size: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, sentences: Iterable[Sequence[int]], words: tuple[str, ...], tokenizer: str = "words") -> "Corpus":
        """The corpus of sentences of numbers."""
        kept = [np.asarray(sentence, dtype=np.int64) for sentence in sentences]
        starts = np.zeros(len(kept) + 1, dtype=np.int64)
        np.cumsum([len(each) for each in kept], out=starts[1:])
        return cls(np.concatenate(kept) if kept else np.zeros(0, np.int64), starts, words, tokenizer)

    @cached_property
    def lengths(self) -> Ints:
        """The number of tokens of each sentence [N]."""
        return np.diff(self.starts)

    @cached_property
    def owners(self) -> Ints:
        """The sentence of each token [T]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def sentence(self, index: int) -> Ints:
        """The numbers of one sentence."""
        return self.tokens[self.starts[index] : self.starts[index + 1]]

    def take(self, index: npt.NDArray[Any] | slice) -> "Corpus":
        """The sentences at `index`, in that order."""
        rows = np.arange(len(self))[index]
        lengths = self.lengths[rows]
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=starts[1:])
        shift = np.repeat(self.starts[rows] - starts[:-1], lengths)
        return replace(self, tokens=self.tokens[np.arange(starts[-1]) + shift], starts=starts)

    def in_words_of(self, reference: "Corpus") -> "Corpus":
        """The same sentences in the vocabulary of another corpus: the words that occur there, in their order, and
        `<unk>` for all others. Both must have the same `words`.
        """
        occur = np.unique(reference.tokens)
        known = [number for number in occur.tolist() if self.words[number] != UNKNOWN]
        place = np.full(len(self.words), len(known))
        place[known] = np.arange(len(known))
        words = (*(self.words[number] for number in known), UNKNOWN)
        return replace(self, tokens=place[self.tokens], words=words)

    def texts(self) -> list[str]:
        """Each sentence as its words with a space between."""
        return [" ".join([self.words[token] for token in self.sentence(row)]) for row in range(len(self))]

    def digest(self) -> str:
        """sha256 over the sentences as text, in this order: equal where the numbering of the words is another."""
        return hashlib.sha256("\n".join(self.texts()).encode()).hexdigest()
