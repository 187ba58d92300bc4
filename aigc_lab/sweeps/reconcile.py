"""What processes that died left behind, brought in order: every store says what the registry knows, and nothing RUNS.

Everything here may be done again, and stops nobody: a sweep that is being run is left alone.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from aigc_lab.errors import UsageError
from aigc_lab.host import processes
from aigc_lab.host.processes import Process
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_sweeps
from aigc_lab.sweeps import ownership
from aigc_lab.sweeps.supervision import alone, refuse_supervised
from aigc_lab.tracking import writer
from aigc_lab.tracking.base import run_of_key
from aigc_lab.tracking.ending import conclude
from aigc_lab.tracking.spool import SpoolTracker

# A worker whose supervisor died saves where it is and ends; it is given so many seconds for that.
_GRACE = 10.0


@dataclass(frozen=True)
class Finding:
    """Something that was left behind, and what is done about it; `lost` where that is not all that it needs."""

    sweep: str
    run: str | None
    what: str
    lost: bool = False

    def __str__(self) -> str:
        return f"{self.run or self.sweep}: {self.what}"


def reconcile(
    registry: Registry, settings: Settings, *, mine: str | None = None, dry_run: bool = False
) -> list[Finding]:
    """Brings in order what was left behind by processes that died, and returns what that was. `mine` is the sweep that
    this process holds. With `dry_run` nothing is changed.

    Sweeps of other homes are left alone. Raises `UsageError` for a home that may not write, and when another process
    runs the sweep that this one holds: a lock is seen on one machine, and a home may be shared by several.
    """
    findings: list[Finding] = []
    if not dry_run:
        ownership.check_home(registry, settings)
    for sweep in _left(registry, settings):
        try:
            ownership.refuse_foreign(registry, settings, sweep)
        except UsageError as error:
            if mine is None:
                findings.append(Finding(sweep, None, f"it is left alone: {error}"))
            continue
        with ExitStack() as stack:
            if sweep != mine:
                try:
                    stack.enter_context(alone(settings, sweep))
                except UsageError:
                    continue  # somebody runs it
            # In this order: whoever begins attempts is recorded as the supervisor before.
            running = liveness.running(registry, sweep)
            try:
                refuse_supervised(registry, sweep)
            except UsageError:
                if sweep == mine:
                    raise
                continue
            findings += _Sweep(registry, settings, sweep, dry_run).reconcile(running)
    return findings


def _left(registry: Registry, settings: Settings) -> list[str]:
    """Every sweep of which something may have been left."""
    left = [attempt["sweep"] for attempt in liveness.running(registry)]
    left += [supervisor["sweep"] for supervisor in liveness.supervisors(registry)]
    folder = settings.home / "spool"
    sweeps = {row["sweep"] for row in list_sweeps(registry)}
    left += [spooled.name for spooled in (folder.iterdir() if folder.is_dir() else ()) if spooled.name in sweeps]
    return list(dict.fromkeys(left))


class _Sweep:
    """A sweep that nobody runs, held by this process."""

    def __init__(self, registry: Registry, settings: Settings, sweep: str, dry_run: bool) -> None:
        self._registry, self._settings, self._sweep, self._dry_run = registry, settings, sweep, dry_run
        self._workers: list[liveness.Json] = []
        self._spool = SpoolTracker(writer.spool_folder(settings, sweep))

    def reconcile(self, running: list[liveness.Json]) -> list[Finding]:
        self._workers = liveness.workers(self._registry, self._sweep)
        found = [*self._lost(running), *self._unended(), *self._unsupervised()]
        for worker in self._workers if not self._dry_run else ():
            if not (worker["alive"] and worker["joined"]):
                self._registry.drop_worker(worker["worker"])
        return found

    def _lost(self, running: list[liveness.Json]) -> Iterator[Finding]:
        """Attempts whose process is gone. Nobody runs the sweep: a worker that is alive here has no supervisor."""
        joined = [row["process"] for row in self._workers if row["alive"] and row["joined"]]
        for attempt in running:
            process, run = attempt["process"], attempt["run"]
            if process in joined:  # it goes on by itself, and whoever runs the sweep next follows it
                continue
            if attempt["alive"] and (process is None or process.here is None):
                where = "another machine" if process is None else process.host
                yield self._found(run, f"attempt {attempt['number']} may be alive on {where}; it is left alone")
                continue
            yield self._found(run, f"the process of attempt {attempt['number']} was lost; the run can be resumed")
            if not self._dry_run:
                if process is not None:
                    _end(process)
                crashed = self._out_of_memory(attempt)
                reason = f"its process was lost{' while the machine was out of memory' if crashed else ''}"
                lost = self._registry.lose(run, reason, crashed=crashed)
                if lost.state == RunState.FAILED:
                    yield self._found(run, f"{lost.reason}: it has failed; --retry-failed tries it nevertheless")

    def _out_of_memory(self, attempt: liveness.Json) -> bool:
        """Whether the kernel seems to have ended the attempt's process, and whoever resumes would meet that again and
        again. Of a worker its supervisor knows. A process that ran the sweep itself has no witness, and may have been
        killed by its user, for which no run is to fail: it counts only if, in the same boot, some process was ended for
        want of memory since the attempt began.
        """
        process, this = attempt["process"], Process.this()
        supervisor = liveness.supervisor(self._registry, self._sweep)
        if supervisor is None or process is None or supervisor["process"] != process:
            return False
        before = liveness.environment(self._registry, attempt["run"], attempt["number"]).get("oom_kills")
        now = processes.oom_kills() if (process.host, process.boot) == (this.host, this.boot) else None
        return before is not None and now is not None and now > before

    def _unended(self) -> Iterator[Finding]:
        """Logs for MLflow that do not end: their run has ended in the registry, or is lost."""
        for key in self._spool.open_keys():
            run = liveness.ended(self._registry, run_of_key(key))
            state = RunState.KILLED if run is None else RunState(run["state"])
            if state == RunState.RUNNING:
                continue  # on another machine
            state = state if state.ended else RunState.KILLED
            yield self._found(key, f"MLflow has not been told that this run ended; it is told {state}")
            if not self._dry_run:
                conclude(self._registry, self._settings, self._spool, key)

    def _unsupervised(self) -> Iterator[Finding]:
        row = liveness.supervisor(self._registry, self._sweep)
        if row is not None and not row["alive"]:
            yield self._found(None, f"process {row['pid']} on {row['host']}, which ran it, was lost")
            if not self._dry_run:
                self._registry.release(self._sweep, row["process"])

    def _found(self, run: str | None, what: str) -> Finding:
        return Finding(self._sweep, run, what)


def _end(process: Process) -> None:
    """Returns when the process is gone: by itself if it hurries. What this process has left is over: it is here."""
    if process == Process.this():
        return
    until = time.monotonic() + _GRACE
    while process.alive and time.monotonic() < until:
        time.sleep(0.1)
    process.signal(signal.SIGKILL)
