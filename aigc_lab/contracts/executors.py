"""What every executor must do, whoever wrote it: on runs of four steps, in a home of its own.

The home is a temporary folder. An executor that does its runs on other machines needs one that they see, too: `TMPDIR`
says where it is.
"""

import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aigc_lab.contracts import executor_system
from aigc_lab.contracts.base import Broken, Contracts
from aigc_lab.contracts.executor_system import FAIL, LOOK, WAIT, WAITS
from aigc_lab.executors.base import Executor, Place
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.host import signals, trust
from aigc_lab.host.processes import Process
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.verdicts import verdicts_by_run
from aigc_lab.runs.job import Job, RunOutcome
from aigc_lab.runs.resources import open_resources
from aigc_lab.tracking import writer
from aigc_lab.tracking.base import status_of
from aigc_lab.tracking.spool import SpoolTracker
from aigc_lab.tracking.spool_log import records

_STEPS, _EVERY = 4, 2
_SCORE = "hq"
# Seconds for which a run that was to stop is waited for.
_PATIENCE = 30.0
# Stores of the user's, in which nothing of a contract may end.
_STORES = ("AIGC_LAB_REGISTRY_URL", "AIGC_LAB_OPTUNA_URL", "MLFLOW_TRACKING_URI")


class Watcher:
    """Notes what it is told, and stops the run at step `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.values: dict[int, float] = {}
        self.verdicts: dict[int, str | None] = {}
        self._stop_at = stop_at

    def progress(self, now: Any) -> None: ...

    def scored(self, step: int, value: float, *, error: float = math.nan, collapse: str | None = None) -> bool:
        self.values[step], self.verdicts[step] = value, collapse
        return step == self._stop_at


@dataclass
class Session:
    """An executor that is open for a sweep of its own, with one place on the CPU."""

    folder: Path
    settings: Settings
    registry: Registry
    sweep: str
    experiment: Experiment
    plan: Configuration
    executor: Executor
    seed: int = 0

    def job(self) -> Job:
        """The sweep's next run."""
        self.seed += 1
        run = self.registry.run(self.sweep, 0, self.seed, "search")
        return Job(run, self.sweep, 0, self.seed, "search", self.plan, self.experiment.file.objective)

    def recorded(self, job: Job, outcome: object, state: RunState, attempts: list[str] | None = None) -> None:
        """Raises `Broken` unless the outcome, the registry and the spool agree that the run ended in this state."""
        if not isinstance(outcome, RunOutcome):
            raise Broken(f"run() returns {outcome!r:.60}: return the RunOutcome of the run")
        if outcome.state != state:
            raise Broken(f"a run that is {state} has the outcome {outcome.state}: {outcome.reason or 'no reason'}")
        row = show_run(self.registry, job.run)
        if row["state"] != state:
            raise Broken(f"a run with the outcome {state} is recorded as {row['state']}: let runs.run.execute do it")
        states = [attempt["state"] for attempt in row["attempts"]]
        if states != (attempts or [state]):
            raise Broken(f"the attempts of the run are {' '.join(states)}, and not {' '.join(attempts or [state])}")
        values = [score["value"] for score in row["progress"] if score["name"] == _SCORE]
        if state == RunState.FINISHED and (not values or outcome.value != values[-1]):
            raise Broken(f"the outcome has the value {outcome.value}, and the registry {values[-1:]}")
        if (end := self.end(job)) != status_of(state):
            raise Broken(f"MLflow is told {end or 'no end'} of a run that is {state}: give runs the spool of open()")

    def end(self, job: Job) -> str | None:
        """Status with which the run ended, as MLflow is told; None while it is told of no end."""
        folders = sorted(writer.spool_folder(self.settings, self.sweep).glob(f"{job.run}.*"))
        ends = [record["end"] for folder in folders for record in records(folder) if "end" in record]
        return ends[-1] if ends else None

    def process(self, job: Job) -> Process | None:
        """The process that does the run now; None where nothing says that it is done."""
        return next((row["process"] for row in liveness.running(self.registry) if row["run"] == job.run), None)

    @contextmanager
    def in_the_middle(self, job: Job, do: Callable[[Process | None, threading.Event], None]) -> Iterator[None]:
        """Context in which `do` is called from a thread in the middle of a run, which goes on afterwards. It is given
        the run's process, and an event that is set when the context is left.
        """
        wait, waits = self.folder / WAIT, self.folder / WAITS
        waits.unlink(missing_ok=True)
        wait.touch()
        ended = threading.Event()

        def act() -> None:
            while not waits.exists():
                if ended.wait(LOOK):
                    return
            try:
                do(self.process(job), ended)
            finally:
                wait.unlink(missing_ok=True)

        thread = threading.Thread(target=act)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            wait.unlink(missing_ok=True)


@contextmanager
def _opened(kind: type[Executor], folder: Path, options: Mapping[str, Any]) -> Iterator[Session]:
    """The executor, made and opened as a sweep does it, without MLflow."""
    given = [kind.Config(**options)] if kind.Config.model_fields else []
    settings = Settings.load(folder / "home")
    settings.prepare()
    system = {"name": str(Path(executor_system.__file__)), "hidden": 8, "gain": 1.5, "lr": 0.05, "folder": str(folder)}
    training = {"steps": _STEPS, "batch_size": 16, "log_every": _EVERY, "evaluate_every": _EVERY, "threads": 1}
    source: dict[str, Any] = {
        "name": "contract",
        "data": {"name": "ring", "points": 2000, "sigma": 0.2},
        "system": system,
        "training": training,
        "evaluation": {"name": "points", "samples": 200},
        "objective": {"maximize": _SCORE},
    }
    experiment = load_experiment(source, data_dir=settings.data_dir)
    plan = experiment.resolve(lambda hole: hole.ends()[0])
    trust.remember(settings.home, experiment.code)
    with open_registry(settings, create=True, connected=True) as registry:
        sweep = registry.sweep(experiment.name, experiment.digest, experiment.document.data, _SCORE, "higher")
        registry.trial(sweep, 0, plan.system, plan.chosen, plan.values)
        spool = writer.spool_folder(settings, sweep)
        registry.supervise(sweep)
        with (
            _released(registry, sweep),
            kind(experiment, [Place("cpu", 1)], settings, _silent, *given) as executor,
            signals.last_act(executor.kill),
        ):
            tracker = SpoolTracker(spool)
            resources = open_resources(experiment, settings, registry, tracker, "cpu", _silent, 1)
            executor.open(resources, spool)
            with ExitStack() as stack:
                if not kind.starts_workers:
                    stack.enter_context(_joined(registry, settings, sweep))
                yield Session(folder, settings, registry, sweep, experiment, plan, executor)


@contextmanager
def _released(registry: Registry, sweep: str) -> Iterator[None]:
    """Context at whose end nobody runs the sweep."""
    try:
        yield
    finally:
        registry.release(sweep)


@contextmanager
def _joined(registry: Registry, settings: Settings, sweep: str) -> Iterator[None]:
    """A worker that somebody has started, and starts again when it is gone."""
    command = [sys.executable, "-P", "-c", "from aigc_lab.cli import main; main()", "worker", sweep]
    command += ["--home", str(settings.home), "--device", "cpu", "--threads", "1"]
    ended, workers = threading.Event(), [subprocess.Popen(command, stderr=subprocess.DEVNULL)]

    def keep() -> None:
        while not ended.wait(0.1):
            if workers[-1].poll() is not None:
                workers.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        while not any(row["ready"] for row in liveness.workers(registry, sweep)):
            ended.wait(0.1)
        yield
    finally:
        ended.set()
        keeper.join()
        workers[-1].terminate()
        workers[-1].wait(_PATIENCE)


def _silent(text: str) -> None: ...


@dataclass
class Case:
    """An executor, with folders for the sweeps that it is tried on."""

    kind: type[Executor]
    root: Path
    #: the executor's options
    options: Mapping[str, Any] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _shared: Session | None = None
    _count: int = 0

    @contextmanager
    def fresh(self) -> Iterator[Session]:
        """A session of its own."""
        self._count += 1
        folder = self.root / str(self._count)
        folder.mkdir()
        with _opened(self.kind, folder, self.options) as session:
            yield session

    @contextmanager
    def shared(self) -> Iterator[Session]:
        """The session that contracts share, since processes take seconds to start; after an error, the next is new."""
        if self._shared is None:
            self._shared = self._stack.enter_context(self.fresh())
        try:
            yield self._shared
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leaves the shared session."""
        self._shared = None
        self._stack.close()


@contextmanager
def case_of(kind: type[Executor], options: Mapping[str, Any] | None = None) -> Iterator[Case]:
    """Context with the case of an executor with these options; the user's own stores are out of its reach."""
    before = {name: os.environ.pop(name) for name in _STORES if name in os.environ}
    try:
        # What an executor has left running may still write there.
        with tempfile.TemporaryDirectory(prefix="aigc-lab-check-", ignore_cleanup_errors=True) as folder:
            case = Case(kind, Path(folder), options or {})
            try:
                yield case
            finally:
                case.close()
    finally:
        os.environ.update(before)


EXECUTOR: Contracts[Case] = Contracts()


@EXECUTOR.add()
def it_says_how_many_runs_it_does_at_once(case: Case) -> None:
    """A sweep calls run from as many threads as there are slots, so it needs a number before the first run."""
    with case.shared() as session:
        slots = session.executor.slots
    if type(slots) is not int or slots < 1:
        raise Broken(f"slots is {slots!r:.60}: give how many runs it does at once, 1 or more")


@EXECUTOR.add(it_says_how_many_runs_it_does_at_once)
def a_run_is_done_and_recorded(case: Case) -> None:
    """A sweep goes by the outcome, every other command by the registry, and MLflow by the spool."""
    with case.shared() as session:
        job = session.job()
        session.recorded(job, session.executor.run(job, Watcher()), RunState.FINISHED)


@EXECUTOR.add(a_run_is_done_and_recorded)
def the_watcher_is_told_of_each_evaluation(case: Case) -> None:
    """A pruner decides by these values, and the display shows them."""
    with case.shared() as session:
        watcher, job = Watcher(), session.job()
        outcome = session.executor.run(job, watcher)
        stored = verdicts_by_run(session.registry, session.sweep)[job.run]
    steps = list(range(_EVERY, _STEPS + 1, _EVERY))
    if list(watcher.values) != steps:
        raise Broken(f"the watcher is told of steps {list(watcher.values)}, and not of {steps}: call its scored()")
    if watcher.values[_STEPS] != outcome.value:
        raise Broken(f"the watcher is told {watcher.values[_STEPS]} at the end, and the outcome is {outcome.value}")
    verdicts = {row["step"]: row["verdict"] for row in stored if row["kind"] == "collapse"}
    if watcher.verdicts != verdicts:
        raise Broken(f"the watcher is told the verdicts {watcher.verdicts}, and {verdicts} are recorded: pass them on")


@EXECUTOR.add(the_watcher_is_told_of_each_evaluation)
def a_run_that_the_watcher_stops_is_pruned(case: Case) -> None:
    """Without it, a pruner costs its own time and saves none."""
    with case.shared() as session:
        job = session.job()
        session.recorded(job, session.executor.run(job, Watcher(stop_at=_EVERY)), RunState.PRUNED)


@EXECUTOR.add(a_run_is_done_and_recorded)
def runs_given_together_are_all_done(case: Case) -> None:
    """`train` with several seeds asks once for all of them, and takes the outcomes in this order."""
    with case.shared() as session:
        jobs = [session.job(), session.job()]
        outcomes = session.executor.together(jobs, [Watcher(), Watcher()])
        if not isinstance(outcomes, list) or len(outcomes) != len(jobs):
            raise Broken(f"together() returns {outcomes!r:.60} of {len(jobs)} runs: return a list of their outcomes")
        for job, outcome in zip(jobs, outcomes, strict=True):
            session.recorded(job, outcome, RunState.FINISHED)


@EXECUTOR.add(a_run_is_done_and_recorded)
def a_run_that_fails_is_recorded_and_the_next_is_done(case: Case) -> None:
    """One configuration that cannot be trained must not end a search of a hundred."""
    with case.shared() as session:
        job = session.job()
        fail = session.folder / FAIL
        fail.touch()
        try:
            outcome = session.executor.run(job, Watcher())
        finally:
            fail.unlink()
        session.recorded(job, outcome, RunState.FAILED)
        if "it was told to fail" not in (outcome.reason or ""):
            raise Broken(f"the reason of a RuntimeError('it was told to fail') is {outcome.reason!r:.60}: pass it on")
        after = session.job()
        session.recorded(after, session.executor.run(after, Watcher()), RunState.FINISHED)


@EXECUTOR.add(a_run_is_done_and_recorded)
def a_run_whose_process_is_killed_is_done_all_the_same(case: Case) -> None:
    """Out of memory, the kernel ends a process at any time. Checked where a run has one of its own on this machine: in
    the process of the sweep it dies with it, and resume goes on.
    """
    killed: list[str] = []

    def kill(process: Process | None, ended: threading.Event) -> None:
        if process is not None and process.alive and process.pid != os.getpid():
            process.signal(signal.SIGKILL)
            killed.append(RunState.KILLED)

    with case.shared() as session:
        job = session.job()
        with session.in_the_middle(job, kill):
            outcome = session.executor.run(job, Watcher())
        session.recorded(job, outcome, RunState.FINISHED, [*killed, RunState.FINISHED])


@EXECUTOR.add(a_run_is_done_and_recorded)
def a_stop_interrupts_what_is_being_done(case: Case) -> None:
    """Ctrl-C calls stop, and has ten seconds; a run that is not recorded as KILLED would be taken for lost work."""
    with signals.handled(exits=False), case.fresh() as session:
        job, executor = session.job(), session.executor

        def stop(process: Process | None, ended: threading.Event) -> None:
            executor.stop()
            if process is not None and process == Process.this():
                signals.request_stop()  # as Ctrl-C would reach it
            ended.wait(_PATIENCE)

        try:
            with session.in_the_middle(job, stop):
                outcome = executor.run(job, Watcher())
        except KeyboardInterrupt:
            executor.stop()
        else:
            state = getattr(outcome, "state", outcome)
            raise Broken(f"run() returns {state} after stop(): interrupt the run, and raise KeyboardInterrupt")
    with open_registry(session.settings) as registry:
        row = show_run(registry, job.run)
    if row["state"] != RunState.KILLED:
        raise Broken(f"a run that stop() interrupted is recorded as {row['state']}, and not as KILLED")
    if (end := session.end(job)) != status_of(RunState.KILLED):
        raise Broken(f"MLflow is told {end or 'no end'} of a run that was interrupted: give runs the spool of open()")


@EXECUTOR.add(a_run_is_done_and_recorded)
def nothing_is_left_when_it_is_left(case: Case) -> None:
    """A process that outlives its sweep keeps memory, and the GPU."""
    processes: list[Process] = []

    def note(process: Process | None, ended: threading.Event) -> None:
        if process is not None and process != Process.this():
            processes.append(process)

    with case.shared() as session:
        job = session.job()
        with session.in_the_middle(job, note):
            session.executor.run(job, Watcher())
    case.close()
    for process in processes:
        if process.alive:
            raise Broken(f"process {process.pid} of a run is alive after __exit__: end there what was started")
