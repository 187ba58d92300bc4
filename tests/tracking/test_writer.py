"""The writer's process: started again when it is killed, gone when its sweep is; and `aigc-lab spool`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aigc_lab.cli import maintenance
from aigc_lab.commands.spool import flush_spools, require_delivered, spool_rows
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host.channel import Channel
from aigc_lab.host.files import locked
from aigc_lab.host.settings import Settings
from aigc_lab.registry.store import Registry
from aigc_lab.tracking import spool_log, writer
from aigc_lab.tracking.in_memory import MemoryTracker
from aigc_lab.tracking.messages import Deliver
from aigc_lab.tracking.spool import SpoolTracker
from aigc_lab.tracking.writer import Writer, spool_folder

# In the writer's place, without MLflow: it notes that it lives, and answers as `fate` says.
STAND_IN = """
import os, sys, time, socket
from pathlib import Path
from aigc_lab.host.channel import Channel
from aigc_lab.tracking.messages import Delivered, Deliver, Finish
channel = Channel(socket.socket(fileno=int(sys.argv[-1])), Deliver, Finish)
home = Path(channel.receive().home)
with open(home / "pids", "a") as pids:
    print(os.getpid(), file=pids)
fate = (home / "fate").read_text()
if fate == "ends":
    channel.send(Delivered(waiting=1, reason="it never will work"))
    sys.exit()
told = channel.receive()
if fate == "hangs":
    time.sleep(600)
channel.send(Delivered(waiting=0, reason=""))
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in list(os.environ):
        if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)
    settings = Settings.load(tmp_path / "home")
    settings.prepare()
    return settings


@pytest.fixture
def stand_in(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Writer]:
    def make(fate: str) -> Writer:
        (settings.home / "fate").write_text(fate)
        real = subprocess.Popen
        monkeypatch.setattr(
            "subprocess.Popen",
            lambda command, **options: real([sys.executable, "-c", STAND_IN, command[-1]], **options),
        )
        monkeypatch.setattr(writer, "_RESTART", 0.05)
        return Writer(settings, "points-01234567")

    return make


def pids(settings: Settings, count: int) -> list[int]:
    """The processes that have lived, when there are so many."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = (settings.home / "pids").read_text().split() if (settings.home / "pids").exists() else []
        if len(found) >= count:
            return [int(pid) for pid in found]
        time.sleep(0.01)
    pytest.fail(f"no {count} writers in 30 seconds")


def test_a_writer_that_is_killed_is_followed_by_another(
    settings: Settings, stand_in: Callable[[str], Writer], caplog: pytest.LogCaptureFixture
) -> None:
    made = stand_in("works")
    made.start()
    for count in (1, 2):
        os.kill(pids(settings, count)[-1], signal.SIGKILL)
    pids(settings, 3)
    assert made.finish() is None
    assert "ended with code -9; starting another" in caplog.text
    assert made.finish() is None, "a second time is harmless"


def test_a_writer_killed_just_before_the_end_is_followed_by_another(
    settings: Settings, stand_in: Callable[[str], Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stand_in("works")
    monkeypatch.setattr(writer, "_RESTART", 600.0)
    made.start()
    os.kill(pids(settings, 1)[0], signal.SIGKILL)
    assert made._process is not None
    made._process.wait()
    assert made.finish() is None
    assert len(pids(settings, 2)) == 2


def test_a_writer_that_ended_by_itself_is_not_started_again(
    settings: Settings, stand_in: Callable[[str], Writer]
) -> None:
    made = stand_in("ends")
    made.start()
    assert made._process is not None
    made._process.wait()
    time.sleep(0.2)
    assert "it never will work" in str(made.finish())
    assert len(pids(settings, 1)) == 1


def test_patience_has_an_end(settings: Settings, stand_in: Callable[[str], Writer]) -> None:
    made = stand_in("hangs")
    made.start()
    (pid,) = pids(settings, 1)
    assert "it did not take everything within 0.2 seconds" in str(made.finish(patience=0.2))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_writer_that_cannot_open_the_registry_says_why(settings: Settings) -> None:
    (settings.home / "registry.db").write_bytes(b"no database at all" * 100)
    shipping = Writer(settings, "mine")
    shipping.start()
    told = shipping.finish()
    assert told is not None and "is not a database file" in told and told.endswith("the same command delivers it")
    assert "Traceback" not in (settings.home / "logs" / "writer.log").read_text()


def test_a_writer_without_a_sweep_is_gone_whatever_the_store_does(settings: Settings) -> None:
    code = """if True:
        import time
        from aigc_lab.tracking import mlflow, shipper, writer
        writer._LAST_SECONDS = 0.1
        mlflow.MlflowTracker.prewarm = lambda self: None
        shipper.Shipper.ship = lambda self: print("HANGS", flush=True) or time.sleep(600)
        writer.main()
        """
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdout=subprocess.PIPE
        )
        theirs.close()
        Channel(ours).send(Deliver(home=str(settings.home), sweep="s"))
        assert process.stdout is not None
        assert process.stdout.readline() == b"HANGS\n"
        lock = spool_folder(settings, "s") / spool_log.LOCK
        with pytest.raises(BlockingIOError), locked(lock, wait=False):
            pass
    assert process.wait(60) == 1
    process.stdout.close()
    with locked(lock, wait=False):
        pass  # the kernel has freed it


# ---- the command


@pytest.fixture
def sweep(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """A sweep of which two runs wait: ten records, four points, two pictures. The store is in memory."""
    import numpy as np

    with Registry.open(settings.registry_url, home=settings.home) as registry:
        sweep = registry.sweep("points", "01234567" * 5, {}, "fid", "lower")
        registry.trial(sweep, 0, "point_gan", {}, {})
        for seed in range(2):
            run = registry.run(sweep, 0, seed, "search")
            log = SpoolTracker(spool_folder(settings, sweep)).start(sweep, "n", f"{run}.1", {}, {})
            for step in (1, 2):
                log.scalars(step, {"loss/a": 1.0})
                log.flush()
            log.image("samples/grid", np.zeros((8, 8), np.uint8), 1)
            log.end("FINISHED", {})
    store = MemoryTracker()
    store.prewarm = store.settle = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setattr(writer, "MlflowTracker", lambda *given: store)
    return sweep


def test_what_waits_is_counted(settings: Settings, sweep: str) -> None:
    (row,) = spool_rows(None, settings)
    counts = [row[name] for name in ("sweep", "runs", "records", "points", "pictures", "writer", "error")]
    assert counts == [sweep, 2, 10, 4, 2, False, None]
    files = [file for file in spool_folder(settings, sweep).rglob("*") if file.is_file()]
    assert row["bytes"] == sum(file.stat().st_size for file in files)
    assert spool_rows("points", settings) == [row]
    with pytest.raises(UsageError, match="unknown sweep 'point'"):
        spool_rows("point", settings)
    with pytest.raises(UsageError, match="unknown sweep"):
        spool_rows("../spool", settings)


def test_flush_delivers(settings: Settings, sweep: str, capsys: pytest.CaptureFixture[str]) -> None:
    maintenance.spool(None, flush=True, json=True, home=settings.home)
    out, err = capsys.readouterr()
    (row,) = json.loads(out)
    assert (row["records"], row["bytes"], row["error"]) == (0, 0, None)
    assert row["delivered_at"] is not None
    assert "2 runs, 10 records, 2 pictures" in err
    maintenance.spool(None, home=settings.home)
    assert "MLflow has everything" in capsys.readouterr().out


def test_flush_says_what_remains_and_why(
    settings: Settings, sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def down(self: MemoryTracker, name: str) -> str:
        raise Failure("the store is down")

    monkeypatch.setattr(MemoryTracker, "experiment", down)
    with pytest.raises(Failure, match=f"{sweep}: 10 records wait on: the store is down"):
        maintenance.spool("points", flush=True, home=settings.home)
    assert "the store is down" in capsys.readouterr().out
    (row,) = spool_rows(None, settings)
    assert (row["error"], row["records"]) == ("the store is down", 10)


def test_a_sweep_that_is_run_is_left_to_its_writer(settings: Settings, sweep: str) -> None:
    with locked(spool_folder(settings, sweep) / spool_log.LOCK):
        (row,) = spool_rows(None, settings)
        assert row["writer"]
        rows = flush_spools(None, settings)
        assert rows[0]["records"] == 10
        with pytest.raises(Failure, match="another process"):
            require_delivered(rows)
