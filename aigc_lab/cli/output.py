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
    """The garbage collector is off within the block. Hundred thousands of rows hold no cycles, and searching them for
    cycles takes a tenth of the time.
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
    """A function that shows its argument as the current activity, on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda activity: None
        return
    from aigc_lab.display.terminal import console

    with console(stderr=True).status("") as status:
        yield status.update


# The streams for JSON, while standard output is reserved for it.
_reserved: list[TextIO] = []


@contextmanager
def reserved(json: bool) -> "Iterator[None]":
    """Reserves standard output for JSON within the block, if that is `json`: what a user's file or a library prints
    goes to standard error.
    """
    if not json:
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
    r"(?<![\w-])aigc-lab (sweep|train|resume|stop|status|verify|reconcile|spool|export|import|delete|doctor|bench"
    r"|promote|sample|ui|compare|runs|show|report|plot|models|rejudge)\b(?![^;)']*--home)"
)


def as_typed(text: str, words: "Sequence[str] | None" = None) -> str:
    """The text with the --home of this command line (or of `words`) added to every command that it names, so that the
    commands work as they are typed.
    """
    arguments = list(sys.argv[1:] if words is None else words)
    home = next((each.partition("=")[2] for each in arguments if each.startswith("--home=")), None)
    if "--home" in arguments[:-1]:
        home = arguments[arguments.index("--home") + 1]
    return text if home is None else _REMEDY.sub(lambda match: f"{match[0]} --home {shlex.quote(home)}", text)


def _out() -> TextIO:
    return _reserved[-1] if _reserved else sys.stdout


def print_json(value: Any) -> None:
    print(_json(value), file=_out())


def _json(value: Any) -> str:
    """JSON in ASCII, with control characters escaped that a terminal would obey."""
    import json

    return json.dumps(value, indent=2, allow_nan=False).replace("\x7f", "\\u007f")


def print_rows(parts: "Iterable[list[dict[str, Any]]]") -> None:
    """Prints a JSON list as `print_json` does, part after part: the whole list may not fit into memory."""
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
    # Rich pads lines up to the width of a terminal, which a file or a pipe does not need.
    with out.capture() as capture:
        out.print(renderable, crop=False)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))
