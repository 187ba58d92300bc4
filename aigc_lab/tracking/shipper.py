"""From the spool to MLflow: every record once, in order, however often the store or this process fails.

How far a run has been delivered stands beside its log. After a kill between a delivery and that note, the same records
go out again, and are stored once all the same: a point is its time and value, params, tags and files are their names.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path

from aigc_lab.errors import Failure
from aigc_lab.host.files import write_atomically
from aigc_lab.tracking import spool
from aigc_lab.tracking.base import DatasetInfo, MetricPoint, RunTracker, Tracker
from aigc_lab.tracking.spool import Record

_LOG = logging.getLogger(__name__)

# So many records of a run are handed over before it is asked what has arrived: what waits in memory stays small.
_BATCH = 100


class Shipper:
    """Delivers what the runs below `folder` have spooled. `opened(key, experiment, run)` is told MLflow's ids."""

    def __init__(self, folder: Path, tracker: Tracker, opened: Callable[[str, str, str], None]) -> None:
        self._folder = folder
        self._tracker = tracker
        self._opened = opened
        self._runs: dict[str, _Delivery] = {}
        self._experiments: dict[str, str] = {}
        #: why something waits, as far as it is known
        self.reason = ""

    def ship(self) -> int:
        """Delivers what there is and returns how many runs still have something waiting: 0 when the store works.

        Raises `Failure` when the store fails where nothing can be kept waiting, and `UsageError` when it
        never will work.
        """
        waiting = 0
        for leftover in self._folder.glob(".*.gone"):
            spool.clear(leftover)
        for folder in spool.runs(self._folder):
            if not (folder / spool.LOG).is_file():
                continue
            if folder.name not in self._runs:
                self._runs[folder.name] = _Delivery(folder)
            run = self._runs[folder.name]
            finished = run.deliver(self._open)
            if run.waits:
                waiting, self.reason = waiting + 1, run.reason
            if finished:
                del self._runs[folder.name]
                spool.remove(folder)
        return waiting

    def _open(self, record: Record) -> RunTracker:
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
        self._opened(record["key"], self._experiments[name], run.run_id)
        return run


class _Delivery:
    """One run on its way, over all its attempts: `sent` is how many bytes of its log have been delivered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / spool.LOG
        note = spool.note(folder)
        self.sent = int(note["bytes"])
        self.waits = False
        self.reason = ""
        self._taken = self.sent  # what the tracker has taken; delivered only when nothing of it waits there
        self._run: RunTracker | None = None  # open from a `start` to its `end`
        self._start: Record | None = None  # the newest that was taken, its tags as they are by now
        self._files: list[Path] = []  # of what was taken, to be deleted when it is delivered
        self._over = bool(note.get("over"))  # the last record taken says that nothing follows

    def deliver(self, open_run: Callable[[Record], RunTracker]) -> bool:
        """Whether the run is delivered to its end, and no attempt will go on with it."""
        if self._run is not None and self.waits and not self._settle():
            return False
        if self._log.stat().st_size == self.sent:
            return self._over
        if self._start is None:
            self._recall()
        with self._log.open("rb") as log:
            log.seek(self._taken)
            for number, line in enumerate(log, 1):
                if not line.endswith(b"\n"):
                    break
                record = spool.parse(line)
                if record is not None and not self._take(record, open_run):
                    return False
                self._taken += len(line)
                if number % _BATCH == 0 and not self._settle():
                    return False
        return self._settle() and self._over

    def _recall(self) -> None:
        """What an earlier shipper has taken and delivered."""
        with self._log.open("rb") as log:
            while log.tell() < self.sent and (line := log.readline()):
                record = spool.parse(line)
                if record is not None:
                    self._remember(record)

    def _remember(self, record: Record) -> None:
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
        """Whether all that the tracker took has been delivered; notes how far that is."""
        if self._run is not None:
            self.waits, self.reason = self._run.flush() > 0, self._run.reason
        if not self.waits and self.sent != self._taken:
            self._note()
            for file in self._files:
                file.unlink(missing_ok=True)
            self._files.clear()
        return not self.waits

    def _note(self) -> None:
        try:
            note = {"bytes": self._taken, "over": self._over}
            write_atomically(self._folder / spool.DELIVERED, json.dumps(note).encode())
        except OSError as error:
            raise Failure(f"{self._folder}: how far it was delivered cannot be noted: {error.strerror}") from None
        self.sent = self._taken

    def _take(self, record: Record, open_run: Callable[[Record], RunTracker]) -> bool:
        """Hands a record to the tracker; False when it cannot be done now."""
        if "start" in record:
            self._run = open_run(record)
        elif self._start is not None and "forget" not in record:
            self._run = self._run or open_run(self._start)  # by an earlier shipper, or it was closed
            if "end" not in record:
                self._show(self._run, record)
            elif not self._end(self._run, record):
                return False
        self._remember(record)
        return True

    def _end(self, run: RunTracker, record: Record) -> bool:
        if not self._settle():
            return False
        self.waits, self.reason = run.end(record["end"], record["tags"], at=record["at"]) > 0, run.reason
        self._run = None  # what comes after opens it again; so does the same end, if the store failed at this moment
        return not self.waits

    def _show(self, run: RunTracker, record: Record) -> None:
        if "points" in record:
            run.points(MetricPoint(*point) for point in record["points"])
        if record.get("tags"):
            run.tags(record["tags"])
        if "image" in record:
            self._picture(run, record)
        elif "text" in record:
            run.text(record["name"], record["text"])
        elif "artifact" in record:
            path, name = spool.located(self._folder, record), spool.named(record)
            if path is not None:
                run.artifact(path, record["folder"], name)
            else:
                _LOG.warning(
                    "%s: artifact %s is gone and cannot be shown; 'aigc-lab verify' says whether MLflow lacks it",
                    self._folder.name,
                    name,
                )

    def _picture(self, run: RunTracker, record: Record) -> None:
        import numpy as np
        from PIL import Image

        try:
            with Image.open(self._folder / record["file"]) as picture:
                pixels = np.asarray(picture)
        except OSError as error:
            _LOG.warning("%s: picture of step %s cannot be shown: %s", self._folder.name, record["step"], error)
        else:
            run.image(record["key"], pixels, record["step"], at=record["at"], png=self._folder / record["file"])
