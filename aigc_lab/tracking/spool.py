"""What runs show, written to disk first: `<folder>/<run>.<attempt>/log.jsonl`, a record a line, and its pictures.

A training never waits for MLflow, and does not import it: it appends to files, and one process ships them (`shipper`).
A record is whole or absent: a line that a kill cut off is skipped. What has been shipped is deleted.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_lab.tracking import base
from aigc_lab.tracking.base import NONFINITE, DatasetInfo, Status, checked

if TYPE_CHECKING:
    import numpy
    import numpy.typing

_LOG = logging.getLogger(__name__)

LOG = "log.jsonl"


class SpoolTracker:
    """Runs of one sweep, as folders. An experiment's id is its name until the shipper knows MLflow's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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
        for noun, names in (("param", params), ("tag", tags), ("run", [key])):
            for each in names:
                checked(noun, each)
        run = SpoolRun(self.folder / key, key)
        run.record(
            "start",
            experiment=experiment_id,
            name=name,
            key=key,
            params={param: base.as_text(value) for param, value in params.items()},
            tags=dict(tags),
            dataset=asdict(dataset) if dataset is not None else None,
        )
        return run

    def abandon(self, experiment_id: str, key: str) -> None:
        """Ends the run of `key` as KILLED, if its process died; harmless when it ended or was shipped."""
        folder = self.folder / key
        if folder.is_dir() and not any("end" in record for record in records(folder)):
            append(folder, {"end": "KILLED", "tags": {"state": "KILLED"}, "at": base.now()})

    def open_keys(self) -> list[str]:
        """The keys of the runs whose log does not end: somebody works on them, or died doing so."""
        return [folder.name for folder in runs(self.folder) if _ended(folder) is None]

    def abandon_all(self) -> None:
        """Ends every run that nobody works on any more. The caller knows that no process of this sweep is alive."""
        for folder in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            self.abandon("", folder.name)


class SpoolRun(base.Recorder):
    """One run. Every call but `scalars` is on disk when it returns; a full disk is told once and loses no training."""

    def __init__(self, folder: Path, key: str) -> None:
        super().__init__(key)
        self._folder = folder
        self._pictures = 0
        self._noted = ""
        self._warned = False

    def image(self, key: str, pixels: "numpy.typing.NDArray[numpy.uint8]", step: int, *, at: int | None = None) -> None:
        from PIL import Image

        self._check_image(key, pixels)
        name = f"{self._pictures:06d}.png"
        self._pictures += 1
        with self._writing(f"image {key} of step {step}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            # A fast compression: the picture will be deleted in a second.
            Image.fromarray(pixels).save(self._folder / name, "PNG", compress_level=1)
        self.record("image", key=key, file=name, step=step)

    def text(self, name: str, text: str) -> None:
        self.record("text", name=checked("artifact", name), text=text)

    def artifact(self, path: Path, folder: str) -> None:
        if not path.is_file():
            raise ValueError(f"artifact {path}: no such file")
        self.record("artifact", path=str(path.absolute()), folder=checked("artifact", folder) if folder else "")

    def tags(self, tags: Mapping[str, str]) -> None:
        self.record("tags", tags=base.clean_tags(tags))

    def flush(self) -> int:
        if self._points and self.record("points", points=self._points):
            self._points.clear()
        note = self._nonfinite_tag()
        if note != self._noted:
            self._noted = note
            self.tags({NONFINITE: note})
        return len(self._points)

    def end(self, status: Status, tags: Mapping[str, str], *, at: int | None = None) -> int:
        if self._ended:
            return 0
        clean: dict[str, str] = {}
        try:
            self.flush()
            clean = base.clean_tags(tags)
        finally:
            self.record("end", status, tags=clean)
            self._ended = True
        return len(self._points)

    def record(self, kind: str, value: object = None, **facts: object) -> bool:
        """Appends a record; whether it is on disk."""
        assert not self._ended, f"run {self.run_id} has ended"
        written = False
        with self._writing(kind):
            append(self._folder, {kind: value, "at": base.now()} | facts)
            written = True
        return written

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """An error of the disk is a warning, once a run: what a run shows is worth less than the run."""
        try:
            yield
        except OSError as error:
            if not self._warned:
                _LOG.warning("run %s: %s could not be written: %s", self.run_id, what, error)
            self._warned = True


def append(folder: Path, record: Mapping[str, Any]) -> None:
    """Adds a line in one write; after a line that a kill cut off, on a line of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    with (folder / LOG).open("ab+", buffering=0) as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        if file.write(line) != len(line):
            raise OSError(f"{folder / LOG}: the disk is full")


def records(folder: Path) -> Iterator[dict[str, Any]]:
    """The whole records of a run so far."""
    path = folder / LOG
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        parsed = parse(line)
        if parsed is not None:
            yield parsed


def parse(line: bytes) -> dict[str, Any] | None:
    """The record of a line, None for one that was cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
