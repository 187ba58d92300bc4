"""From a line of text to its tokens. Nothing is downloaded; what is done is a part of every score's signature."""

import unicodedata
from collections.abc import Callable
from typing import Literal, get_args

import regex

Tokenizer = Literal["words", "none", "characters"]
TOKENIZERS: tuple[Tokenizer, ...] = get_args(Tokenizer)

# A word with its accents and inner apostrophes or hyphens; a number with its points and commas; else one grapheme: a
# mark of punctuation, or an emoji with all that belongs to it.
_WORDS = regex.compile(
    r"[\p{L}\p{M}_][\p{L}\p{M}\p{N}_]*(?:['’\-][\p{L}\p{M}\p{N}_]+)*|\p{N}+(?:[.,]\p{N}+)*[\p{L}\p{M}]*|(?!\s)\X"
)


def tokenize(line: str, how: Tokenizer = "words") -> list[str]:
    """The tokens of a line, in Unicode's composed form (NFC). `words` parts punctuation from words, `none` takes what
    stands between white space as it is, `characters` every grapheme, with spaces as `▁`.
    """
    return _SPLIT[how](unicodedata.normalize("NFC", line))


def _characters(line: str) -> list[str]:
    return [each if not each.isspace() else "▁" for each in regex.findall(r"\X", line.strip())]


_SPLIT: dict[str, Callable[[str], list[str]]] = {"words": _WORDS.findall, "none": str.split, "characters": _characters}


def untokenize(tokens: list[str], how: str) -> str:
    """A line of the tokens: `tokenize` parts it into the same again."""
    return "".join(tokens).replace("▁", " ") if how == "characters" else " ".join(tokens)
