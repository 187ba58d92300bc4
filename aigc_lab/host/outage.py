"""Stores that go away for a while, such as a database server that is restarted: they are waited for.

A store has a name, under which its outage is shared by all threads of a process: it is said once that it is away and
once that it is back, and all of them wait until the same moment. That is `settings.store_patience()` seconds after the
first of them had to wait. Whoever asks after that tries once.
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
    """A store is away, and was waited for where that could help. What was asked of it may be asked again."""


@dataclass
class _Outage:
    until: float | None = None  # on the monotonic clock; None while nobody has had to wait
    over: bool = False  # the patience has come to its end


_lock = threading.RLock()
_outages: dict[str, _Outage] = {}
_listeners: list[Callable[[str], None]] = []
_thread = threading.local()


def ask(store: str, work: Callable[[], T], away: Callable[[Exception], str | None]) -> T:
    """The result of `work`, which is tried again for as long as the store is away and the patience lasts.

    `away` gives the reason of an error that says so, and None for every other error, which is raised as it is. `work`
    must be safe to repeat: the answer to a commit may have been lost. Raises `StoreAway` when the patience has ended,
    the process is to end, or this thread `tries_once`.

    Of questions within questions the outermost says when a store is back: a server that takes connections and fails at
    what is asked then is away all the time.
    """
    pause = _FIRST
    while True:
        try:
            with _within(store) as outermost:
                result = work()
        except Exception as error:
            reason = away(error)
            if reason is None:
                raise
            left = _left(store, reason)
            if left <= 0 or signals.wanted():
                raise StoreAway(_sentence(store, reason)) from error
            _sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST)
        else:
            if outermost:
                _back(store)
            return result


@contextmanager
def _within(store: str) -> Iterator[bool]:
    """Whether this thread asks a store nothing else meanwhile."""
    asked: set[str] = _thread.__dict__.setdefault("asked", set())
    outermost = store not in asked
    asked.add(store)
    try:
        yield outermost
    finally:
        if outermost:
            asked.discard(store)


@contextmanager
def tries_once() -> Iterator[None]:
    """Within, this thread does not wait: it has something better to do, or asks again by itself."""
    before = getattr(_thread, "once", False)
    _thread.once = True
    try:
        yield
    finally:
        _thread.once = before


@contextmanager
def told(say: Callable[[str], None]) -> Iterator[None]:
    """Within, somebody is told when a store is away and when it is back; else standard error is. What was known of
    outages before is forgotten.
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
    """Whether some store has been away for longer than anybody waits, and still is."""
    with _lock:
        return any(outage.over for outage in _outages.values())


def _left(store: str, reason: str) -> float:
    """Seconds for which this thread waits from now on."""
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
        left = 0.0 if outage.over else outage.until - time.monotonic()
        outage.over = left <= 0
        return left


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
    while (left := until - time.monotonic()) > 0 and not signals.wanted():
        time.sleep(min(left, _LOOK))


def _say(text: str) -> None:
    listeners = list(_listeners)
    if not listeners:
        print(text, file=sys.stderr, flush=True)
    for say in listeners:
        say(text)
