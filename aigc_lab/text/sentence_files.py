"""Files of sentences, one a line. Errors name the line and the byte."""

from pathlib import Path

from aigc_lab.errors import UsageError


def read_lines(path: Path, what: str = "") -> tuple[list[str], int]:
    """Sentences of a UTF-8 file, stripped of white space, and the number of blank lines. Raises `UsageError` as
    `read_every_line` does.
    """
    lines = read_every_line(path, what)
    sentences = [line for line in lines if line]
    return sentences, len(lines) - len(sentences)


def read_every_line(path: Path, what: str = "") -> list[str]:
    """Lines of a UTF-8 file, blank ones included, stripped of white space.

    Windows and old Macintosh line ends, a byte order mark and tabs are accepted. Raises `UsageError` with the line and
    the byte if the file is not text, and for a file without a sentence.
    """
    # Not str.splitlines: it also cuts at what may stand within a sentence, such as U+2028 or a form feed.
    return [line.strip() for line in read_text(path, what).split("\n")]


def read_text(path: Path, what: str = "") -> str:
    r"""Content of a UTF-8 file with "\n" between its lines, without a byte order mark. Raises `UsageError` as
    `read_every_line` does.
    """
    name = f"{what}: {path}" if what else str(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror})") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{name}: is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
    shift = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    raw = raw[shift:]
    zero = raw.find(b"\0")
    if zero >= 0:
        raise UsageError(f"{name}: {_place(raw, zero, shift)} is a zero byte: a binary file, and no text")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name}: {_place(raw, error.start, shift)} (0x{raw[error.start]:02x}) is not UTF-8; "
            "save it as UTF-8 (iconv -f LATIN1 -t UTF-8)"
        ) from None
    if not text.strip():
        raise UsageError(f"{name}: {'is empty' if not raw else 'holds blank lines only'}; give one sentence a line")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    last = text.rfind("\n") + 1
    # White space behind the last end of a line is no line.
    return text if text[last:].strip() else text[: last - 1]


def _place(raw: bytes, at: int, shift: int) -> str:
    before = raw[:at].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return f"line {before.count(bytes([10])) + 1}, byte {at + shift + 1}"
