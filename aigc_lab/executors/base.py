"""Who does runs: in this process, in processes of this machine, on other machines."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from aigc_lab.job import Job, Outcome, Watcher


@dataclass(frozen=True)
class Place:
    """Where runs are done, one at a time: a device, and how many CPU threads they may use."""

    device: str
    threads: int


class Executor(ABC):
    """Does runs, at most `slots` at once. A context: leaving it ends whatever it started, whatever happened."""

    #: how many runs it can do at once; with more than one, `run` is called from as many threads
    slots: int = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @abstractmethod
    def run(self, job: Job, watcher: Watcher) -> Outcome:
        """Does a run to its end and has it recorded. Waits for a free slot.

        Raises `UsageError` and `Failure` for what the next run would meet too, and `KeyboardInterrupt` when `stop` was
        called or the user interrupted it.
        """

    def together(self, jobs: Sequence[Job], watchers: Sequence[Watcher]) -> list[Outcome]:
        """Does runs of one shape, trained together where that is possible, and after one another where it is not."""
        return [self.run(job, watcher) for job, watcher in zip(jobs, watchers, strict=True)]

    @abstractmethod
    def stop(self) -> None:
        """Interrupts what is being done: those runs are recorded as KILLED. Harmless when nothing is."""
