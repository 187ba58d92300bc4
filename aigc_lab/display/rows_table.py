"""A table that fits its terminal: what a row's first line cannot hold stands in indented lines below it.

Nothing is broken inside a word: what is wider than the terminal by itself stays whole, to be copied.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult

from aigc_lab.display.terminal import Text, cell, cell_width, unwrapped
from aigc_lab.display.wording import Row

_GAP = 2  # columns of the terminal between two cells
_INDENT = 6  # of the lines below the first


@dataclass(frozen=True)
class Column:
    """A column: its heading and the text of a row, or several texts that lines may break between.

    `yields` says when it leaves the first line: never (0), or before all columns with a larger number. There `label`
    stands before its text (default: the heading).
    """

    heading: str
    text: Callable[[Row], str | list[str]]
    right: bool = False
    yields: int = 0
    label: str | None = None

    def whole(self, row: Row) -> str:
        text = self.text(row)
        return text if isinstance(text, str) else " ".join(text)

    def width(self, rows: Sequence[Row]) -> int:
        """The columns of the terminal that it takes."""
        return max([cell_width(self.heading), *(cell_width(self.whole(row)) for row in rows)])


class RowsTable:
    """One line a row as long as the width holds every column, else the first line and indented ones."""

    def __init__(self, columns: Sequence[Column], rows: Sequence[Row], title: str = "") -> None:
        self._columns, self._rows, self._title = columns, rows, title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.lines(options.max_width)

    def lines(self, width: int) -> Iterator[Text]:
        """The lines of the table in a terminal of this width."""
        widths = [column.width(self._rows) for column in self._columns]
        stay = self._first_line(widths, width)
        if self._title:
            yield unwrapped(cell(self._title), "bold")
        yield self._line([column.heading for column in self._columns], widths, stay, "bold")
        yield unwrapped(Text("─" * _total(widths, stay)), "dim")
        for row in self._rows:
            yield self._line([column.whole(row) for column in self._columns], widths, stay)
            yield from _filled(self._below(row, stay), width)

    def _first_line(self, widths: Sequence[int], width: int) -> list[bool]:
        """Which columns stand in the first line."""
        stay = [True] * len(self._columns)
        for turn in sorted({column.yields for column in self._columns} - {0}):
            if _total(widths, stay) <= width:
                break
            stay = [kept and column.yields != turn for kept, column in zip(stay, self._columns, strict=True)]
        return stay

    def _line(self, texts: Sequence[str], widths: Sequence[int], stay: Sequence[bool], style: str = "") -> Text:
        parts = []
        for text, column, width, kept in zip(texts, self._columns, widths, stay, strict=True):
            if kept:
                written, padding = cell(text).plain, " " * (width - cell_width(text))
                parts.append(padding + written if column.right else written + padding)
        return unwrapped(Text((" " * _GAP).join(parts).rstrip()), style)

    def _below(self, row: Row, stay: Sequence[bool]) -> Iterator[tuple[str, list[str]]]:
        """Label and texts of the columns that left the first line, without empty ones."""
        for column, kept in zip(self._columns, stay, strict=True):
            text = column.text(row)
            texts = [text] if isinstance(text, str) else text
            if not kept and any(texts):
                yield column.heading if column.label is None else column.label, texts


class Folded:
    """A text that breaks after `|`, `;` and spaces: a signature."""

    def __init__(self, text: str) -> None:
        self._text = cell(text).plain

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = ""
        for part in re.findall(r"[^|; ]*[|; ]?", self._text):
            if line and cell_width((line + part).rstrip()) > options.max_width:
                yield unwrapped(Text(line.rstrip()))
                line = ""
            line += part
        yield unwrapped(Text(line.rstrip()))


def _total(widths: Sequence[int], stay: Sequence[bool]) -> int:
    kept = [width for width, stays in zip(widths, stay, strict=True) if stays]
    return sum(kept) + _GAP * (len(kept) - 1)


def _filled(items: Iterable[tuple[str, list[str]]], width: int) -> Iterator[Text]:
    """Indented lines of items. A line breaks between items and between the texts of one, and inside a text only at a
    space, where the text would not fit into a line of its own.
    """
    line, room = Text(" " * _INDENT), width - _INDENT
    used = 0
    for label, texts in items:
        for place, text in enumerate(texts):
            written = cell(text).plain
            name = label if place == 0 else ""
            whole = cell_width(f"{name} {text}" if name else text)
            pieces = [written] if whole <= room else written.split(" ")
            for index, piece in enumerate(pieces):
                labelled = name if index == 0 else ""
                size = cell_width(piece) + (cell_width(labelled) + 1 if labelled else 0)
                gap = 0 if not used else _GAP if place == 0 and index == 0 else 1
                if used and used + gap + size > room:
                    yield unwrapped(line)
                    line, used, gap = Text(" " * _INDENT), 0, 0
                line.append(" " * gap)
                if labelled:
                    line.append(f"{labelled} ")
                line.append(piece)
                used += gap + size
    if used:
        yield unwrapped(line)
