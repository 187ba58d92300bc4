"""The executor slurm: a Slurm of shell scripts runs its jobs on this machine, and another, of words alone, says what a
cluster would. That it does runs as every executor must is seen in `contracts/`, by submitit's local jobs.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import slurm_scripts

from aigc_lab.commands import worker as joining
from aigc_lab.commands.sweep import sweep_experiment, train_experiment
from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors import slurm
from aigc_lab.executors.base import Place
from aigc_lab.executors.shared.batch_jobs import JobState, SlurmJobs, wait_for_end
from aigc_lab.executors.shared.slurm_options import SlurmOptions
from aigc_lab.executors.slurm import Slurm
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.host import signals
from aigc_lab.host.durations import clock, seconds_of
from aigc_lab.host.settings import Settings
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry
from aigc_lab.runs import worker
from aigc_lab.tracking import writer

# A system that ends its own worker where the limit, or Slurm's signal, would: while samples are drawn from it.
SYSTEM = """
import os, signal, sys, threading
from pathlib import Path
from aigc_lab.systems import point_gan

HERE = Path(__file__).parent

class Ended(point_gan.PointGAN):
    def generate(self, *given, **options):
        worker = "worker" in sys.orig_argv  # and not who tries the file first
        asked = next((each for each in ("limit", "preempt") if worker and (HERE / each).exists()), None)
        if asked is not None:
            (HERE / asked).unlink()
        if asked == "limit":
            next(each for each in threading.enumerate() if each.name == "time limit").function()
        if asked == "preempt":
            os.kill(os.getpid(), signal.SIGTERM)
        return super().generate(*given, **options)
"""
FILE = """\
data: {name: ring, points: 2000}
system: {name: ./ended.py, hidden: 8}
training: {steps: 20, batch_size: 16, log_every: 5, evaluate_every: 5, threads: 1}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("AIGC_LAB_", "SLURM_", "SUBMITIT_")) or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(FILE)
    (tmp_path / "ended.py").write_text(SYSTEM)
    silent = SimpleNamespace(start=lambda: None, finish=lambda *_: None)
    monkeypatch.setattr(writer, "Writer", lambda *_: silent)
    return tmp_path


@pytest.fixture
def cluster(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a Slurm of shell scripts, which is looked at often."""
    for name, value in slurm_scripts.install(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(slurm._LOOK, "slurm", 0.2)
    return folder / "queue"


def options(*words: str) -> list[tuple[str, str, str]]:
    return [(*word.split("=", 1), f"--executor-option {word}") for word in words]  # type: ignore[misc]


def environment(path: Path) -> dict[str, str]:
    pairs = (each.partition("=") for each in path.read_text().split("\0"))
    return {name: value for name, _, value in pairs}


def attempts(home: Path) -> tuple[list[str], str]:
    """The states of the only run's attempts, and the digest of its last weights."""
    with Registry.open(f"sqlite:///{home / 'registry.db'}") as registry:
        (run,) = [show_run(registry, row["run"]) for row in list_runs(registry)]
    weights = next(str(file["sha256"]) for file in run["checkpoints"] if file["kind"] == "last")
    return [attempt["state"] for attempt in run["attempts"]], weights


# ---- jobs that run


def test_a_run_goes_on_in_the_next_job_with_the_same_bits(
    folder: Path, cluster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in ("limit", "preempt"):
        (folder / each).touch()
    train_experiment("mine.yaml", [], executor="slurm", options=options("time_limit=2:00:00"), home=folder / "home")
    told = capsys.readouterr().err.replace("\n", " ")
    states, weights = attempts(folder / "home")
    assert states == ["KILLED", "KILLED", "FINISHED"]
    assert "1 Slurm job of 2:00:00 submitted: 101_0" in told and "its worker left" in told
    assert "1 Slurm job ended (101_0); 1 Slurm job submitted, since runs wait: 102_0" in told
    # The worker says why it left; nothing is left of the jobs.
    logs = [path.read_text() for path in sorted((folder / "home" / "logs" / "slurm").glob("*/*_log.out"))]
    assert ["its time is nearly over" in log for log in logs] == [True, False, False]
    assert sorted(path.read_text().strip() for path in cluster.glob("*.state")) == ["CANCELLED", *["COMPLETED"] * 2]
    until = time.monotonic() + 60  # the last was told to end, and is about to
    while any(_alive(int(path.read_text())) for path in cluster.glob("*.step")):
        assert time.monotonic() < until
        time.sleep(0.05)
    train_experiment("mine.yaml", [], executor="inline", home=folder / "alone")
    assert attempts(folder / "alone") == (["FINISHED"], weights)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_sbatch_refuses_is_one_line_and_leaves_nothing(folder: Path, cluster: Path) -> None:
    made = executor(folder, SlurmOptions(partition="missing"), places=1)
    with pytest.raises(UsageError, match="^executor slurm: sbatch: error: invalid partition specified: missing$"):
        made._fill()
    assert not made._own and not [*cluster.iterdir()]


def test_a_script_says_what_was_asked_for_and_no_secret(
    folder: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This process runs in a job itself, whose shape must not become that of others.
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "9", "SLURM_CONF": "here"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIGC_LAB_REGISTRY_URL", "postgresql+psycopg://me:secret@there/lab")
    config = SlurmOptions(
        partition="gpu",
        account="lab",
        time_limit="1-00:00:00",
        gpus_per_worker=1,
        cpus_per_worker=4,
        mem="16G",
        sbatch={"qos": "high", "gpu_bind": "closest", "contiguous": True, "spread_job": False},
    )
    made = executor(folder, config, places=3)
    assert made._submit(3) == ["101_0", "101_1", "101_2"]
    script = (cluster / "101.script").read_text()
    lines = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert lines >= {
        *("array=0-2%3", "partition=gpu", "account=lab", "time=24:00:00", "gpus-per-node=1", "cpus-per-task=4"),
        *("mem=16G", "qos=high", "gpu-bind=closest", "contiguous", "requeue", "export=ALL", "signal=USR2@15"),
    }
    assert not [line for line in lines if line.startswith(("spread", "wckey", "exclusive"))]
    assert "secret" not in script and "--device cuda:0 --threads 4 --leave-after 23:58:00" in script
    assert "OMP_NUM_THREADS=4" in script
    there = environment(cluster / "101.env")
    assert there["AIGC_LAB_REGISTRY_URL"] == "postgresql+psycopg://me:secret@there/lab"
    assert (there["SLURM_CONF"], "SLURM_NTASKS" in there, "SLURM_JOB_ID" in there) == ("here", False, False)
    made._cancel()
    assert wait_for_end(made._jobs, ["101_0", "101_1", "101_2"], 10) == []


def test_jobs_are_known_by_name(folder: Path, cluster: Path) -> None:
    mine, others = (SlurmJobs(folder, name, {"stderr_to_stdout": True}) for name in ("mine", "others"))
    assert (mine.submit("sleep 60", 2), others.submit("sleep 60", 1)) == (["101_0", "101_1"], ["102_0"])
    assert mine.states() == {"101_0": JobState("RUNNING", "None"), "101_1": JobState("RUNNING", "None")}
    mine.cancel(["101_0", "101_1"])
    assert {state.ended for state in (mine.states() or {}).values()} == {True}
    assert others.states() == {"102_0": JobState("RUNNING", "None")}
    others.kill(["102_0"])
    (folder / "bin" / "squeue").unlink()
    (folder / "bin" / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: no controller' >&2; exit 1\n")
    (folder / "bin" / "squeue").chmod(0o755)
    assert mine.states() is None


# ---- what a cluster says


class Told:
    """Jobs that do nothing, in the states that a test gives them."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobState] | None = {}
        self.cancelled: list[str] = []
        self.refuses: str | None = None
        self._count = 0

    def submit(self, command: str, count: int) -> list[str]:
        if self.refuses is not None:
            raise Failure(self.refuses)
        self._count += 1
        made = [f"{self._count}_{index}" for index in range(count)]
        self.set("RUNNING", *made)
        return made

    def set(self, name: str, *jobs: str, reason: str = "") -> None:
        assert self.jobs is not None
        self.jobs |= dict.fromkeys(jobs, JobState(name, reason))

    def states(self) -> dict[str, JobState] | None:
        return self.jobs

    def cancel(self, jobs: Collection[str]) -> None:
        self.cancelled += jobs

    kill = cancel


def executor(folder: Path, config: SlurmOptions | None = None, *, places: int) -> Any:
    """One that is not open, with the lines that it says, the number of runs that wait, and of claims."""
    experiment = load_experiment(folder / "mine.yaml", data_dir=folder)
    said: list[str] = []
    made: Any = Slurm(experiment, [Place("cpu", 1)] * places, Settings.load(folder / "home"), said.append, config)
    made.said, made.waiting, made.claimed = said, 0, 0
    registry = SimpleNamespace(waiting=lambda sweep: made.waiting, claims=lambda sweep: made.claimed)
    made._resources = SimpleNamespace(registry=registry)
    return made


@pytest.fixture
def told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[Any, Told]]:
    """An executor with so many places, in a cluster of words."""
    monkeypatch.setattr(Slurm, "check_here", staticmethod(lambda config: None))

    def make(places: int) -> tuple[Any, Told]:
        jobs = Told()
        monkeypatch.setattr(Slurm, "_batch", lambda self: jobs)
        return executor(folder, places=places), jobs

    return make


def rows(*jobs: str, ready: bool = True) -> list[dict[str, Any]]:
    same = {"ready": ready, "alive": True, "host": "node1", "error": None}
    return [{"device": f"cpu, job {job}"} | same for job in jobs]


Make = Callable[[int], tuple[Any, Told]]


def test_a_job_that_has_ended_is_submitted_again_while_runs_wait(told: Make) -> None:
    made, jobs = told(4)
    made._fill()
    assert sorted(made._own) == ["1_0", "1_1", "1_2", "1_3"]
    assert made.slots_for([]) == 1
    made.watch(rows("1_0", "1_1", "1_2"))
    assert made.slots_for(rows("1_0", "1_1", "1_2")) == 3
    jobs.set("TIMEOUT", "1_0", "1_1")
    made.watch(rows("1_2"))
    made._look()
    assert sorted(made._own) == ["1_2", "1_3"] and made.slots_for(rows("1_2")) == 3
    # 1_3 has not begun, and takes one of the two runs.
    made.waiting = 2
    made._look()
    assert sorted(made._own) == ["1_2", "1_3", "2_0"]
    made.waiting = 9
    made._look()
    assert len(made._own) == 4
    # A worker that somebody else has started is one more.
    assert made.slots_for([*rows("1_2"), {"device": "cpu", "ready": True}]) == 4
    made._cancel()
    assert sorted(jobs.cancelled) == sorted(made._own)
    made.waiting = 20
    made.stop()
    jobs.set("COMPLETED", "1_2")
    made._look()
    assert len(made._own) == 3


def test_jobs_of_a_process_that_was_killed_are_taken_over(told: Make) -> None:
    made, jobs = told(3)
    jobs.set("RUNNING", "7_0")
    jobs.set("PENDING", "7_1")
    jobs.set("CANCELLED", "7_2")
    made._fill()
    assert sorted(made._own) == ["1_0", "7_0", "7_1"]
    assert made.said[0] == "2 Slurm jobs of before found: 7_0, 7_1"
    more, jobs = told(1)
    jobs.set("RUNNING", "7_0", "7_1")
    more._fill()
    assert sorted(more._own) == ["7_0", "7_1"]


def test_jobs_that_end_before_their_workers_begin_end_the_sweep(told: Make) -> None:
    made, jobs = told(1)
    made.waiting = 1
    made._fill()
    jobs.set("FAILED", "1_0")
    made._look()
    assert sorted(made._own) == ["2_0"]
    jobs.set("FAILED", "2_0")
    with pytest.raises(Failure, match=r"^Slurm job 2_0 ended before its worker could begin; see .*/2_0_0_log\.out$"):
        made._look()


def test_what_a_worker_met_is_said_instead(told: Make) -> None:
    made, jobs = told(2)
    made._fill()
    error = {"kind": "UsageError", "text": "no CUDA here"}
    for job in ("1_0", "1_1"):
        made.erred({**rows(job)[0], "error": error})
    jobs.set("FAILED", "1_0", "1_1")
    with pytest.raises(UsageError, match="no CUDA here"):
        made._look()


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_what_happens_to_jobs_is_not_their_workers_fault(told: Make, state: str) -> None:
    made, jobs = told(1)
    made.waiting = 1
    made._fill()
    for number in range(1, 5):
        jobs.set(state, f"{number}_0")
        made._look()
    assert sorted(made._own) == ["5_0"]


def test_one_that_begins_makes_good_for_those_that_did_not(told: Make) -> None:
    made, jobs = told(1)
    made.waiting = 1
    made._fill()
    for number in range(1, 7):
        if number % 2 == 0:
            made.watch(rows(f"{number}_0"))
        jobs.set("FAILED", f"{number}_0")
        made._look()
    assert sorted(made._own) == ["7_0"]


def test_a_worker_that_claims_and_leaves_between_two_looks_had_begun(told: Make) -> None:
    made, jobs = told(1)
    made.waiting = 1
    made._fill()
    for number in range(1, 5):
        made.claimed += 1
        jobs.set("COMPLETED", f"{number}_0")
        made._look()
    jobs.set("COMPLETED", "5_0")  # but not for ever
    made._look()
    jobs.set("COMPLETED", "6_0")
    with pytest.raises(Failure, match="Slurm job 6_0 ended before its worker could begin"):
        made._look()


def test_what_a_person_cancels_is_not_submitted_again(told: Make) -> None:
    made, jobs = told(2)
    made.waiting = 5
    made._fill()
    made.watch(rows("1_0", "1_1"))
    jobs.set("CANCELLED", "1_0")
    made._look()
    assert sorted(made._own) == ["1_1"] and made.slots_for(rows("1_1")) == 1
    assert made.said[-1] == "Slurm job 1_0 was cancelled; another is not submitted"
    jobs.set("CANCELLED", "1_1")
    with pytest.raises(Failure, match="all its Slurm jobs were cancelled"):
        made._look()


def test_what_jobs_wait_for_is_said_once(told: Make) -> None:
    made, jobs = told(3)
    made._fill()
    jobs.set("PENDING", "1_0", "1_1", "1_2", reason="Resources")
    for _ in range(3):
        made._look()
    assert made.said[1:] == ["waiting for 3 of 3 Slurm jobs: Resources"]
    jobs.set("PENDING", "1_0", "1_1", "1_2", reason="QOSMaxWallDurationPerJobLimit")
    with pytest.raises(Failure, match="Slurm will not start Slurm job 1_0: QOSMaxWallDurationPerJobLimit"):
        made._look()


def test_a_controller_that_is_away_changes_nothing(told: Make) -> None:
    made, jobs = told(2)
    made._fill()
    before, jobs.jobs = jobs.jobs, None
    for _ in range(3):
        made._look()
    assert len(made._own) == 2 and len(made.said) == 2 and "squeue does not answer" in made.said[1]
    jobs.jobs, jobs.refuses, made.waiting = before, "sbatch: error: no controller", 3
    made.watch(rows("1_0", "1_1"))
    jobs.set("NODE_FAIL", "1_0")
    for _ in range(3):
        made._look()
    assert made.said[2:] == ["sbatch: error: no controller; it is tried again"]
    jobs.refuses = None
    made._look()
    assert len(made._own) == 2


def test_who_was_lost_is_said_with_the_job(told: Make) -> None:
    made, jobs = told(1)
    made._fill()
    jobs.set("OUT_OF_MEMORY", "1_0")
    made._look()
    (row,) = rows("1_0")
    assert made.fate(row) == "its worker on node1 was lost (Slurm job 1_0, OUT_OF_MEMORY)"
    assert made.fate({**row, "device": "cpu"}) == "its worker on node1 was lost"


def test_what_is_submitted_while_it_stops_is_cancelled(told: Make) -> None:
    made, jobs = told(1)
    made._cancel()
    made._submit(1)
    assert jobs.cancelled == ["1_0"]


# ---- what it is told


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("partion=gpu", "partion: unknown key; did you mean partition or margin?"),
        ("cluster=pbs", "it should be 'slurm' or 'local', not \"pbs\""),
        ("time_limit=soon", "'soon' is no length of time; write minutes, like 90, or H:MM:SS, like 1:30:00"),
        ("time_limit=90:00", "'90:00' is no length of time"),
        ("time_limit=0", "a length of time is a second at least"),
        ("margin=3600", "leaves a worker no time before its margin of 3600 s"),
        ("mem=lots", 'not "lots"'),
        ('partition="a\\nb"', "holds a character that cannot be printed"),
        ("sbatch={time: 5}", "time is not free: it is set here; give time_limit"),
        ("sbatch={output: x}", "output is not free: it is set here"),
        ("sbatch={'a b': 5}", "'a b' is no option of sbatch"),
        ('sbatch={qos: "a\\nrm"}', "holds a character that cannot be printed"),
    ],
)
def test_a_wrong_option_is_one_line(folder: Path, word: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        sweep_experiment("mine.yaml", [], executor="slurm", options=options(word), home=folder / "home")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (folder / "home").exists()


def test_a_machine_without_slurm_and_a_python_without_submitit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "sbatch" else name)
    with pytest.raises(UsageError, match="^executor slurm: no sbatch in PATH; run this on a node of the cluster that"):
        train_experiment("mine.yaml", [], executor="slurm", home=folder / "home")
    Slurm.check_here(SlurmOptions(cluster="local"))
    monkeypatch.delitem(sys.modules, "aigc_lab.executors.shared.batch_jobs")
    monkeypatch.setitem(sys.modules, "submitit", None)
    for name in [name for name in sys.modules if name.startswith("submitit.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UsageError, match=r"^executor slurm needs submitit: pip install 'aigc-lab\[slurm\]'$"):
        train_experiment("mine.yaml", [], executor="slurm", home=folder / "home")
    assert not (folder / "home").exists() and not capsys.readouterr().err


def test_a_home_that_slurm_would_misread_is_refused(folder: Path, cluster: Path) -> None:
    (folder / "a%A").mkdir()
    shutil.copy(folder / "mine.yaml", folder / "ended.py")
    (folder / "ended.py").write_text(SYSTEM)
    with pytest.raises(UsageError, match="holds a %, which Slurm fills in"):
        Slurm(
            load_experiment(folder / "mine.yaml", data_dir=folder),
            [Place("cpu", 1)],
            Settings.load(folder / "a%A"),
            print,
            SlurmOptions(),
        )


# ---- a worker's time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(1, 60), ("90", 5400), ("0:00:20", 20), ("1:30:00", 5400), ("2-00:00:01", 172801), ("100:00:00", 360000)],
)
def test_lengths_of_time(text: str | int, seconds: int) -> None:
    assert seconds_of(text) == seconds
    assert seconds_of(clock(seconds)) == seconds


def test_the_margin_is_a_quarter_of_a_short_limit() -> None:
    assert [SlurmOptions(time_limit=limit).before for limit in (60, 8, "0:01:00")] == [120, 120, 15]


def test_a_worker_asks_itself_to_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    ended = threading.Event()

    def request(*, hurry: bool = True) -> None:
        asked.append(hurry)
        ended.set()

    monkeypatch.setattr(signals, "request_stop", request)
    said: list[str] = []
    with worker._Allotted(time.monotonic() - 1, said.append) as allotted:
        assert ended.wait(60)
    assert (allotted.over, asked) == (True, [False]) and "its time is nearly over" in said[0]
    for by in (None, time.monotonic() + 3600):
        with worker._Allotted(by, said.append) as allotted:
            pass
        assert not allotted.over
    assert not [each for each in threading.enumerate() if each.name == "time limit" and not each.daemon]


# Prints what a process hears of its end, which a timer of a moment would bring.
HEARS = """
import os, signal, sys, time
from aigc_lab.host import signals
signals.LIMIT = 0.5
with signals.handled(), signals.deferred():
    signals.request_stop(hurry=False)
    while not signals.stop_requested():
        time.sleep(0.01)
    time.sleep(1.5)
    print("has its time", flush=True)
    os.kill(os.getpid(), signal.SIGUSR2)
    time.sleep(60)
"""


def test_work_has_its_time_until_a_signal_comes() -> None:
    done = subprocess.run([sys.executable, "-c", HEARS], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("has its time\n", 130)
    assert signal.SIGUSR2 in signals.SIGNALS


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "5"}, "5"),
        ({"SLURM_JOB_ID": "6", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "1"}, "5_1"),
        ({"SLURM_JOB_ID": "5", "SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "77"}, "77"),
    ],
)
def test_a_worker_knows_its_job(folder: Path, monkeypatch: pytest.MonkeyPatch, variables: Any, job: str | None) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert joining._job() == job
    place = worker.Terms("sweep", "cuda:0", job=job).place
    assert slurm._job_of({"device": place}) == job and json.dumps(place).startswith('"cuda:0')
