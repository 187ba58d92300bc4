"""What MLflow has not taken yet, read from the spool: nothing here imports MLflow, or waits for who delivers."""

import contextlib
import json
import time
from dataclasses import dataclass, fields
from pathlib import Path

from aigc_lab.host.files import locked, write_atomically
from aigc_lab.tracking import base, spool

_STATUS = ".status.json"
# How often it is written down that all is well, in seconds.
_EVERY = 10.0


@dataclass
class Waiting:
    """Of a sweep or of a run. `since` is when the first of it was recorded, in milliseconds since 1970."""

    runs: int = 0
    records: int = 0
    points: int = 0
    pictures: int = 0
    bytes: int = 0
    since: int | None = None


def of_sweep(folder: Path) -> Waiting:
    """What waits in a sweep's spool, while others may write and deliver it."""
    total = Waiting()
    for run in spool.runs(folder):
        with contextlib.suppress(FileNotFoundError):  # it has been delivered meanwhile
            _add(total, of_run(run))
    return total


def _add(total: Waiting, run: Waiting) -> None:
    since = [each.since for each in (total, run) if each.since is not None]
    for each in fields(Waiting):
        if each.name != "since":
            setattr(total, each.name, getattr(total, each.name) + getattr(run, each.name))
    total.since = min(since, default=None)


def of_run(folder: Path) -> Waiting:
    """What waits of one run."""
    run, begun = Waiting(), spool.note(folder)["bytes"]
    for record in spool.records(folder, begun):
        run.records += 1
        run.points += len(record.get("points", ()))
        run.since = min(run.since or record["at"], record["at"])
        run.pictures += "image" in record
        if "file" in record:
            with contextlib.suppress(FileNotFoundError):
                run.bytes += (folder / record["file"]).stat().st_size
    if run.records:
        run.runs = 1
        run.bytes += (folder / spool.LOG).stat().st_size - begun
    return run


def has_writer(folder: Path) -> bool:
    """Whether somebody delivers this spool: the writer of a sweep that is being run, or a command."""
    lock = folder / spool.LOCK
    if not lock.exists():
        return False
    try:
        with locked(lock, wait=False):  # for a moment; a writer that starts waits for it
            return False
    except BlockingIOError:
        return True


@dataclass
class Status:
    """How the delivery of a sweep stands, as its writer wrote it down: when all was last delivered and when something
    last failed, in milliseconds since 1970, and the error that there is now.
    """

    delivered_at: int | None = None
    error_at: int | None = None
    error: str | None = None

    @classmethod
    def of(cls, folder: Path) -> "Status":
        try:
            return cls(**json.loads((folder / _STATUS).read_bytes()))
        except (OSError, ValueError, TypeError):  # there is none yet, or not one of this version
            return cls()


class Told:
    """Writes the status of a delivery down: called with why something waits, or with nothing when all is well."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._status = Status.of(folder)
        self._written: tuple[str, float] | None = None

    def __call__(self, reason: str) -> None:
        now = time.monotonic()
        if self._written is not None and self._written[0] == reason and now - self._written[1] < _EVERY:
            return
        self._written = (reason, now)
        if reason:
            self._status.error_at = base.now()
        else:
            self._status.delivered_at = base.now()
        self._status.error = reason or None
        with contextlib.suppress(OSError):  # a full disk: nobody depends on it
            write_atomically(self._folder / _STATUS, json.dumps(vars(self._status)).encode())
