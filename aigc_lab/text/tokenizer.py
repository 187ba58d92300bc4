"""From a line of text to its tokens. Nothing is downloaded; what is done is a part of every score's signature."""

import unicodedata
from collections.abc import Callable
from typing import Literal, get_args

import regex

Tokenizer = Literal["words", "none", "characters"]
TOKENIZERS: tuple[Tokenizer, ...] = get_args(Tokenizer)

# The mark of an unknown word, which a model's sentences hold; a word with its accents, joiners, soft hyphens, and inner
# apostrophes or hyphens; a number with its points and commas; else one grapheme: a mark of punctuation, or an emoji
# with all that belongs to it.
_MARK = r"\p{M}\p{GCB=Extend}\u200D\u00AD"
_INSIDE = rf"[\p{{L}}\p{{N}}_{_MARK}]"
_WORDS = regex.compile(
    rf"<unk>|[\p{{L}}\p{{M}}_]{_INSIDE}*(?:['’\-]{_INSIDE}+)*|\p{{N}}+(?:[.,]\p{{N}}+)*[\p{{L}}{_MARK}]*|\X"
)


def tokenize(line: str, how: Tokenizer = "words") -> list[str]:
    """The tokens of a line, in Unicode's composed form (NFC). `words` parts punctuation from words, `none` takes what
    stands between white space as it is, `characters` every grapheme, with spaces as `▁`.
    """
    return _SPLIT[how](unicodedata.normalize("NFC", line))


def _words(line: str) -> list[str]:
    # Parted by white space first: some graphemes take what follows, and were it a space.
    return [token for part in line.split() for token in _WORDS.findall(part)]


def _characters(line: str) -> list[str]:
    # A ▁ of the line's own could not be told from a space: it is one.
    spaced = "".join(" " if each.isspace() or each == "▁" else each for each in line).strip()
    return [each.replace(" ", "▁") for each in regex.findall(r"<unk>|\X", spaced)]


_SPLIT: dict[str, Callable[[str], list[str]]] = {"words": _words, "none": str.split, "characters": _characters}


def untokenize(tokens: list[str], how: str) -> str:
    """A line of the tokens: `tokenize` parts it into the same again."""
    return "".join(tokens).replace("▁", " ") if how == "characters" else " ".join(tokens)
