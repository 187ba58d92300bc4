"""Several workers: real processes, each run once, the same bits as alone, and none left behind whatever ends them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from conftest import WriterHere

from aigc_lab.commands import verify
from aigc_lab.commands.spool import flush_spools
from aigc_lab.commands.sweep import sweep_experiment
from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors.base import Place
from aigc_lab.executors.shared import follower, queued
from aigc_lab.executors.shared.queued import Queued
from aigc_lab.host import run_folders
from aigc_lab.host.settings import Settings
from aigc_lab.registry import attempts as registry_attempts
from aigc_lab.registry.run_lifecycle import RETRIES
from aigc_lab.registry.run_queue import Claimed
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.runs.job import Job, RunOutcome
from aigc_lab.sweeps.places import assign_places
from aigc_lab.tracking import writer
from aigc_lab.tracking.spool import SpoolTracker
from aigc_lab.tracking.spool_log import records

# A system that tells what its process has imported, and may end its process or take its time.
SPY = """
import json, os, signal, sys, time
from pathlib import Path
from aigc_lab.systems import point_gan

HERE = Path(__file__).parent

class Spy(point_gan.PointGAN):
    def generate(self, *given, **options):
        if "aigc_lab.runs.worker" in " ".join(sys.orig_argv):
            facts = {name: name in sys.modules for name in ("torch", "mlflow", "optuna")}
            facts["threads"] = __import__("torch").get_num_threads()
            (HERE / f"worker-{os.getpid()}.json").write_text(json.dumps(facts))
            fatal = HERE / "fatal"
            if fatal.exists() and (fatal.read_text() == "always" or not (HERE / "died").exists()):
                (HERE / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            while (HERE / "wait").exists():
                time.sleep(0.05)
        return super().generate(*given, **options)
"""
TEXT = """\
data: {name: ring, points: 2000}
system: {name: ./spy.py, hidden: 16, lr: {log: [1e-4, 1e-2]}}
training: {steps: 20, batch_size: 32, log_every: 10, evaluate_every: 10, threads: 1}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
search: {trials: 3, seeds: 2, pruner: none}
confirm: {top: 1, seeds: 1}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(TEXT)
    (tmp_path / "spy.py").write_text(SPY)
    return tmp_path


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "Writer", WriterHere)


def sweep(folder: Path, home: str, *, workers: int, **changes: object) -> list[dict[str, Any]]:
    made = [(key.replace("_", "."), json.dumps(value), key) for key, value in changes.items()]
    return sweep_experiment(
        str(folder / "mine.yaml"), made, device="cpu", workers=workers, json=True, home=folder / home
    )


def shown(folder: Path, home: str) -> dict[str, dict[str, Any]]:
    with Registry.open(f"sqlite:///{folder / home / 'registry.db'}") as registry:
        runs = [run["run"] for run in list_runs(registry)]
        return {run.partition(".")[2]: show_run(registry, run) for run in runs}


def weights(run: dict[str, Any]) -> str:
    return next(str(file["sha256"]) for file in run["checkpoints"] if file["kind"] == "last")


@pytest.mark.usefixtures("near")
def test_two_workers_do_each_run_once_and_as_one_would(folder: Path) -> None:
    sweep(folder, "two", workers=2)
    both = shown(folder, "two")
    assert set(both) == {"0.0", "0.1", "1.0", "1.1", "2.0", "2.1"} | {key for key in both if key.endswith(".2")}
    assert len(both) == 7
    assert all(run["state"] == "FINISHED" and len(run["attempts"]) == 1 for run in both.values())
    assert all(run["mlflow_run_id"] for run in both.values())
    told = [json.loads(path.read_text()) for path in folder.glob("worker-*.json")]
    assert told == [{"torch": True, "mlflow": False, "optuna": False, "threads": 1}] * 2
    pids = {run["environment"]["pid"] for run in both.values()}
    assert pids == {int(path.stem.removeprefix("worker-")) for path in folder.glob("worker-*.json")}
    assert not any(alive(pid) for pid in pids)

    sweep(folder, "one", workers=1, search_trials=1)
    for key, run in shown(folder, "one").items():
        if not key.endswith(".2"):
            assert weights(run) == weights(both[key]), key

    # Going on does nothing over, and the total is the total.
    sweep(folder, "two", workers=2, search_trials=4)
    more = shown(folder, "two")
    assert {key for key in more if not key.endswith(".2")} == {
        f"{trial}.{seed}" for trial in range(4) for seed in (0, 1)
    }
    assert all(len(run["attempts"]) == 1 for run in more.values())
    assert all(weights(more[key]) == weights(run) for key, run in both.items())


@pytest.mark.usefixtures("near")
@pytest.mark.parametrize("fatal", [pytest.param("once", marks=pytest.mark.slow), "always"])
def test_a_run_whose_process_dies_is_tried_again(
    folder: Path, fatal: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_attempts, "RETRIES", 1)
    (folder / "fatal").write_text(fatal)
    options: dict[str, Any] = {"search_trials": 2, "search_seeds": 1, "confirm": None}
    if fatal == "once":
        sweep(folder, "home", workers=2, **options)
    else:
        with pytest.raises(Exception, match="all 2 runs of mine-.* failed"):
            sweep(folder, "home", workers=2, **options)
    runs = shown(folder, "home")
    attempts = [[attempt["state"] for attempt in run["attempts"]] for run in runs.values()]
    reason = "its worker process was ended by SIGKILL (out of memory?)"
    assert reason in capsys.readouterr().err
    if fatal == "once":
        assert sorted(attempts) in ([["FINISHED"], ["KILLED", "FINISHED"]], [["KILLED", "FINISHED"]] * 2)
        assert {run["state"] for run in runs.values()} == {"FINISHED"}
    else:
        assert attempts == [["KILLED"] * 2] * 2
        reason += ", 2 times without progress"
        assert {(run["state"], run["reason"]) for run in runs.values()} == {("FAILED", reason)}
        with Registry.open(f"sqlite:///{folder / 'home' / 'registry.db'}") as registry:
            found = verify.verify_sweeps(registry, Settings.load(folder / "home"))
        assert not found.problems and found.checked["MLflow runs"] == 2
        assert not list((folder / "home" / "checkpoints").glob("*/*/*/state-*"))


# ---- workers that die where it is told, without a process


class Scripted(Queued):
    """Its workers come and go by themselves."""

    def fate(self, worker: Any) -> str:
        return "it died"


class Played:
    """A run that is given to workers, which do with it what comes next in the script."""

    def __init__(self, home: Path, registry: Registry) -> None:
        self.registry, self.spool, self.settings = registry, home / "spool" / "s", Settings.load(home)
        self.said: list[str] = []
        self.sweep = registry.sweep("mine", "0123456789abcdef", {}, "fd", "lower")
        registry.trial(self.sweep, 0, "vae", {}, {})
        unused: Any = None
        self.job = Job(registry.run(self.sweep, 0, 0, "search"), self.sweep, 0, 0, "search", unused, unused)

    def play(self, *script: str) -> RunOutcome:
        self.script, self.workers, ended = list(script), 0, threading.Event()
        experiment: Any = SimpleNamespace(sweep=self.sweep)
        resources: Any = SimpleNamespace(registry=self.registry, replicas={})
        with mock.patch.object(queued, "opening_of", return_value={}):
            executor = Scripted(experiment, [Place("cpu", 1)], self.settings, self.said.append)
            executor.open(resources, self.spool)
        actors = threading.Thread(target=self._act, args=(ended,))
        actors.start()
        try:
            with executor:
                return executor.run(self.job, mock.Mock())
        finally:
            ended.set()
            actors.join()

    def _act(self, ended: threading.Event) -> None:
        while self.script and not ended.is_set():
            worker = self.registry.join(self.sweep, "cpu")
            self.workers += 1
            while (claimed := self.registry.claim(self.sweep, worker)) is None:
                if ended.wait(0.01):
                    return
            if self._do(self.script.pop(0), claimed):
                self.registry.end_place(claimed.run, claimed.claim)
            self.registry.leave(worker)

    def _do(self, act: str, claimed: Claimed) -> bool:
        """Does with the run what is told, and says whether its worker lived to say so."""
        if act == EARLY:
            return False
        job, registry = self.job, self.registry
        attempt = registry.begin(job.run, {}, claim=claimed.claim)
        key = f"{job.run}.{registry.chain(job.run)}"
        shown = SpoolTracker(self.spool).start(job.sweep, "", key, {}, {})
        folder = run_folders.folder(self.settings, job.sweep, job.trial, job.seed) / str(attempt)
        folder.mkdir(parents=True)
        for name in ("state-000000010.json", "state-000000010.safetensors", "last.safetensors"):
            (folder / name).touch()
        if act == WITHIN:
            return False
        state, reason = RunState(act.split()[0]), "as it is" if act.startswith("DIVERGED") else None
        registry.finish(job.run, attempt, state, reason=reason)
        if act.endswith("and dies"):
            return False
        shown.end("FINISHED", {})
        return True

    def log(self, chain: int) -> list[dict[str, Any]]:
        return list(records(self.spool / f"{self.job.run}.{chain}"))

    def states(self) -> list[str]:
        return [attempt["state"] for attempt in show_run(self.registry, self.job.run)["attempts"]]


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    monkeypatch.setattr(follower, "_WORKERS", 0.02)
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}", connected=True) as registry:
        yield Played(tmp_path, registry)


EARLY, WITHIN = "dies before it begins", "dies in the run"


@pytest.mark.parametrize(
    ("script", "ends"),
    [
        ([WITHIN, EARLY, "FINISHED"], False),
        ([EARLY, WITHIN, EARLY, "FINISHED"], False),
        ([EARLY, EARLY], True),
        ([WITHIN, EARLY, EARLY], True),
    ],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_a_worker_may_die_once_before_it_can_begin(
    played: Played, script: list[str], ends: bool, resumed: bool
) -> None:
    """A start that fails now and then is tried again; one that fails twice would always fail."""
    if resumed:
        played.registry.finish(played.job.run, played.registry.begin(played.job.run, {}), RunState.KILLED)
    if ends:
        with pytest.raises(Failure, match="a worker process cannot go on: it died"):
            played.play(*script)
    else:
        assert played.play(*script).state == RunState.FINISHED
    assert played.script == [] and played.workers >= len(script)
    began = [{WITHIN: "KILLED"}.get(act, act) for act in script if act != EARLY]
    assert played.states() == ["KILLED"] * resumed + began


@pytest.mark.parametrize("state", ["FINISHED", "DIVERGED"])
def test_what_a_worker_left_undone_when_its_run_had_ended(played: Played, state: str) -> None:
    outcome = played.play(WITHIN, f"{state} and dies")
    assert (outcome.state, outcome.reason) == (state, "as it is" if state == "DIVERGED" else None)
    assert played.states() == ["KILLED", state]
    *_, last = played.log(1)
    assert last["end"] == "FINISHED"
    assert last["tags"] == {"state": state} | ({"reason": "as it is"} if state == "DIVERGED" else {})
    left = [path.name for path in played.settings.checkpoints.rglob("*") if path.is_file()]
    assert left == ["last.safetensors"]


def test_a_run_that_was_lost_too_often_begins_a_new_chain_when_told_to(played: Played) -> None:
    outcome = played.play(*[WITHIN] * (RETRIES + 1))
    reason = f"it died, {RETRIES + 1} times without progress"
    assert (outcome.state, outcome.reason) == (RunState.FAILED, reason)
    shown = show_run(played.registry, played.job.run)
    assert (shown["state"], shown["reason"]) == (RunState.FAILED, reason)
    *_, last = played.log(1)
    assert (last["end"], last["tags"]) == ("FAILED", {"state": "FAILED", "reason": reason})
    assert not list(played.settings.checkpoints.rglob("state-*"))
    assert played.play(*[WITHIN] * RETRIES, "FINISHED").state == RunState.FINISHED
    assert played.registry.chain(played.job.run) == RETRIES + 2
    assert played.log(RETRIES + 2)[-1]["end"] == "FINISHED"


# ---- real ones again


def alive(pid: int) -> bool:
    """Whether the process is there and not merely unburied."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


@contextlib.contextmanager
def started(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """The command, in the middle of two runs, and the processes that do them."""
    for path in folder.glob("worker-*.json"):
        path.unlink()
    (folder / "wait").touch()
    words = "sweep mine.yaml --home home --workers 2 --set confirm=null --trials 2 --seeds 1"
    process = subprocess.Popen(
        [sys.executable, "-c", "from aigc_lab.cli import main; main()", *words.split()],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: len(list(folder.glob("worker-*.json"))) == 2 or process.poll() is not None, 180)
        pids = [int(path.stem.removeprefix("worker-")) for path in folder.glob("worker-*.json")]
        assert len(pids) == 2
        yield process, pids
    finally:
        process.kill()
        process.wait()


def test_what_ends_a_sweep_ends_its_workers(folder: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "home").mkdir()
    shutil.copy(empty_mlflow, folder / "home" / "mlflow.db")
    with started(folder) as (process, pids):
        # The writer is under way too: in the seconds that an interruption leaves it, it need not begin.
        until(lambda: all(run["mlflow_run_id"] for run in shown(folder, "home").values()))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.endswith("interrupted\n")
    assert "Traceback" not in errors
    assert not any(map(alive, pids))
    runs = shown(folder, "home")
    assert {run["state"] for run in runs.values()} == {"KILLED"} and len(runs) == 2
    # The real writer has told MLflow, or on a machine with no time for it has left that to the next.
    from mlflow.tracking import MlflowClient

    flush_spools(None, Settings.load(folder / "home"))
    runs = shown(folder, "home")

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'home' / 'mlflow.db'}")
    assert [client.get_run(run["mlflow_run_id"]).info.status for run in runs.values()] == ["KILLED", "KILLED"]

    with started(folder) as (process, pids):
        process.kill()
        process.communicate()
        until(lambda: not any(map(alive, pids)), 30)
    (folder / "wait").unlink()

    monkeypatch.setattr(writer, "Writer", WriterHere)
    rows = sweep(folder, "home", workers=1, search_trials=2, search_seeds=1, confirm=None)
    assert [row["state"] for row in rows] == ["FINISHED"] * 2
    runs = shown(folder, "home")
    assert [[attempt["state"] for attempt in run["attempts"]] for run in runs.values()] == [
        ["KILLED", "KILLED", "FINISHED"]
    ] * 2
    found = client.search_runs([runs["0.0"]["mlflow_experiment_id"]])
    # The attempts of a run went on from each other, and are one run there.
    assert [run.info.status for run in found] == ["FINISHED"] * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "cpu", "trials_per_gpu": 2}, "--trials-per-gpu needs CUDA devices"),
        ({"device": "cpu,cuda:9"}, "--devices cuda:9: this machine has"),
        ({"device": "cpu,tpu"}, "--devices tpu: there is no such device"),
    ],
)
def test_places_that_there_are_not(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        sweep_experiment("mine.yaml", [], home=folder / "home", **options)


def test_places_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("aigc_lab.host.environment.cores", lambda: 8)

    def places(*given: Any) -> list[tuple[str, int]]:
        return [(place.device, place.threads) for place in assign_places(*given)]

    assert places("auto", None, None) == [("cuda:0", 4), ("cuda:1", 4)]
    assert places("auto", None, 2) == [("cuda:0", 2), ("cuda:1", 2)] * 2
    assert places("cuda:1", None, None) == [("cuda:1", 8)]
    assert places("cuda:1,cuda:0", 3, None) == [("cuda:1", 2), ("cuda:0", 2), ("cuda:1", 2)]
    assert places("cpu", None, None) == [("cpu", 8)]
    assert places("cpu", 16, None) == [("cpu", 1)] * 16
    with pytest.raises(UsageError, match="--workers and --trials-per-gpu"):
        places("auto", 2, 2)
