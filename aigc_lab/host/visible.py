r"""Escaping of text for display, so that terminals and pages show control characters instead of obeying them.

Names, tags and reasons come from files and from other people. A control character in one may colour a terminal, move
its cursor or ring its bell; a mark of direction may turn the text around it, so that it reads as something else. Both
appear as escapes, `\x1b` or `\u202e`. Letters of any script, emoji and their joiners are left as they are.
"""

import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any, TextIO

# Of Unicode's categories: controls (Cc), separators of lines (Zl, Zp), halves of characters (Cs), and of formats (Cf)
# those that are not seen. Flags of regions are a black flag and letters that stand nowhere else.
_OBEYED = re.compile(
    "\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f"
    "|[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_JOINERS = "\u200c\u200d"
_SHORT = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}


def text(value: str) -> str:
    """Multi-line text with control characters escaped; line ends and tabs stay."""
    return _escaped(value, "\n\t")


def line(value: str) -> str:
    """Single-line text with control characters escaped, line ends included."""
    return _escaped(value, "")


def _escaped(value: str, allowed: str) -> str:
    if value.isprintable():  # nothing to do, nearly always
        return value

    def escape(match: re.Match[str]) -> str:
        characters = match[0]
        if len(characters) > 1 or characters in allowed or (characters in _JOINERS and _joins(value, match.start())):
            return characters
        code = ord(characters)
        if characters in _SHORT or code < 0x100:
            return _SHORT.get(characters, f"\\x{code:02x}")
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return _OBEYED.sub(escape, value)


def _joins(value: str, place: int) -> bool:
    """Whether a joiner stands between letters of a script that has them, or between parts of an emoji."""
    around = value[max(place - 1, 0) : place], value[place + 1 : place + 2]
    return all(letter > "\x7f" and unicodedata.category(letter) in ("Lo", "Mn", "Mc", "So", "Sk") for letter in around)


class Stream:
    """Stream to a terminal, log or pipe that escapes control characters. rich writes its own colours and cursor
    movements to `rich_proxied_file`, the stream beneath, which it looks up by this name.
    """

    def __init__(self, beneath: TextIO) -> None:
        self.rich_proxied_file = beneath

    def write(self, value: str) -> int:
        self.rich_proxied_file.write(text(value))
        return len(value)

    def writelines(self, lines: Iterable[str]) -> None:
        for line_text in lines:
            self.write(line_text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def unguarded(stream: TextIO) -> TextIO:
    """Innermost stream, on which control characters are obeyed."""
    while (inner := getattr(stream, "rich_proxied_file", None)) is not None:
        stream = inner
    return stream


def guard() -> None:
    """Escapes control characters in everything that this process prints from now on."""
    sys.stdout, sys.stderr = (
        stream if isinstance(stream, Stream) else Stream(stream) for stream in (sys.stdout, sys.stderr)
    )
