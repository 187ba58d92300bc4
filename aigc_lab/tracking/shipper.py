"""Shipper from a spool to MLflow: each record once, in order, however often the store or this process fails.

The number of delivered bytes is noted beside each log. After a kill between a delivery and its note the same records
are sent again, and are still stored once: points are identified by time and value, params, tags and files by name.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path

from aigc_lab.errors import Failure
from aigc_lab.host.files import write_atomically
from aigc_lab.tracking import spool_log
from aigc_lab.tracking.base import DatasetInfo, MetricPoint, RunTracker, Tracker
from aigc_lab.tracking.spool_log import LogRecord

_LOG = logging.getLogger(__name__)

# So many records of a run are handed over before it is asked what has arrived: what waits in memory stays small.
_BATCH = 100


class Shipper:
    """Delivers the spooled records of the runs below `folder`. `on_open(key, experiment, run)` gets MLflow's ids."""

    def __init__(self, folder: Path, tracker: Tracker, on_open: Callable[[str, str, str], None]) -> None:
        self._folder = folder
        self._tracker = tracker
        self._on_open = on_open
        self._runs: dict[str, _Delivery] = {}
        self._experiments: dict[str, str] = {}
        #: why something waits, as far as it is known
        self.reason = ""

    def ship(self) -> int:
        """Delivers what is spooled, and returns the number of runs with undelivered records: 0 when the store works.

        Raises `Failure` when the store fails where nothing can be kept for later, and `UsageError` when it can never
        work.
        """
        waiting = 0
        # Of a shipper that was killed while it deleted a run's folder.
        for leftover in self._folder.glob(".*.gone"):
            spool_log.clear_leftover(leftover)
        for folder in spool_log.logged_runs(self._folder):
            if not (folder / spool_log.LOG).is_file():
                continue
            if folder.name not in self._runs:
                self._runs[folder.name] = _Delivery(folder)
            run = self._runs[folder.name]
            finished = run.deliver(self._open)
            if run.waits:
                waiting, self.reason = waiting + 1, run.reason
            if finished:
                del self._runs[folder.name]
                spool_log.remove_logged_run(folder)
        return waiting

    def _open(self, record: LogRecord) -> RunTracker:
        name = record["experiment"]
        if name not in self._experiments:
            self._experiments[name] = self._tracker.experiment(name)
        run = self._tracker.start(
            self._experiments[name],
            record["name"],
            record["key"],
            record["params"],
            record["tags"],
            DatasetInfo(**record["dataset"]) if record["dataset"] else None,
            at=record["at"],
        )
        self._on_open(record["key"], self._experiments[name], run.run_id)
        return run


class _Delivery:
    """Delivery of one run over all its attempts; `sent` is the number of delivered bytes of its log."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / spool_log.LOG
        note = spool_log.delivery_note(folder)
        self.sent = int(note["bytes"])
        self.waits = False
        self.reason = ""
        self._handed_over = self.sent  # what the tracker has taken; delivered only when nothing of it waits there
        self._run: RunTracker | None = None  # open from a `start` to its `end`
        self._start: LogRecord | None = None  # the newest that was taken, its tags as they are by now
        self._files: list[Path] = []  # of what was taken, to be deleted when it is delivered
        self._over = bool(note.get("over"))  # the last record taken says that nothing follows

    def deliver(self, open_run: Callable[[LogRecord], RunTracker]) -> bool:
        """Delivers new records; True when the run is delivered to its end, and no attempt will continue it."""
        if self._run is not None and self.waits and not self._settle():
            return False
        if self._log.stat().st_size == self.sent:
            return self._over
        if self._start is None:
            self._read_delivered()
        with self._log.open("rb") as log:
            log.seek(self._handed_over)
            for number, line in enumerate(log, 1):
                if not line.endswith(b"\n"):
                    break
                record = spool_log.parse_record(line)
                if record is not None and not self._hand_over(record, open_run):
                    return False
                self._handed_over += len(line)
                if number % _BATCH == 0 and not self._settle():
                    return False
        return self._settle() and self._over

    def _read_delivered(self) -> None:
        """Restores the state that an earlier shipper had after the delivered records."""
        with self._log.open("rb") as log:
            while log.tell() < self.sent and (line := log.readline()):
                record = spool_log.parse_record(line)
                if record is not None:
                    self._remember(record)

    def _remember(self, record: LogRecord) -> None:
        if "start" in record:
            self._start = record
        elif self._start is not None and "tags" in record:
            # Opening the run again sets the tags of its start: not those that have changed since.
            self._start["tags"] |= record["tags"]
        if "file" in record:
            self._files.append(self._folder / record["file"])
        # What has no beginning was made by nobody, such as the end of a run that was being deleted.
        final = "end" in record and record["end"] != "KILLED"
        self._over = final or "forget" in record or self._start is None

    def _settle(self) -> bool:
        """Whether everything handed to the tracker has been delivered; notes the number of delivered bytes."""
        if self._run is not None:
            self.waits, self.reason = self._run.flush() > 0, self._run.reason
        if not self.waits and self.sent != self._handed_over:
            self._note()
            for file in self._files:
                file.unlink(missing_ok=True)
            self._files.clear()
        return not self.waits

    def _note(self) -> None:
        try:
            note = {"bytes": self._handed_over, "over": self._over}
            write_atomically(self._folder / spool_log.DELIVERED, json.dumps(note).encode())
        except OSError as error:
            raise Failure(f"{self._folder}: how far it was delivered cannot be noted: {error.strerror}") from None
        self.sent = self._handed_over

    def _hand_over(self, record: LogRecord, open_run: Callable[[LogRecord], RunTracker]) -> bool:
        """Hands a record to the tracker; False when that has to wait."""
        if "start" in record:
            self._run = open_run(record)
        elif self._start is not None and "forget" not in record:
            self._run = self._run or open_run(self._start)  # by an earlier shipper, or it was closed
            if "end" not in record:
                self._send(self._run, record)
            elif not self._end(self._run, record):
                return False
        self._remember(record)
        return True

    def _end(self, run: RunTracker, record: LogRecord) -> bool:
        if not self._settle():
            return False
        self.waits, self.reason = run.end(record["end"], record["tags"], at=record["at"]) > 0, run.reason
        self._run = None  # what comes after opens it again; so does the same end, if the store failed at this moment
        return not self.waits

    def _send(self, run: RunTracker, record: LogRecord) -> None:
        if "points" in record:
            run.points(MetricPoint(*point) for point in record["points"])
        if record.get("tags"):
            run.tags(record["tags"])
        if "image" in record:
            self._send_picture(run, record)
        elif "text" in record:
            run.text(record["name"], record["text"])
        elif "artifact" in record:
            path, name = spool_log.artifact_path(self._folder, record), spool_log.artifact_name(record)
            if path is not None:
                run.artifact(path, record["folder"], name)
            else:
                _LOG.warning(
                    "%s: artifact %s is gone and cannot be shown; 'aigc-lab verify' says whether MLflow lacks it",
                    self._folder.name,
                    name,
                )

    def _send_picture(self, run: RunTracker, record: LogRecord) -> None:
        import numpy as np
        from PIL import Image

        try:
            with Image.open(self._folder / record["file"]) as picture:
                pixels = np.asarray(picture)
        except OSError as error:
            _LOG.warning("%s: picture of step %s cannot be shown: %s", self._folder.name, record["step"], error)
        else:
            run.image(record["key"], pixels, record["step"], at=record["at"], png=self._folder / record["file"])
