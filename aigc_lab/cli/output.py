"""What commands print, and how they open the registry."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from aigc_lab.registry.store import Registry


def opened(home: Path | None) -> "Registry":
    from aigc_lab.registry.store import Registry
    from aigc_lab.settings import Settings

    settings = Settings.load(home)
    return Registry.open(settings.registry_url, home=settings.home, create=False)


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


def print_json(value: Any) -> None:
    print(_json(value))


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
            sys.stdout.write(f"{start}\n  {text}")
            start = ","
    print("\n]" if start == "," else "[]")


def print_table(renderable: "RenderableType") -> None:
    from aigc_lab.tables import console

    out = console()
    if out.is_terminal:
        out.print(renderable, crop=False)
        return
    # A file and a pipe have no right margin to fill.
    with out.capture() as capture:
        out.print(renderable, crop=False)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))
