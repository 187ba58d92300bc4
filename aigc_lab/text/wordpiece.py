"""WordPiece (Wu et al. 2016) as BERT's uncased models read text: pieces of words from a published list."""

import unicodedata
from collections.abc import Iterator, Mapping

PAD, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
# A word of more letters is unknown as a whole.
_LONGEST = 100
# Ranges of Chinese characters, each of which is a word of its own.
_CHINESE = (
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0x2F800, 0x2FA1F)),
)


class WordPiece:
    """Numbers of the pieces of a line, between `[CLS]` and `[SEP]`; of a long line the first `most`, these included.

    `numbers` are those of the pieces; a piece inside a word begins with `##`. The mark `<unk>` is an unknown word.
    Raises `ValueError` for a list that lacks one of the four marks.

    >>> pieces = WordPiece({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "cafe": 4, "##s": 5, "!": 6})
    >>> pieces.encode("Cafés! <unk>")
    [2, 4, 5, 6, 1, 3]
    """

    def __init__(self, numbers: Mapping[str, int], most: int = 256) -> None:
        lacking = [mark for mark in (PAD, UNKNOWN, BEGIN, END) if mark not in numbers]
        if lacking:
            raise ValueError(f"its list of pieces lacks {', '.join(lacking)}")
        self._numbers, self._most = numbers, most
        self._known: dict[str, list[int]] = {}

    def encode(self, line: str) -> list[int]:
        numbers: list[int] = []
        for place, part in enumerate(line.split("<unk>")):
            numbers += [self._numbers[UNKNOWN]] * (place > 0)
            for word in words(part):
                if word not in self._known:
                    self._known[word] = [self._numbers[piece] for piece in self._pieces(word)]
                numbers += self._known[word]
        return [self._numbers[BEGIN], *numbers[: self._most - 2], self._numbers[END]]

    def _pieces(self, word: str) -> list[str]:
        """The longest known beginning, then of the rest, and so on; `[UNK]` where a rest has none."""
        if len(word) > _LONGEST:
            return [UNKNOWN]
        pieces: list[str] = []
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if f"{mark}{word[start:end]}" in self._numbers), None)
            if end is None:
                return [UNKNOWN]
            pieces.append(f"{mark}{word[start:end]}")
            start = end
        return pieces


def words(line: str) -> Iterator[str]:
    """Words of a line in small letters without accents; a mark of punctuation and a Chinese character are words.

    >>> [*words("Ça va, Zoë?")]
    ['ca', 'va', ',', 'zoe', '?']
    """
    spaced = "".join(map(_spaced, line))
    letters = (each for each in unicodedata.normalize("NFD", spaced) if unicodedata.category(each) != "Mn")
    for part in "".join(letters).lower().split():
        start = 0
        for place, each in enumerate(part):
            if _is_punctuation(each):
                if start < place:
                    yield part[start:place]
                yield each
                start = place + 1
        if start < len(part):
            yield part[start:]


def _spaced(letter: str) -> str:
    """A letter as it is, in spaces, as a space, or gone: what shows nothing."""
    if letter in "\t\n\r":
        return " "
    if letter == "\ufffd" or unicodedata.category(letter) in ("Cc", "Cf", "Co"):
        return ""
    if letter.isspace():
        return " "
    return f" {letter} " if any(low <= ord(letter) <= high for low, high in _CHINESE) else letter


def _is_punctuation(letter: str) -> bool:
    """ASCII's symbols, such as `$`, are punctuation too; other currencies are not."""
    if letter.isascii():
        return letter.isprintable() and not letter.isalnum()
    return unicodedata.category(letter).startswith("P")
