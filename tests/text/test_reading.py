"""Files of sentences: what is read of them, and where they are said to be no text."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aigc_lab.errors import UsageError
from aigc_lab.text.sentence_files import read_lines

BOM = b"\xef\xbb\xbf"


def read(tmp_path: Path, raw: bytes) -> tuple[list[str], int]:
    path = tmp_path / "lines.txt"
    path.write_bytes(raw)
    return read_lines(path)


def refused(tmp_path: Path, raw: bytes, what: str = "") -> str:
    path = tmp_path / "lines.txt"
    path.write_bytes(raw)
    with pytest.raises(UsageError) as told:
        read_lines(path, what)
    assert "\n" not in str(told.value)
    return str(told.value).replace(str(path), "FILE")


READ = {
    "unix": (b"one\ntwo\n", ["one", "two"], 0),
    "no newline at the end": (b"one\ntwo", ["one", "two"], 0),
    "windows": (b"one\r\ntwo\r\n", ["one", "two"], 0),
    "old macintosh": (b"one\rtwo\r", ["one", "two"], 0),
    "all three": (b"one\r\ntwo\rthree\nfour", ["one", "two", "three", "four"], 0),
    "byte order mark": (BOM + b"one\ntwo\n", ["one", "two"], 0),
    "byte order mark and windows": (BOM + b"one\r\ntwo", ["one", "two"], 0),
    "blank lines": (b"\n\none\n \t \n\ntwo\n\n", ["one", "two"], 5),
    "blank lines of windows": (b"one\r\n\r\ntwo\r\n", ["one", "two"], 1),
    "tabs": (b"\tone\ttwo\t\nthree\n", ["one\ttwo", "three"], 0),
    "spaces around": (b"  one  two \n", ["one  two"], 0),
    "emoji": ("👩‍👩‍👧 hi\n🇩🇪\n".encode(), ["👩‍👩‍👧 hi", "🇩🇪"], 0),
    "one line": (b"one", ["one"], 0),
    # None of these ends a line, though str.splitlines cuts there.
    "line separator": ("one\u2028two\u2029three\n".encode(), ["one\u2028two\u2029three"], 0),
    "form feed, next line, file separator": ("a\x0cb\x0bc\x85d\x1ce\n".encode(), ["a\x0cb\x0bc\x85d\x1ce"], 0),
}


@pytest.mark.parametrize(("raw", "lines", "blank"), READ.values(), ids=READ)
def test_lines_are_read_whatever_ends_them(tmp_path: Path, raw: bytes, lines: list[str], blank: int) -> None:
    assert read(tmp_path, raw) == (lines, blank)


REFUSED = {
    "empty": (b"", "FILE: is empty; give one sentence a line"),
    "a mark and nothing": (BOM, "FILE: is empty; give one sentence a line"),
    "one end of a line": (b"\n", "FILE: holds blank lines only; give one sentence a line"),
    "blank lines only": (b" \n\r\n\t\n", "FILE: holds blank lines only; give one sentence a line"),
    "zero byte": (b"ok\nb\0d\n", "FILE: line 2, byte 5 is a zero byte: a binary file, and no text"),
    "zero byte first": (b"\0", "FILE: line 1, byte 1 is a zero byte: a binary file, and no text"),
    "zero byte behind a mark": (BOM + b"a\0", "FILE: line 1, byte 5 is a zero byte: a binary file, and no text"),
    "utf-16, little": ("one".encode("utf-16-le"), "FILE: line 1, byte 2 is a zero byte: a binary file, and no text"),
}
NOT_UTF8 = {
    "first byte": (b"\xe9t\xe9\n", 1, 1, 0xE9),
    "second line": (b"ok\nb\xe9d\n", 2, 5, 0xE9),
    "last byte": (b"ok\nbad\xff", 2, 7, 0xFF),
    "cut short": ("ok\nb€".encode()[:-1], 2, 5, 0xE2),
    "surrogate": (b"a\xed\xa0\x80", 1, 2, 0xED),
    "windows": (b"ok\r\nok\r\nb\xe9d\r\n", 3, 10, 0xE9),
    "old macintosh": (b"ok\rok\rb\xe9d\r", 3, 8, 0xE9),
    "behind a mark": (BOM + b"ok\nb\xe9d\n", 2, 8, 0xE9),
    "behind a mark, windows": (BOM + b"ok\r\nb\xe9d\r\n", 2, 9, 0xE9),
    "behind letters of two bytes": ("äö\nü".encode() + b"\xfc", 2, 8, 0xFC),
}


@pytest.mark.parametrize(("raw", "told"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_text_is_refused(tmp_path: Path, raw: bytes, told: str) -> None:
    assert refused(tmp_path, raw) == told


@pytest.mark.parametrize(("raw", "line", "byte", "value"), NOT_UTF8.values(), ids=NOT_UTF8)
def test_other_encodings_are_refused_by_line_and_byte(
    tmp_path: Path, raw: bytes, line: int, byte: int, value: int
) -> None:
    assert raw[byte - 1] == value  # what is told is a place in the file
    told = refused(tmp_path, raw)
    assert told.startswith(f"FILE: line {line}, byte {byte} (0x{value:02x}) is not UTF-8; save it as UTF-8")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("ab é\t", max_size=4), max_size=6), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_the_first_bad_byte_is_where_it_was_put(
    tmp_path_factory: pytest.TempPathFactory, before: list[str], end: str, mark: bool
) -> None:
    place = tmp_path_factory.getbasetemp()
    head = (BOM if mark else b"") + "".join(line + end for line in before).encode()
    for bad, told in ((b"\xff", "(0xff) is not UTF-8"), (b"\0", "is a zero byte")):
        if bad == b"\xff" and not head:
            continue  # with what follows it might be the mark of UTF-16
        assert f"line {len(before) + 1}, byte {len(head) + 1} {told}" in refused(
            place, head + bad + b"x" + end.encode()
        )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_the_marks_of_wide_encodings_are_known(tmp_path: Path, encoding: str) -> None:
    assert refused(tmp_path, "one\ntwo\n".encode(encoding)).startswith("FILE: is UTF-16; save it as UTF-8 (iconv")


def test_utf_16_of_the_other_order_is_known(tmp_path: Path) -> None:
    assert "is UTF-16" in refused(tmp_path, b"\xfe\xff" + "one".encode("utf-16-be"))


def test_an_option_is_named_before_its_file(tmp_path: Path) -> None:
    assert refused(tmp_path, b"", "data.path") == "data.path: FILE: is empty; give one sentence a line"


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent.txt: cannot be read \(No such file or directory\)"):
        read_lines(tmp_path / "absent.txt")
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory\)"):
        read_lines(tmp_path)
