"""Identity of processes: a pid alone is reused, and holds on one machine until the next boot only."""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """Unique identity of a process. `boot` is the kernel's id of the boot and of the pid namespace; `started` is the
    start in clock ticks since the boot, or psutil's identity of the process where there is no /proc. Both are "" where
    the system does not report them.
    """

    host: str
    boot: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> "Process":
        return cls(socket.gethostname(), _boot(), os.getpid(), _started(os.getpid()) or "")

    @property
    def here(self) -> bool | None:
        """Whether this process can look for it, on this machine and in this pid namespace; None where that cannot be
        known.
        """
        if self.host != socket.gethostname():
            return None
        boot, space = _boot().partition(":")[::2], self.boot.partition(":")[::2]
        # The same machine, switched off since, has forgotten its processes; another container is another machine.
        return True if boot == space or boot[0] != space[0] else None

    @property
    def alive(self) -> bool | None:
        """Whether the process still exists; None for a process of another machine."""
        if not self.here:
            return None
        started = _started(self.pid)
        return self.boot == _boot() and started is not None and started == (self.started or started)

    def signal(self, number: int) -> None:
        """Sends a signal to exactly this process; does nothing when it is gone."""
        if self.alive and self.pid != os.getpid():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)


def oom_kills() -> int | None:
    """Number of processes that the kernel has ended for lack of memory since the boot; None where it does not report
    it.
    """
    try:
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text("ascii").splitlines())
        return int(counts["oom_kill"])
    except (OSError, KeyError):
        return None


@cache
def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Start of the process; None when there is none, "" where it exists and the system does not report its start."""
    try:
        # The name stands in brackets and may hold anything; what follows it is fixed: the state, …, 19 more, the start.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        # Z is a zombie, X is dead: neither does anything any more.
        return None if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    return _started_without_proc(pid)


def _started_without_proc(pid: int) -> str | None:
    """Identity of the process by psutil, as on macOS.

    The hash of a `psutil.Process` is of its pid and of its start by a clock that is never set, and is the same in every
    Python. `create_time()` is not: psutil moves it when the system's clock is set, and a living process would look like
    another one.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(hash(process))
    except psutil.ZombieProcess:
        return None
    except psutil.Error:
        pass  # there may be a process all the same: of another user, or where psutil looks for a /proc in vain
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
