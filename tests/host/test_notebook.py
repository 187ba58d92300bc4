"""What notebooks show: nothing of a name is obeyed, and every cell is there."""

import html
from html.parser import HTMLParser

from aigc_lab.host import notebook

HOSTILE = "<script>alert('x')</script> & \"q\" \x1b[31m \u202e"


class Seen(HTMLParser):
    """Tags and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_table_shows_every_cell_as_text() -> None:
    seen = Seen(notebook.table(["a", HOSTILE], [["1", HOSTILE], ["", "2"]], [HOSTILE]))
    shown = HOSTILE.replace("\x1b", r"\x1b").replace("\u202e", r"\u202e")
    assert seen.texts == ["a", shown, "1", shown, "2", shown]
    assert seen.tags == ["table", "thead", "tr", "th", "th", "tbody", *["tr", "td", "td"] * 2, "div", "small"]


def test_lines_stay_lines() -> None:
    seen = Seen(notebook.lines(f"one\n  {HOSTILE}", "note <b>"))
    assert seen.tags == ["pre", "div", "small"]
    assert seen.texts[0].startswith("one\n  <script>") and "\x1b" not in seen.texts[0]
    assert seen.texts[-1] == "note <b>"


def test_escapes_are_those_of_the_standard_library() -> None:
    assert html.unescape(notebook.escaped("<&>\"'")) == "<&>\"'"
    assert not {"<", ">", '"', "'"} & set(notebook.escaped("<&>\"'"))
