"""Undelivered records of a sweep, counted from the spool. Nothing here imports MLflow, or waits for the shipper."""

import contextlib
import json
import time
from dataclasses import dataclass, fields
from pathlib import Path

from aigc_lab.host.files import locked, write_atomically
from aigc_lab.tracking import base, spool_log

_STATUS = ".status.json"
# How often it is written down that all is well, in seconds.
_EVERY = 10.0


@dataclass
class Backlog:
    """Undelivered records of a sweep or of a run. `since` is the time of the oldest, in milliseconds since 1970."""

    runs: int = 0
    records: int = 0
    points: int = 0
    pictures: int = 0
    bytes: int = 0
    since: int | None = None


def sweep_backlog(folder: Path) -> Backlog:
    """Backlog of a sweep's spool. Other processes may write and deliver it meanwhile."""
    total = Backlog()
    for run in spool_log.logged_runs(folder):
        with contextlib.suppress(FileNotFoundError):  # it has been delivered meanwhile
            _add(total, run_backlog(run))
    return total


def _add(total: Backlog, run: Backlog) -> None:
    since = [part.since for part in (total, run) if part.since is not None]
    for part in fields(Backlog):
        if part.name != "since":
            setattr(total, part.name, getattr(total, part.name) + getattr(run, part.name))
    total.since = min(since, default=None)


def run_backlog(folder: Path) -> Backlog:
    """Backlog of one run."""
    run, begun = Backlog(), spool_log.delivery_note(folder)["bytes"]
    for record in spool_log.records(folder, begun):
        run.records += 1
        run.points += len(record.get("points", ()))
        run.since = min(run.since or record["at"], record["at"])
        run.pictures += "image" in record
        if "file" in record:
            with contextlib.suppress(FileNotFoundError):
                run.bytes += (folder / record["file"]).stat().st_size
    if run.records:
        run.runs = 1
        run.bytes += (folder / spool_log.LOG).stat().st_size - begun
    return run


def has_writer(folder: Path) -> bool:
    """Whether a process delivers this spool: the writer of a sweep that is being run, or a command."""
    lock = folder / spool_log.LOCK
    if not lock.exists():
        return False
    try:
        with locked(lock, wait=False):  # for a moment; a writer that starts waits for it
            return False
    except BlockingIOError:
        return True


@dataclass
class DeliveryStatus:
    """State of a sweep's delivery as its writer last stored it: the times of the last complete delivery and of the last
    error, in milliseconds since 1970, and the present error.
    """

    delivered_at: int | None = None
    error_at: int | None = None
    error: str | None = None

    @classmethod
    def of(cls, folder: Path) -> "DeliveryStatus":
        """Stored status of a spool; empty where there is none, or one of another version."""
        try:
            return cls(**json.loads((folder / _STATUS).read_bytes()))
        except (OSError, ValueError, TypeError):  # there is none yet, or not one of this version
            return cls()


class StatusWriter:
    """Stores the status of a delivery. Called with the reason why records wait, or with `""` when none do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._status = DeliveryStatus.of(folder)
        self._last_write: tuple[str, float] | None = None

    def __call__(self, reason: str) -> None:
        now = time.monotonic()
        if self._last_write is not None and self._last_write[0] == reason and now - self._last_write[1] < _EVERY:
            return
        self._last_write = (reason, now)
        if reason:
            self._status.error_at = base.now()
        else:
            self._status.delivered_at = base.now()
        self._status.error = reason or None
        with contextlib.suppress(OSError):  # a full disk: nobody depends on it
            write_atomically(self._folder / _STATUS, json.dumps(vars(self._status)).encode())
