"""Which process: a pid alone is used again, and means something only on one machine until it is switched off."""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process for ever. `boot` is the kernel's id of this boot and of the pid's namespace, `started` the start of the
    process in clock ticks since the boot, or where there is no /proc what psutil knows it by; both are "" where the
    system does not tell.
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
        """Whether it lies, or lay, where this process can look for it; None where that cannot be known."""
        if self.host != socket.gethostname():
            return None
        boot, space = _boot().partition(":")[::2], self.boot.partition(":")[::2]
        # The same machine, switched off since, has forgotten its processes; another container is another machine.
        return True if boot == space or boot[0] != space[0] else None

    @property
    def alive(self) -> bool | None:
        """Whether it still exists; None for a process of another machine."""
        if not self.here:
            return None
        started = _started(self.pid)
        return self.boot == _boot() and started is not None and started == (self.started or started)

    def signal(self, number: int) -> None:
        """Sends a signal to exactly this process; nothing happens when it is gone."""
        if self.alive and self.pid != os.getpid():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)


def oom_kills() -> int | None:
    """How many processes the kernel has ended for want of memory since the boot; None where it does not tell."""
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
    """When the process started, None when there is none; "" where there is a process and the system does not tell."""
    try:
        # The name stands in brackets and may hold anything; what follows it is fixed: the state, …, 19 more, the start.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    return _started_without_proc(pid)


def _started_without_proc(pid: int) -> str | None:
    """The same by psutil, as on macOS.

    The hash of a `psutil.Process` is of its pid and of its start by a clock that nobody sets, and is the same in every
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
