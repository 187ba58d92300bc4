"""What runs show, written to disk first: `<folder>/<run>.<origin>/log.jsonl`, a record a line, and its files.

A training never waits for MLflow, and does not import it: it appends to files, and one process ships them (`shipper`).
A record is whole or absent: a line that a kill cut off is dropped. Its picture or file lies beside the log, until the
store has it: a file as a link to where it was written, for what an attempt wrote goes when the run has ended.

The attempts of a run that go on from each other share one log, and one MLflow run: `origin` is the attempt that the
chain began with. Each opens the log with a `start`, and leaves out what is in it already, since it repeats the steps
after its checkpoint. `end: KILLED` is followed by the next attempt's `start`, or by nothing; any other end is the last
record, and what has been shipped up to there is deleted.
"""

import io
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_lab.host import files
from aigc_lab.host.names import checked
from aigc_lab.tracking import base
from aigc_lab.tracking.base import NONFINITE, DatasetInfo, Status

if TYPE_CHECKING:
    import numpy
    import numpy.typing

_LOG = logging.getLogger(__name__)

LOG = "log.jsonl"
LOCK = ".lock"  # of a spool: who ships it holds it
DELIVERED = "delivered.json"  # of a run: how far the store has taken its log

Record = dict[str, Any]


class SpoolTracker:
    """Runs of one sweep, as folders. An experiment's id is its name until the shipper knows MLflow's."""

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
        """Begins the log of `key`, or goes on with that of an attempt that was KILLED.

        An attempt that resumes repeats what came after its checkpoint: only what was flushed before a checkpoint was
        written is sure to be in the log.
        """
        for noun, names in (("param", params), ("tag", tags), ("run", [key])):
            for each in names:
                checked(noun, each)
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
            tags=dict.fromkeys(run.last_words, "") | dict(tags),
            dataset=asdict(dataset) if dataset is not None else None,
        )
        return run

    def end(self, key: str, status: Status, tags: Mapping[str, str]) -> None:
        """Ends the run of `key` from outside: its process is dead. Harmless when it has ended so, or was shipped."""
        folder, clean = self.folder / key, base.clean_tags(tags)
        if folder.is_dir() and _ended(folder) != status:
            _append_or_warn(folder, {"end": status, "tags": clean, "at": base.now()})

    def abandon(self, experiment_id: str, key: str) -> None:
        """Ends the run of `key` as KILLED, if its process died; harmless when it ended or was shipped."""
        folder = self.folder / key
        if folder.is_dir() and _ended(folder) is None:
            self.end(key, "KILLED", {"state": "KILLED"})

    def open_keys(self) -> list[str]:
        """The keys of the runs whose log does not end: somebody works on them, or died doing so."""
        return [folder.name for folder in runs(self.folder) if _ended(folder) is None]

    def abandon_all(self) -> None:
        """Ends every run that nobody works on any more. The caller knows that no process of this sweep is alive."""
        for folder in runs(self.folder):
            self.abandon("", folder.name)

    def forget(self, key: str) -> None:
        """Nobody will resume the KILLED run of `key`: its log goes as soon as it is delivered. Harmless otherwise."""
        folder = self.folder / key
        if not folder.is_dir() or _ended(folder) != "KILLED":
            return
        _append_or_warn(folder, {"forget": None, "at": base.now()})
        try:
            with files.locked(self.folder / LOCK, wait=False):
                if all("forget" in record for record in records(folder, delivered(folder))):
                    remove(folder)
        except BlockingIOError:
            pass  # who ships this spool will meet the record


class SpoolRun(base.Recorder):
    """One attempt of a run. Every call but `scalars` is on disk when it returns. What a full disk does not take waits
    in memory, in order, and every later call tries again: a training goes on, and is told of the disk once.
    """

    def __init__(self, folder: Path, key: str) -> None:
        super().__init__(key)
        self._folder = folder
        self._before = before = _Content.of(folder)
        self._files = before.files
        self._nonfinite = dict(before.nonfinite)
        self._noted = dict(before.nonfinite)
        self._unwritten: deque[tuple[Record, bytes | Path]] = deque()
        self._warned = False

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def last_words(self) -> Iterable[str]:
        """The tags that the attempt before ended with."""
        return self._before.last_words

    def scalars(self, step: int, values: Mapping[str, float]) -> Mapping[str, float]:
        done = self._before.steps
        super().scalars(step, {name: value for name, value in values.items() if step > done.get(name, step - 1)})
        shown = self._before.values
        return dict(values) | {name: shown[name] for name in values if name in shown and done[name] == step}

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
        if (key, step) in self._before.images:
            return
        self.record("image", png or _encoded(pixels), key=key, file=self._file(".png"), step=step)

    def text(self, name: str, text: str) -> None:
        if self._before.texts.get(checked("artifact", name)) != _digest(text):
            self.record("text", name=name, text=text)

    def artifact(self, path: Path, folder: str, name: str = "") -> None:
        if not path.is_file():
            raise ValueError(f"artifact {path}: no such file")
        place, name = checked("artifact", folder) if folder else "", name or path.name
        digest = files.sha256(path)
        if self._before.artifacts.get(f"{place}/{name}") != digest:
            file = self._file(path.suffix)
            self.record("artifact", path.absolute(), name=name, file=file, folder=place, sha256=digest)

    def _file(self, suffix: str) -> str:
        """A name for the file of one record: two that shared one would lose it together."""
        self._files += 1
        return f"{self._files:06d}{suffix}"

    def tags(self, tags: Mapping[str, str]) -> None:
        self.record("tags", tags=base.clean_tags(tags))

    def flush(self) -> int:
        if self._points or self._nonfinite != self._noted:
            # One record: a kill finds both in the log, or neither.
            facts: Record = {"points": self._points}
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
        """Appends a record, after those that wait; its `file`, with this content, is on disk before it."""
        assert not self._ended, f"run {self.run_id} has ended"
        self._unwritten.append(({kind: None, "at": base.now()} | facts, content))
        self.write()

    def write(self) -> int:
        """Writes what waits, as far as the disk takes it, and returns how many pieces wait on."""
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
                append(self._folder, record)
                self._unwritten.popleft()
        except OSError as error:
            if not self._warned:
                _LOG.warning("run %s: its log cannot be written, and waits in memory: %s", self.run_id, error)
            self._warned = True
            self.reason = str(error)
        return sum(len(record.get("points", ())) or 1 for record, _ in self._unwritten)


@dataclass
class _Content:
    """What a log holds of the attempts before this one."""

    steps: dict[str, int] = field(default_factory=dict)  # metric -> the last step recorded
    values: dict[str, float] = field(default_factory=dict)  # metric -> its value at that step, where it is finite
    nonfinite: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # as the recorder counts them
    images: set[tuple[str, int]] = field(default_factory=set)
    texts: dict[str, str] = field(default_factory=dict)  # name -> digest
    artifacts: dict[str, str] = field(default_factory=dict)  # folder/name -> digest, of what will arrive or has
    files: int = 0  # the highest number of a record's file
    last_words: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> "_Content":
        content, sent = cls(), delivered(folder)
        for end, record in positions(folder):
            content._add(record, folder, arrived=end <= sent)
        return content

    def _add(self, record: Record, folder: Path, *, arrived: bool) -> None:
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
            kept = arrived or ("file" in record and located(folder, record) is not None)
            self.artifacts[f"{record['folder']}/{named(record)}"] = record.get("sha256", "") if kept else ""
        elif "end" in record:
            self.last_words = record["tags"]
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


def runs(spool: Path) -> list[Path]:
    """The folders of a sweep's runs."""
    folders = sorted(spool.iterdir()) if spool.is_dir() else []
    return [folder for folder in folders if folder.is_dir() and not folder.name.startswith(".")]


def remove(folder: Path) -> None:
    """Deletes a run's folder; a kill half-way leaves nothing that looks like a run."""
    leftover = folder.with_name(f".{folder.name}.gone")
    clear(leftover)
    folder.rename(leftover)
    clear(leftover)


def clear(leftover: Path) -> None:
    """Deletes what `remove` left when it was killed."""
    shutil.rmtree(leftover, ignore_errors=True)


def named(artifact: Record) -> str:
    """What the file of an artifact is called."""
    return str(artifact["name"] if "name" in artifact else Path(artifact["path"]).name)


def located(folder: Path, artifact: Record) -> Path | None:
    """Where the file of an artifact is now, if what lies there is what was recorded. A log that an earlier version
    wrote names the place where the file was written.
    """
    path = folder / artifact["file"] if "file" in artifact else Path(artifact["path"])
    return path if path.is_file() and files.sha256(path) == artifact.get("sha256") else None


def delivered(folder: Path) -> int:
    """How many bytes of a run's log the store has taken."""
    return int(note(folder)["bytes"])


def note(folder: Path) -> Record:
    """What the shipper wrote of a run: how many `bytes` of its log the store has taken."""
    path = folder / DELIVERED
    found: Record = json.loads(path.read_bytes()) if path.is_file() else {"bytes": 0}
    return found


def append(folder: Path, record: Mapping[str, Any]) -> None:
    """Adds a line whole or not at all, in place of one that a kill cut off."""
    folder.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    with (folder / LOG).open("ab+", buffering=0) as file:
        size = _whole(file)
        if file.write(line) != len(line):
            file.truncate(size)
            raise OSError(f"{folder / LOG}: the disk is full")


def _whole(file: io.FileIO) -> int:
    """The size of a log without a line that was cut off, which is removed: it may lack nothing but its end, and be
    taken for a record later, beside the one that repeats it.
    """
    size = file.seek(0, os.SEEK_END)
    if not size or (file.seek(size - 1), file.read(1))[1] == b"\n":
        return size
    file.seek(0)
    size = file.read().rfind(b"\n") + 1
    file.truncate(size)
    return size


def _append_or_warn(folder: Path, record: Record) -> None:
    try:
        append(folder, record)
    except OSError as error:
        _LOG.warning("run %s: its log cannot be written: %s", folder.name, error)


def records(folder: Path, start: int = 0) -> Iterator[Record]:
    """The whole records of a run so far, from a byte of its log on."""
    return (record for _, record in positions(folder, start))


def positions(folder: Path, start: int = 0) -> Iterator[tuple[int, Record]]:
    """The same, each with the byte of the log at which it ends."""
    path, end = folder / LOG, start
    if not path.is_file():
        return
    with path.open("rb") as log:
        log.seek(start)
        for line in log:
            end += len(line)
            parsed = parse(line)
            if parsed is not None:
                yield end, parsed


def parse(line: bytes) -> Record | None:
    """The record of a line, None for one that was cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _ended(folder: Path) -> Status | None:
    """How a run ended; None for one that goes on, as far as its log knows."""
    status: Status | None = None
    for record in records(folder):
        status = None if "start" in record else record.get("end", status)
    return status
