"""From the spool to MLflow: every record once, in order, however often the store or this process fails.

How far a run has been delivered stands beside its log. After a kill between a delivery and that note, the same records
go out again: points, params and tags are then stored once all the same; of pictures, the one at that place may double.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aigc_lab.files import write_atomically
from aigc_lab.tracking import spool
from aigc_lab.tracking.base import DatasetInfo, Point, RunTracker, Tracker

_LOG = logging.getLogger(__name__)
_DELIVERED = "delivered.json"


class Shipper:
    """Delivers what the runs below `folder` have spooled. `opened(key, experiment, run)` is told MLflow's ids."""

    def __init__(self, folder: Path, tracker: Tracker, opened: Callable[[str, str, str], None]) -> None:
        self._folder = folder
        self._tracker = tracker
        self._opened = opened
        self._runs: dict[str, _Delivery] = {}
        self._experiments: dict[str, str] = {}

    def ship(self) -> int:
        """Delivers what there is and returns how many runs still have something waiting: 0 when the store works.

        Raises `Failure` when the store fails where nothing can be kept waiting, and `UsageError` when it
        never will work.
        """
        waiting = 0
        for folder in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            if not (folder / spool.LOG).is_file():
                continue
            run = self._runs.setdefault(folder.name, _Delivery(folder))
            finished = run.deliver(self._open)
            waiting += run.waits
            if finished:
                del self._runs[folder.name]
                shutil.rmtree(folder, ignore_errors=True)
        return waiting

    def _open(self, record: dict[str, Any]) -> RunTracker:
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
    """One run on its way: `sent` is how many bytes of its log have been delivered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / spool.LOG
        self._note = folder / _DELIVERED
        self.sent = int(json.loads(self._note.read_bytes())["bytes"]) if self._note.is_file() else 0
        self.waits = False
        self._taken = self.sent  # what the tracker has taken; delivered only when nothing of it waits there
        self._run: RunTracker | None = None

    def deliver(self, open_run: Callable[[dict[str, Any]], RunTracker]) -> bool:
        """Whether the run is delivered to its end."""
        if self._run is None:
            first = next(spool.records(self._folder), None)
            if first is None or "start" not in first:
                return first is not None  # a folder without a beginning was made by nobody
            self._run, self._taken = open_run(first), self.sent
        if self.waits and not self._settle():
            return False
        with self._log.open("rb") as file:
            file.seek(self._taken)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                record = spool.parse(line)
                if record is not None and "end" in record:
                    return self._settle() and self._end(record)
                if record is not None:
                    self._take(self._run, record)
                self._taken += len(line)
        self._settle()
        return False

    def _settle(self) -> bool:
        """Whether all that the tracker took has been delivered; notes how far that is."""
        assert self._run is not None
        self.waits = self._run.flush() > 0
        if not self.waits and self.sent != self._taken:
            self.sent = self._taken
            write_atomically(self._note, json.dumps({"bytes": self.sent}).encode())
        return not self.waits

    def _end(self, record: dict[str, Any]) -> bool:
        assert self._run is not None
        self.waits = self._run.end(record["end"], record["tags"], at=record["at"]) > 0
        if self.waits:
            self._run = None  # the store failed at the last moment: the run is opened again, and ended again
        return not self.waits

    def _take(self, run: RunTracker, record: dict[str, Any]) -> None:
        if "points" in record:
            run.points(Point(*point) for point in record["points"])
        elif "image" in record:
            self._picture(run, record)
        elif "text" in record:
            run.text(record["name"], record["text"])
        elif "tags" in record:
            run.tags(record["tags"])
        elif "artifact" in record:
            path = Path(record["path"])
            if path.is_file():
                run.artifact(path, record["folder"])
            else:
                _LOG.warning("%s: artifact %s is gone and cannot be shown", self._folder.name, path)

    def _picture(self, run: RunTracker, record: dict[str, Any]) -> None:
        import numpy as np
        from PIL import Image

        try:
            with Image.open(self._folder / record["file"]) as picture:
                pixels = np.asarray(picture)
        except OSError as error:
            _LOG.warning("%s: picture of step %s cannot be shown: %s", self._folder.name, record["step"], error)
        else:
            run.image(record["key"], pixels, record["step"], at=record["at"])
