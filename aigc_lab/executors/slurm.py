"""Workers in jobs that Slurm places on the nodes of a cluster, each until its time limit.

The jobs are an array. A worker leaves in order before its limit, and when its job is to make room for another: its run
is stored, and goes on in the next worker. A job that has ended is submitted again while runs wait for it. Slurm itself
requeues jobs that it preempts or whose node fails, where it is set up so.
"""

import hashlib
import re
import shlex
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors.base import Place
from aigc_lab.executors.shared.queued import Queued, sent
from aigc_lab.executors.shared.slurm_options import SlurmOptions
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.host import confined, environment, outage
from aigc_lab.host.durations import clock
from aigc_lab.host.outage import StoreAway
from aigc_lab.host.settings import Settings, sqlite_path
from aigc_lab.runs.resources import Resources

# It imports submitit, which not everybody has.
if TYPE_CHECKING:
    from aigc_lab.executors.shared.batch_jobs import BatchJobs, JobState

Json = dict[str, Any]

# Seconds between two looks at the queue: Slurm's controller has many users.
_LOOK = {"slurm": 5.0, "local": 0.5}
# Seconds for which jobs that were cancelled may store their runs.
_GRACE = 10.0
# Jobs that ended before their workers could begin, one after the other, after which none is submitted any more.
_EARLY = 2
# Seconds before the limit at which Slurm says so itself. It may be a minute early.
_LAST_WORD = 15
# States that say nothing about the worker.
_NOT_ITS_FAULT = ("PREEMPTED", "NODE_FAIL", "REVOKED")
# Reasons for which a job waits forever.
_NEVER = re.compile(
    r"Bad|Invalid|Held|NeverSatisfied|PartitionTimeLimit|PartitionNodeLimit|MaxWallDurationPerJob|MaxCpuPerJob|"
    r"MaxGRESPerJob|MaxMemPerJob"
)


class Slurm(Queued):
    """A job for each worker, submitted when the sweep is open, and cancelled when it ends, however that happens."""

    elsewhere = True

    Config = SlurmOptions
    config: SlurmOptions

    def __init__(
        self,
        experiment: Experiment,
        places: Sequence[Place],
        settings: Settings,
        say: Callable[[str], None],
        config: Any = None,
    ) -> None:
        super().__init__(experiment, places, settings, say, config)
        self.check_here(self.config)
        self._folder = settings.home / "logs" / "slurm" / experiment.sweep
        if "%" in str(self._folder):
            raise UsageError(f"executor slurm: {self._folder} holds a %, which Slurm fills in; choose another home")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._jobs = self._batch()
        self._word = "Slurm job" if self.config.cluster == "slurm" else "local job"
        self._places_left = len(places)
        self._lock = threading.Lock()
        self._own: dict[str, float] = {}  # job -> when it was submitted
        self._last: Mapping[str, JobState] = {}
        self._ready: set[str] = set()  # jobs with a worker that can do runs
        self._began: set[str] = set()  # jobs that were ever seen to have one
        self._claims = 0  # of runs, at the last look after jobs had ended
        self._errors: dict[str, Exception] = {}
        self._most = 0
        self._early = 0
        self._told: set[str] = set()
        self._cancelled = False
        self._error: BaseException | None = None
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="slurm", daemon=True)

    @classmethod
    def check_here(cls, config: Any) -> None:
        """Raises `UsageError` without submitit, and where Slurm's commands are missing."""
        try:
            from aigc_lab.executors.shared.batch_jobs import COMMANDS
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("submitit"):
                raise
            raise UsageError("executor slurm needs submitit: pip install 'aigc-lab[slurm]'") from None
        missing = [each for each in COMMANDS if shutil.which(each) is None]
        if missing and config.cluster == "slurm":
            raise UsageError(
                f"executor slurm: no {missing[0]} in PATH; run this on a node of the cluster that submits jobs, or try "
                "it on this machine with --executor-option cluster=local"
            )

    def _batch(self) -> "BatchJobs":
        from aigc_lab.executors.shared.batch_jobs import LocalJobs, SlurmJobs

        config = self.config
        common = {"stderr_to_stdout": True, "signal_delay_s": min(_LAST_WORD, config.before // 2)}
        if config.cluster == "local":
            limit = {"timeout_min": config.seconds / 60, "gpus_per_node": config.gpus_per_worker}
            return LocalJobs(self._folder, common | limit)
        own = {
            "partition": config.partition,
            "account": config.account,
            "constraint": config.constraint,
            "time": clock(config.seconds),
            "gpus_per_node": config.gpus_per_worker or None,
            "cpus_per_task": self._threads,
            "mem": config.mem,
            "exclusive": config.exclusive or None,
            "nodes": 1,
            "ntasks_per_node": 1,
            "array_parallelism": len(self._places),
            "wckey": None,
        }
        # Addresses of stores may hold passwords: they travel with the environment, and stand in no script.
        more = {"export": "ALL", "requeue": True} | {
            key: each for key, each in config.sbatch.items() if each is not False
        }
        return SlurmJobs(self._folder, self._name, common | own | {"additional_parameters": more})

    @property
    def _name(self) -> str:
        """Of the jobs: by it, whoever runs the sweep next finds those of a process that was killed."""
        tag = hashlib.sha256(str(self._settings.home).encode()).hexdigest()[:8]
        return f"aigc-lab-{re.sub(r'[^0-9A-Za-z._-]', '_', self._experiment.sweep)}-{tag}"

    @property
    def _threads(self) -> int:
        return self.config.cpus_per_worker or self._experiment.file.training.threads or 1

    @property
    def _command(self) -> str:
        """Command line of a worker."""
        variables = environment.share_of_threads(self._threads) | {confined.VARIABLE: "0"}  # it has been tried here
        words = ["env", *(f"{name}={value}" for name, value in variables.items())]
        words += [sys.executable, "-P", "-c", "from aigc_lab.cli import main; main()", "worker", self._experiment.sweep]
        words += ["--home", str(self._settings.home), "--device", "cuda:0" if self.config.gpus_per_worker else "cpu"]
        words += ["--threads", str(self._threads), "--leave-after", clock(self.config.seconds - self.config.before)]
        return shlex.join(words)

    def open(self, resources: Resources, spool: Path) -> None:
        """Submits the jobs. Returns at once: runs wait for the first worker. Raises `UsageError` with what sbatch says
        of options that it does not take.
        """
        super().open(resources, spool)
        if self.config.cluster == "slurm" and sqlite_path(self._settings.registry_url) is not None:
            self._say(
                "the registry is a SQLite file, which workers on several nodes damage by opening it together; for more "
                "than one node set AIGC_LAB_REGISTRY_URL=postgresql+psycopg://…"
            )
        self._claims = resources.registry.claims(self._experiment.sweep)
        self._fill()
        self._keeper.start()

    def _fill(self) -> None:
        """Submits a job for each place that none of before has."""
        here = {name for name, state in (self._jobs.states() or {}).items() if not state.ended}
        if here:
            self._own = dict.fromkeys(here, time.monotonic())
            self._say(f"{_some(len(here), self._word)} of before found: {_ids(here)}")
        if (count := len(self._places) - len(here)) > 0:
            try:
                jobs = self._submit(count)
            except Failure as error:
                raise UsageError(f"executor slurm: {error}") from None
            self._say(
                f"{_some(count, self._word)} of {clock(self.config.seconds)} submitted: {_ids(jobs)}; "
                f"their logs are in {self._folder}"
            )

    def _submit(self, count: int) -> list[str]:
        jobs = self._jobs.submit(self._command, count)
        with self._lock:
            self._own |= dict.fromkeys(jobs, time.monotonic())
            late = self._cancelled
        if late:  # meanwhile
            self._jobs.cancel(jobs)
        return jobs

    # ---- what the follower asks

    def watch(self, workers: Sequence[Json]) -> None:
        if self._error is not None and not self._stopped.is_set():
            raise self._error
        began = {job: row for row in workers if row["ready"] and (job := _job_of(row)) is not None}
        if began.keys() - self._began:
            self._early = 0
        self._began |= began.keys()
        self._ready = {job for job, row in began.items() if row["alive"]}

    def slots_for(self, workers: Sequence[Json]) -> int:
        """A place counts from its first worker on, also while it is submitted again."""
        with self._lock:
            own = self._ready & self._own.keys()
        self._most = max(self._most, len(own))
        others = sum(bool(row["ready"]) for row in workers) - len(own)
        return max(1, min(self._most, self._places_left) + others)

    def fate(self, worker: Json | None) -> str:
        job = None if worker is None else _job_of(worker)
        if worker is None or job is None:
            return super().fate(worker)
        state = self._last.get(job)
        how = f", {state.name}" if state is not None and state.ended and state.name != "COMPLETED" else ""
        return f"its worker on {worker['host']} was lost ({self._word} {job}{how})"

    def erred(self, worker: Json) -> None:
        job = _job_of(worker)
        if job is not None:
            self._errors[job] = sent(worker["error"])
        super().erred(worker)

    # ---- the thread that looks at the queue

    def _keep(self) -> None:
        while not self._closing.wait(_LOOK[self.config.cluster]):
            try:
                self._look()
            except BaseException as error:  # noqa: BLE001 -- the follower raises it where runs are waited for
                self._error = error
                return

    def _look(self) -> None:
        began = time.monotonic()
        states = self._jobs.states()
        if states is None:
            self._once("squeue does not answer; the queue is looked at again and again")
            return
        self._told.discard("squeue does not answer; the queue is looked at again and again")
        self._last = states
        with self._lock:
            mine = dict(self._own)
        living = {job for job in mine if job in states and not states[job].ended}
        ended = [job for job, submitted in mine.items() if job not in living and submitted < began]
        if ended and self._has_claimed():
            self._early = 0  # the worker of one of them, in a life too short to be seen
            self._began |= set(ended) - self._errors.keys()
        self._settle(ended, states, alone=len(living) == 0)
        self._say_what_waits({job: states[job] for job in living})
        if not self._stopped.is_set():
            self._replace(ended, living)

    def _has_claimed(self) -> bool:
        """Whether a run was claimed since this was asked last."""
        try:
            with outage.tries_once():
                claims = self._resources.registry.claims(self._experiment.sweep)
        except StoreAway:
            return False
        before, self._claims = self._claims, claims
        return claims > before

    def _settle(self, ended: Sequence[str], states: "Mapping[str, JobState]", *, alone: bool) -> None:
        """Takes notice of jobs that have ended. Raises what ended the last, where no other could do better."""
        for job in ended:
            state = states[job].name if job in states else "COMPLETED"
            if state == "CANCELLED":
                self._places_left -= 1
                self._say(f"{self._word} {job} was cancelled; another is not submitted")
            elif job in self._errors or (job not in self._began and state not in _NOT_ITS_FAULT):
                self._early += 1
            with self._lock:
                self._own.pop(job, None)
        if self._places_left <= 0:
            raise Failure(f"all its {self._word}s were cancelled")
        if ended and ((self._early >= _EARLY and alone) or self._early >= _EARLY * len(self._places)):
            job = ended[-1]
            if job in self._errors:
                raise self._errors[job]
            log = self._folder / f"{job}_0_log.out"
            raise Failure(f"{self._word} {job} ended before its worker could begin; see {log}")

    def _replace(self, ended: Sequence[str], living: set[str]) -> None:
        """Submits jobs again while runs wait for them."""
        missing = self._places_left - len(living)
        if missing <= 0:
            return
        try:
            with outage.tries_once():
                waiting = self._resources.registry.waiting(self._experiment.sweep)
        except StoreAway:
            return
        count = min(missing, waiting - len(living - self._ready))
        if count <= 0:
            return
        try:
            jobs = self._submit(count)
        except Failure as error:
            self._once(f"{error}; it is tried again")
            return
        was = f"{_some(len(ended), self._word)} ended ({_ids(ended)}); " if ended else ""
        self._say(f"{was}{_some(count, self._word)} submitted, since runs wait: {_ids(jobs)}")

    def _say_what_waits(self, living: "Mapping[str, JobState]") -> None:
        waits = {job: state.reason for job, state in living.items() if state.name == "PENDING"}
        if not waits:
            return
        reasons = Counter(reason for reason in waits.values() if reason not in ("", "None"))
        never = sorted(reason for reason in reasons if _NEVER.search(reason))
        if never and len(waits) == len(living):
            raise Failure(f"Slurm will not start {self._word} {min(waits)}: {never[0]}; change what is asked for")
        if reasons and not self._began:
            self._once(
                f"waiting for {len(waits)} of {_some(len(self._places), self._word)}: {', '.join(sorted(reasons))}"
            )

    def _once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._say(text)

    # ---- its end

    def stop(self) -> None:
        super().stop()
        self._cancel()

    def _cancel(self) -> None:
        """Cancels what was submitted, and says so where Slurm does not answer."""
        with self._lock:
            if self._cancelled:
                return
            self._cancelled, jobs = True, sorted(self._own)
        try:
            self._jobs.cancel(jobs)
        except Failure as error:
            self._say(f"{error}; {_ids(jobs)} may still be in the queue: scancel {' '.join(jobs[:20])}")

    def kill(self) -> None:
        with self._lock:
            jobs = sorted(self._own)
        self._jobs.kill(jobs)

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._closing.set()
        self._cancel()
        from aigc_lab.executors.shared.batch_jobs import wait_for_end

        with self._lock:
            jobs = sorted(self._own)
        if left := wait_for_end(self._jobs, jobs, _GRACE):
            self._jobs.kill(left)
        super().__exit__(*error)


def _job_of(worker: Json) -> str | None:
    """The job of a worker, as `Terms.place` writes it."""
    return str(worker["device"]).partition(", job ")[2] or None


def _some(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _ids(jobs: Sequence[str] | set[str]) -> str:
    """Names of jobs, shortened."""
    names = list(jobs) if isinstance(jobs, list) else sorted(jobs)
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]}"
