"""What a run shows while it lives: curves, samples, artifacts. The protocols, and what their implementations share."""

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from aigc_lab.host.names import checked

if TYPE_CHECKING:
    import numpy
    import numpy.typing

Status = Literal["FINISHED", "FAILED", "KILLED"]

KEY = "aigc_lab.key"
NONFINITE = "aigc_lab.nonfinite"


def status_of(state: str) -> Status:
    """MLflow's word for how a run ended: for it, a run that was pruned or diverged has done what it could."""
    return "FAILED" if state == "FAILED" else "KILLED" if state == "KILLED" else "FINISHED"


def run_key(run: str, chain: int) -> str:
    """What finds a run in MLflow: the registry's run id, and the attempt that its chain of attempts began with."""
    return f"{run}.{chain}"


def run_of_key(key: str) -> str:
    """The registry's run id in a key."""
    return key.rpartition(".")[0]


# MLflow's limits, which every tracker keeps.
PARAM_LENGTH = 6000
TAG_LENGTH = 8000


@dataclass(frozen=True)
class DatasetInfo:
    """What MLflow shows of the data of a run. `shape` is for readers: `uint8 [1, 28, 28], 60000 samples`."""

    name: str
    digest: str
    url: str | None
    shape: str
    context: str = "training"


class RunTracker(Protocol):
    """One run. Only `flush` and `end` must reach the store; none raises for a store that fails.

    `at` is when it was recorded, in milliseconds since 1970; now unless it was spooled.
    """

    run_id: str
    reason: str  # why something waits, as far as it is known

    def scalars(self, step: int, values: Mapping[str, float]) -> Mapping[str, float]:
        """Records values at a step, without any I/O, and returns them as the store shows them: a value of this step
        that a killed attempt has shown stays. Values that are not finite are left out, and named in a tag.
        """

    def points(self, points: "Iterable[MetricPoint]") -> None:
        """Records points that carry their own time, as they were spooled."""

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """The same for scores, by their bare names: `fid` becomes `score/fid`."""

    def image(
        self,
        key: str,
        pixels: "numpy.typing.NDArray[numpy.uint8]",
        step: int,
        *,
        at: int | None = None,
        png: Path | None = None,
    ) -> None:
        """Shows pixels [H, W] or [H, W, C] under `key`, which has a slider over the steps. `png` is the same picture as
        a file, where there is one: it must stay until this is delivered.
        """

    def text(self, name: str, text: str) -> None:
        """Stores a text as the artifact `name`, such as `samples/000250.txt`."""

    def artifact(self, path: Path, folder: str, name: str = "") -> None:
        """Stores a file in a folder of the run's artifacts (`""`: at their top), under its own or another name."""

    def tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags, the only part of a run that may change."""

    def flush(self) -> int:
        """Delivers what waits and returns how many pieces (points, images, …) still wait, 0 when the store works."""

    def end(self, status: Status, tags: Mapping[str, str], *, at: int | None = None) -> int:
        """Delivers, sets the tags, closes the run (once). Returns the pieces that the store failed to take, which it
        also logs; what it refused for good is logged alone.
        """


class Tracker(Protocol):
    """Opens runs. Raises `UsageError` for an address that cannot work and `Failure` for a store that fails."""

    def experiment(self, name: str) -> str:
        """The id of the experiment of that name, created when there is none."""

    def abandon(self, experiment_id: str, key: str) -> None:
        """Closes the run of `key` as KILLED, if its process died and left it RUNNING."""

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
    ) -> RunTracker:
        """Opens the run of `key` (see `run_key`): a new one, or the one that was started before."""


class MetricPoint(NamedTuple):
    name: str
    value: float
    timestamp: int
    step: int


class Recorder:
    """What every tracker's run does alike: it checks names, drops what is not finite, and holds the points."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.reason = ""
        self._points: list[MetricPoint] = []
        self._names: set[str] = set()
        self._nonfinite: dict[str, tuple[int, int, int]] = {}  # name -> (how many, at which step first, and last)
        self._ended = False

    def scalars(self, step: int, values: Mapping[str, float]) -> Mapping[str, float]:
        assert not self._ended, f"run {self.run_id} has ended"
        at = now()
        for name, value in values.items():
            if name not in self._names:
                self._names.add(checked("metric", name))
            number = float(value)
            if math.isfinite(number):
                self._points.append(MetricPoint(name, number, at, step))
            else:  # MLflow would show an infinity as 1.8e308
                count, first, _ = self._nonfinite.get(name, (0, step, step))
                self._nonfinite[name] = (count + 1, first, step)
        return values

    def points(self, points: Iterable[MetricPoint]) -> None:
        """Records points that were checked before."""
        self._points += points

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        self.scalars(step, {f"score/{name}": value for name, value in values.items()})

    def _nonfinite_tag(self) -> str:
        known = sorted(self._nonfinite.items(), key=lambda each: (each[1][1], each[0]))  # the same however it is told
        parts = (f"{name}: {count} from step {first}" for name, (count, first, _) in known)
        return shortened("; ".join(parts), TAG_LENGTH)

    def _check_image(self, key: str, pixels: "numpy.typing.NDArray[numpy.uint8]") -> None:
        assert not self._ended, f"run {self.run_id} has ended"
        checked("image", key)
        shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
        if str(pixels.dtype) != "uint8" or not shaped:
            raise ValueError(f"image {key}: needs uint8 [H, W] or [H, W, C], not {pixels.dtype} {list(pixels.shape)}")


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {checked("tag", name): shortened(str(value), TAG_LENGTH) for name, value in tags.items()}


def as_text(value: object) -> str:
    return json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else str(value)


def shortened(text: str, limit: int) -> str:
    note = f"… ({len(text)} characters)"
    return text if len(text) <= limit else text[: limit - len(note)] + note
