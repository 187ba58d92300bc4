"""Vocabulary of a text model. It comes from the training split alone and is stored with the model's weights."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

PAD, EOS, UNK = 0, 1, 2
SPECIAL = ("<pad>", "<eos>", "<unk>")


@dataclass(frozen=True)
class Vocabulary:
    """Words by number: `<pad>`, `<eos>`, `<unk>`, then the words, the most frequent first.

    `tokenizer` made them. With `ends` a sentence is closed by `<eos>`; without, all have the same length, and neither
    `<eos>` nor `<unk>` occurs. Raises `ValueError` for words that do not begin with the marks or repeat.
    """

    words: tuple[str, ...]
    tokenizer: str = "words"
    ends: bool = True

    def __post_init__(self) -> None:
        if self.words[: len(SPECIAL)] != SPECIAL:
            raise ValueError(f"a vocabulary begins with {', '.join(SPECIAL)}")
        if len(set(self.words)) < len(self.words):
            raise ValueError("a vocabulary holds a word twice")

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def of(
        cls, sentences: Iterable[Sequence[str]], tokenizer: str, *, least: int = 1, most: int | None = None
    ) -> "Vocabulary":
        """Vocabulary of the `most` frequent words that occur at least `least` times in the sentences; ties
        by spelling.
        """
        counts = Counter(word for sentence in sentences for word in sentence)
        for mark in SPECIAL:
            counts.pop(mark, None)
        ordered = sorted((word for word, count in counts.items() if count >= least), key=lambda w: (-counts[w], w))
        return cls((*SPECIAL, *ordered[:most]), tokenizer)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, sentence: Sequence[str]) -> list[int]:
        """Word numbers of a sentence; `<unk>` for unknown words, and for spelt-out marks."""
        numbers = self.numbers
        return [number if (number := numbers.get(word, UNK)) > UNK else UNK for word in sentence]

    @property
    def impossible(self) -> tuple[int, ...]:
        """Numbers that never occur within a sentence."""
        return (PAD,) if self.ends else (PAD, EOS, UNK)

    def dump(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"words": list(self.words), "tokenizer": self.tokenizer, "ends": self.ends}

    @classmethod
    def load(cls, data: dict[str, Any]) -> "Vocabulary":
        """Vocabulary from the data of `dump`."""
        return cls(tuple(data["words"]), data["tokenizer"], data["ends"])
