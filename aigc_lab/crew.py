"""Threads that drive work done elsewhere: so much at once, and the first error stops all of it."""

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class Crew:
    """`slots` pieces of work at once; with one slot everything happens in the calling thread, in order.

    A context: leaving it waits for what was started, and raises the first error. `stop` is called on an error or an
    interruption, and must make the work that is under way end soon.
    """

    def __init__(self, slots: int, stop: Callable[[], None]) -> None:
        self._slots = slots
        self._stop = stop
        self._room = threading.Semaphore(slots)
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None

    def enter(self) -> None:
        """Waits until there is room for one more piece of work, which `leave` gives back."""
        if self._slots > 1:
            self._room.acquire()
            if self._error is not None:
                raise self._error

    def leave(self) -> None:
        if self._slots > 1:
            self._room.release()

    def start(self, work: Callable[..., object], *given: Any) -> None:
        """Begins work for which `enter` made room, and which calls `leave` when it needs it no longer."""
        if self._slots == 1:
            work(*given)
            return
        thread = threading.Thread(target=self._guarded, args=(work, *given))
        self._threads.append(thread)
        thread.start()

    def each(self, work: Sequence[Callable[[], T]]) -> list[T]:
        """The results of all pieces, each done when there is room for it."""
        if self._slots == 1:
            return [piece() for piece in work]
        results: dict[int, T] = {}

        def do(index: int) -> None:
            self.enter()
            try:
                results[index] = work[index]()
            finally:
                self.leave()

        threads = [threading.Thread(target=self._guarded, args=(do, index)) for index in range(len(work))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error
        return [results[index] for index in range(len(work))]

    def _guarded(self, work: Callable[..., object], *given: Any) -> None:
        try:
            work(*given)
        except BaseException as error:  # noqa: BLE001 -- it is raised again, in the thread that waits
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
            self._stop()

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self._fail(error)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        if error is None and self._error is not None:
            raise self._error
