"""Comparison of a run in MLflow with the registry and the home: its end, the last values of its curves and scores, its
files to the bit, and its pictures by their pixels.

Digests are recorded for weights. Other files are compared with the home's; of two readable pictures that differ,
neither is known to be right.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from aigc_lab.archive.mlflow_gaps import RunGaps, Shown, shown_pictures
from aigc_lab.archive.mlflow_replay import Projection
from aigc_lab.host.files import sha256
from aigc_lab.registry.audit import RecordedRun
from aigc_lab.registry.states import RunState
from aigc_lab.tracking.base import shown_status, status_of
from aigc_lab.tracking.mlflow import MlflowFile, MlflowTracker, RunSnapshot

_NAMED = 3


@dataclass
class RunDifferences:
    """Differences of one run. `differs` holds a clause for each, and `gaps` what to send again (curves as a whole).

    A person has to resolve `many` (MLflow has several runs for one) and `unlike` (clauses on pictures that differ, with
    their paths). `files` are MLflow's.
    """

    differs: list[str] = field(default_factory=list)
    gaps: RunGaps | None = None
    many: bool = False
    unlike: list[str] = field(default_factory=list)
    files: Mapping[str, MlflowFile] = field(default_factory=dict)


class DigestCache:
    """sha256 of files, each read once; hard links count as one file."""

    def __init__(self) -> None:
        self._by_file: dict[tuple[int, int], str] = {}

    def of(self, path: Path) -> str:
        """Hex sha256 of a file."""
        stat = path.stat()
        file = stat.st_dev, stat.st_ino
        if file not in self._by_file:
            self._by_file[file] = sha256(path)
        return self._by_file[file]


class RunComparison:
    """Comparison with one MLflow store. Files on this machine are compared by size and digest; others by size, and if
    `deep` they are downloaded for their digest. All methods raise `Failure` for a store that fails.
    """

    def __init__(self, tracker: MlflowTracker, digests: DigestCache, *, deep: bool = False) -> None:
        self._tracker, self._digests, self._deep = tracker, digests, deep

    def of(
        self, run: RecordedRun, projection: Projection, snapshots: Sequence[RunSnapshot], score: str
    ) -> RunDifferences:
        """Differences between a recorded run, with its projection, and the snapshots in MLflow; `score` is the
        objective's metric.
        """
        if not snapshots:
            return RunDifferences(["MLflow has no run of it"], projection.gaps({}, {}, {}, run=True))
        if len(snapshots) > 1:
            return RunDifferences([f"MLflow has {len(snapshots)} runs of it instead of one"], many=True)
        (snapshot,) = snapshots
        files = self._tracker.files(snapshot)
        gaps = projection.gaps({name: set() for name in snapshot.metrics}, snapshot.params, files)
        damaged = self._damaged(projection, snapshot, files)
        pictures, unlike = self._pictures(projection, snapshot, files)
        gaps = replace(gaps, files=gaps.files | damaged.keys(), pictures=pictures | dict(gaps.pictures))
        differs = _ends(run, projection, snapshot, score)
        values = _others(run, projection, snapshot)
        gaps = replace(gaps, values=values)
        clauses = [
            f"{name} ends at {value}, and MLflow says {snapshot.metrics[name]}"
            for name, value in values.items()
            if name != score
        ]
        differs += [f"MLflow has other values: {_listed(clauses)}"] if clauses else []
        metrics = sorted(projection.last.keys() - snapshot.metrics.keys())
        absent = sorted(gaps.files - damaged.keys())
        absent += [str(shown) for shown in sorted(gaps.pictures.keys() - pictures.keys())]
        absent += [f"the curve {name}" for name in metrics] + (["its params"] if gaps.params else [])
        differs += [f"MLflow lacks {_listed(absent)}"] if absent else []
        differs += [f"{place} in MLflow is not what was written ({why})" for place, why in damaged.items()]
        differs += [f"{shown} in MLflow are damaged" for shown in sorted(pictures)]
        return RunDifferences(differs, gaps if differs else None, unlike=unlike, files=files)

    def _damaged(
        self, projection: Projection, snapshot: RunSnapshot, files: Mapping[str, MlflowFile]
    ) -> dict[str, str]:
        """Reason why each of MLflow's files differs from the home's, by place."""
        damaged = {}
        for place, path in projection.files.items():
            artifact, exists = files.get(place), path.is_file()
            digest = projection.digests.get(path) or (self._digests.of(path) if exists else None)
            if artifact is None or digest is None:
                continue
            size = path.stat().st_size if exists and self._digests.of(path) == digest else artifact.size
            if artifact.size != size:
                damaged[place] = f"{artifact.size} bytes instead of {size}"
            elif self._digest(snapshot, place, artifact) not in (None, digest):
                damaged[place] = "sha256"
        return damaged

    def _pictures(
        self, projection: Projection, snapshot: RunSnapshot, files: Mapping[str, MlflowFile]
    ) -> tuple[dict[Shown, int | None], list[str]]:
        """Pictures that in MLflow cannot be read, with the time in its name, and clauses on pictures that show
        something else. A picture that is damaged in the home says nothing about MLflow's.
        """
        damaged: dict[Shown, int | None] = {}
        unlike = []
        for shown, names in sorted(shown_pictures(files).items()):
            path = projection.pictures.get(shown)
            if path is None or not path.is_file() or ".png" not in names:
                continue
            place, at = names[".png"]
            file = files[place]
            if file.path is None and not self._deep:
                continue
            with self._tracker.local(snapshot, place, file) as other:
                # A file that is fetched is gone in a moment, and the next may have its place on the disk.
                digest = sha256(other) if file.path is None else self._digests.of(other)
                if digest == self._digests.of(path) or not is_picture(path):
                    continue
                if not is_picture(other):
                    damaged[shown] = at
                elif not _same_picture(path, other):
                    there = other if file.path is not None else f"{place} of MLflow's run {snapshot.run_id}"
                    unlike.append(
                        f"home and MLflow differ in {shown}; look at both, and put the right one in the"
                        f" place of the other: {path}, {there}"
                    )
        return damaged, unlike

    def _digest(self, snapshot: RunSnapshot, place: str, artifact: MlflowFile) -> str | None:
        """Hex sha256 of an artifact; None where it would have to be downloaded and the comparison is not `deep`."""
        if artifact.path is not None:
            return self._digests.of(artifact.path)
        return self._tracker.sha256(snapshot, place, artifact) if self._deep else None


def _others(run: RecordedRun, projection: Projection, snapshot: RunSnapshot) -> dict[str, float]:
    """Last values in the registry of metrics that have another in MLflow. Only finished runs count, since MLflow may
    know more of others than the registry.
    """
    ends = projection.last if run.state == RunState.FINISHED else {}
    return {name: value for name, value in sorted(ends.items()) if snapshot.metrics.get(name, value) != value}


def _ends(run: RecordedRun, projection: Projection, snapshot: RunSnapshot, score: str) -> list[str]:
    differs = []
    # A run with patience trains on after its result: its curve ends elsewhere.
    value = projection.last.get(score, run.value)
    ended = status_of(run.state)
    # Earlier versions showed FINISHED for runs that were pruned or diverged.
    if snapshot.status not in (ended, shown_status(ended, run.state)):
        differs.append(f"it is {run.state}, and MLflow says {snapshot.status}")
    if run.state == RunState.FINISHED and snapshot.metrics.get(score) != value:
        differs.append(f"{score} is {value}, and MLflow says {snapshot.metrics.get(score)}")
    if snapshot.run_id != run.mlflow_run_id:
        differs.append(f"its MLflow run is {snapshot.run_id}, and {run.mlflow_run_id} is recorded")
    return differs


def is_picture(path: Path) -> bool:
    """Whether a file is a complete picture, to its last pixel."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.verify()  # sums of all parts
        with Image.open(path) as picture:
            picture.load()
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError):
        return False
    return True


def _same_picture(path: Path, other: Path) -> bool:
    """Whether two complete pictures have equal pixels. Their bytes may differ: an earlier version, and an import,
    encoded MLflow's anew.
    """
    from PIL import Image, ImageChops

    with Image.open(path) as one, Image.open(other) as two:
        a, b = one.convert("RGB"), two.convert("RGB")
        return a.size == b.size and ImageChops.difference(a, b).getbbox() is None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
