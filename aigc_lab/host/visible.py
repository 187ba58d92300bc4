r"""Text as it is shown: what a terminal or a page would obey is written out instead.

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
    """Text of ours with names in it: line ends and tabs stay."""
    return _escaped(value, "\n\t")


def line(value: str) -> str:
    """A name, or a sentence with names in it: what fits in a line."""
    return _escaped(value, "")


def _escaped(value: str, kept: str) -> str:
    if value.isprintable():  # nothing to do, nearly always
        return value

    def escape(found: re.Match[str]) -> str:
        what = found[0]
        if len(what) > 1 or what in kept or (what in _JOINERS and _joins(value, found.start())):
            return what
        code = ord(what)
        if what in _SHORT or code < 0x100:
            return _SHORT.get(what, f"\\x{code:02x}")
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return _OBEYED.sub(escape, value)


def _joins(value: str, place: int) -> bool:
    """Whether a joiner stands between letters of a script that has them, or between parts of an emoji."""
    around = value[max(place - 1, 0) : place], value[place + 1 : place + 2]
    return all(each > "\x7f" and unicodedata.category(each) in ("Lo", "Mn", "Mc", "So", "Sk") for each in around)


class Stream:
    """A stream to a terminal, a log or a pipe, on which all is shown and nothing obeyed, except what is written to
    `rich_proxied_file`, the stream beneath: rich's own colours and cursors, which asks for it by this name.
    """

    def __init__(self, beneath: TextIO) -> None:
        self.rich_proxied_file = beneath

    def write(self, what: str) -> int:
        self.rich_proxied_file.write(text(what))
        return len(what)

    def writelines(self, lines: Iterable[str]) -> None:
        for each in lines:
            self.write(each)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def beneath(stream: TextIO) -> TextIO:
    """The stream under those that only show, for what is to be obeyed."""
    while (found := getattr(stream, "rich_proxied_file", None)) is not None:
        stream = found
    return stream


def guard() -> None:
    """From now on all that this process prints is shown, and not obeyed."""
    sys.stdout, sys.stderr = (each if isinstance(each, Stream) else Stream(each) for each in (sys.stdout, sys.stderr))
