"""Ctrl-C and SIGTERM: first a request to save the work under way, then the end.

Inside `handled` a first signal is a request. Work that must not be torn apart runs in `deferred`, asks
`stop_requested()` between two of its steps, and is interrupted where it ends. Elsewhere, and inside `at_once`, the
signal raises `KeyboardInterrupt` as usual. A second Ctrl-C, or `LIMIT` seconds, end the process whatever it is doing;
the files on the disk suffice to continue.
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
# SIGUSR2 comes from Slurm, some time before it ends a job.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
_STOPPING = "stopping: the runs under way are being saved; Ctrl-C again leaves at once"
_CODE = 130  # of a command that Ctrl-C ended

_wish = threading.Event()
_handling = False
_unhurried = False  # of the next signal: the work may take its time
_listeners: list[Callable[[str], None]] = []
_last_acts: list[Callable[[], None]] = []
_thread = threading.local()  # handlers run in the main thread, and only its depth counts there


def _no_hurry() -> None: ...


# Lets the process end in LIMIT seconds, where it exists for the work alone.
_hurry: Callable[[], None] = _no_hurry


def stop_requested() -> bool:
    """Whether the work under way is to end. Costs next to nothing, since a training asks at every step."""
    return _wish.is_set()


def raise_if_interrupted() -> None:
    """Raises `KeyboardInterrupt` when the work under way is to end."""
    if _wish.is_set():
        raise KeyboardInterrupt


def request_stop(*, hurry: bool = True) -> None:
    """Asks the work of this process to end, as SIGTERM does; without `hurry` it may take its time, until a signal
    comes. Callable from any thread.
    """
    global _unhurried
    if _handling:
        _unhurried = not hurry
        os.kill(os.getpid(), signal.SIGTERM)
        if hurry:
            _hurry()  # Python handles signals between two of its steps, and the work may be in one call without an end
    else:
        _wish.set()  # the process has other work to do, and goes on


@contextmanager
def handled(*, exits: bool = True) -> Iterator[None]:
    """Context that handles signals while its work goes on. Does nothing when nested, and in a thread, since signals
    belong to the main thread.

    `exits` says that the process exists for this work alone and may be ended; otherwise a second Ctrl-C raises. Enter
    it before large imports: an interrupted import leaves broken modules, and where a library swallows the exception,
    only the request remains.
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
        global _unhurried
        hurried, _unhurried = not _unhurried, False
        if _wish.is_set():
            # A whole group may be told twice to end; a second Ctrl-C is meant.
            if number == signal.SIGINT and exits:
                leave()
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            if exits and hurried:  # the first one may have left it its time
                hurry()
            return
        _wish.set()
        if exits and hurried:
            hurry()
        # In a thread: the handler may have interrupted whoever is printing.
        for say in _listeners:
            threading.Thread(target=say, args=(_STOPPING,)).start()
        if not getattr(_thread, "depth", 0):
            raise KeyboardInterrupt

    handlers = {number: signal.signal(number, receive) for number in SIGNALS}
    _handling, _hurry = True, hurry if exits else _no_hurry
    try:
        yield
    finally:
        _handling, _hurry = False, _no_hurry
        timer.cancel()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _wish.clear()


@contextmanager
def announced_to(say: Callable[[str], None]) -> Iterator[None]:
    """Context in which a first signal is announced to `say`."""
    _listeners.append(say)
    try:
        yield
    finally:
        _listeners.remove(say)


@contextmanager
def last_act(do: Callable[[], None]) -> Iterator[None]:
    """Context in which `do` runs before the process is ended for taking too long, to end children that may not end by
    themselves.
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
    """Ends the process now. The kernel releases its locks, and its children end when their channels close."""
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")  # a progress bar has hidden the cursor
    os._exit(_CODE)


@contextmanager
def deferred() -> Iterator[None]:
    """Context in which a signal is only a request, which the work polls with `stop_requested`."""
    with _at_depth(1):
        yield


@contextmanager
def at_once() -> Iterator[None]:
    """Context within deferred work in which a signal raises at once, as does one that came before."""
    with _at_depth(0):
        raise_if_interrupted()
        yield


@contextmanager
def _at_depth(depth: int) -> Iterator[None]:
    previous = getattr(_thread, "depth", 0)
    _thread.depth = depth
    try:
        yield
    finally:
        _thread.depth = previous
