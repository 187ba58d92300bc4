"""What MLflow has of a run beside what it is to have: its end, the values at which its curves and scores end, its
files to the bit, and its pictures by what they show.

Of weights a digest is recorded. Other files are compared with the home's, and of pictures nobody can say which is
right while both can be read.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from aigc_lab.archive.mlflow_replay import Lacks, Projection, pictures_in
from aigc_lab.host.files import sha256
from aigc_lab.registry.audit import RecordedRun
from aigc_lab.registry.states import RunState
from aigc_lab.tracking.base import status_of
from aigc_lab.tracking.mlflow import MlflowFile, MlflowTracker, RunSnapshot

_NAMED = 3


@dataclass
class Compared:
    """What differs, a clause each; `lacks` is what to show again (curves as a whole), and `many` says that MLflow has
    several runs for one, which is for a person to mend. So is what is `unlike`: clauses about pictures that both have,
    with where they lie. `files` are MLflow's.
    """

    differs: list[str] = field(default_factory=list)
    lacks: Lacks | None = None
    many: bool = False
    unlike: list[str] = field(default_factory=list)
    files: Mapping[str, MlflowFile] = field(default_factory=dict)


class Digests:
    """The sha256 of files, each read once: linked ones are one."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], str] = {}

    def of(self, path: Path) -> str:
        stat = path.stat()
        file = stat.st_dev, stat.st_ino
        if file not in self._known:
            self._known[file] = sha256(path)
        return self._known[file]


class Comparison:
    """Of one MLflow. Files on this machine are compared by size and digest; others by size, and with `deep` they are
    fetched for their digest. All methods raise `Failure` for a store that fails.
    """

    def __init__(self, tracker: MlflowTracker, digests: Digests, *, deep: bool = False) -> None:
        self._tracker, self._digests, self._deep = tracker, digests, deep

    def of(self, run: RecordedRun, wanted: Projection, shown: Sequence[RunSnapshot], score: str) -> Compared:
        if not shown:
            return Compared(["MLflow has no run of it"], wanted.lacks({}, {}, {}, run=True))
        if len(shown) > 1:
            return Compared([f"MLflow has {len(shown)} runs of it instead of one"], many=True)
        (here,) = shown
        files = self._tracker.files(here)
        lacks = wanted.lacks({name: set() for name in here.metrics}, here.params, files)
        damaged = self._damaged(wanted, here, files)
        pictures, unlike = self._pictures(wanted, here, files)
        lacks = replace(lacks, files=lacks.files | damaged.keys(), pictures=pictures | dict(lacks.pictures))
        differs = _ends(run, wanted, here, score)
        values = _others(run, wanted, here)
        lacks = replace(lacks, values=values)
        told = [
            f"{name} ends at {value}, and MLflow says {here.metrics[name]}"
            for name, value in values.items()
            if name != score
        ]
        differs += [f"MLflow has other values: {_listed(told)}"] if told else []
        metrics = sorted(wanted.last.keys() - here.metrics.keys())
        absent = sorted(lacks.files - damaged.keys())
        absent += [f"the samples of step {step}" for step in sorted(lacks.pictures.keys() - pictures.keys())]
        absent += [f"the curve {name}" for name in metrics] + (["its params"] if lacks.params else [])
        differs += [f"MLflow lacks {_listed(absent)}"] if absent else []
        differs += [f"{place} in MLflow is not what was written ({why})" for place, why in damaged.items()]
        differs += [f"the samples of step {step} in MLflow are damaged" for step in sorted(pictures)]
        return Compared(differs, lacks if differs else None, unlike=unlike, files=files)

    def _damaged(self, wanted: Projection, here: RunSnapshot, files: Mapping[str, MlflowFile]) -> dict[str, str]:
        """Place -> why the file there is another than the one of this home."""
        found = {}
        for place, path in wanted.files.items():
            held, there = files.get(place), path.is_file()
            digest = wanted.digests.get(path) or (self._digests.of(path) if there else None)
            if held is None or digest is None:
                continue
            size = path.stat().st_size if there and self._digests.of(path) == digest else held.size
            if held.size != size:
                found[place] = f"{held.size} bytes instead of {size}"
            elif self._digest(here, place, held) not in (None, digest):
                found[place] = "sha256"
        return found

    def _pictures(
        self, wanted: Projection, here: RunSnapshot, files: Mapping[str, MlflowFile]
    ) -> tuple[dict[int, int | None], list[str]]:
        """Step -> the time that the picture's name bears, where it cannot be read; and what is said of pictures that
        show something else. One that is damaged in the home says nothing about MLflow's.
        """
        damaged: dict[int, int | None] = {}
        unlike = []
        for step, names in sorted(pictures_in(files).items()):
            path = wanted.pictures.get(step)
            if path is None or not path.is_file() or ".png" not in names:
                continue
            place, at = names[".png"]
            if self._digest(here, place, files[place]) in (None, self._digests.of(path)) or not is_picture(path):
                continue
            other = files[place].path  # None: it was fetched for its digest alone, and an import writes it anew
            if other is not None and not is_picture(other):
                damaged[step] = at
            elif other is not None and not _same_picture(path, other):
                unlike.append(
                    f"home and MLflow differ in the samples of step {step}; look at both, and put the right one in the"
                    f" place of the other: {path}, {other}"
                )
        return damaged, unlike

    def _digest(self, here: RunSnapshot, place: str, held: MlflowFile) -> str | None:
        """None where it would have to be fetched, and nobody asked for that."""
        if held.path is not None:
            return self._digests.of(held.path)
        return self._tracker.sha256(here, place, held) if self._deep else None


def _others(run: RecordedRun, wanted: Projection, here: RunSnapshot) -> dict[str, float]:
    """Metric -> the number that it ends at, where MLflow has another. Of a run that did not finish MLflow may know more
    than the registry.
    """
    ends = wanted.last if run.state == RunState.FINISHED else {}
    return {name: value for name, value in sorted(ends.items()) if here.metrics.get(name, value) != value}


def _ends(run: RecordedRun, wanted: Projection, here: RunSnapshot, score: str) -> list[str]:
    differs = []
    # A run with patience trains on after its result: its curve ends elsewhere.
    value = wanted.last.get(score, run.value)
    if here.status != status_of(run.state):
        differs.append(f"it is {run.state}, and MLflow says {here.status}")
    if run.state == RunState.FINISHED and here.metrics.get(score) != value:
        differs.append(f"{score} is {value}, and MLflow says {here.metrics.get(score)}")
    if here.run_id != run.mlflow_run_id:
        differs.append(f"its MLflow run is {here.run_id}, and {run.mlflow_run_id} is recorded")
    return differs


def is_picture(path: Path) -> bool:
    """Whether a file is a whole picture, to its last pixel."""
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
    """Whether two whole files show the same: an earlier version, and an import, wrote MLflow's anew."""
    from PIL import Image, ImageChops

    with Image.open(path) as one, Image.open(other) as two:
        a, b = one.convert("RGB"), two.convert("RGB")
        return a.size == b.size and ImageChops.difference(a, b).getbbox() is None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
