"""`aigc-lab ui`: MLflow's pages are served on this home, and nothing survives who asked for them."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from aigc_lab import ui
from aigc_lab.errors import Failure, UsageError
from aigc_lab.registry.store import Registry
from aigc_lab.tracking import address
from aigc_lab.tracking.mlflow import MlflowTracker

# Answers as MLflow's does when it is ready, without its seconds of imports; and starts a process of its own.
APPLICATION = """
import subprocess
subprocess.Popen(["sleep", "61.5"])
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"OK"})
"""
SERVE = (
    "from aigc_lab import ui; ui.APPLICATION = {app!r}; ui.ui(host={host!r}, port={port}, browse={browse}, home=None)"
)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("AIGC_LAB_", "MLFLOW_", "SSH_")) or name in ("DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stand_in.py").write_text(APPLICATION)


def members(group: int) -> list[str]:
    """The processes of a process group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            found.append(path.parent.name)
    return found


def group_of_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return os.getpgid(int(child))


def require_gone(group: int) -> None:
    until = time.monotonic() + 20
    while members(group) and time.monotonic() < until:
        time.sleep(0.05)
    assert members(group) == []


@contextmanager
def serving(
    app: str, host: str = "127.0.0.1", port: int = 0, browse: bool = False
) -> Iterator["subprocess.Popen[str]"]:
    """A process that serves, once it has said so; its standard output is in `.said`."""
    command = [sys.executable, "-c", SERVE.format(app=app, host=host, port=port, browse=browse)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: "subprocess.Popen[str]") -> dict[str, str]:
    """The lines on standard output until it serves, by their first word."""
    assert process.stdout is not None
    lines = {}
    for line in process.stdout:
        first, _, rest = line.partition(" ")
        lines[first.rstrip(":")] = rest.strip()
        if first == "Ctrl-C":
            return lines
    raise AssertionError(f"it ended before it served: {process.communicate()}")


def empty_store(home: Path) -> None:
    home.mkdir(exist_ok=True)
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        revision = address._revisions()[1]
        database.execute("CREATE TABLE alembic_version (version_num)")
        database.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        for table in ("experiments", "runs", "latest_metrics"):
            database.execute(f"CREATE TABLE {table} (artifact_location)")


def test_the_real_pages(tmp_path: Path) -> None:
    home = tmp_path / ".aigc-lab"
    tracker = MlflowTracker(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts")
    identity = tracker.experiment("ring-01234567")
    with Registry.open(f"sqlite:///{home / 'registry.db'}", home=home) as registry:
        registry.set_mlflow_experiment(registry.sweep("ring", "01234567", {}, "rkl", "lower"), identity)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with serving(ui.APPLICATION, port=port) as process:
            lines = said(process)
            base, _, page = lines["Runs"].partition("/#")
            assert page == f"/experiments/{identity}/runs?workflowType=machine_learning"
            assert base.startswith("http://127.0.0.1:") and not base.endswith(f":{port}")
            # MLflow was handed this store, through variables that it does not document.
            with urllib.request.urlopen(f"{base}/api/2.0/mlflow/experiments/get?experiment_id={identity}") as answer:
                assert json.load(answer)["experiment"]["name"] == "ring-01234567"
            with urllib.request.urlopen(base) as answer:
                assert b"<title>MLflow</title>" in answer.read()
            group = group_of_child(process.pid)
            assert len(members(group)) >= 2
            process.kill()
            require_gone(group)
            process.wait()
            assert process.stderr is not None
            assert f"port {port} is in use: taking " in process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_whole_group(tmp_path: Path, number: signal.Signals) -> None:
    empty_store(tmp_path / ".aigc-lab")
    with serving("stand_in:app", browse=True) as process:
        lines = said(process)
        assert lines["Experiments"].endswith("/#/experiments?workflowType=machine_learning")
        assert "ssh -L " in lines["From"]
        group = group_of_child(process.pid)
        assert len(members(group)) == 3  # the tether, the server, and what the server started
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert errors.endswith("ended\n")
        assert "no browser to open" in errors
        assert members(group) == []


def test_other_machines_are_warned_of_and_let_in(tmp_path: Path) -> None:
    empty_store(tmp_path / ".aigc-lab")
    with serving("stand_in:app", host="0.0.0.0") as process:
        lines = said(process)
        assert lines["Experiments"].startswith(f"http://{socket.gethostname()}:")
        assert "From" not in lines
        process.terminate()
        assert "everyone who can reach this machine" in process.communicate(timeout=20)[1]


def test_a_server_that_dies_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_store(tmp_path / ".aigc-lab")
    monkeypatch.setattr(ui, "APPLICATION", "no_such_module:app")
    with pytest.raises(Failure, match=r"logs/ui\.log ends: .*no_such_module"):
        ui.ui(host="127.0.0.1", port=0, browse=False, home=None)


def test_no_store_no_server(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no MLflow store at .*; run a sweep first, or name the home with --home"):
        ui.ui(host="127.0.0.1", port=0, browse=False, home=None)
    assert not (tmp_path / ".aigc-lab").exists()


def test_of_a_server_that_is_there_only_the_link_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@tracking.example:8080/")
    monkeypatch.setattr(address, "check", lambda uri: None)
    ui.ui(host="127.0.0.1", port=0, browse=False, home=None)
    assert capsys.readouterr().out == (
        "Experiments: http://tracking.example:8080/#/experiments?workflowType=machine_learning\n"
    )


def test_an_address_that_cannot_be_had(tmp_path: Path) -> None:
    empty_store(tmp_path / ".aigc-lab")
    # TEST-NET-1 (RFC 5737) is nobody's.
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1:5000 .*--host and --port"):
        ui.ui(host="192.0.2.1", port=5000, browse=False, home=None)
