"""What a worker tells the sweep's process of a run that it does, and asks it, by way of the registry."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from aigc_lab.host import nudges, signals
from aigc_lab.registry.run_queue import Evaluated
from aigc_lab.registry.store import Registry
from aigc_lab.runs.pulse import Pulse

if TYPE_CHECKING:
    from aigc_lab.runs.job import Job
    from aigc_lab.training.state import Progress

# Seconds between two looks at the registry: after something happened, and, doubled each time, at most.
_SOON, _SELDOM = 0.01, 0.5
# A pause is at least so many times what the look took, and not for that reason longer than so many seconds.
_TIMES, _LONGEST = 10, 2.0


class Pause:
    """The time between two looks, which grows until something happens, and with what a look takes: where many workers
    look, and each has to wait for the others, they look less often. A nudge ends it.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.seconds, self._since = _SOON, time.monotonic()

    def wait(self) -> None:
        look = time.monotonic() - self._since
        until = time.monotonic() + max(self.seconds, min(_TIMES * look, _LONGEST))
        while (left := until - time.monotonic()) > 0 and not signals.stop_requested():
            if nudges.wait(min(left, 0.1)):
                self.seconds = _SOON
                break
        self.seconds, self._since = min(2 * self.seconds, _SELDOM), time.monotonic()


def looks() -> Iterator[Pause]:
    """Looks at the registry, with growing pauses between them, until this process is to stop."""
    pause = Pause()
    while not signals.stop_requested():
        yield pause
        pause.wait()


class Reporter:
    """Watcher of a run whose sweep is run by another process, reached by the registry."""

    def __init__(self, registry: Registry, job: "Job", pulse: Pulse) -> None:
        self._registry, self._job, self._pulse = registry, job, pulse
        self._told = -1  # the step of the newest evaluation that was reported

    def progress(self, now: "Progress") -> None:
        self._pulse.progress(
            self._job.run,
            {
                "step": now.step,
                "scalars": dict(now.scalars),
                "seconds": now.seconds,
                "samples_per_second": now.samples_per_second,
            },
        )

    def evaluated(self, step: int, value: float, *, error: float = float("nan"), collapse: str | None = None) -> None:
        self._registry.evaluated(self._job.sweep, Evaluated(self._job.run, step, value, error, collapse))
        nudges.parent()
        self._told = step

    def scored(self, step: int, value: float, *, error: float = float("nan"), collapse: str | None = None) -> bool:
        if self._told != step:
            self.evaluated(step, value, error=error, collapse=collapse)
        for _ in looks():
            if (stop := self._registry.answered(self._job.run, step)) is not None:
                return stop
        raise KeyboardInterrupt
