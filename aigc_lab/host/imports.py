"""Imports of large libraries, and the end of a process that has made them."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
