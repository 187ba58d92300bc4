"""Log of a run in a spool, `<folder>/<run>.<origin>/log.jsonl`: its records, and how far they have been delivered."""

import io
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aigc_lab.host import files
from aigc_lab.tracking.base import Status

_LOG = logging.getLogger(__name__)

LOG = "log.jsonl"
LOCK = ".lock"  # of a spool, held by the process that ships it
DELIVERED = "delivered.json"  # of a run: how far the store has taken its log

LogRecord = dict[str, Any]


def logged_runs(spool: Path) -> list[Path]:
    """Folders of the runs in a sweep's spool, sorted; empty without a spool."""
    folders = sorted(spool.iterdir()) if spool.is_dir() else []
    return [folder for folder in folders if folder.is_dir() and not folder.name.startswith(".")]


def remove_logged_run(folder: Path) -> None:
    """Deletes a run's folder. It is renamed first, so that a kill leaves no folder that looks like a run."""
    leftover = folder.with_name(f".{folder.name}.gone")
    clear_leftover(leftover)
    folder.rename(leftover)
    clear_leftover(leftover)


def clear_leftover(leftover: Path) -> None:
    """Deletes a folder that `remove_logged_run` left when it was killed."""
    shutil.rmtree(leftover, ignore_errors=True)


def artifact_name(artifact: LogRecord) -> str:
    """File name of an artifact's record."""
    return str(artifact["name"] if "name" in artifact else Path(artifact["path"]).name)


def artifact_path(folder: Path, artifact: LogRecord) -> Path | None:
    """Path of an artifact's file; None if it is missing or its sha256 is not the recorded one. Logs of earlier versions
    name the path at which the file was written.
    """
    path = folder / artifact["file"] if "file" in artifact else Path(artifact["path"])
    return path if path.is_file() and files.sha256(path) == artifact.get("sha256") else None


def delivered_bytes(folder: Path) -> int:
    """Number of bytes of a run's log that the store has taken."""
    return int(delivery_note(folder)["bytes"])


def delivery_note(folder: Path) -> LogRecord:
    """Shipper's note about a run: the `bytes` of its log that the store has taken, and whether it is `over`."""
    path = folder / DELIVERED
    content: LogRecord = json.loads(path.read_bytes()) if path.is_file() else {"bytes": 0}
    return content


def append(folder: Path, record: Mapping[str, Any]) -> None:
    """Appends a record as one line, whole or not at all, in place of a line that a kill cut off. Raises `OSError` for a
    disk that refuses it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # NaN is not JSON; values that are not finite are counted in a tag instead.
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    # Unbuffered: the line is with the kernel when this returns, and a short write shows a full disk.
    with (folder / LOG).open("ab+", buffering=0) as file:
        size = _complete_size(file)
        if file.write(line) != len(line):
            file.truncate(size)
            raise OSError(f"{folder / LOG}: the disk is full")


def _complete_size(file: io.FileIO) -> int:
    """Size in bytes of a log after removal of an incomplete last line. Such a line may lack nothing but its line end,
    and would count as a second record beside its repetition.
    """
    size = file.seek(0, os.SEEK_END)
    if not size or (file.seek(size - 1), file.read(1))[1] == b"\n":
        return size
    file.seek(0)
    size = file.read().rfind(b"\n") + 1
    file.truncate(size)
    return size


def append_or_warn(folder: Path, record: LogRecord) -> None:
    """Appends a record; logs a warning where the disk refuses it."""
    try:
        append(folder, record)
    except OSError as error:
        _LOG.warning("run %s: its log cannot be written: %s", folder.name, error)


def records(folder: Path, start: int = 0) -> Iterator[LogRecord]:
    """Complete records of a run's log, from byte `start` on."""
    return (record for _, record in record_ends(folder, start))


def record_ends(folder: Path, start: int = 0) -> Iterator[tuple[int, LogRecord]]:
    """Complete records of a run's log from byte `start` on, each as (byte at which it ends, record)."""
    path, end = folder / LOG, start
    if not path.is_file():
        return
    with path.open("rb") as log:
        log.seek(start)
        for line in log:
            end += len(line)
            parsed = parse_record(line)
            if parsed is not None:
                yield end, parsed


def parse_record(line: bytes) -> LogRecord | None:
    """Record of a line; None for a line that a kill cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def end_status(folder: Path) -> Status | None:
    """Status with which a run ended; None while its log has no end."""
    status: Status | None = None
    for record in records(folder):
        status = None if "start" in record else record.get("end", status)
    return status
