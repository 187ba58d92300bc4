"""Processes of this machine, each with its share of the cores or its place on a GPU."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors import base
from aigc_lab.executors.base import Place
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.host import confined, environment
from aigc_lab.host.channel import Channel, Closed, Message
from aigc_lab.host.outage import StoreAway
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.states import RunState
from aigc_lab.registry.sweeps import run_outcomes
from aigc_lab.runs.job import Job, RunOutcome, Watcher
from aigc_lab.runs.messages import Answer, Broken, Ended, Interrupted, Opening, Progressed, Ready, Said, Scored, Work
from aigc_lab.runs.resources import Resources
from aigc_lab.tracking.base import run_key
from aigc_lab.tracking.ending import conclude
from aigc_lab.tracking.spool import SpoolTracker

_GRACE = 10.0
_HEARD = (Said, Ready, Progressed, Scored, Ended, Broken, Interrupted)


class Local(base.Executor):
    """One process a place. They start at once and import torch while the caller prepares what they will read."""

    def __init__(
        self, experiment: Experiment, places: Sequence[Place], settings: Settings, say: Callable[[str], None]
    ) -> None:
        super().__init__(experiment, places, settings, say)
        self.slots = len(places)
        self._stopped = False
        logs = settings.home / "logs"
        self._workers = [_Worker(place, logs / f"worker-{i}.log") for i, place in enumerate(places)]
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._free.put(worker)

    def open(self, resources: Resources, spool: Path) -> None:
        """Lets the workers open what `resources` has prepared, and returns when they are ready."""
        super().open(resources, spool)
        for worker in self._workers:
            worker.open(self._opening(worker.place))
        for worker in self._workers:
            worker.ready(self._say)

    def _opening(self, place: Place) -> Opening:
        return Opening(
            home=str(self._settings.home),
            spool=str(self._spool),
            name=self._experiment.name,
            file=self._experiment.path,
            data=self._experiment.document.data,
            digest=self._experiment.digest,
            device=place.device,
            threads=place.threads,
        )

    def run(self, job: Job, watcher: Watcher) -> RunOutcome:
        worker = self._free.get()
        try:
            before, deaths = self._begun(job), 0
            while True:
                try:
                    return worker.do(job, watcher)
                except _Gone as gone:
                    reason = str(gone)
                attempt, lost = self._lose(job, reason)
                deaths = deaths + 1 if attempt == before else 0
                before = attempt
                if deaths == 2:  # it died before it could begin, twice: no run would fare better
                    raise Failure(f"a worker process cannot go on: {reason}")
                self._say(f"{job.run}: {reason}" + ("" if lost else "; it is tried again"))
                worker.restart(self._opening(worker.place), self._say)
                if lost is not None:
                    return lost
                if self._stopped:  # it may have been told so while it was starting
                    raise KeyboardInterrupt
        finally:
            self._free.put(worker)

    def _begun(self, job: Job) -> int:
        """The number of the run's newest attempt."""
        newest = liveness.ended(self._resources.registry, job.run)
        return (newest["attempt"] or 0) if newest is not None else 0

    def _lose(self, job: Job, reason: str) -> tuple[int, RunOutcome | None]:
        """Records that the run's process is gone. Returns the number of the attempt that it worked on, and how the run
        has ended if it is not to be tried again.
        """
        registry, spool = self._resources.registry, SpoolTracker(self._spool)
        lost = registry.lose(job.run, reason, crashed=not self._stopped)
        key = run_key(job.run, registry.chain(job.run))
        if lost.again:
            spool.abandon(job.sweep, key)
            if self._stopped:
                raise KeyboardInterrupt
            return lost.attempt, None
        conclude(registry, self._settings, spool, key)  # perhaps its result was written down before it could say so
        return lost.attempt, self._stored(job)

    def _stored(self, job: Job) -> RunOutcome:
        rows = run_outcomes(self._resources.registry, job.sweep)
        row = next(row for row in rows if (row["trial"], row["seed"]) == (job.trial, job.seed))
        return RunOutcome(RunState(row["state"]), row["value"], row["reason"])

    def stop(self) -> None:
        self._stopped = True
        for worker in self._workers:
            worker.interrupt()

    def kill(self) -> None:
        """Ends the processes now: one that is in a call that never returns hears neither a signal nor that its channel
        has closed.
        """
        for worker in self._workers:
            worker.kill()

    def __exit__(self, *error: object) -> None:
        self.stop()
        for worker in self._workers:
            worker.end()


class _Gone(Exception):
    """The process of a worker has ended."""


def _sent(broken: Broken) -> Exception:
    """The error that a worker met, as one of this process."""
    return {"UsageError": UsageError, "StoreAway": StoreAway}.get(broken.error, Failure)(broken.text)


def _unexpected(message: Message) -> Failure:
    return Failure(f"a worker process said {type(message).__name__} where nobody had asked for it")


class _Worker:
    """One process and its channel."""

    def __init__(self, place: Place, log: Path) -> None:
        self.place = place
        self._log = log
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        # Libraries that read their number of threads when they are loaded get the same share as torch.
        threads = str(min(environment.threads(), self.place.threads))
        share = {f"{name}_NUM_THREADS": threads for name in ("OMP", "OPENBLAS", "MKL")}
        with theirs, self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "aigc_lab.runs.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | share | {confined.VARIABLE: "0"},  # who started it has tried what it will load
            )
        self._channel = Channel(ours, *_HEARD)

    def open(self, opening: Opening) -> None:
        # A worker that is gone already is met when it is given a run.
        with suppress(Closed):
            self._channel.send(opening)

    def ready(self, say: Callable[[str], None]) -> None:
        """Waits until it is. A worker that has died is met when it is given a run, and then started again."""
        while True:
            match self._channel.receive():
                case Said(text=text):
                    say(text)
                case Broken() as broken:
                    raise _sent(broken)
                case Ready() | Interrupted() | None:
                    return
                case message:
                    raise _unexpected(message)

    def restart(self, opening: Opening, say: Callable[[str], None]) -> None:
        self.end()
        self._start()
        self.open(opening)
        self.ready(say)

    def do(self, job: Job, watcher: Watcher) -> RunOutcome:
        try:
            self._channel.send(
                Work(
                    run=job.run,
                    sweep=job.sweep,
                    trial=job.trial,
                    seed=job.seed,
                    role=job.role,
                    values=job.configuration.values,
                )
            )
            return self._follow(watcher)
        except Closed:
            raise _Gone(self._how()) from None
        except BaseException:
            self.interrupt()  # it waits for an answer that will not come
            raise

    def _follow(self, watcher: Watcher) -> RunOutcome:
        """Tells the watcher of a run until it has ended."""
        from aigc_lab.training.state import Progress

        while True:
            match self._channel.receive():
                case Progressed() as now:
                    watcher.progress(Progress(now.step, now.scalars, now.seconds, now.samples_per_second))
                case Scored(step=step, value=value, error=error, collapse=collapse):
                    self._channel.send(Answer(stop=watcher.scored(step, value, error=error, collapse=collapse)))
                case Ended(state=state, value=value, reason=reason):
                    return RunOutcome(state, value, reason)
                case Broken() as broken:
                    raise _sent(broken)
                case Interrupted():
                    raise KeyboardInterrupt
                case None:
                    raise Closed
                case message:
                    raise _unexpected(message)

    def _how(self) -> str:
        """The end of the process in words: its exit code or signal, where the system tells it."""
        try:
            code = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            return "its worker process does not answer"
        if code < 0:
            name = signal.Signals(-code).name
            return f"its worker process was ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
        return f"its worker process ended with code {code}; see {self._log}"

    def interrupt(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()

    def end(self) -> None:
        """Waits for the end of the process, which may still record that its run was interrupted."""
        self.interrupt()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._channel.close()
