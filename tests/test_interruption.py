"""Processes that are stopped in the middle of training, and what the same command makes of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from aigc_lab import cli, trial
from aigc_lab.registry import queries
from aigc_lab.registry.store import Registry
from aigc_lab.trainer import Progress, train

TEXT = """\
data: {name: ring, points: 2000}
system: {name: point_gan, hidden: 16, lr: {log: [1e-4, 1e-2]}}
training: {steps: 20, batch_size: 32, log_every: 10, evaluate_every: 10, threads: 1}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
search: {trials: 2, seeds: 1}
"""
# The command, whose training says so after its first interval and then takes as long as it is let.
ENDLESS = """
import signal, time
from aigc_lab import trial
original = trial.train
def train(*given, **options):
    for progress in original(*given, **options):
        yield progress
        print("TRAINING", flush=True)
        time.sleep(600)
trial.train = train
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without it
from aigc_lab.cli import main
main()
"""
COMMAND = ["sweep", "mine.yaml", "--home", "home"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(TEXT)
    return tmp_path


def training(folder: Path) -> "subprocess.Popen[str]":
    """The command, in the middle of its first training."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, *COMMAND],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline() != "TRAINING\n":
        pytest.fail(process.stderr.read())
    return process


def stop(process: "subprocess.Popen[str]", how: signal.Signals) -> None:
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.endswith("interrupted\n")
    assert "Traceback" not in errors


def attempts(folder: Path, run: str) -> list[str]:
    with Registry.open(f"sqlite:///{folder / 'home' / 'registry.db'}") as registry:
        return [attempt["state"] for attempt in queries.show(registry, run)["attempts"]]


def states(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Of the runs and the trials in the registry, and of the runs in MLflow."""
    with Registry.open(f"sqlite:///{folder / 'home' / 'registry.db'}") as registry:
        runs = [run["state"] for run in queries.runs(registry)]
        trials = [row["state"] for row in queries.trials(registry, "mine")]
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'home' / 'mlflow.db'}")
    shown = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return runs, trials, sorted(run.info.status for run in shown)


def test_what_is_stopped_is_marked_and_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["aigc-lab", *COMMAND])
    process = training(folder)
    try:
        with pytest.raises(SystemExit) as second:
            cli.main()  # a second process on the same sweep
        assert second.value.code == 2
        assert "is being run by another process; wait for it, or stop it first" in capsys.readouterr().err
        deadline = time.monotonic() + 60  # MLflow is told by another process, which imports it first
        while not states(folder)[2] and time.monotonic() < deadline:
            time.sleep(0.2)
        assert states(folder) == (["RUNNING"], ["RUNNING"], ["RUNNING"])
        stop(process, signal.SIGINT)
    finally:
        process.kill()
    assert states(folder) == (["KILLED"], ["KILLED"], ["KILLED"])

    with monkeypatch.context() as patch:
        patch.setattr(trial, "train", terminated)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert states(folder) == (["KILLED"], ["KILLED"], ["KILLED", "KILLED"])

    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert states(folder) == (["FINISHED"] * 2, ["FINISHED"] * 2, ["FINISHED", "FINISHED", "KILLED", "KILLED"])
    assert attempts(folder, "mine.0.0") == ["KILLED", "KILLED", "FINISHED"]
    assert attempts(folder, "mine.1.0") == ["FINISHED"]


def terminated(*given: Any, **options: Any) -> Iterator[Progress]:
    """A training in the middle of which the process is told to end."""
    for progress in train(*given, **options):
        yield progress
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, "it would end the tests"
        os.kill(os.getpid(), signal.SIGTERM)
