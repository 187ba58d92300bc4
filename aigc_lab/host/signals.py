"""Ctrl-C and SIGTERM: first a wish that the work under way be saved, then an end.

Inside `handled` a first signal is a wish. Work that must not be torn apart runs in `deferred`, asks `wanted()` between
two of its steps, and is then interrupted where it ends; elsewhere, and inside `at_once`, the signal raises
`KeyboardInterrupt` as usual. A second Ctrl-C, or `LIMIT` seconds, end the process whatever it is doing: what is on the
disk is enough to go on from.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# Seconds from the wish to the end. Whoever sent the signal waits for 10, as docker does.
LIMIT = 9.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TOLD = "stopping: the runs under way are being saved; Ctrl-C again leaves at once"
_CODE = 130  # of a command that Ctrl-C ended

_wish = threading.Event()
_handling = False
_said: list[Callable[[str], None]] = []
_last_acts: list[Callable[[], None]] = []
_thread = threading.local()  # handlers run in the main thread, and only its depth counts there


def _no_hurry() -> None: ...


# Lets the process end in LIMIT seconds, where it exists for the work alone.
_hurry: Callable[[], None] = _no_hurry


def wanted() -> bool:
    """Whether the work under way is to end. Costs next to nothing: a training asks at every step."""
    return _wish.is_set()


def raise_if_interrupted() -> None:
    """Raises `KeyboardInterrupt` when the work under way is to end."""
    if _wish.is_set():
        raise KeyboardInterrupt


def want() -> None:
    """Asks the work of this process to end, as SIGTERM does. Callable from any thread."""
    if _handling:
        os.kill(os.getpid(), signal.SIGTERM)
        _hurry()  # Python handles signals between two of its steps, and the work may be in one call that never ends
    else:
        _wish.set()  # the process has other work to do, and goes on


@contextmanager
def handled(*, exits: bool = True) -> Iterator[None]:
    """Handles signals while the work within goes on. `exits` says that the process exists for this work alone, and may
    be ended; else a second Ctrl-C raises. Within itself, and in a thread, whose process decides about its signals, it
    changes nothing.

    It should begin before anything large is imported: what an interrupted import leaves behind is broken, some
    libraries swallow the exception, and then only the wish remains.
    """
    global _handling, _hurry
    if _handling or threading.current_thread() is not threading.main_thread():
        yield
        return
    _wish.clear()
    timer = threading.Timer(LIMIT, _leave_late)
    timer.daemon = True

    def hurry() -> None:
        with suppress(RuntimeError):  # it has been started
            timer.start()

    def receive(number: int, _: FrameType | None) -> None:
        if _wish.is_set():
            # A whole group may be told twice to end; a second Ctrl-C is meant.
            if number == signal.SIGINT and exits:
                leave()
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        _wish.set()
        if exits:
            hurry()
        # In a thread: the handler may have interrupted whoever is printing.
        for say in _said:
            threading.Thread(target=say, args=(_TOLD,)).start()
        if not getattr(_thread, "depth", 0):
            raise KeyboardInterrupt

    before = {number: signal.signal(number, receive) for number in SIGNALS}
    _handling, _hurry = True, hurry if exits else _no_hurry
    try:
        yield
    finally:
        _handling, _hurry = False, _no_hurry
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
        _wish.clear()


@contextmanager
def told(say: Callable[[str], None]) -> Iterator[None]:
    """Within, somebody is told of a first signal."""
    _said.append(say)
    try:
        yield
    finally:
        _said.remove(say)


@contextmanager
def last_act(do: Callable[[], None]) -> Iterator[None]:
    """Within, something is done before the process leaves because it took too long: it ends children that may not be
    able to end by themselves.
    """
    _last_acts.append(do)
    try:
        yield
    finally:
        _last_acts.remove(do)


def _leave_late() -> None:
    for do in _last_acts:
        with suppress(Exception):  # nothing may keep this process
            do()
    leave()


def leave() -> None:
    """Ends the process now. The kernel frees its locks, and its children end when their channels close."""
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")  # a progress bar has hidden the cursor
    os._exit(_CODE)


@contextmanager
def deferred() -> Iterator[None]:
    """A signal that comes within is only a wish, which the work asks for with `wanted`."""
    with _at_depth(1):
        yield


@contextmanager
def at_once() -> Iterator[None]:
    """Within deferred work: a signal raises at once, and so does one that has come before."""
    with _at_depth(0):
        raise_if_interrupted()
        yield


@contextmanager
def _at_depth(depth: int) -> Iterator[None]:
    before = getattr(_thread, "depth", 0)
    _thread.depth = depth
    try:
        yield
    finally:
        _thread.depth = before
