"""Spool of a sweep's runs: records and files on disk, in `<folder>/<run>.<origin>/`, until MLflow has them.

A training never waits for MLflow, and does not import it: it appends to files, and one process ships them (`shipper`).
A record is whole or absent: a line that a kill cut off is dropped. The picture or file of a record lies beside the log
until the store has it. A file is linked from where it was written, since the files of an attempt are removed when its
run has ended.

Attempts of a run that continue one another share one log and one MLflow run; `origin` is the attempt with which this
chain began. Each attempt opens the log with a `start`, and does not record again what is in the log already, since it
repeats the steps after its checkpoint. `end: KILLED` is followed by the next attempt's `start`, or by nothing. Any
other end is the last record, and the folder is deleted when it has been shipped.
"""

import io
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from aigc_lab.host import files
from aigc_lab.host.names import checked
from aigc_lab.tracking import base, spool_log
from aigc_lab.tracking.base import NONFINITE, DatasetInfo, Status
from aigc_lab.tracking.spool_log import LogRecord

if TYPE_CHECKING:
    import numpy
    import numpy.typing

_LOG = logging.getLogger(__name__)


class SpoolTracker:
    """Tracker that writes the runs of one sweep to folders. Experiments are identified by name, since MLflow's id is
    known only to the shipper.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs: list[SpoolRun] = []

    def experiment(self, name: str) -> str:
        return name

    def start(
        self,
        experiment_id: str,
        name: str,
        key: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        dataset: DatasetInfo | None = None,
        *,
        at: int | None = None,
    ) -> "SpoolRun":
        """Opens the log of `key`, or continues the log of a KILLED attempt. Raises `ValueError` for names that MLflow
        refuses.

        An attempt that resumes repeats the steps after its checkpoint: only records flushed before a checkpoint are
        certain to be in the log.
        """
        for noun, names in (("param", params), ("tag", tags), ("run", [key])):
            for label in names:
                checked(noun, label)
        # A disk that was full when an earlier run ended may have space by now.
        self._runs = [run for run in self._runs if run.write() or not run.ended]
        run = SpoolRun(self.folder / key, key)
        self._runs.append(run)
        run.record(
            "start",
            experiment=experiment_id,
            name=name,
            key=key,
            params={param: base.as_text(value) for param, value in params.items()},
            # How the attempt before ended is no longer true; a tag cannot be taken back, only emptied.
            tags=dict.fromkeys(run.end_tags_before, "") | dict(tags),
            dataset=asdict(dataset) if dataset is not None else None,
        )
        return run

    def end(self, key: str, status: Status, tags: Mapping[str, str]) -> None:
        """Ends the run of `key` in place of its process, which is dead. Does nothing for a run that has ended with this
        status or was shipped.
        """
        folder, clean = self.folder / key, base.clean_tags(tags)
        if folder.is_dir() and spool_log.end_status(folder) != status:
            spool_log.append_or_warn(folder, {"end": status, "tags": clean, "at": base.now()})

    def abandon(self, experiment_id: str, key: str) -> None:
        """Ends the run of `key` as KILLED if its process died. Does nothing for a run that has ended or was shipped."""
        folder = self.folder / key
        if folder.is_dir() and spool_log.end_status(folder) is None:
            self.end(key, "KILLED", {"state": "KILLED"})

    def open_keys(self) -> list[str]:
        """Keys of the runs whose log has no end: each is being trained, or its process died."""
        return [folder.name for folder in spool_log.logged_runs(self.folder) if spool_log.end_status(folder) is None]

    def abandon_all(self) -> None:
        """Ends all runs without an end as KILLED. No process of this sweep may be alive."""
        for folder in spool_log.logged_runs(self.folder):
            self.abandon("", folder.name)

    def forget(self, key: str) -> None:
        """Lets the log of the KILLED run of `key` go as soon as it is delivered, since no attempt will resume it. Does
        nothing for other runs.
        """
        folder = self.folder / key
        if not folder.is_dir() or spool_log.end_status(folder) != "KILLED":
            return
        spool_log.append_or_warn(folder, {"forget": None, "at": base.now()})
        try:
            with files.locked(self.folder / spool_log.LOCK, wait=False):
                if all("forget" in record for record in spool_log.records(folder, spool_log.delivered_bytes(folder))):
                    spool_log.remove_logged_run(folder)
        except BlockingIOError:
            pass  # who ships this spool will meet the record


class SpoolRun(base.Recorder):
    """One attempt of a run, written to the log. Every call but `scalars` is on disk when it returns.

    Records for which the disk has no room are kept in memory, in order, and written by a later call, so that a training
    survives a full disk. The disk is reported once.
    """

    def __init__(self, folder: Path, key: str) -> None:
        super().__init__(key)
        self._folder = folder
        self._logged = logged = _LoggedContent.of(folder)
        self._files = logged.files
        self._nonfinite = dict(logged.nonfinite)
        self._noted = dict(logged.nonfinite)
        self._unwritten: deque[tuple[LogRecord, bytes | Path]] = deque()
        self._warned = False

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._ended

    @property
    def end_tags_before(self) -> Iterable[str]:
        """Names of the tags with which the previous attempt ended."""
        return self._logged.end_tags

    def scalars(self, step: int, values: Mapping[str, float]) -> Mapping[str, float]:
        last_steps = self._logged.steps
        super().scalars(step, {name: value for name, value in values.items() if step > last_steps.get(name, step - 1)})
        last_values = self._logged.values
        return dict(values) | {
            name: last_values[name] for name in values if name in last_values and last_steps[name] == step
        }

    def image(
        self,
        key: str,
        pixels: "numpy.typing.NDArray[numpy.uint8]",
        step: int,
        *,
        at: int | None = None,
        png: Path | None = None,
    ) -> None:
        self._check_image(key, pixels)
        if (key, step) in self._logged.images:
            return
        self.record("image", png or _encoded(pixels), key=key, file=self._file(".png"), step=step)

    def text(self, name: str, text: str) -> None:
        if self._logged.texts.get(checked("artifact", name)) != _digest(text):
            self.record("text", name=name, text=text)

    def artifact(self, path: Path, folder: str, name: str = "") -> None:
        if not path.is_file():
            raise ValueError(f"artifact {path}: no such file")
        place, name = checked("artifact", folder) if folder else "", name or path.name
        digest = files.sha256(path)
        if self._logged.artifacts.get(f"{place}/{name}") != digest:
            file = self._file(path.suffix)
            self.record("artifact", path.absolute(), name=name, file=file, folder=place, sha256=digest)

    def _file(self, suffix: str) -> str:
        """Unique name for the file of one record, which is deleted with its record."""
        self._files += 1
        return f"{self._files:06d}{suffix}"

    def tags(self, tags: Mapping[str, str]) -> None:
        self.record("tags", tags=base.clean_tags(tags))

    def flush(self) -> int:
        if self._points or self._nonfinite != self._noted:
            # One record: a kill finds both in the log, or neither.
            facts: LogRecord = {"points": self._points}
            if self._nonfinite != self._noted:
                facts |= {"nonfinite": self._nonfinite, "tags": {NONFINITE: self._nonfinite_tag()}}
            self.record("points", **facts)
            self._points, self._noted = [], dict(self._nonfinite)
        return self.write()

    def end(self, status: Status, tags: Mapping[str, str], *, at: int | None = None) -> int:
        if self._ended:
            return 0
        clean: dict[str, str] = {}
        try:
            self.flush()
            clean = base.clean_tags(tags)
        finally:
            self.record("end", end=status, tags=clean)
            self._ended = True
        return self.write()

    def record(self, kind: str, content: bytes | Path = b"", **facts: object) -> None:
        """Appends a record after those that wait in memory. Its `file`, which holds `content`, is on disk before it."""
        assert not self._ended, f"run {self.run_id} has ended"
        self._unwritten.append(({kind: None, "at": base.now()} | facts, content))
        self.write()

    def write(self) -> int:
        """Writes the records in memory as far as the disk takes them, and returns the number of pieces that remain."""
        try:
            while self._unwritten:
                record, content = self._unwritten[0]
                if content:
                    self._folder.mkdir(parents=True, exist_ok=True)
                if isinstance(content, Path) and content.exists():
                    files.share(content, self._folder / record["file"])
                elif isinstance(content, Path):  # it went while the disk was full; who ships the record says so
                    _LOG.warning("run %s: %s is gone, and MLflow will lack it", self.run_id, content)
                elif content:
                    (self._folder / record["file"]).write_bytes(content)
                spool_log.append(self._folder, record)
                self._unwritten.popleft()
        except OSError as error:
            if not self._warned:
                _LOG.warning("run %s: its log cannot be written, and waits in memory: %s", self.run_id, error)
            self._warned = True
            self.reason = str(error)
        return sum(len(record.get("points", ())) or 1 for record, _ in self._unwritten)


@dataclass
class _LoggedContent:
    """Content of a log by the earlier attempts of its run."""

    steps: dict[str, int] = field(default_factory=dict)  # metric -> the last step recorded
    values: dict[str, float] = field(default_factory=dict)  # metric -> its value at that step, where it is finite
    nonfinite: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # as the recorder counts them
    images: set[tuple[str, int]] = field(default_factory=set)
    texts: dict[str, str] = field(default_factory=dict)  # name -> digest
    artifacts: dict[str, str] = field(default_factory=dict)  # folder/name -> digest, of what will arrive or has
    files: int = 0  # the highest number of a record's file
    end_tags: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> "_LoggedContent":
        content, sent = cls(), spool_log.delivered_bytes(folder)
        for end, record in spool_log.record_ends(folder):
            content._add(record, folder, arrived=end <= sent)
        return content

    def _add(self, record: LogRecord, folder: Path, *, arrived: bool) -> None:
        if "points" in record:
            for name, value, _, step in record["points"]:
                if step >= self.steps.get(name, step):
                    self.steps[name], self.values[name] = step, value
            for name, (count, first, last) in record.get("nonfinite", {}).items():
                self.nonfinite[name] = (count, first, last)
                if last > self.steps.get(name, last - 1):
                    self.steps[name] = last
                    self.values.pop(name, None)
        elif "image" in record:
            self.images.add((record["key"], record["step"]))
        elif "text" in record:
            self.texts[record["name"]] = _digest(record["text"])
        elif "artifact" in record:
            # A file that is nowhere any more, or will go with its attempt, is recorded again.
            present = arrived or ("file" in record and spool_log.artifact_path(folder, record) is not None)
            self.artifacts[f"{record['folder']}/{spool_log.artifact_name(record)}"] = (
                record.get("sha256", "") if present else ""
            )
        elif "end" in record:
            self.end_tags = record["tags"]
        if "file" in record:
            self.files = max(self.files, int(Path(record["file"]).stem))


def _encoded(pixels: "numpy.typing.NDArray[numpy.uint8]") -> bytes:
    from PIL import Image

    content = io.BytesIO()
    # A fast compression: the picture will be deleted in a second.
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels).save(content, "PNG", compress_level=1)
    return content.getvalue()


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
