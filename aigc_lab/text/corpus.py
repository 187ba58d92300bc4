"""Corpus of sentences as numbers, the input of text metrics; without torch, so that two files are scored without it."""

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
    """Corpus of N sentences in one array: `tokens` [T] are indices into `words`, and sentence i is
    `tokens[starts[i]:starts[i + 1]]`, without a mark of its end. A sentence may be empty.

    Two corpora are comparable if they have the same `words`, made by one `tokenizer`.
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
        """Corpus of sentences that are sequences of word numbers."""
        arrays = [np.asarray(sentence, dtype=np.int64) for sentence in sentences]
        starts = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(each) for each in arrays], out=starts[1:])
        return cls(np.concatenate(arrays) if arrays else np.zeros(0, np.int64), starts, words, tokenizer)

    @cached_property
    def lengths(self) -> Ints:
        """Number of tokens of each sentence [N]."""
        return np.diff(self.starts)

    @cached_property
    def owners(self) -> Ints:
        """Index of the sentence of each token [T]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def sentence(self, index: int) -> Ints:
        """Word numbers of one sentence."""
        return self.tokens[self.starts[index] : self.starts[index + 1]]

    def take(self, index: npt.NDArray[Any] | slice) -> "Corpus":
        """Sentences at `index`, in that order."""
        rows = np.arange(len(self))[index]
        lengths = self.lengths[rows]
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=starts[1:])
        shift = np.repeat(self.starts[rows] - starts[:-1], lengths)
        return replace(self, tokens=self.tokens[np.arange(starts[-1]) + shift], starts=starts)

    def in_words_of(self, reference: "Corpus") -> "Corpus":
        """Sentences in the vocabulary of another corpus: the words that occur there, in their order, and `<unk>` for
        all others. Both must have the same `words`.
        """
        occur = np.unique(reference.tokens)
        numbers = [number for number in occur.tolist() if self.words[number] != UNKNOWN]
        place = np.full(len(self.words), len(numbers))
        place[numbers] = np.arange(len(numbers))
        words = (*(self.words[number] for number in numbers), UNKNOWN)
        return replace(self, tokens=place[self.tokens], words=words)

    def texts(self) -> list[str]:
        """Text of each sentence, its words joined by spaces."""
        return [" ".join([self.words[token] for token in self.sentence(row)]) for row in range(len(self))]

    def digest(self) -> str:
        """sha256 of the sentences as text, in this order; it does not depend on how words are numbered."""
        return hashlib.sha256("\n".join(self.texts()).encode()).hexdigest()
