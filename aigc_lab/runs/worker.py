"""Worker: a process that does runs of a sweep, one after the other, as it claims them in the registry; or several at
once, where the sweep's process has found that alike ones are trained faster as one program.

It keeps torch imported and the evaluator ready between runs, and never imports MLflow or Optuna: curves and samples go
to the spool, and the process that runs the sweep decides about pruning. It may start before that process and outlive
it: what it needs to know and has to say stands in the registry.

`python -m aigc_lab.runs.worker` is a worker of the process that starts it (`worker_process.py`), and ends with it.
`aigc-lab worker` joins a sweep from anywhere.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import imports, nudges, signals, visible
from aigc_lab.host.outage import StoreAway
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.run_lifecycle import Outdated
from aigc_lab.registry.run_queue import Claimed
from aigc_lab.registry.store import Registry
from aigc_lab.runs.job import Crowded
from aigc_lab.runs.pulse import Pulse
from aigc_lab.runs.reporter import Reporter, looks
from aigc_lab.runs.worker_process import GO, SHARES

# What imports torch is imported once somebody listens: a supervisor that dies meanwhile would not be noticed.
if TYPE_CHECKING:
    from aigc_lab.experiment.experiment import Experiment
    from aigc_lab.runs.job import Job, RunOutcome
    from aigc_lab.runs.resources import Resources

# How often an idle worker asks whether its sweep is still run, and when it says that it waits.
_LOOK, _PATIENCE = 2.0, 20.0
# Runs that are to be trained together are offered one after the other: when none has come for so long, none is awaited.
_GATHERING = 0.5


@dataclass(frozen=True)
class Terms:
    """How a worker works: for which sweep, on which device, with how many threads (None: all), and when it ends: by the
    time `leave_by` of `time.monotonic` it begins no run, and stores the one that it does. `job` is what a batch system
    calls it.

    A `child` belongs to the process that runs the sweep; one that `shares` is not alone on its GPU. Another worker
    delivers to MLflow what it spools in a home of its own, and asks its home whether it trusts code; `until_empty` ends
    it when no run waits.
    """

    sweep: str
    device: str
    threads: int | None = None
    child: bool = False
    shares: bool = False
    until_empty: bool = False
    leave_by: float | None = None
    job: str | None = None

    @property
    def place(self) -> str:
        """The device, and the job, by which whoever has submitted it knows the worker again."""
        return self.device if self.job is None else f"{self.device}, job {self.job}"


def work(settings: Settings, registry: Registry, terms: Terms, say: Callable[[str], None]) -> int:
    """Joins a sweep and does its runs until it ends, this process is told to stop, or (`until_empty`) none waits.
    Returns the number of runs that were done.

    Raises `UsageError` and `Failure` for what the next run would meet too, and `KeyboardInterrupt` when it is stopped.
    """
    worker = registry.join(terms.sweep, terms.place, child=terms.child, shares=terms.shares)
    told: dict[str, str] | None = None
    try:
        with Pulse(registry, worker) as pulse, _Allotted(terms.leave_by, say) as allotted:
            working = _Worker(settings, registry, terms, say, worker, pulse)
            try:
                return working.work()
            except KeyboardInterrupt:
                if pulse.told_to_stop:
                    say(f"sweep {terms.sweep} was stopped")
                elif not allotted.over:
                    raise
                return working.done
    except (UsageError, Failure) as error:
        kinds = ((UsageError, "UsageError"), (StoreAway, "StoreAway"), (Crowded, "Crowded"), (Failure, "Failure"))
        told = {"kind": next(name for kind, name in kinds if isinstance(error, kind)), "text": str(error)}
        raise
    finally:
        with contextlib.suppress(Failure):  # the error that is being handled says more
            registry.leave(worker, told)


class _Allotted:
    """Context in which the work is asked to end by the time `by`; then it is `over`."""

    def __init__(self, by: float | None, say: Callable[[str], None]) -> None:
        self._say = say
        self.over = False
        self._timer = None if by is None else threading.Timer(max(0.0, by - time.monotonic()), self._end)

    def _end(self) -> None:
        self.over = True
        self._say("its time is nearly over: it begins no other run, and stores what it does for another worker")
        # What is being computed may end: the time that is left is there for it.
        signals.request_stop(hurry=False)

    def __enter__(self) -> "_Allotted":
        if self._timer is not None:
            self._timer.name, self._timer.daemon = "time limit", True
            self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()


class _Worker:
    """A worker that has joined."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        terms: Terms,
        say: Callable[[str], None],
        worker: str,
        pulse: Pulse,
    ) -> None:
        self._settings, self._registry, self._terms, self._say = settings, registry, terms, say
        self._id, self._pulse = worker, pulse
        #: the number of runs that it has done
        self.done = 0
        self._most = sys.maxsize  # of runs as one program: fewer once memory was at its end

    def work(self) -> int:
        with imports.uncollected():
            import aigc_lab.runs.run  # noqa: F401 -- for seconds, while the supervisor prepares what will be opened

        opening, terms = self._opening(), self._terms
        if opening is None:
            return 0
        with self._delivering(opening):
            experiment, resources = self._open(opening)
            self._registry.ready(self._id)
            for claimed in self._claims():
                jobs = [_job(claimed, terms.sweep, experiment)]
                jobs += self._alike(jobs[0], experiment, resources)
                self._do(jobs, replace(resources, crowded=claimed.crowded))
                self.done += len(jobs)
                nudges.parent()
                signals.raise_if_interrupted()  # the run was quicker
        signals.raise_if_interrupted()
        return self.done

    def _opening(self) -> dict[str, Any] | None:
        """What the sweep's process has opened to workers, as soon as it has; None when nobody runs the sweep."""
        from aigc_lab.runs.opening import check_versions

        if self._terms.child:
            _wait_for_word()
        until: float | None = time.monotonic() + _PATIENCE
        for _ in looks():
            opening = self._registry.opening(self._terms.sweep)
            if opening is not None and (self._terms.child or self._supervised()):
                check_versions(opening)
                return opening
            if not self._terms.child and liveness.supervisor(self._registry, self._terms.sweep) is None:
                return None
            if until is not None and time.monotonic() > until:
                until = None
                self._say(
                    f"waiting until {self._terms.sweep} is opened to workers; one that is run inline never is: stop "
                    "it, and resume it with --executor queue, or with --workers"
                )
        return None

    def _open(self, opening: dict[str, Any]) -> "tuple[Experiment, Resources]":
        from aigc_lab.host import environment
        from aigc_lab.runs.opening import experiment_of
        from aigc_lab.runs.resources import open_resources
        from aigc_lab.tracking.spool import SpoolTracker
        from aigc_lab.tracking.writer import spool_folder

        terms, settings = self._terms, self._settings
        device = environment.device(terms.device)
        experiment = experiment_of(opening, settings, terms.sweep, trusted=terms.child)
        tracker = SpoolTracker(spool_folder(settings, terms.sweep))
        resources = open_resources(
            experiment,
            settings,
            self._registry,
            tracker,
            device,
            self._say,
            terms.threads,
            opening.get("replicas"),
        )
        return experiment, resources

    @contextlib.contextmanager
    def _delivering(self, opening: dict[str, Any]) -> Iterator[None]:
        """Delivers to MLflow what is spooled here, unless the sweep's process delivers from this very folder."""
        from aigc_lab.tracking.writer import Writer, spool_folder

        if spool_mark(spool_folder(self._settings, self._terms.sweep)) == opening["spool"]:
            yield
            return
        writer = Writer(self._settings, self._terms.sweep)
        writer.start()
        try:
            yield
        finally:
            note = writer.finish(3.0 if signals.stop_requested() else None)
            if note:
                self._say(note)

    def _claims(self) -> Iterator[Claimed]:
        """The runs that this worker is to do, as it claims them."""
        looked, waited, alone = time.monotonic(), 0, False
        for pause in looks():
            if self._pulse.leaving:
                return
            claimed = self._registry.claim(self._terms.sweep, self._id)
            if claimed is not None:
                yield claimed
                pause.reset()
                continue
            waited += 1
            if self._terms.until_empty and waited > 1 and not self._registry.waiting(self._terms.sweep):
                return
            if self._terms.child or time.monotonic() - looked < _LOOK:
                continue
            looked = time.monotonic()
            if liveness.supervisor(self._registry, self._terms.sweep) is None:
                self._say(f"sweep {self._terms.sweep} is not run any more: it has ended, or was stopped")
                return
            if alone != (alone := not self._supervised()):
                self._say(
                    "the process that ran the sweep was lost; this worker waits for another: aigc-lab resume "
                    f"{self._terms.sweep}"
                    if alone
                    else "another process runs the sweep now"
                )

    def _supervised(self) -> bool:
        row = liveness.supervisor(self._registry, self._terms.sweep)
        return row is not None and bool(row["alive"])

    def _alike(self, first: "Job", experiment: "Experiment", resources: "Resources") -> "list[Job]":
        """Further runs, claimed too, that are trained with the first as one program, as many as are faster so."""
        from aigc_lab.runs.alike import likeness

        most = min(resources.replicas.get(first.configuration.title, 1), self._most) - 1
        jobs: list[Job] = []
        until, of_first = time.monotonic() + _GATHERING, likeness(first.configuration)
        while len(jobs) < most and time.monotonic() < until and not signals.stop_requested():
            waiting = self._registry.waiting_runs(self._terms.sweep, 4 * most)
            plans = {run: experiment.resolve(lambda hole, of=values: of[hole.name]) for run, values in waiting}  # type: ignore[misc]
            alike = [run for run, plan in plans.items() if likeness(plan) == of_first][: most - len(jobs)]
            claimed = self._registry.claim_also(self._id, alike) if alike else []
            jobs += [_job(each, self._terms.sweep, experiment) for each in claimed]
            if claimed:
                until = time.monotonic() + _GATHERING
            elif len(jobs) < most:
                time.sleep(_GATHERING / 10)
        return jobs

    def _do(self, jobs: "Sequence[Job]", resources: "Resources") -> None:
        from aigc_lab.runs.together import execute_together

        # In this order whoever has claimed them: in the same company and places they come out with the same bits.
        jobs = sorted(jobs, key=lambda job: (job.trial, job.seed))
        under_way = {job.run: job for job in jobs}

        def ended(job: "Job", outcome: "RunOutcome | None" = None) -> None:
            # Who cannot say it leaves: nobody would wait for a run that a living worker holds and does not do.
            self._registry.end_place(job.run, job.claim or 0)
            under_way.pop(job.run)
            self._pulse.end(job.run)
            if outcome is not None and not self._terms.child:
                self._say(f"{job.run}: {outcome.state}" + (f", {outcome.reason}" if outcome.reason else ""))

        def fewer(most: int) -> None:
            self._most = most
            self._say(f"out of memory: {most} run{'s' * (most > 1)} as one program from now on, and not {len(jobs)}")

        if not self._terms.child:
            self._say(f"{', '.join(under_way)}: begun")
        try:
            reporters = [Reporter(self._registry, job, self._pulse) for job in jobs]
            execute_together(jobs, resources, reporters, ended=ended, fewer=fewer)
        except Outdated as error:
            self._say(f"{', '.join(under_way)}: it is another's now ({error})")
        except Crowded:
            raise  # who has started this worker gives the run to another, when there is room for it
        except BaseException:
            with contextlib.suppress(StoreAway):  # the error that is being handled says more
                for job in list(under_way.values()):
                    ended(job)
            raise
        for job in list(under_way.values()):
            ended(job)


def _job(claimed: Claimed, sweep: str, experiment: "Experiment") -> "Job":
    from aigc_lab.runs.job import Job

    return Job(
        run=claimed.run,
        sweep=sweep,
        trial=claimed.trial,
        seed=claimed.seed,
        role=claimed.role,  # type: ignore[arg-type]
        configuration=experiment.resolve(lambda hole: claimed.values[hole.name]),
        objective=experiment.file.objective,
        claim=claimed.claim,
    )


# ---- the spool

#: the file in a spool by which a worker sees that the sweep's process delivers to MLflow from this very folder
MARK = ".delivered-by"


def spool_mark(folder: Path) -> str | None:
    """The mark of the process that delivers from this folder; None without one."""
    try:
        return (folder / MARK).read_text("ascii")
    except OSError:
        return None


# ---- a child of the process that runs the sweep


def _wait_for_word() -> None:
    """Returns when the parent has said that everything is prepared, or this process is to stop."""
    _word.wait()


_word = threading.Event()


def _listen() -> None:
    """Hears what the parent says. When it is gone, asks the run to stop, and so ends this process."""
    while True:
        select.select([0], [], [])
        try:
            said = os.read(0, len(GO))
        except OSError:  # it is gone, and had not heard everything
            said = b""
        if not said:
            signals.request_stop()
        _word.set()
        nudges.awake.set()
        if not said:
            return


def main() -> None:
    """Entry point of a child: home, sweep, device, threads, whether it shares a GPU. Its standard input is a socket of
    which its parent holds the other end.
    """
    visible.guard()
    imports.end_quickly()
    home, sweep, device, threads, *more = sys.argv[1:]
    terms = Terms(sweep, device, int(threads), child=True, shares=more == [SHARES])
    with contextlib.suppress(KeyboardInterrupt), signals.handled():
        # Ctrl-C reaches the whole group; who started this says when to end.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        nudges.has_parent(0)
        threading.Thread(target=_listen, daemon=True).start()
        settings = Settings.load(Path(home))
        try:
            with open_registry(settings, create=True, connected=True, patient=True, connections=1) as registry:
                work(settings, registry, terms, lambda text: print(text, flush=True))
        except (UsageError, Failure) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
