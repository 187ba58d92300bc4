"""Jobs of a batch system, each one process of ours: Slurm's, or submitit's on this machine, which stand in for them.

submitit writes what sbatch reads, and runs local jobs with their limits and signals. Its way to submit functions is not
taken, since it pickles them: whoever may write into a folder of jobs could have a worker run anything. A job is a
command line here, and nothing comes back from it but its log.
"""

import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import psutil
from submitit.core.utils import FailedSubmissionError
from submitit.local.local import LocalExecutor, LocalJob
from submitit.slurm.slurm import SlurmExecutor

from aigc_lab.errors import Failure

# Seconds for which a command of Slurm is waited for: its controller may be busy, or away.
_PATIENCE = 60.0
#: the states in which Slurm will not run a job any more
ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "COMPLETING", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
)
#: what has to be in PATH
COMMANDS = ("sbatch", "srun", "squeue", "scancel")


class JobState(NamedTuple):
    """The state of a job by Slurm's word for it, and why it is in it, where that is said."""

    name: str
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.name in ENDED


class BatchJobs(Protocol):
    """Jobs that are submitted under one name. Every method may be called from any thread."""

    def submit(self, command: str, count: int) -> list[str]:
        """Submits a command line so many times; returns the jobs' ids. Raises `Failure` with what was answered."""

    def states(self) -> dict[str, JobState] | None:
        """The jobs under the name, those that ended lately too; None where nobody can say it now."""

    def cancel(self, jobs: Collection[str]) -> None:
        """Ends jobs, each by SIGTERM first. Raises `Failure` where that cannot be said now."""

    def kill(self, jobs: Collection[str]) -> None:
        """Ends jobs, and waits for next to nothing."""


class SlurmJobs:
    """Arrays of jobs that Slurm runs. `parameters` are submitit's."""

    def __init__(self, folder: Path, name: str, parameters: Mapping[str, Any]) -> None:
        self._name = name
        self._scripts = _Scripts(folder)
        self._scripts.update_parameters(job_name=name, **parameters)

    def submit(self, command: str, count: int) -> list[str]:
        script = self._scripts.write(command, count)
        answer = _asked("sbatch", str(script))
        try:
            array = self._scripts.job_in(answer)
        except FailedSubmissionError:
            raise Failure(f"sbatch answers {answer.strip()!r:.200}, and names no job") from None
        script.rename(script.with_name(f"{array}_submission.sh"))
        return [f"{array}_{index}" for index in range(count)]

    def states(self) -> dict[str, JobState] | None:
        words = ("--noheader", "--array", "--states=all", f"--user={os.getuid()}", f"--name={self._name}")
        try:
            answer = _asked("squeue", *words, "--format=%i|%T|%r")
        except Failure:
            return None
        rows = (line.strip().split("|", 2) for line in answer.splitlines())
        return {row[0]: JobState(row[1], row[2]) for row in rows if len(row) == 3}

    def cancel(self, jobs: Collection[str]) -> None:
        if jobs:
            _asked("scancel", *jobs)

    def kill(self, jobs: Collection[str]) -> None:
        with suppress(Failure):
            if jobs:
                _asked("scancel", *jobs, patience=2.0)


class _Scripts(SlurmExecutor):
    """submitit's scripts for sbatch, of a command line."""

    def write(self, command: str, count: int) -> Path:
        self.parameters["map_count"] = count
        path = self.folder / f"{uuid4().hex}_submission.sh"
        path.write_text(self._make_submission_file_text(command, path.stem), "utf-8")
        return path

    def job_in(self, answer: str) -> str:
        return self._get_job_id_from_submission_command(answer)


def _asked(command: str, *words: str, patience: float = _PATIENCE) -> str:
    """What a command of Slurm answers. Raises `Failure` where it refuses, or does not answer."""
    try:
        # In a session of its own: Ctrl-C in a terminal would end it half-way.
        done = subprocess.run(
            [command, *words],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience,
            env=_environment(),
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"{command} has not answered for {patience:.0f} s") from None
    except OSError as error:
        raise Failure(f"{command}: {error.strerror}") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise Failure(said[-1].strip() if said else f"{command} ended with code {done.returncode}")
    return done.stdout


def _environment() -> dict[str, str]:
    """The environment without what belongs to a job that this process may run in, which would shape the new ones."""
    inside = "SLURM_JOB_ID" in os.environ
    return {
        name: value
        for name, value in os.environ.items()
        if not (inside and name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF")
    }


class LocalJobs:
    """Jobs on this machine at once, however many, by submitit: each with its limit, and Slurm's signals."""

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        self._starter = _Starter(folder)
        self._starter.update_parameters(**parameters)
        self._jobs: dict[str, LocalJob[Any]] = {}

    def submit(self, command: str, count: int) -> list[str]:
        with _ctrl_c_blocked():
            started = [self._starter.start(command) for _ in range(count)]
        self._jobs |= {job.job_id: job for job in started}
        return [job.job_id for job in started]

    def states(self) -> dict[str, JobState]:
        jobs = dict(self._jobs)
        return {name: JobState("COMPLETED" if job.done() else "RUNNING") for name, job in jobs.items()}

    def cancel(self, jobs: Collection[str]) -> None:
        for job in self._alive(jobs):
            os.kill(int(job), signal.SIGTERM)  # it is passed on

    def kill(self, jobs: Collection[str]) -> None:
        for job in self._alive(jobs):
            with suppress(psutil.NoSuchProcess):
                controller = psutil.Process(int(job))
                tasks = controller.children()
                controller.kill()
                for task in tasks:
                    with suppress(psutil.NoSuchProcess):
                        task.kill()

    def _alive(self, jobs: Collection[str]) -> list[str]:
        # Its number is nobody else's until it was seen to have ended.
        return [job for job in jobs if job in self._jobs and not self._jobs[job].done()]


class _Starter(LocalExecutor):
    """submitit's processes on this machine, of a command line."""

    def start(self, command: str) -> "LocalJob[Any]":
        return self._submit_command(command)


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Context in which processes are started that Ctrl-C in this terminal does not reach."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait_for_end(jobs: BatchJobs, names: Collection[str], seconds: float) -> list[str]:
    """Waits until jobs that were cancelled have ended, and returns those that have not in so many seconds."""
    until, left = time.monotonic() + seconds, list(names)
    while left:
        states = jobs.states()
        if states is not None:
            left = [job for job in left if job in states and not states[job].ended]
        if not left or time.monotonic() > until:
            break
        time.sleep(0.1 if states is not None else 1.0)
    return left
