"""Follows the runs that a sweep has under way, by one thread that reads the registry for all of them."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from aigc_lab.errors import Failure
from aigc_lab.host import outage
from aigc_lab.registry import liveness
from aigc_lab.registry.store import Registry

Json = dict[str, Any]

# Seconds between two looks: after something happened, and, doubled each time, at most; and between two looks at the
# workers.
_SOON, _SELDOM, _WORKERS = 0.02, 0.2, 0.5


class Ended:
    """Whoever did the run is done with it; the registry says how it ended."""


@dataclass(frozen=True)
class Lost:
    """Whoever did the run by this claim is gone: it `crashed`, or has given the run up for want of memory."""

    claim: int
    reason: str
    crashed: bool = True


class Keeper(Protocol):
    """Who looks after the workers (`Queued` says what each is)."""

    def watch(self, workers: Sequence[Json]) -> None: ...

    def fate(self, worker: Json | None) -> str: ...

    def erred(self, worker: Json) -> None: ...

    def resized(self, workers: Sequence[Json]) -> None: ...


@dataclass
class _Followed:
    """A run with its queue, and what was put there: steps that wait for an answer, the newest progress, and the claims
    whose end and whose loss were told.
    """

    queue: "SimpleQueue[Any]"
    steps: set[int]
    progress: float = 0.0
    ended: int | None = None
    missing: int | None = None
    lost: int | None = None


class Follower:
    """Puts what happens to each followed run into its queue: `Evaluated`, its progress (a dict), `Ended`, `Lost`, or an
    exception that ends the sweep. The thread ends with `close`.
    """

    def __init__(self, registry: Registry, sweep: str, keeper: Keeper) -> None:
        self._registry, self._sweep, self._keeper = registry, sweep, keeper
        self._lock = threading.Lock()
        self._runs: dict[str, _Followed] = {}
        self._looked = 0.0
        self._closed, self._awake = threading.Event(), threading.Event()
        self._stop_by: float | None = None
        self._interrupted = False
        #: what has ended the following, and with it the sweep
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._thread.start()

    @contextmanager
    def following(self, run: str) -> "Iterator[SimpleQueue[Any]]":
        """The queue of a run, for as long as it is followed; the run has been offered before."""
        followed = _Followed(SimpleQueue(), set())
        with self._lock:
            self._runs[run] = followed
            if self.error is not None:
                followed.queue.put(self.error)
        self._awake.set()
        try:
            yield followed.queue
        finally:
            with self._lock:
                self._runs.pop(run, None)

    def stop(self, grace: float) -> None:
        """Interrupts all runs, and gives them so many seconds to be stored. Callable from any thread, and again."""
        if self._stop_by is None:
            self._stop_by = time.monotonic() + grace
        self._awake.set()

    def look(self) -> None:
        """Looks now, and not only when it would have looked anyway. Callable from any thread."""
        self._awake.set()

    def close(self) -> None:
        self._closed.set()
        self._awake.set()
        self._thread.join(5.0)

    # ---- the thread

    def _follow(self) -> None:
        pause = _SOON
        while not self._closed.is_set():
            self._awake.clear()
            begun = time.monotonic()
            try:
                if self._stop_by is not None and not self._interrupted:
                    self._interrupt()
                happened = self._look()
            except BaseException as error:  # noqa: BLE001 -- it is raised again where the runs are waited for
                self._fail(error)
                return
            if self._stop_by is not None and time.monotonic() > self._stop_by:
                self._fail(KeyboardInterrupt())
                return
            pause = _SOON if happened else min(2 * pause, _SELDOM)
            # Looks that take long, of a registry that many use, take no more than a quarter of the time.
            self._awake.wait(max(pause, min(3 * (time.monotonic() - begun), 1.0)))

    def _interrupt(self) -> None:
        self._interrupted = True
        with suppress(Failure), outage.tries_once():
            if self._registry.replaced(self._sweep):
                return  # runs and workers are another process's now
            self._registry.withdraw(self._sweep)
            self._registry.want_of_workers(self._sweep, "stop")

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self.error = error
            for followed in self._runs.values():
                followed.queue.put(error)

    def _look(self) -> bool:
        """Passes on what has happened, and says whether something has."""
        with self._lock:
            runs = dict(self._runs)
        news, happened = self._registry.news(self._sweep, runs.keys()), False
        for run, followed in runs.items():
            reports = [report for report in news.evaluations if report.run == run]
            for report in reports:
                if report.step not in followed.steps:
                    followed.queue.put(report)
                    happened = True
            followed.steps = {report.step for report in reports}
            if run in news.ended and news.ended[run] not in (followed.ended, followed.lost):
                followed.ended = news.ended[run]
                followed.queue.put(Ended())
                happened = True
        if time.monotonic() - self._looked > _WORKERS:
            self._looked = time.monotonic()
            self._look_at_workers(runs, news.claimed)
        return happened

    def _look_at_workers(self, runs: dict[str, _Followed], claimed: dict[str, tuple[str, int]]) -> None:
        rows = liveness.workers(self._registry, self._sweep)
        for row in rows:
            if row["error"] is not None:
                self._registry.leave(row["worker"])
                self._keeper.erred(row)
        alive = {row["worker"]: row for row in rows if row["alive"] and row["error"] is None}
        dead = {row["worker"]: row for row in rows if row["worker"] not in alive}
        self._keeper.watch([row for row in rows if row["error"] is None])
        for row in alive.values():
            now = row["progress"] or {"at": 0.0, "of": {}}
            for run, progress in now["of"].items():
                followed = runs.get(run)
                if (
                    followed is not None
                    and now["at"] != followed.progress
                    and claimed.get(run, ("",))[0] == row["worker"]
                ):
                    followed.progress = now["at"]
                    followed.queue.put(progress)
        for run, (worker, claim) in claimed.items():
            followed = runs[run]
            if worker in alive or followed.lost == claim:
                continue
            if worker not in dead and followed.missing != claim:  # it may have left in order at this moment
                followed.missing = claim
                continue
            followed.lost = claim
            gone = dead.get(worker)
            followed.queue.put(Lost(claim, self._keeper.fate(gone), crashed=gone is None or gone["error"] is None))
        for worker in dead:
            self._registry.leave(worker)
        self._keeper.resized(list(alive.values()))
