"""What commands print, and how they open the registry."""

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

    from aigc_lab.host.settings import Settings
    from aigc_lab.registry.store import Registry


def opened(home: "Path | Settings | None") -> "Registry":
    """The registry of a home, or of its settings where they are loaded already."""
    from aigc_lab.host.settings import Settings
    from aigc_lab.registry.home import open_registry

    return open_registry(home if isinstance(home, Settings) else Settings.load(home))


@contextmanager
def uncollected() -> "Iterator[None]":
    """Rows by the hundred thousand refer to nothing that refers to them: looking for such garbage among them takes a
    tenth of the time.
    """
    import gc

    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def progress() -> "Iterator[Callable[[str], object]]":
    """What is called with what is being done, for a person at a terminal; standard output is left alone."""
    if not sys.stderr.isatty():
        yield lambda doing: None
        return
    from aigc_lab.display.terminal import console

    with console(stderr=True).status("") as shown:
        yield shown.update


# Where JSON goes, while standard output is kept for it.
_reserved: list[TextIO] = []


@contextmanager
def reserved(wanted: bool) -> "Iterator[None]":
    """Within, standard output is kept for JSON, where that is `wanted`: what a user's file or a library prints goes to
    standard error.
    """
    if not wanted:
        yield
        return
    _reserved.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _reserved.pop().flush()


# Commands that take --home, as a remedy names them.
_REMEDY = re.compile(
    r"(?<![\w-])aigc-lab (sweep|train|resume|stop|status|verify|reconcile|spool|export|import|delete|doctor|promote"
    r"|sample|ui|compare|runs|show|report|models|rejudge)\b(?![^;)']*--home)"
)


def as_typed(text: str, words: "Sequence[str] | None" = None) -> str:
    """A text whose remedies work as they are typed: with the home that this command line names, where it names one."""
    given = list(sys.argv[1:] if words is None else words)
    home = next((each.partition("=")[2] for each in given if each.startswith("--home=")), None)
    if "--home" in given[:-1]:
        home = given[given.index("--home") + 1]
    return text if home is None else _REMEDY.sub(lambda found: f"{found[0]} --home {shlex.quote(home)}", text)


def _out() -> TextIO:
    return _reserved[-1] if _reserved else sys.stdout


def print_json(value: Any) -> None:
    print(_json(value), file=_out())


def _json(value: Any) -> str:
    """In ASCII, with escapes of its own for what a terminal would obey."""
    import json

    return json.dumps(value, indent=2, allow_nan=False).replace("\x7f", "\\u007f")


def print_rows(parts: "Iterable[list[dict[str, Any]]]") -> None:
    """A list in JSON as `print_json` would print it, part after part: all of it may be more than memory holds."""
    start = "["
    for part in parts:
        for row in part:
            text = _json(row).replace("\n", "\n  ")
            _out().write(f"{start}\n  {text}")
            start = ","
    print("\n]" if start == "," else "[]", file=_out())


def print_table(renderable: "RenderableType") -> None:
    from aigc_lab.display.terminal import console

    out = console()
    if out.is_terminal:
        out.print(renderable, crop=False)
        return
    # A file and a pipe have no right margin to fill.
    with out.capture() as capture:
        out.print(renderable, crop=False)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))
