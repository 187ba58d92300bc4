"""The words that a text model knows. They come from the training split alone and travel with the model's weights."""

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
    `<eos>` nor `<unk>` ever stands in one.
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
        """The words that occur `least` times in the sentences, the `most` frequent of them; ties by spelling."""
        counts = Counter(word for sentence in sentences for word in sentence)
        for mark in SPECIAL:
            counts.pop(mark, None)
        ordered = sorted((word for word, count in counts.items() if count >= least), key=lambda w: (-counts[w], w))
        return cls((*SPECIAL, *ordered[:most]), tokenizer)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, sentence: Sequence[str]) -> list[int]:
        """The numbers of words; `<unk>` for what it does not know, and for a spelt-out mark."""
        known = self.numbers
        return [number if (number := known.get(word, UNK)) > UNK else UNK for word in sentence]

    @property
    def impossible(self) -> tuple[int, ...]:
        """The numbers that never follow in a sentence."""
        return (PAD,) if self.ends else (PAD, EOS, UNK)

    def dump(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {"words": list(self.words), "tokenizer": self.tokenizer, "ends": self.ends}

    @classmethod
    def load(cls, told: dict[str, Any]) -> "Vocabulary":
        """What `dump` returned."""
        return cls(tuple(told["words"]), told["tokenizer"], told["ends"])
