"""Disks that fill up, homes that cannot be written, databases that are locked, clocks that are set back, files that are
cut off, and commands that are given twice: each for real, and nothing is lost.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from unittest import mock

import pytest
from conftest import WriterHere
from harness import NoWriter, plain_environment, rows, stored
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from shell import Told, at, command
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from aigc_lab.commands import verify
from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors.base import Executor
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.host import environment
from aigc_lab.host.settings import Settings
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.registry import liveness, statements
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_trials
from aigc_lab.registry.tables import Attempt, Supervisor
from aigc_lab.runs.job import Job, RunOutcome, Watcher
from aigc_lab.runs.resources import Resources
from aigc_lab.sweeps import optuna_storage, scheduler, supervision
from aigc_lab.sweeps.cached_storage import CachedStorage
from aigc_lab.sweeps.scheduler import run_sweep
from aigc_lab.sweeps.session import Opened, stores
from aigc_lab.tracking import base, writer
from aigc_lab.tracking.spool import SpoolRun
from aigc_lab.training import checkpoint
from aigc_lab.training.loop import train

TEXT = """\
data: {name: ring, points: 500}
system: {name: point_gan, hidden: 16, lr: {log: [1e-4, 1e-2]}}
training: {steps: 40, batch_size: 16, log_every: 10, evaluate_every: 10, threads: 1, checkpoint_seconds: 0}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
search: {trials: 3, seeds: 1}
"""


@pytest.fixture
def folder(tmp_path: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in set(os.environ) - set(plain_environment()):
        monkeypatch.delenv(name)
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr(writer, "Writer", NoWriter)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(TEXT)
    return tmp_path


# What is broken here is broken in this process, whatever the timing of steps would have a sweep choose.
SWEEP = ["sweep", "mine.yaml", "--home", "home", "--device", "cpu", "--workers", "1", "--json"]


RUN = "mine-8c783c1b.{}.0"


def registry(home: str = "home") -> Registry:
    return Registry.open(f"sqlite:///{Path(home).absolute() / 'registry.db'}", create=False)


def shown(home: str = "home") -> dict[str, dict[str, Any]]:
    with registry(home) as opened:
        return {row["run"]: show_run(opened, row["run"]) for row in list_runs(opened)}


def attempts(home: str = "home") -> list[list[str]]:
    return [[attempt["state"] for attempt in run["attempts"]] for _, run in sorted(shown(home).items())]


def bits(home: str = "home") -> dict[str, Any]:
    """Of each run the digests of its weights and pictures, and its scores."""
    return {run: stored(Path(home).absolute(), run) for run in shown(home)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the sweep that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "mine.yaml").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "Writer", NoWriter)
        patch.chdir(folder)
        assert command(*SWEEP).code == 0
    return folder / "home"


@pytest.fixture(scope="module")
def truth(undisturbed: Path) -> dict[str, Any]:
    return bits(str(undisturbed))


def delivered(monkeypatch: pytest.MonkeyPatch, *words: str, runs: int = 3) -> None:
    """The sweep is given again; then all is in MLflow, and all stores agree."""
    monkeypatch.setattr(writer, "Writer", WriterHere)
    assert command(*SWEEP, *words).code == 0
    with registry() as opened:
        result = verify.verify_sweeps(opened, Settings.load(Path("home")))
    assert not result.problems and not result.notes, str(result)
    assert result.checked["MLflow runs"] == runs


def interrupted(evaluation: int, *words: str) -> None:
    """In the place of the watcher's answer to it."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with at(evaluation, interrupt):
        assert command(*SWEEP, *words).code == 130


def states() -> list[str]:
    """The checkpoints that runs could go on from."""
    return sorted(path.name for path in Path("home/checkpoints").glob("*/*/*/state-*.json"))


# ---- disks


class Disk:
    """A small file system of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True)
        self._mount("-t", "tmpfs", "-o", "size=8m", "tmpfs")

    def _mount(self, *words: str) -> None:
        done = subprocess.run(["mount", *words, str(self.place)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")

    def fill(self, room: int) -> None:
        """Leaves so many bytes."""
        free = os.statvfs(self.place)
        with (self.place / "ballast").open("ab") as ballast:
            ballast.write(b"\0" * (free.f_bavail * free.f_frsize - room))

    def empty(self) -> None:
        (self.place / "ballast").unlink()

    def writable(self, yes: bool) -> None:
        self._mount("-o", f"remount,{'rw' if yes else 'ro'}")

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.place)], check=True)


@pytest.fixture
def disk(folder: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """The home, or the part of it that is asked for."""
    disk = Disk(folder / "home" / getattr(request, "param", ""))
    yield disk
    disk.close()


def test_a_home_that_cannot_be_written_is_verified(
    disk: Disk, undisturbed: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As what it is: Optuna and MLflow are asked, and this MLflow has none of the runs."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    shutil.copytree(undisturbed, disk.place, dirs_exist_ok=True)
    shutil.copy(empty_mlflow, disk.place / "mlflow.db")
    shutil.rmtree(disk.place / "spool")
    disk.writable(False)
    told = command("verify", "--home", "home", "--json")
    assert told.code == 1 and not told.errors
    found = json.loads(told.output)
    (said,) = (text.partition(": ")[2] for text in found["problems"])
    assert said.startswith("MLflow has none of its 3 runs; aigc-lab reconcile --mlflow mine-")
    assert found["checked"]["trials"] == 3


@pytest.mark.parametrize(
    ("disk", "room"),
    [("", 0), ("", 40_000), ("checkpoints", 0), ("artifacts", 0), ("spool", 0)],
    indirect=["disk"],
)
def test_a_disk_that_fills_up_is_waited_for(
    disk: Disk, room: int, truth: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the second of three trials. What ended before is kept, the reason is told, and when there is
    space the same command goes on to the same bits.
    """
    with at(6, lambda: disk.fill(room)):
        told = command(*SWEEP)
    assert told.code == 1
    assert "No space left on device" in told.why or "database or disk is full" in told.why
    if (disk.place.name, room) == ("home", 0):
        disk.empty()  # the database's log, which found no room to be put into its file, is now
        with Registry.open(f"sqlite:///{disk.place / 'registry.db'}") as registry, registry.read():
            pass
        disk.fill(0)
        full = command("status", "--home", "home")
        assert full.code == 2 and "its disk is full" in full.why
    disk.empty()
    assert not any(run["state"] == "FAILED" for run in shown().values())
    first, *rest = attempts()
    assert first == ["FINISHED"] and bits()[RUN.format(0)] == truth[RUN.format(0)]
    assert rest
    assert command(*SWEEP).code == 0
    assert bits() == truth
    assert attempts()[0] == ["FINISHED"]
    if disk.place.name in ("home", "spool"):
        delivered(monkeypatch)


ONE = ("--trials", "1")


@pytest.mark.usefixtures("folder")
def test_a_disk_that_is_full_when_the_weights_are_written(truth: dict[str, Any]) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.safetensors")

    with mock.patch.object(checkpoint, "save_weights", full):
        told = command(*SWEEP, *ONE)
    assert told.code == 1 and told.why == "error: last.safetensors: No space left on device"
    assert attempts() == [["KILLED"]]
    assert states()[-1] == "state-000000040.json"
    assert command(*SWEEP, *ONE).code == 0
    assert [attempt["from_step"] for attempt in shown()[RUN.format(0)]["attempts"]] == [0, 40]
    assert attempts() == [["KILLED", "FINISHED"]] and bits()[RUN.format(0)] == truth[RUN.format(0)]


@pytest.mark.usefixtures("folder")
def test_a_run_that_could_not_begin_says_why() -> None:
    """There is no attempt that could have failed: the sweep ends, and the run is done when it is given again."""
    with mock.patch.object(checkpoint, "checkpoints", side_effect=PermissionError(13, "Permission denied", "home")):
        told = command(*SWEEP, *ONE)
    assert told.code == 1
    assert (
        told.why == f"error: run {RUN.format(0)} could not begin: PermissionError: [Errno 13] Permission denied: 'home'"
    )
    assert attempts() == [[]] and command(*SWEEP, *ONE).code == 0
    assert attempts() == [["FINISHED"]]


RAISES = """
class Mine(PointGAN):
    def phases(self, batch_size):
        found = super().phases(batch_size)
        return [phase._replace(loss=lambda *given, own=phase.loss: self._loss(own, *given)) for phase in found]

    def _loss(self, own, batch, noise, step):
        print("noise")
        if step > 12:
            raise ERROR
        return own(batch, noise, step)


class _Own(BaseException): ...
"""


@pytest.mark.parametrize(
    ("error", "told"),
    [("SystemExit(5)", "SystemExit: 5"), ("KeyboardInterrupt", "KeyboardInterrupt"), ("_Own('x')", "_Own: x")],
)
def test_whatever_a_system_raises_is_a_run_that_failed(folder: Path, error: str, told: str) -> None:
    """It is no end of the sweep, no interruption and no exit code; and what it prints is no part of the JSON."""
    text = "from aigc_lab.systems.point_gan import PointGAN\n" + RAISES.replace("ERROR", error)
    (folder / "own.py").write_text(text)
    (folder / "mine.yaml").write_text(TEXT.replace("name: point_gan", "name: ./own.py"))
    done = command(*SWEEP, "--trials", "2")
    assert done.code == 1 and done.output == "" and "all 2 runs of mine-" in done.why
    assert {(run["state"], run["reason"]) for run in shown().values()} == {("FAILED", told)}


READING = (["status"], ["compare", "mine"], ["runs"], ["show", RUN.format(0)])
WRITING = (
    SWEEP,
    ["resume", "mine"],
    ["reconcile"],
    ["spool", "--flush"],
    ["delete", "mine", "--yes"],
    ["promote", "mine", "--force", "--reason", "what was trained so briefly passes no verdict"],
    ["export", "mine", "-o", "mine.tar"],
    ["cache", "clear"],
)


def unaged(output: str) -> str:
    return re.sub(r'"age": [\d.]+', "", output)


@pytest.mark.parametrize("left", ["in order", "by a kill"])
def test_a_home_that_cannot_be_written_is_read(disk: Disk, undisturbed: Path, left: str) -> None:
    shutil.copytree(undisturbed, disk.place, dirs_exist_ok=True)
    if left == "by a kill":
        killed = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)"
        killed += "; c.execute(\"UPDATE run SET reason = 'a last word'\"); os.kill(os.getpid(), 9)"
        subprocess.run([sys.executable, "-c", killed, str(disk.place / "registry.db")])
        assert (disk.place / "registry.db-wal").stat().st_size
    before = sorted(disk.place.rglob("*"))
    disk.writable(False)
    for words in READING:
        there, here = (command(*words, "--home", home, "--json") for home in (str(undisturbed), "home"))
        assert (here.code, here.errors) == (0, "") and len(here.output) > 100
        if left == "in order":
            assert unaged(here.output) == unaged(there.output).replace(str(undisturbed), str(disk.place))
        elif words[0] == "show":
            assert "a last word" in here.output, "what is in the log alone is read too"
    for words in WRITING:
        told = command(*words, *([] if words is SWEEP else ["--home", "home"]))
        assert told.code in (1, 2)
        assert "Read-only file system" in told.why
    assert sorted(disk.place.rglob("*")) == before


# ---- databases that another process locks

LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("BEGIN EXCLUSIVE")
print("LOCKED", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("COMMIT")
"""


# The registry is locked just before a result is written to it, Optuna's storage just before a report.
@pytest.mark.parametrize("seconds", [1.5, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("database", "evaluation"), [("registry.db", 8), ("optuna.db", 6)])
@pytest.mark.usefixtures("folder")
def test_a_database_that_is_locked_for_a_while_is_waited_for(
    seconds: float, database: str, evaluation: int, truth: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    words = [sys.executable, "-c", LOCK, f"home/{database}", str(seconds)]
    lockers: list[subprocess.Popen[str]] = []

    def lock() -> None:
        lockers.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        output = lockers[0].stdout
        assert output is not None and output.readline() == "LOCKED\n"

    with at(evaluation, lock):
        told = command(*SWEEP)
    assert told.code == 0, told.errors
    assert lockers[0].wait(60) == 0
    assert bits() == truth and attempts() == [["FINISHED"]] * 3
    assert not caplog.records


# ---- Optuna's storage

# When -> what fails then, and the attempts of the two runs by the end.
OPTUNA: dict[str, tuple[str, list[list[str]]]] = {
    "a trial is asked for": ("create_new_trial", [["FINISHED"]]),
    "a value is reported": ("set_trial_intermediate_value", [["FINISHED"], ["KILLED"]]),
    "a trial is told": ("set_trial_state_values", [["FINISHED"], ["FINISHED"]]),
}
UNUSABLE = OperationalError("UPDATE trials", {}, sqlite3.OperationalError("disk I/O error"))


@pytest.mark.parametrize("when", OPTUNA)
@pytest.mark.usefixtures("folder")
def test_a_storage_of_optuna_that_fails_is_no_fault_of_a_run(when: str, truth: dict[str, Any]) -> None:
    """In the second trial: the sweep ends with the reason, and goes on from where it was."""
    method, then = OPTUNA[when]
    original = getattr(CachedStorage, method)

    def fails(storage: CachedStorage, *given: Any, **named: Any) -> Any:
        passed = [*given, *named.values()]
        if method == "create_new_trial":
            now = len(passed) == 1  # the first has a template, of fixed values
        else:
            second = storage.get_trial(passed[0]).number == 1
            now = second and (20 in passed or TrialState.COMPLETE in passed)
        if not now:
            return original(storage, *given, **named)
        if method == "set_trial_intermediate_value":
            raise StorageInternalError("An exception is raised during the commit.") from UNUSABLE
        raise UNUSABLE

    two = ("--trials", "2")
    with mock.patch.object(CachedStorage, method, fails):
        told = command(*SWEEP, *two)
    assert told.code == 1 and "Optuna's storage: " in told.why and "disk I/O error" in told.why
    assert attempts() == then
    killed = then[-1] == ["KILLED"]
    assert states()[-1:] == ["state-000000020.json"] * killed
    assert command(*SWEEP, *two).code == 0
    assert attempts() == [["FINISHED"], ["KILLED", "FINISHED"] if killed else ["FINISHED"]]
    assert bits() == {run: of for run, of in truth.items() if run != RUN.format(2)}
    (sweep,) = {run["sweep"] for run in shown().values()}
    known = optuna_storage.trial_states(Settings.load(Path("home")).optuna_url, sweep)
    assert [state for state, _ in known.values()] == ["COMPLETE", "COMPLETE"]


# ---- ends that nobody was told of


def log(run: str) -> list[dict[str, Any]]:
    """What a run has spooled."""
    (path,) = Path("home/spool").glob(f"*/{run}.1/log.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("folder")
def test_who_is_killed_before_mlflow_is_told_of_the_end_has_shown_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry knows the result by then, and nobody will do the run again."""
    with mock.patch.object(SpoolRun, "end", side_effect=KeyboardInterrupt):
        assert command(*SWEEP, *ONE).code == 130
    (run,) = shown().values()
    assert run["state"] == "FINISHED"
    told = log(run["run"])
    assert not any("end" in record for record in told)
    last = {name for record in told for name, _, _, step in record.get("points", ()) if step == 40}
    assert {"score/rkl", "score/rkl_holdout", "time/training_seconds", "time/evaluation_seconds"} <= last
    delivered(monkeypatch, *ONE, runs=1)
    assert attempts() == [["FINISHED"]] and not states()


@pytest.mark.usefixtures("folder")
def test_times_shown_by_an_attempt_that_was_killed_before_its_end_are_those_of_the_registry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next attempt measures others: one step would be shown with one time and recorded with another."""
    original = Registry.finish

    def killed(registry: Registry, run: str, attempt: int, state: RunState, **given: Any) -> None:
        if attempt == 1 and state == "FINISHED":
            raise KeyboardInterrupt
        original(registry, run, attempt, state, **given)

    with mock.patch.object(Registry, "finish", killed):
        assert command(*SWEEP, *ONE).code == 130
    assert attempts() == [["KILLED"]]
    delivered(monkeypatch, *ONE, runs=1)
    assert attempts() == [["KILLED", "FINISHED"]]
    verified = command("verify", "--home", "home")
    assert verified.code == 0, verified.why


@pytest.mark.usefixtures("folder")
def test_a_pruner_whose_answer_never_came_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops the run where it would have stopped it at once."""
    asked: list[int] = []

    def scored(watcher: scheduler._Watcher, step: int, value: float, **told: object) -> bool:
        asked.append(step)
        if asked == [10, 20]:
            raise KeyboardInterrupt
        return step == 20

    monkeypatch.setattr(scheduler._Watcher, "scored", scored)
    assert command(*SWEEP, *ONE).code == 130
    assert states()[-1] == "state-000000020.json"
    assert command(*SWEEP, *ONE).code == 0
    assert asked == [10, 20, 20]
    assert command("sweep", "mine.yaml", "--home", "undisturbed", *SWEEP[4:], *ONE).code == 0
    assert asked == [10, 20, 20, 10, 20]
    assert attempts() == [["KILLED", "PRUNED"]] and attempts("undisturbed") == [["PRUNED"]]
    here, there = shown()[RUN.format(0)], shown("undisturbed")[RUN.format(0)]
    assert here["reason"] == there["reason"] and bits() == bits("undisturbed")
    points = [(name, step) for record in log(here["run"]) for name, _, _, step in record.get("points", ())]
    assert len(points) == len(set(points)) and ("score/rkl", 20) in points
    assert not states()


@pytest.mark.usefixtures("folder")
def test_what_diverged_is_no_checkpoint_when_its_end_could_not_be_recorded() -> None:
    finish = Registry.finish

    def fails(registry: Registry, run: str, attempt: int, state: RunState, **facts: Any) -> None:
        if state == RunState.DIVERGED:
            raise Failure("registry: it is gone")
        finish(registry, run, attempt, state, **facts)

    words = [*SWEEP, *ONE, "--set", "system.lr=1e30"]
    with mock.patch.object(Registry, "finish", fails):
        assert command(*words).why == "error: registry: it is gone"
    assert attempts() == [["KILLED"]] and not states()
    command(*words)
    (run,) = shown().values()
    assert [(attempt["state"], attempt["from_step"]) for attempt in run["attempts"]] == [("KILLED", 0), ("DIVERGED", 0)]


@pytest.mark.usefixtures("folder")
def test_a_seed_that_failed_first_makes_the_stores_no_less_agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna was told the value of the other seed, and its word is final."""
    # Modes that are wide have points of an untrained generator, too.
    words = (*ONE, "--seeds", "2", "--set", "data.sigma=0.5")

    def breaks(replicas: Any, **options: Any) -> Any:
        if replicas[0].seed == 1:
            raise RuntimeError("out of luck")
        return train(replicas, **options)

    with mock.patch("aigc_lab.runs.rounds.train", breaks):
        assert command(*SWEEP, *words).code == 0
    assert attempts() == [["FINISHED"], ["FAILED"]]
    delivered(monkeypatch, *words, "--retry-failed", runs=2)
    assert attempts() == [["FINISHED"], ["FAILED", "FINISHED"]]
    (sweep,) = {run["sweep"] for run in shown().values()}
    with registry() as opened:
        (row,) = list_trials(opened, sweep)
    known = optuna_storage.trial_states(Settings.load(Path("home")).optuna_url, sweep)
    assert known[0][0] == "COMPLETE" and known[0][1] != row["value"]


@pytest.mark.parametrize(("changed", "chain"), [({}, 1), ({"threads": 99}, 2), ({"git_commit": "0" * 40}, 2)])
@pytest.mark.usefixtures("folder")
def test_a_run_that_begins_again_elsewhere_is_another_in_mlflow(
    changed: dict[str, Any], chain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bits may be others than those that it has shown; where nothing has changed they are the same."""
    interrupted(2, *ONE)
    shutil.rmtree("home/checkpoints")
    now = environment.describe("cpu") | changed
    monkeypatch.setattr(environment, "describe", lambda device: now)
    delivered(monkeypatch, *ONE, runs=1)
    assert attempts() == [["KILLED", "FINISHED"]]
    keys = rows(Path("mlflow.db").absolute(), "SELECT value FROM tags WHERE key = 'aigc_lab.key' ORDER BY value")
    assert keys == [(f"{RUN.format(0)}.{number}",) for number in range(1, chain + 1)]
    with registry() as opened:
        assert opened.chain(RUN.format(0)) == chain


# ---- clocks that are set back


@pytest.mark.usefixtures("folder")
def test_a_clock_that_was_set_back_between_two_attempts(truth: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempts were made in what is now the future, as was all that stands on the disk."""
    ahead = timedelta(hours=3)
    with monkeypatch.context() as patch:
        patch.setattr(statements, "now", lambda: datetime.now(UTC) + ahead)
        patch.setattr(base, "now", lambda: round((time.time() + ahead.total_seconds()) * 1000))
        interrupted(6)
        for path in Path("home/checkpoints").rglob("*"):
            os.utime(path, (time.time() + ahead.total_seconds(),) * 2)
    interrupted(2)  # the first is that at step 20 again: the pruner's answer had not come
    told = command("status", "mine", "--home", "home")
    assert told.code == 0 and "0 s ago" in told.output and not re.search(r"-[\d.]+ (s|min|h)\b", told.output)
    row = json.loads(command("status", "mine", "--home", "home", "--json").output)
    assert row["condition"] == "stopped" and row["age"] == 0
    assert command(*SWEEP).code == 0
    assert attempts() == [["FINISHED"], ["KILLED", "KILLED", "FINISHED"], ["FINISHED"]]
    begun = [attempt["from_step"] for attempt in shown()[RUN.format(1)]["attempts"]]
    assert begun == [0, 20, 30]
    assert bits() == truth
    delivered(monkeypatch)


@pytest.mark.parametrize(("ahead", "alive"), [(30, True), (-30, True), (3600, False), (-3600, False)])
def test_a_beat_from_the_future_is_as_old_as_one_from_the_past(tmp_path: Path, ahead: int, alive: bool) -> None:
    """Who beats on another machine is given up after a while, whichever clock is wrong, and does not live for ever."""
    beat = datetime.now(UTC) + timedelta(seconds=ahead)
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}") as opened:
        sweep = opened.sweep("rings", "0123456789", {}, "rkl", "lower")
        opened.trial(sweep, 0, "point_gan", {}, {})
        with mock.patch.object(Registry, "moment", return_value=beat):
            opened.supervise(sweep)
            opened.begin(opened.run(sweep, 0, 0, "search"), {})

        def told() -> list[bool]:
            return [row["alive"] for row in liveness.running(opened) + liveness.supervisors(opened)]

        assert told() == [True, True], "on this machine the process is looked for, whatever the clock says"
        for facts, wanted in (({"pid": 2**22 + 1}, False), ({"host": "elsewhere"}, alive)):
            with opened.write() as connection:
                for table in (Attempt, Supervisor):
                    connection.execute(update(table).values(facts))
            assert told() == [wanted, wanted]
        with pytest.raises(UsageError) if alive else contextlib.nullcontext():
            supervision.refuse_supervised(opened, sweep)


def test_of_two_attempts_at_one_step_the_later_is_gone_on_from(tmp_path: Path) -> None:
    told = {"step": 10, "sha256": hashlib.sha256(b"").hexdigest(), "history": {}}
    for number in range(1, 12):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "state-000000010.safetensors").touch()
        (tmp_path / str(number) / "state-000000010.json").write_text(json.dumps(told))
        os.utime(tmp_path / str(number), (time.time() - number * 3600,) * 2)
    assert next(checkpoint.checkpoints(tmp_path)).state.parent.name == "11"


# ---- checkpoints that are cut off


@pytest.mark.parametrize("cut", [["newest safetensors"], ["newest json"], ["newest json", "older safetensors"]])
@pytest.mark.usefixtures("folder")
def test_a_checkpoint_that_is_cut_in_half_is_not_gone_on_from(
    cut: list[str], truth: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(7)
    older, newest = sorted(Path("home/checkpoints").glob("*/1.0/1/state-*.json"))
    step = json.loads(older.read_text())["step"] if len(cut) == 1 else 0
    for which, kind in map(str.split, cut):
        path = {"older": older, "newest": newest}[which].with_suffix(f".{kind}")
        os.truncate(path, path.stat().st_size // 2)
    assert command(*SWEEP).code == 0
    assert [attempt["from_step"] for attempt in shown()[RUN.format(1)]["attempts"]] == [0, step]
    assert caplog.text.count("damaged, so an older checkpoint is used") == len(cut)
    assert bits() == truth


# ---- the same command twice

# A command that says when it is ready to begin, and begins when it is told to; its training waits until it may end.
TWICE = """
import sys
from pathlib import Path
from unittest import mock
from harness import NoWriter
from aigc_lab import cli
from aigc_lab.sweeps import scheduler
from aigc_lab.tracking import writer
import aigc_lab.commands.sweep
scored = scheduler._Watcher.scored
def waits(watcher, step, value, **told):
    print("TRAINING", flush=True, file=sys.__stdout__)  # with --json, standard output is kept for that
    sys.stdin.readline()
    scheduler._Watcher.scored = scored
    return scored(watcher, step, value, **told)
scheduler._Watcher.scored = waits
writer.Writer = NoWriter
print("READY", flush=True)
sys.stdin.readline()
cli.main()
"""


def test_of_two_commands_at_the_same_instant_one_runs(
    folder: Path, truth: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWICE, *SWEEP],
            env=there,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        said = [process.stdout for process in both]
        asked = [process.stdin for process in both]
        for output in said:
            assert output is not None and output.readline() == "READY\n"
        for words in asked:
            assert words is not None
            words.write("begin\n")
            words.flush()
        # One trains, and waits; the other has ended, and its output with it.
        answers = [output.readline() for output in said if output is not None]
        assert sorted(answers) == ["", "TRAINING\n"]
        refused, runs = (both[answers.index(answer)] for answer in ("", "TRAINING\n"))
        _, errors = refused.communicate(timeout=60)
        assert refused.returncode == 2
        why = Told(2, "", errors).why
        assert "is being run by another process; wait for it, or stop it first: aigc-lab stop --home home mine-" in why
        _, errors = runs.communicate("end\n", timeout=120)
        assert runs.returncode == 0, errors
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert attempts() == [["FINISHED"]] * 3 and bits() == truth
    delivered(monkeypatch)


# ---- many at once

# In a worker's place: what it writes of its runs in the registry, without the training in between.
HAND = """
import sys
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
registry = Registry.open(sys.argv[1], create=False)
print("READY", flush=True)
for line in sys.stdin:
    run = line.strip()
    attempt = registry.begin(run, {})
    for step in range(10):
        registry.beat(run, attempt, step=step)
    registry.finish(run, attempt, RunState.FINISHED, seconds=1.0)
    print(run, flush=True)
"""


class Hands(Executor):
    """Eight processes that write as workers do."""

    slots = 8

    def __init__(self, url: str) -> None:
        words = [sys.executable, "-c", HAND, url]
        pipe = subprocess.PIPE
        self._hands = [subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) for _ in range(self.slots)]
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        for hand in self._hands:
            assert hand.stdout is not None and hand.stdout.readline() == "READY\n"
            self._free.put(hand)

    def run(self, job: Job, watcher: Watcher) -> RunOutcome:
        hand = self._free.get()
        assert hand.stdin is not None and hand.stdout is not None
        hand.stdin.write(f"{job.run}\n")
        hand.stdin.flush()
        for step in (10, 20, 30):
            watcher.scored(step, float(job.trial))
        assert hand.stdout.readline() == f"{job.run}\n", "it has died"
        self._free.put(hand)
        return RunOutcome(RunState.FINISHED, float(job.trial))

    def stop(self) -> None:
        for hand in self._hands:
            hand.kill()
            hand.wait()


@pytest.mark.usefixtures("folder")
def test_eight_processes_that_write_at_once() -> None:
    changes = [("search.trials", "10", ""), ("search.seeds", "2", ""), ("search.sampler", "random", "")]
    settings = Settings.load(Path("home"))
    experiment = load_experiment("mine.yaml", changes, data_dir=settings.data_dir, weights=WeightsPolicy())
    check_experiment(experiment)
    with stores(settings, "s") as (opened, _), Hands(settings.registry_url) as hands:
        sweep = opened.sweep("mine", experiment.digest, experiment.document.data, "rkl", "lower")
        resources = Resources(settings, opened, mock.Mock(), mock.Mock(), "cpu")
        run_sweep(experiment, Opened(sweep, resources, hands, threading.Event()), mock.Mock())
        assert attempts() == [["FINISHED"]] * 20
        assert {row["trial"] for row in list_trials(opened, sweep)} == set(range(10))
        assert optuna_storage.trial_states(settings.optuna_url, sweep) == {n: ("COMPLETE", float(n)) for n in range(10)}


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_eight_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "Writer", WriterHere)
    told = command(*SWEEP, "--workers", "8", "--trials", "16")
    assert told.code == 0, told.errors
    assert attempts() == [["FINISHED"]] * 16
    logs = "".join(path.read_text() for path in Path("home/logs").iterdir())
    assert "locked" not in told.errors + logs
    with registry() as opened:
        result = verify.verify_sweeps(opened, Settings.load(Path("home")))
    assert not result.problems and not result.notes, str(result)
    assert result.checked["trials"] == 16
