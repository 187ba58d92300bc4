"""A console that writes control characters out, and the pieces of which its tables are made.

Names and ids are what the user copies into the next command, so their columns are as wide as they are; configurations
wrap instead. What a name holds is shown and never obeyed: consoles read no markup, `cell` writes control characters
out, and the console does so with whatever is left.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Self

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text as RichText

from aigc_lab.host import visible

# Styles of a state. Green and yellow can hardly be read on white, nor dim text in soft themes like Solarized: what has
# to be read is plain, bold or red, and dim is left to lines.
GOOD, WARNING, BAD = "", "bold", "bold red"


def console(*, stderr: bool = False) -> Console:
    """For a terminal, as wide as it is; for a pipe, as wide as needed, so that every row is one line."""
    stream = visible.unguarded(sys.stderr if stderr else sys.stdout)
    piped = not stream.isatty() and "COLUMNS" not in os.environ
    width = 10_000 if piped else None
    return _Console(file=stream, stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


class _Console(Console):
    """One that writes control characters out, except its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible.text(segment.text), segment.style)


class Text(RichText):
    """Rich's text, in which control characters are written out; line ends stay."""

    def __init__(self, text: str = "", *style: Any, **options: Any) -> None:
        super().__init__(visible.text(text), *style, **options)

    def append(self, text: RichText | str, style: Any = None) -> Self:
        super().append(visible.text(text) if isinstance(text, str) else text, style)
        return self


def cell(value: str) -> Text:
    """A name or a value of a table, in one line."""
    return Text(visible.line(value))


def cell_width(value: str) -> int:
    """The columns of the terminal that a cell takes."""
    return cell(value).cell_len


def unwrapped(text: Text, style: str = "") -> Text:
    """The text in one line, however wide the terminal is: what is copied must not be broken."""
    text.no_wrap, text.overflow = True, "ignore"
    if style:
        text.stylize(style)
    return text


def plain_table(**options: Any) -> Table:
    """A table with a line below its headings and no other."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), **options)


def heading(text: str) -> Text:
    """A heading within a page, after an empty line."""
    return Text(f"\n{text}", style="bold")


def facts_table(facts: Mapping[str, str]) -> Table:
    """One line a name with its fact; facts that are "" are left out."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=max(map(cell_width, facts), default=0))
    table.add_column(overflow="fold", min_width=cell_width(facts.get("run", "")))
    for name, fact in facts.items():
        if fact:
            table.add_row(cell(name), cell(fact))
    return table
