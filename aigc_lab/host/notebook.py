"""HTML that a notebook shows of a result. Every text is escaped: names and reasons come from files of other people."""

import html
from collections.abc import Iterable, Sequence

from aigc_lab.host import visible


def escaped(text: str) -> str:
    """Text as HTML, with control characters written out."""
    return html.escape(visible.line(text))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()) -> str:
    """A table, and below it notes in small letters.

    >>> table(["name"], [["<b>"]])
    '<table><thead><tr><th>name</th></tr></thead><tbody><tr><td>&lt;b&gt;</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{escaped(each)}</th>" for each in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escaped(each)}</td>' for each in row)}</tr>" for row in rows)
    below = "".join(f"<div><small>{escaped(note)}</small></div>" for note in notes)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def lines(text: str, note: str) -> str:
    """Text in lines as a terminal shows it, and below it a note in small letters."""
    return f"<pre>{html.escape(visible.text(text))}</pre><div><small>{escaped(note)}</small></div>"
