"""Which process is meant: not another with its pid, nor one of another boot; of another machine nothing is known."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from aigc_lab.host import processes
from aigc_lab.host.processes import Process
from aigc_lab.registry import liveness
from aigc_lab.registry.run_lifecycle import LEASE

LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it tells when a process started")


@contextmanager
def child() -> Iterator[tuple["subprocess.Popen[bytes]", Process]]:
    """A process that waits, and its name."""
    popen = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield popen, replace(Process.this(), pid=popen.pid, started=processes._started(popen.pid) or "")
    finally:
        popen.kill()
        popen.communicate()


def test_this_process() -> None:
    this = Process.this()
    assert (this.here, this.alive) == (True, True)
    assert (this.pid, this.host) == (os.getpid(), socket.gethostname())
    assert Process.this() == this


@LINUX
def test_another_process_with_the_same_pid() -> None:
    this = Process.this()
    assert replace(this, started=str(int(this.started) - 1)).alive is False
    assert replace(this, started="").alive is True  # whoever wrote it down could not tell


@LINUX
def test_before_the_machine_was_switched_off() -> None:
    this = Process.this()
    _, _, space = this.boot.partition(":")
    before = replace(this, boot=f"another-boot:{space}")
    assert (before.here, before.alive) == (True, False)
    assert (replace(before, boot="another-boot:1").here, replace(before, boot="another-boot:1").alive) == (True, False)


@LINUX
def test_where_nothing_is_known() -> None:
    this = Process.this()
    container = replace(this, boot=f"{this.boot.partition(':')[0]}:1")
    host = replace(this, host="another-host")
    for process in (container, host):
        assert (process.here, process.alive) == (None, None)
        process.signal(signal.SIGKILL)  # else this test would have no end
        # A lease decides, whichever way the clocks differ.
        assert liveness.alive(process, LEASE - 1) and liveness.alive(process, 1 - LEASE)
        assert not liveness.alive(process, LEASE) and not liveness.alive(process, -LEASE)
    # Here, the process itself is looked for, however long it has been silent.
    assert liveness.alive(this, 10 * LEASE) and not liveness.alive(replace(this, started="1"), 0.0)


def test_a_dead_process_whether_it_is_buried_or_not() -> None:
    with child() as (popen, process):
        assert process.alive is True
        popen.kill()
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{popen.pid}").exists() or not Path("/proc/self").exists(), "it is a zombie"
        assert process.alive is False
        popen.wait()
        assert process.alive is False
        process.signal(signal.SIGKILL)  # harmless


def test_a_signal_reaches_exactly_this_process() -> None:
    with child() as (popen, process):
        replace(process, started="1").signal(signal.SIGKILL)
        replace(process, boot="another").signal(signal.SIGKILL)
        Process.this().signal(signal.SIGKILL)  # nobody signals himself
        process.signal(signal.SIGTERM)
        assert popen.wait(60) == -signal.SIGTERM


@pytest.fixture
def no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a Mac: there is no /proc. What psutil itself reads here is not taken from it."""
    processes._boot.cache_clear()
    monkeypatch.setattr(processes, "Path", lambda name: tmp_path / name.lstrip("/"))
    yield
    processes._boot.cache_clear()


def test_without_proc_psutil_tells_processes_apart(no_proc: None) -> None:
    this = Process.this()
    assert (this.boot, this.here, this.alive) == ("", True, True)
    assert this.started and Process.this() == this
    assert replace(this, started=str(int(this.started) + 1)).alive is False, "another with this pid"
    assert replace(this, started="").alive is True  # whoever wrote it down could not tell
    with child() as (popen, process):
        assert process.started != this.started and process.alive is True
        replace(process, started="1").signal(signal.SIGKILL)
        assert popen.poll() is None
        popen.kill()
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        assert process.alive is False, "it is a zombie"
        popen.wait()
        assert process.alive is False
    assert processes.oom_kills() is None


def test_every_process_gives_another_the_same_start(no_proc: None) -> None:
    """The registry keeps it, and another Python compares it; strings' hashes differ between the two."""
    told = "from aigc_lab.host import processes; import sys; print(processes._started_without_proc(int(sys.argv[1])))"
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    for pid in (os.getpid(), os.getppid()):
        words = [sys.executable, "-c", told, str(pid)]
        there = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.strip()
        assert there == processes._started(pid)


class FakePsutil:
    """A Mac's psutil: start times of pids, which the clock's being set does not move, as `create_time` is."""

    Error = psutil.Error
    ZombieProcess = psutil.ZombieProcess
    STATUS_ZOMBIE = psutil.STATUS_ZOMBIE

    def __init__(self) -> None:
        self.starts: dict[int, float] = {}
        self.status, self.refuses, self.clock = "running", False, 0.0

    def Process(self, pid: int) -> Any:  # noqa: N802 -- psutil's name
        if self.refuses:
            raise psutil.AccessDenied(pid)
        if pid not in self.starts:
            raise psutil.NoSuchProcess(pid)

        class Found:
            status = staticmethod(lambda: self.status)
            create_time = staticmethod(lambda: self.starts[pid] + self.clock)
            __hash__ = lambda _: hash((pid, self.starts[pid]))  # noqa: E731

        return Found()


@pytest.fixture
def fake(no_proc: None, monkeypatch: pytest.MonkeyPatch) -> FakePsutil:
    made = FakePsutil()
    monkeypatch.setitem(sys.modules, "psutil", made)
    return made


def test_a_mac_whose_pids_are_used_again(fake: FakePsutil) -> None:
    with child() as (_, process):
        fake.starts[process.pid] = 1_790_000_000.125
        process = replace(process, started=processes._started(process.pid) or "")
        assert process.started and process.alive is True
        fake.clock = -3600.0
        assert process.alive is True, "the clock was set"
        fake.starts[process.pid] += 0.5
        assert process.alive is False, "another has its pid"
        fake.starts[process.pid] -= 0.5
        fake.status = psutil.STATUS_ZOMBIE
        assert process.alive is False


def test_a_system_that_does_not_tell(fake: FakePsutil) -> None:
    """A pid is all there is."""
    fake.refuses = True
    with child() as (popen, process):
        assert (process.boot, process.started) == ("", "")
        assert (process.here, process.alive) == (True, True)
        assert Process.this().alive
        popen.kill()
        popen.wait()
        assert process.alive is False


@pytest.mark.parametrize(
    ("told", "count"), [("nr_dirty 3\noom_kill 2\nswap_ra 0\n", 2), ("nr_dirty 3\n", None), ("oom_kill 0\n", 0)]
)
def test_what_the_kernel_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, count: int | None) -> None:
    (tmp_path / "vmstat").write_text(told)
    monkeypatch.setattr(processes, "Path", lambda name: tmp_path / Path(name).name)
    assert processes.oom_kills() == count
