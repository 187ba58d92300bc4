"""Outages of stores, such as a database server that is restarted: requests are repeated until it is back.

All threads of a process share the outage of a store, by its name: its beginning and its end are reported once, and all
threads wait until the same moment, `settings.store_patience()` seconds after the first had to wait. Later requests are
tried once.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from aigc_lab.errors import Failure
from aigc_lab.host import signals
from aigc_lab.host.settings import store_patience

T = TypeVar("T")

# Seconds between two tries: the first pause, doubled up to the longest. A server restarts in less than a second.
_FIRST, _LONGEST = 0.1, 3.0
# How soon, in seconds, an interruption ends the wait.
_LOOK = 0.1


class StoreAway(Failure):
    """A store is away, and waiting for it was in vain or could not help. The request may be repeated later."""


@dataclass
class _Outage:
    until: float | None = None  # on the monotonic clock; None while nobody has had to wait
    over: bool = False  # the patience has come to its end


# Reentrant: `given_up` takes it within `_seconds_left`.
_lock = threading.RLock()
_outages: dict[str, _Outage] = {}
_listeners: list[Callable[[str], None]] = []
_thread = threading.local()


def ask(store: str, work: Callable[[], T], away: Callable[[Exception], str | None]) -> T:
    """Result of `work`, which is repeated while the store is away and the patience lasts.

    `away` returns the reason of an error that means an outage, and None for every other error, which is raised as it
    is. `work` must be safe to repeat: the answer to a commit may have been lost. Raises `StoreAway` when the patience
    has ended, the process is to end, or this thread `tries_once`.

    Of nested requests only the outermost reports that a store is back: a server that accepts connections and fails at
    the requests is away all the time.
    """
    pause = _FIRST
    while True:
        try:
            with _asking(store) as outermost:
                result = work()
        except Exception as error:
            reason = away(error)
            if reason is None:
                raise
            seconds_left = _seconds_left(store, reason)
            if seconds_left <= 0 or signals.stop_requested():
                raise StoreAway(_sentence(store, reason)) from error
            _sleep(min(pause, seconds_left))
            pause = min(2 * pause, _LONGEST)
        else:
            if outermost:
                _back(store)
            return result


@contextmanager
def _asking(store: str) -> Iterator[bool]:
    """Context of a request; yields whether it is this thread's outermost request to the store."""
    stores: set[str] = _thread.__dict__.setdefault("asked", set())
    outermost = store not in stores
    stores.add(store)
    try:
        yield outermost
    finally:
        if outermost:
            stores.discard(store)


@contextmanager
def tries_once() -> Iterator[None]:
    """Context in which this thread does not wait for stores."""
    previous = getattr(_thread, "once", False)
    _thread.once = True
    try:
        yield
    finally:
        _thread.once = previous


@contextmanager
def reported_to(say: Callable[[str], None]) -> Iterator[None]:
    """Context in which outages and their ends are reported to `say` instead of standard error. Earlier outages are
    forgotten.
    """
    with _lock:
        _outages.clear()
        _listeners.append(say)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(say)


def given_up() -> bool:
    """Whether some store has been away for longer than the patience, and still is."""
    with _lock:
        return any(outage.over for outage in _outages.values())


def _seconds_left(store: str, reason: str) -> float:
    """Seconds for which this thread may wait from now on."""
    with _lock:
        outage = _outages.get(store)
        if outage is None:
            outage = _outages[store] = _Outage()
            _say(f"{store} is away ({reason}); waiting up to {store_patience():g} s")
        if getattr(_thread, "once", False):
            return 0.0
        if given_up():  # two stores on one server: the second is not waited for when the first was in vain
            outage.over = True
        if outage.until is None:
            outage.until = time.monotonic() + store_patience()
        seconds = 0.0 if outage.over else outage.until - time.monotonic()
        outage.over = seconds <= 0
        return seconds


def _sentence(store: str, reason: str) -> str:
    with _lock:
        waited = f", and was waited for {store_patience():g} s" if store in _outages and _outages[store].over else ""
    return f"{store} is away ({reason}){waited}"


def _back(store: str) -> None:
    if store in _outages:  # a look without the lock costs nothing where all is well
        with _lock:
            if _outages.pop(store, None) is not None:
                _say(f"{store} is back")


def _sleep(seconds: float) -> None:
    until = time.monotonic() + seconds
    while (remaining := until - time.monotonic()) > 0 and not signals.stop_requested():
        time.sleep(min(remaining, _LOOK))


def _say(text: str) -> None:
    listeners = list(_listeners)
    if not listeners:
        print(text, file=sys.stderr, flush=True)
    for say in listeners:
        say(text)
