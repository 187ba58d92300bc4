"""The process of a worker, as whoever starts it holds it: it ends when the pipe to it closes."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from aigc_lab.host import confined, environment

#: what a parent writes when its worker may open what was prepared
GO = b"go\n"
#: the last argument of a worker that is not alone on its GPU
SHARES = "shares"
_WORKER = (sys.executable, "-P", "-m", "aigc_lab.runs.worker")


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
) -> "subprocess.Popen[bytes]":
    """Starts a worker with at most `threads` threads, `default_threads` where a run does not say how many, that writes
    to `log`. What it must not show to whoever lists processes stands in `variables`, which add to this process's
    environment. One that `shares` is not alone on its GPU.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    threading = environment.share_of_threads(default_threads)
    with log.open("ab") as output:
        return subprocess.Popen(
            [*_WORKER, home, sweep, device, str(threads), *([SHARES] if shares else [])],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            # Who starts it has tried what it will load.
            env=os.environ | dict(variables) | threading | {confined.VARIABLE: "0"},
        )


def go(process: "subprocess.Popen[bytes]") -> None:
    """Lets it open what was prepared."""
    assert process.stdin is not None
    with suppress(OSError):  # one that is gone already is met later
        process.stdin.write(GO)
        process.stdin.flush()


def close(process: "subprocess.Popen[bytes]") -> None:
    """Closes the pipe."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()


def how(code: int, log: Path) -> str:
    """The end of a process in words: its exit code or signal."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"its worker process was ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    return f"its worker process ended with code {code}; see {log}"
