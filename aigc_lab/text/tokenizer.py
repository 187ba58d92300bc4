"""Tokens of a line of text. Nothing is downloaded, and the tokenizer is a part of every score's signature."""

import unicodedata
from collections.abc import Callable
from typing import Literal, get_args

import regex

Tokenizer = Literal["words", "none", "characters", "nltk"]
TOKENIZERS: tuple[Tokenizer, ...] = get_args(Tokenizer)

# The mark of an unknown word, which a model's sentences hold; a word with its accents, joiners, soft hyphens, and inner
# apostrophes or hyphens; a number with its points and commas; else one grapheme: a mark of punctuation, or an emoji
# with all that belongs to it.
_MARK = r"\p{M}\p{GCB=Extend}\u200D\u00AD"
_INSIDE = rf"[\p{{L}}\p{{N}}_{_MARK}]"
# Scripts that write no spaces between words: each grapheme is a token, and ends the word before it.
_SPACELESS = r"[\p{Han}\p{Hiragana}\p{Katakana}\u30FC\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_LETTER = rf"(?!{_SPACELESS})[\p{{L}}\p{{M}}_]"
_INNER = rf"(?!{_SPACELESS}){_INSIDE}"
_WORDS = regex.compile(
    rf"<unk>|{_LETTER}(?:{_INNER})*(?:['’\-](?:{_INNER})+)*"
    rf"|\p{{N}}+(?:[.,]\p{{N}}+)*(?:(?!{_SPACELESS})[\p{{L}}{_MARK}])*|\X"
)
# Names in signatures of tokenizers whose tokens differ from those of their first version.
_VERSIONS = {"words": "words:2"}


def tokenize(line: str, how: Tokenizer = "words") -> list[str]:
    """Tokens of a line, in Unicode's composed form (NFC).

    `words` separates punctuation from words, and every grapheme in scripts without spaces between words (Chinese
    characters, kana, Thai, Lao, Khmer, Burmese). `none` splits at white space only. `characters` gives every grapheme,
    with spaces as `▁`. `nltk` is NLTK's `word_tokenize(line, preserve_line=True)`, by which published tables of BLEU
    were made.

    >>> tokenize("A dog's bone, isn't it?")
    ['A', "dog's", 'bone', ',', "isn't", 'it', '?']
    >>> tokenize("a cat", "characters")
    ['a', '▁', 'c', 'a', 't']
    """
    return _SPLIT[how](unicodedata.normalize("NFC", line))


def _words(line: str) -> list[str]:
    # Parted by white space first: some graphemes take what follows, and were it a space.
    return [token for part in line.split() for token in _WORDS.findall(part)]


def _characters(line: str) -> list[str]:
    # A ▁ of the line's own could not be told from a space: it is one.
    spaced = "".join(" " if each.isspace() or each == "▁" else each for each in line).strip()
    return [each.replace(" ", "▁") for each in regex.findall(r"<unk>|\X", spaced)]


def _nltk(line: str) -> list[str]:
    # It needs no download, and takes a second to import.
    from nltk.tokenize.destructive import NLTKWordTokenizer

    tokens: list[str] = []
    # A mark of an unknown word is one token, and not three.
    for place, part in enumerate(line.split("<unk>")):
        tokens += ["<unk>"] * (place > 0) + NLTKWordTokenizer().tokenize(part)
    return tokens


_SPLIT: dict[str, Callable[[str], list[str]]] = {
    "words": _words,
    "none": str.split,
    "characters": _characters,
    "nltk": _nltk,
}


def named(tokenizer: str) -> str:
    """Name of a tokenizer with its version, for signatures."""
    return _VERSIONS.get(tokenizer, tokenizer)


def untokenize(tokens: list[str], how: str) -> str:
    """Line of the tokens, which `tokenize` splits into the same tokens again."""
    return "".join(tokens).replace("▁", " ") if how == "characters" else " ".join(tokens)
