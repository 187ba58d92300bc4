"""The process of a worker, as whoever starts it holds it: it ends when the line to it closes, and both nudge each other
by it.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from aigc_lab.host import confined, environment, nudges

#: what a parent writes when its worker may open what was prepared
GO = b"go\n"
#: the last argument of a worker that is not alone on its GPU
SHARES = "shares"
_WORKER = (sys.executable, "-P", "-m", "aigc_lab.runs.worker")


class Worker(subprocess.Popen[bytes]):
    """A worker's process, and the line to it."""

    line: socket.socket


def start(
    home: str,
    sweep: str,
    device: str,
    threads: int,
    log: Path,
    variables: Mapping[str, str],
    default_threads: int,
    *,
    shares: bool = False,
) -> Worker:
    """Starts a worker with at most `threads` threads, `default_threads` where a run does not say how many, that writes
    to `log`. What it must not show to whoever lists processes stands in `variables`, which add to this process's
    environment. One that `shares` is not alone on its GPU.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    threading = environment.share_of_threads(default_threads)
    line, its_end = socket.socketpair()
    with log.open("ab") as output, its_end:
        process = Worker(
            [*_WORKER, home, sweep, device, str(threads), *([SHARES] if shares else [])],
            stdin=its_end.fileno(),
            stdout=output,
            stderr=output,
            # Who starts it has tried what it will load.
            env=os.environ | dict(variables) | threading | {confined.VARIABLE: "0"},
        )
    process.line = line
    return process


def go(process: Worker) -> None:
    """Lets it open what was prepared."""
    with suppress(OSError):  # one that is gone already is met later
        process.line.sendall(GO)


def nudge(process: Worker) -> None:
    """Has it look at the registry now."""
    nudges.nudge(process.line)


def hear(process: Worker, nudged: Callable[[], object]) -> None:
    """Calls `nudged` whenever the worker has something to be looked at, until the line is closed."""
    with suppress(OSError):
        while process.line.recv(64):
            nudged()


def close(process: Worker) -> None:
    """Closes the line."""
    with suppress(OSError):
        process.line.shutdown(socket.SHUT_RDWR)
    process.line.close()


def how(code: int, log: Path) -> str:
    """The end of a process in words: its exit code or signal."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"its worker process was ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    return f"its worker process ended with code {code}; see {log}"
