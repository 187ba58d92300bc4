"""Heartbeat of a process: every few seconds the registry learns that its attempts are alive, and their steps."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from aigc_lab.errors import Failure
from aigc_lab.host import outage
from aigc_lab.host.outage import StoreAway
from aigc_lab.registry.run_lifecycle import BEAT, Outdated
from aigc_lab.registry.store import Registry

_LOG = logging.getLogger(__name__)

# Seconds from a beat that the registry was away for to the next.
_SOON = 2.0


class Heartbeat:
    """Context whose thread beats for every attempt that was `add`ed. A registry that fails for a while costs beats and
    nothing else.

    Whoever works on an attempt calls `check`, to learn whether the registry has given it up meanwhile.
    """

    def __init__(self, registry: Registry, every: float = BEAT) -> None:
        self._registry = registry
        self._every = every
        self._ended = threading.Event()
        self._missed = False
        self._lock = threading.Lock()
        self._beats: dict[tuple[str, int], Callable[[], int]] = {}
        self._outdated: dict[tuple[str, int], Outdated] = {}
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()

    def add(self, run: str, attempt: int, step: Callable[[], int]) -> None:
        """Beats for this attempt from now on; `step` returns its current step."""
        with self._lock:
            self._beats[run, attempt] = step

    def remove(self, run: str, attempt: int) -> None:
        """Stops beating for this attempt."""
        with self._lock:
            self._beats.pop((run, attempt), None)

    def check(self, run: str, attempt: int) -> None:
        """Raises `Outdated` when a beat has found that the attempt may not write any more."""
        error = self._outdated.get((run, attempt))
        if error is not None:
            raise error

    def beat(self) -> None:
        """Beats once for every attempt."""
        self._missed = False
        with self._lock:
            beats = list(self._beats.items())
        for (run, attempt), step in beats:
            try:
                with outage.tries_once():
                    self._registry.beat(run, attempt, step=step())
            except Outdated as error:
                self._outdated[run, attempt] = error
            except StoreAway:
                self._missed = True  # it has been said
            except Failure as error:
                _LOG.warning("run %s: no heartbeat: %s", run, error)

    def _run(self) -> None:
        # Whoever looks from another machine should hear of a training soon after the registry is back.
        while not self._ended.wait(min(self._every, _SOON) if self._missed else self._every):
            self.beat()
