"""Pulse of a worker: every second or so the registry learns how far its runs are, and it what is wanted of it."""

import logging
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from aigc_lab.errors import Failure
from aigc_lab.host import outage, signals
from aigc_lab.host.outage import StoreAway
from aigc_lab.registry.store import Registry

_LOG = logging.getLogger(__name__)

# Seconds between two beats: where there is progress to be told, at which somebody looks, and where there is none.
_BUSY, _IDLE = 1.0, 2.0


class Pulse:
    """Context whose thread beats for a worker. A registry that fails for a while costs beats and nothing else. When the
    registry wants the worker to stop, or has given it up, its process is asked to, as SIGTERM would.
    """

    def __init__(self, registry: Registry, worker: str) -> None:
        self._registry, self._worker = registry, worker
        self._ended, self._lock = threading.Event(), threading.Lock()
        # What is to be told: run -> how far it is.
        self._progress: dict[str, Mapping[str, Any]] = {}
        #: whether the registry has asked the worker to stop
        self.told_to_stop = False
        #: whether it is to leave after its runs
        self.leaving = False
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def end(self, run: str) -> None:
        """The worker does not do this run any more."""
        with self._lock:
            self._progress.pop(run, None)

    def progress(self, run: str, progress: Mapping[str, Any]) -> None:
        """How far the run is. Costs nothing: the next beat says it."""
        with self._lock:
            self._progress[run] = progress

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        told: Mapping[str, Any] | None = None
        silent = 0.0
        while not self._ended.wait(_BUSY):
            silent += _BUSY
            if not self._progress and silent < _IDLE:
                continue
            silent = 0.0
            with self._lock:
                now, self._progress = self._progress, {}
            told = {"at": time.time(), "of": now} if now else None
            try:
                with outage.tries_once():
                    wanted = self._registry.beat_worker(self._worker, told)
            except StoreAway:
                continue  # it has been said
            except Failure as error:
                _LOG.warning("worker %s: no beat: %s", self._worker, error)
                continue
            self.leaving = wanted == "leave"
            if wanted == "stop":
                self.told_to_stop = True
                signals.request_stop()
                return
