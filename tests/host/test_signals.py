"""Signals, sent to real processes at any moment: where the runs were is stored, and going on gives the same bits."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import WriterHere, supervisor
from mlflow.tracking import MlflowClient
from sqlalchemy import update

from aigc_lab import cli
from aigc_lab.commands import verify
from aigc_lab.commands.stop import stop_sweep
from aigc_lab.commands.sweep import resume_sweep, sweep_experiment
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import signals
from aigc_lab.host.files import sha256
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Supervisor
from aigc_lab.sweeps import session
from aigc_lab.tracking import writer
from aigc_lab.training.checkpoint import load_system
from aigc_lab.training.loop import train

TEXT = """\
data: {name: ring, points: 2000}
system: {name: point_gan, hidden: 16, lr: {log: [1e-4, 1e-2]}}
training: {steps: 400, batch_size: 32, log_every: 50, evaluate_every: 200, threads: 1}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
search: {trials: 2, seeds: 1}
"""
# The command, whose training takes its time and says when it is under way; with "deaf" it hears of no interruption, and
# nothing but a second Ctrl-C ends it. Unless it "delivers", it has no writer: what importing MLflow takes would be most
# of what it does, and is what it waits for at its end.
SLOW = """
import signal, sys, time
from types import SimpleNamespace
from aigc_lab.host import signals
from aigc_lab.runs import rounds
from aigc_lab.tracking import writer
kind = sys.argv.pop(1)
deaf = kind == "deaf"
if kind != "delivers":
    writer.Writer = lambda *_: SimpleNamespace(start=lambda: None, finish=lambda *_: None)
train = rounds.train
def slowly(replicas, *, interrupted, **options):
    begun = replicas[0].state.step
    def asked():
        if replicas[0].state.step == begun + 3:
            print("TRAINING", flush=True)
        time.sleep(0.01)
        return interrupted() and not deaf
    return train(replicas, interrupted=asked, **options)
rounds.train = slowly
signals.LIMIT = 600.0 if deaf else signals.LIMIT
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without it
from aigc_lab.cli import main
main()
"""
SWEEP = ["sweep", "mine.yaml", "--home", "home"]
RESUME = ["resume", "mine", "--home", "home"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)
    monkeypatch.setattr(writer, "Writer", WriterHere)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(TEXT)
    return tmp_path


@contextlib.contextmanager
def training(folder: Path, words: list[str], kind: str = "hears") -> Iterator["subprocess.Popen[str]"]:
    """The command, in the middle of a training."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, kind, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        if process.stdout.readline() != "TRAINING\n":
            pytest.fail(process.stderr.read())
        yield process
    finally:
        process.kill()
        process.wait()


def stop(process: "subprocess.Popen[str]", how: signal.Signals) -> str:
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.endswith("interrupted\n") and "Traceback" not in errors
    assert "where the runs were is stored;" in errors and "aigc-lab resume mine-" in errors
    return errors


def registry(folder: Path, home: str = "home") -> Registry:
    return Registry.open(f"sqlite:///{folder / home / 'registry.db'}", create=False)


def page(folder: Path, run: str, home: str = "home") -> dict[str, Any]:
    with registry(folder, home) as opened:
        return show_run(opened, run)


def stored_step(folder: Path, run: dict[str, Any]) -> int:
    """The step of the newest checkpoint of a run."""
    place = folder / "home" / "checkpoints" / run["sweep"] / f"{run['trial']}.{run['seed']}"
    return max(int(json.loads(path.read_text())["step"]) for path in place.glob("*/state-*.json"))


def bits(folder: Path, home: str) -> dict[str, Any]:
    """Of each run: the digests of its weights, its scores, and its curves but for what they took."""
    found = {}
    with registry(folder, home) as opened:
        for row in list_runs(opened):
            run = show_run(opened, row["run"])
            files = {file["kind"]: file["sha256"] for file in run["checkpoints"]}
            curves = json.loads(
                (folder / home / "artifacts" / row["sweep"] / f"{row['trial']}.0/curves.json").read_text()
            )
            kept = {name: curve for name, curve in curves.items() if not name.startswith("time/")}
            found[row["run"]] = (files, run["scores"], run["progress"], kept)
    return found


def agreed(folder: Path, home: str = "home") -> None:
    with registry(folder, home) as opened:
        result = verify.verify_sweeps(opened, Settings.load(folder / home))
    assert not result.problems and not result.notes, str(result)
    assert result.checked["runs"] == result.checked["MLflow runs"] == 2


def test_what_is_stopped_at_any_moment_goes_on_to_the_same_bits(
    folder: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep_experiment("mine.yaml", [], device="cpu", workers=1, json=True, home=folder / "undisturbed")
    chance = random.Random()
    reached = 0
    (folder / "home").mkdir()
    shutil.copy(empty_mlflow, folder / "home" / "mlflow.db")  # so that the writer has begun when it is stopped
    with training(folder, SWEEP) as process:
        monkeypatch.setattr(sys, "argv", ["aigc-lab", *SWEEP])
        with pytest.raises(SystemExit) as second:
            cli.main()  # a second process on the same sweep
        assert second.value.code == 2
        said = capsys.readouterr().err
        assert "is being run by another process; wait for it, or stop it first: aigc-lab stop" in said
        assert page(folder, "mine.0.0")["state"] == "RUNNING"
        stop(process, signal.SIGINT)
    for how in (None, signal.SIGTERM):
        if how is not None:
            with training(folder, RESUME, "delivers") as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0, 0.3))
                stop(process, how)
        run = page(folder, "mine.0.0")
        step = stored_step(folder, run)
        assert run["state"] == "KILLED"
        assert run["reason"] == f"interrupted at step {step}"
        assert step > reached
        reached = step
    with training(folder, RESUME, "deaf") as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "stopping: the runs under way are being saved" not in process.stderr.readline():
            assert process.poll() is None, "it did not say that it stops"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert page(folder, "mine.0.0")["state"] == "RUNNING"  # nobody had time to write anything down
    assert stored_step(folder, page(folder, "mine.0.0")) == reached

    resume_sweep("mine", device="cpu", json=True, home=folder / "home")
    run = page(folder, "mine.0.0")
    assert [attempt["state"] for attempt in run["attempts"]] == ["KILLED"] * 3 + ["FINISHED"]
    assert bits(folder, "home") == bits(folder, "undisturbed")
    agreed(folder)
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'home' / 'mlflow.db'}")
    for name in run["scalars"]:
        steps = [point.step for point in client.get_metric_history(run["mlflow_run_id"], name)]
        assert steps == ([400] if name.startswith("time/") else list(range(50, 401, 50))), name


def command(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Types a command in this process, and returns what it prints."""
    monkeypatch.setattr(sys, "argv", ["aigc-lab", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr()
    assert not ended.value.code, shown.err
    return shown.out


def test_a_sweep_is_stopped_from_another_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with training(folder, SWEEP) as process:
        said = command(["stop", "mine", "--home", "home"], monkeypatch, capsys)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    run = page(folder, "mine.0.0")
    assert f"{run['sweep']} has stopped; aigc-lab resume {run['sweep']}" in said
    assert "goes on from there" in said
    assert run["state"] == "KILLED" and run["reason"] == f"interrupted at step {stored_step(folder, run)}"
    with registry(folder) as opened:
        assert not liveness.running(opened) and not liveness.supervisors(opened)
    said = command(["stop", "mine", "--home", "home"], monkeypatch, capsys)
    assert said.startswith(f"nobody runs {run['sweep']}; aigc-lab resume")


def test_a_sweep_ends_when_the_runs_under_way_have(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    under_way: list[threading.Event] = []

    @contextlib.contextmanager
    def watched(*given: Any, **options: Any) -> Iterator[Any]:
        with session.opened(*given, **options) as found:
            under_way.append(found.finishing)
            yield found

    def asked(replicas: Any, **options: Any) -> Iterator[Any]:
        if not said:
            stop = [sys.executable, "-c", "from aigc_lab.cli import main; main()", "stop", "mine", "--finish"]
            done = subprocess.run([*stop, "--home", "home"], capture_output=True, text=True, check=True)
            said.append(done.stdout)
            assert under_way[0].wait(60)
        yield from train(replicas, **options)

    monkeypatch.setattr("aigc_lab.commands.sweep.opened", watched)
    monkeypatch.setattr("aigc_lab.runs.rounds.train", asked)
    sweep_experiment("mine.yaml", [], device="cpu", workers=1, json=True, home=folder / "home")
    run = page(folder, "mine.0.0")
    assert said[0].startswith(f"{run['sweep']} stops when its 1 run under way ended")
    assert "Stopped as asked, with nothing under way; aigc-lab resume" in capsys.readouterr().err
    assert [attempt["state"] for attempt in run["attempts"]] == ["FINISHED"]
    with registry(folder) as opened:
        assert [row["run"] for row in list_runs(opened)] == [run["run"]]  # no other was begun
        assert not liveness.supervisors(opened)

    resume_sweep("mine", device="cpu", json=True, home=folder / "home")
    assert len(page(folder, "mine.0.0")["attempts"]) == 1
    assert page(folder, "mine.1.0")["state"] == "FINISHED"
    agreed(folder)


def test_a_wish_that_the_work_cannot_hear_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python handles signals between two of its steps, and a call into a library may never return."""
    left, acts = threading.Event(), []
    monkeypatch.setattr(signals, "LIMIT", 0.0)
    monkeypatch.setattr(signals, "leave", left.set)
    monkeypatch.setattr(os, "kill", lambda *_: None)
    with signals.handled(), signals.last_act(lambda: acts.append("children ended")):
        signals.request_stop()
        assert left.wait(60)
    assert acts == ["children ended"]


def test_stopping_kills_what_hears_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aigc_lab.commands.stop._PATIENCE", 0.0)
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    with Registry.open(url) as opened:
        sweep = opened.sweep("mine", "0123456789abcdef", {}, "fd", "lower")
        with supervisor(url, sweep) as process:
            said = stop_sweep(opened, Settings.load(tmp_path), "mine", finish=False, home=tmp_path)
            assert process.wait(60) == -signal.SIGKILL
    again = f"aigc-lab resume {sweep} --home {tmp_path}"
    assert said == f"process {process.pid} did not stop within 0 s and was killed; {again} goes on"


def test_stopping_what_does_not_stop_or_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aigc_lab.commands.stop._PATIENCE", 0.0)
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}") as opened:
        sweep = opened.sweep("mine", "0123456789abcdef", {}, "fd", "lower")
        with pytest.raises(UsageError, match="unknown sweep 'mini'; did you mean mine"):
            stop_sweep(opened, Settings.load(tmp_path), "mini", finish=False, home=tmp_path)
        opened.supervise(sweep)
        pid = os.getpid()
        with pytest.raises(Failure, match=f"{sweep} has not stopped within 0 s: process {pid} on "):
            stop_sweep(opened, Settings.load(tmp_path), "mine", finish=False, home=tmp_path)
        assert opened.wanted(sweep) == "checkpoint"
        # The same pid, of a process that was there before this one.
        with opened.write() as connection:
            connection.execute(update(Supervisor).values(process_started="1", wanted=None))
        said = stop_sweep(opened, Settings.load(tmp_path), "mine", finish=True, home=tmp_path)
        assert said.startswith(f"process {pid} on ") and f"which ran {sweep}, was lost; aigc-lab resume {sweep}" in said
        (row,) = liveness.supervisors(opened)
        assert row["wanted"] is None


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("interrupted at step 7", r"mine-01234567 has stopped; aigc-lab resume mine-01234567 .*goes on from there"),
        (
            "its worker process was ended by SIGKILL",
            r"1 of its runs had to be killed .* \(mine-01234567\.0\.0\); .*last",
        ),
        (None, "which ran mine-01234567, did not end in order and was killed; .*from the last checkpoints"),
    ],
)
def test_stopping_says_what_had_to_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str | None, said: str
) -> None:
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}") as opened:
        sweep = opened.sweep("mine", "0123456789abcdef", {}, "fd", "lower")
        opened.trial(sweep, 0, "vae", {}, {})
        run = opened.run(sweep, 0, 0, "search")
        attempt = opened.begin(run, {})
        opened.supervise(sweep)
        want = opened.want

        def asked(sweep: str, what: str) -> bool:
            """Who is asked ends at once: as the reason says, or without a word."""
            found = want(sweep, what)
            if reason is None:
                with opened.write() as connection:
                    connection.execute(update(Supervisor).values(process_started="1"))
            else:
                opened.finish(run, attempt, RunState.KILLED, reason=reason)
                opened.release(sweep)
            return found

        monkeypatch.setattr(opened, "want", asked)
        assert re.search(said, stop_sweep(opened, Settings.load(tmp_path), "mine", finish=False, home=tmp_path))


def test_weights_kept_on_the_way_survive_a_resume_and_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the run's, as its last weights are; what the attempts left is not."""

    def cut(replicas: Any, **options: Any) -> Iterator[Any]:
        for reached in train(replicas, **options):
            yield reached
            if replicas[0].state.step == 300:
                os.kill(os.getpid(), signal.SIGTERM)

    def kept(run: dict[str, Any]) -> dict[str, str]:
        found = {}
        for file in run["checkpoints"]:
            path = Path(file["path"])
            assert path.parent.name == str(len(run["attempts"]))
            assert sha256(path) == file["sha256"] and path.stat().st_size == file["bytes"]
            if file["kind"].startswith("step-"):
                assert file["kind"] == f"step-{file['step']:06d}"
                assert json.loads(path.with_suffix(".json").read_text())["step"] == file["step"]
                load_system(path)
            found[file["kind"]] = file["sha256"]
        return found

    changes = [("search.trials", "1", ""), ("training.keep_every", "100", "")]
    with monkeypatch.context() as patch:
        patch.setattr("aigc_lab.runs.rounds.train", cut)
        with pytest.raises(KeyboardInterrupt):
            sweep_experiment("mine.yaml", changes, device="cpu", workers=1, json=True, home=folder / "home")
    early = kept(page(folder, "mine.0.0"))
    assert early.keys() == {"step-000100", "step-000200", "step-000300"}
    assert len(set(early.values())) == 3

    resume_sweep("mine", device="cpu", json=True, home=folder / "home")
    run = page(folder, "mine.0.0")
    late = kept(run)
    assert late.keys() == {*early, "step-000400", "last", "selected"}
    assert early.items() <= late.items() and late["step-000400"] == late["last"]
    (place,) = (folder / "home" / "checkpoints").glob("*/*")
    assert [attempt.name for attempt in place.iterdir()] == ["2"]
    assert not list(place.glob("2/*state-*"))


def test_an_error_after_a_signal_is_not_the_runs_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal may break anything, and what raises then is no reason not to try again."""

    def broken(*given: Any, **options: Any) -> Iterator[Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("half an import")
        yield

    changes = [("search.trials", "1", "--trials 1")]
    with monkeypatch.context() as patch:
        patch.setattr("aigc_lab.runs.rounds.train", broken)
        with pytest.raises(KeyboardInterrupt):
            sweep_experiment("mine.yaml", changes, device="cpu", workers=1, json=True, home=folder / "home")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert page(folder, "mine.0.0")["state"] == "KILLED"
    assert page(folder, "mine.0.0")["reason"] == "interrupted at step 0"
    with registry(folder) as opened:
        assert not liveness.running(opened) and not liveness.supervisors(opened)
    resume_sweep("mine", device="cpu", json=True, home=folder / "home")
    assert [attempt["state"] for attempt in page(folder, "mine.0.0")["attempts"]] == ["KILLED", "FINISHED"]
