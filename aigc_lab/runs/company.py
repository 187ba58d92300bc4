"""What runs share that one process does together."""

import time
from collections.abc import Sequence

from aigc_lab.runs.job import Job
from aigc_lab.runs.record import SharedClock
from aigc_lab.samples import Samples


class Company:
    """What runs share that one process does together: the clock, and, where they are `stacked` as one program, their
    names as `trial.seed` and when their checkpoints are due.
    """

    def __init__(self, names: Sequence[str], every: float, *, stacked: bool) -> None:
        self.clock = SharedClock(len(names))
        self.stacked, self.names = stacked, list(names)
        self._left, self._every = len(names), every
        self._saved, self._step = time.monotonic(), -1
        self._samples: dict[int, Samples] = {}

    def samples(self, job: Job, device: str) -> Samples:
        """The training data on the device, once for all of them."""
        dataset = job.configuration.dataset
        if id(dataset) not in self._samples:
            self._samples[id(dataset)] = dataset.load("train").to(device)
        return self._samples[id(dataset)]

    @property
    def several(self) -> bool:
        """Whether more than one of them goes on as one program."""
        return self.stacked and self._left > 1

    def leave(self) -> None:
        """Removes a run that is over."""
        self.clock.leave()
        self._left -= 1

    def due(self, step: int) -> bool:
        """Whether a checkpoint of `step` is due: for all of them, or for none, so that they can go on as one."""
        if time.monotonic() - self._saved >= self._every:
            self._saved, self._step = time.monotonic(), step
        return step == self._step
