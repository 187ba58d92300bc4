"""Runs offered in the registry's queue and followed there, while workers do them, wherever these are.

The process that runs the sweep decides what is to be done and what is stopped; who does it is the workers' business.
Executors that start workers are subclasses: they say how a worker is started, and what became of it.
"""

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors import base
from aigc_lab.executors.base import Place
from aigc_lab.executors.shared.follower import Ended, Follower, Lost
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.host.files import write_atomically
from aigc_lab.host.outage import StoreAway
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.run_queue import Evaluated
from aigc_lab.registry.states import RunState
from aigc_lab.registry.sweeps import run_outcome
from aigc_lab.runs.job import Job, RunOutcome, Watcher
from aigc_lab.runs.opening import opening_of
from aigc_lab.runs.resources import Resources
from aigc_lab.runs.worker import MARK
from aigc_lab.tracking.base import run_key
from aigc_lab.tracking.ending import conclude
from aigc_lab.tracking.spool import SpoolTracker

Json = dict[str, Any]

# Seconds that runs have to be stored after a stop.
_GRACE = 10.0


class Queued(base.Executor):
    """Offers runs to the workers of the sweep: those that a subclass starts, and any that join."""

    grows = True
    stacks = True

    def __init__(
        self,
        experiment: Experiment,
        places: Sequence[Place],
        settings: Settings,
        say: Callable[[str], None],
        config: Any = None,
    ) -> None:
        super().__init__(experiment, places, settings, say, config)
        self._stopped = threading.Event()
        self._follower: Follower | None = None
        self._each = 1  # how many runs a worker does at once

    def open(self, resources: Resources, spool: Path) -> None:
        """Lets workers open what `resources` has prepared."""
        super().open(resources, spool)
        mark = secrets.token_hex(8)
        spool.mkdir(parents=True, exist_ok=True)
        write_atomically(spool / MARK, mark.encode())
        content = opening_of(self._experiment, mark, resources.replicas)
        resources.registry.open_to_workers(self._experiment.sweep, content)
        self._each = max(resources.replicas.values(), default=1)
        self.slots *= self._each
        self._follower = Follower(resources.registry, self._experiment.sweep, self)

    # ---- what a subclass may say of its workers; called from the follower's thread

    def watch(self, workers: Sequence[Json]) -> None:
        """Looks after the workers, several times a second. `workers` are the rows of `liveness.workers`; that of one
        which was killed since the last look is among them, and says how far it had come. Raises `Failure` and
        `UsageError` where no run can be done any more.
        """

    def slots_for(self, workers: Sequence[Json]) -> int:
        """How many workers can do runs; each does several where these are trained as one program."""
        return max(1, sum(bool(row["ready"]) for row in workers))

    def fate(self, worker: Json | None) -> str:
        """What became of a worker that is gone, in words."""
        if worker is not None and worker["error"] is not None:
            return str(worker["error"]["text"])
        return "its worker was lost" if worker is None else f"its worker on {worker['host']} was lost"

    def erred(self, worker: Json) -> None:
        """A worker has ended by an error that its next run would meet too."""
        self._say(f"the worker on {worker['host']}, {worker['device']}, has left: {worker['error']['text']}")

    def resized(self, workers: Sequence[Json]) -> None:
        """Tells the sweep how many runs may be under way now."""
        slots = self.slots_for(workers) * self._each
        if slots != self.slots:
            self.slots = slots
            self.changed_slots(slots)

    def nudge(self, run: str | None) -> None:
        """Has whoever does this run look at the registry now, or whoever does none; called from any thread."""

    # ---- runs

    def run(self, job: Job, watcher: Watcher) -> RunOutcome:
        if self._follower is None:
            raise Failure("the executor is not open")
        before, deaths = self._begun(job), 0
        self._offer(job)
        with self._follower.following(job.run) as news:
            while True:
                outcome = self._follow(job, watcher, news)
                if isinstance(outcome, RunOutcome):
                    return outcome
                attempt, lost = self._lose(job, outcome)
                deaths = deaths + 1 if attempt == before else 0
                before = attempt
                if deaths == 2:  # it died before it could begin, twice: no run would fare better
                    raise Failure(f"a worker process cannot go on: {outcome.reason}")
                self._say(f"{job.run}: {outcome.reason}" + ("" if lost else "; it is tried again"))
                if lost is not None:
                    return lost
                self._offer(job)

    def _offer(self, job: Job) -> None:
        if self._stopped.is_set():
            raise KeyboardInterrupt
        self._resources.registry.offer(job.run)
        self.nudge(None)

    def _follow(self, job: Job, watcher: Watcher, news: "SimpleQueue[Any]") -> RunOutcome | Lost:
        """Tells the watcher of a run until it has ended, or its worker is gone."""
        from aigc_lab.training.state import Progress

        while True:
            match news.get():
                case Evaluated(step=step, value=value, error=error, collapse=collapse):
                    stop = watcher.scored(step, value, error=error, collapse=collapse)
                    self._resources.registry.answer(job.run, step, stop=stop)
                    self.nudge(job.run)
                case dict() as now:
                    names = ("step", "scalars", "seconds", "samples_per_second")
                    watcher.progress(Progress(**{name: now[name] for name in names}))
                case Ended():
                    outcome = self._stored(job)
                    if outcome.state not in (RunState.KILLED, RunState.RUNNING, RunState.QUEUED):
                        return outcome
                    if self._stopped.is_set():
                        raise KeyboardInterrupt
                    # Its worker had to leave, and has stored where the run is.
                    self._say(f"{job.run}: its worker left ({outcome.reason or 'before it began'}); another goes on")
                    self._offer(job)
                case Lost() as lost:
                    return lost
                case BaseException() as error:
                    raise error

    def _begun(self, job: Job) -> int:
        """The number of the run's newest attempt."""
        newest = liveness.ended(self._resources.registry, job.run)
        return (newest["attempt"] or 0) if newest is not None else 0

    def _lose(self, job: Job, gone: Lost) -> tuple[int, RunOutcome | None]:
        """Records that the run's process is gone. Returns the number of the attempt that it worked on, and how the run
        has ended if it is not to be tried again.
        """
        registry, spool = self._resources.registry, SpoolTracker(self._spool)
        crashed = gone.crashed and not self._stopped.is_set()
        lost = registry.lose(job.run, gone.reason, crashed=crashed, claim=gone.claim)
        key = run_key(job.run, registry.chain(job.run))
        if lost.again:
            spool.abandon(job.sweep, key)
            return lost.attempt, None
        conclude(registry, self._settings, spool, key)  # perhaps its result was written down before it could say so
        return lost.attempt, self._stored(job)

    def _stored(self, job: Job) -> RunOutcome:
        row = run_outcome(self._resources.registry, job.run)
        return RunOutcome(RunState(row["state"]), row["value"], row["reason"], row["seconds"])

    # ---- its end

    def stop(self) -> None:
        self._stopped.set()
        if self._follower is not None:
            self._follower.stop(_GRACE)

    def __exit__(self, *error: object) -> None:
        # Workers that have joined see by themselves that the sweep has ended.
        self._stopped.set()
        if self._follower is not None:
            self._follower.close()


def sent(error: Mapping[str, str]) -> Exception:
    """The error that a worker met, as one of this process."""
    return {"UsageError": UsageError, "StoreAway": StoreAway}.get(error["kind"], Failure)(error["text"])
