"""Pool of threads that drive work done elsewhere; the first error stops all of it."""

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class ThreadPool:
    """Runs `slots` pieces of work at once; with one slot everything happens in the calling thread, in order, unless the
    pool `grows`: then `resize` may change their number at any time.

    A context: leaving it waits for the started work, and raises the first error. `stop` is called on an error or an
    interruption, and must make the work under way end soon.
    """

    def __init__(self, slots: int, stop: Callable[[], None], *, grows: bool = False) -> None:
        self._slots = self._free = slots
        self._alone = slots == 1 and not grows
        self._stop = stop
        self._changed = threading.Condition()
        self._pieces = 0  # of work that was begun, and waits for room: they go before work that was not
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None

    def enter(self) -> None:
        """Waits for a free slot for new work; `leave` returns it."""
        if not self._alone:
            with self._changed:
                self._wait(lambda: self._free > 0 and not self._pieces)
                self._free -= 1

    def resize(self, slots: int) -> None:
        """Runs so many pieces of work at once from now on; those under way go on."""
        with self._changed:
            self._free += slots - self._slots
            self._slots = slots
            self._changed.notify_all()

    def leave(self) -> None:
        """Returns a slot."""
        if not self._alone:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def start(self, work: Callable[..., object], *arguments: Any) -> None:
        """Begins work in a slot taken by `enter`, which is returned when the work ends."""
        if self._alone:
            work(*arguments)
            return

        def do() -> None:
            try:
                work(*arguments)
            finally:
                self.leave()

        self._begin(do)

    def each(self, work: Sequence[Callable[[], T]], *, holding: bool = False) -> list[T]:
        """Results of all pieces in order; each runs when a slot is free. A caller that is `holding` a slot lends it to
        the pieces meanwhile.
        """
        if self._alone or not work:
            return [piece() for piece in work]
        results: dict[int, T] = {}

        def do(index: int) -> None:
            with self._changed:
                try:
                    self._wait(lambda: self._free > 0)
                    self._free -= 1
                finally:
                    self._pieces -= 1
                    self._changed.notify_all()
            try:
                results[index] = work[index]()
            finally:
                self.leave()

        with self._changed:
            self._pieces += len(work)
            self._free += holding
        threads = [self._begin(lambda index=index: do(index)) for index in range(len(work))]  # type: ignore[misc]
        for thread in threads:
            thread.join()
        with self._changed:
            self._free -= holding  # for a moment there may be less than none: nobody begins anything before there is
        if self._error is not None:
            raise self._error
        return [results[index] for index in range(len(work))]

    def _wait(self, ready: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: self._error is not None or ready())
        if self._error is not None:
            raise self._error

    def _begin(self, work: Callable[[], object]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 -- it is raised again, in the thread that waits
                self._fail(error)

        thread = threading.Thread(target=guarded)
        self._threads.append(thread)
        thread.start()
        return thread

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            first = self._error is None
            self._error = self._error or error
            self._changed.notify_all()
        if first:
            self._stop()

    def __enter__(self) -> "ThreadPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self._fail(error)
        # Work under way may begin further threads until the last one is joined.
        while self._threads:
            self._threads[0].join()
            self._threads.pop(0)
        if error is None and self._error is not None:
            raise self._error
