"""What runs on a node of a Ray cluster: an actor that holds the process of a worker.

It imports little, since there is one for each worker. Ray sets `CUDA_VISIBLE_DEVICES` to the GPUs that the actor was
given, and the worker's process inherits it: `cuda:0` is the right one there.
"""

import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aigc_lab.runs import worker_process

Json = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What a node needs to start a worker. `environment` holds the addresses of the stores, with their passwords:
    arguments of an actor stand on no command line and in no log. A node that sees the home finds `mark` in `mark_file`.
    """

    home: str
    sweep: str
    device: str
    threads: int
    log: str
    mark_file: str
    mark: str
    environment: Mapping[str, str]


class Node:
    """Actor with one worker. Its methods are called at the same time from several threads."""

    def begin(self, task: Task) -> Json:
        """Starts the worker. Returns its `host` and `pid`, or the `error` why it cannot be started here."""
        host = socket.gethostname()
        if (reason := _blind(task)) is not None:
            return {"host": host, "error": f"node {host}: {reason}"}
        self._host, self._log = host, Path(task.log)
        try:
            self._process = worker_process.start(
                task.home, task.sweep, task.device, task.threads, self._log, task.environment, task.threads
            )
        except OSError as error:
            return {"host": host, "error": f"node {host}: {error.filename}: {error.strerror}"}
        worker_process.go(self._process)
        return {"host": host, "pid": self._process.pid}

    def wait(self) -> str:
        """Waits for the end of the worker, and says in words how it ended."""
        code = self._process.wait()
        return f"{worker_process.how(code, self._log)} on {self._host}"

    def signal(self, number: int) -> None:
        """Sends the worker a signal."""
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.send_signal(signal.Signals(number))

    def __repr__(self) -> str:
        return f"aigc-lab worker {os.getpid()}"


def _blind(task: Task) -> str | None:
    """Why a worker would see another home here, and nothing of the sweep; None where it sees the same."""
    try:
        mark = Path(task.mark_file).read_text("ascii")
    except (OSError, UnicodeDecodeError):
        mark = None
    if mark == task.mark or task.environment.get("AIGC_LAB_STORE_URL"):
        return None
    what = "is not there" if not Path(task.home).is_dir() else "is another folder there"
    return (
        f"home {task.home} {what}: put it into a folder that every node mounts at the same path (--home /shared/…), or "
        "name a store with AIGC_LAB_STORE_URL"
    )
