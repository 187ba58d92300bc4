"""One run at a time, in this process."""

from collections.abc import Sequence

from aigc_lab.executors import base
from aigc_lab.host import signals
from aigc_lab.runs.job import Job, RunOutcome, Watcher
from aigc_lab.runs.run import execute


class Inline(base.Executor):
    """What one device needs: nothing is started and nothing has to be sent."""

    def run(self, job: Job, watcher: Watcher) -> RunOutcome:
        return self.together([job], [watcher])[0]

    def together(self, jobs: Sequence[Job], watchers: Sequence[Watcher]) -> list[RunOutcome]:
        signals.raise_if_interrupted()  # the run before may have been quicker than the signal
        return execute(jobs, self._resources, watchers)

    def stop(self) -> None:
        """The interruption that is to be passed on has reached this process itself."""
