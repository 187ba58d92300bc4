"""Imports of large libraries, and the end of a process that has made them."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def uncollected() -> Iterator[None]:
    """Context of an import that makes many objects and no garbage: Python's collector, which would search all of them
    again and again, rests. Of torch's import it is a seventh.

    >>> with uncollected():
    ...     import json
    >>> gc.isenabled()
    True
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def end_quickly() -> None:
    """Has this process, which is the laboratory's own, end without a search for garbage. Python would search all that
    libraries have made, three times: with torch that is most of a second, which whoever waits for the end waits too.
    """
    atexit.unregister(_forgo_search)
    atexit.register(_forgo_search)


def _forgo_search() -> None:
    with suppress(Exception):  # a library's module may be anything
        members = (value for module in [*sys.modules.values()] for value in [*vars(module).values()])
        # What is bound by nanobind, as triton is, would be reported as leaked.
        if not any(type(value).__module__ == "nanobind" for value in members):
            gc.freeze()
