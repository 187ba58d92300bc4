"""Protocols of experiment tracking (curves, samples, artifacts of a run), and what their implementations share."""

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
# The family of pictures, one a step, that shows samples; others show views of a system, such as its reconstructions.
SAMPLES = "samples"


def image_key(family: str) -> str:
    """Key of a family of pictures, under which a page has them with a slider over the steps.

    >>> image_key(SAMPLES)
    'samples/grid'
    """
    return f"{family}/grid"


GRID = image_key(SAMPLES)


def status_of(state: str) -> Status:
    """Status with which the log of a run ends. KILLED says that another attempt may go on from there, so that a run
    that was pruned or diverged is FINISHED.
    """
    return "FAILED" if state == "FAILED" else "KILLED" if state == "KILLED" else "FINISHED"


# A run without a result must not look like one that has one: MLflow knows no better words.
_WITHOUT_RESULT: Mapping[str, Status] = {"PRUNED": "KILLED", "DIVERGED": "FAILED"}


def shown_status(status: Status, state: str) -> Status:
    """Status that MLflow shows of a run whose log ends with `status`.

    >>> shown_status("FINISHED", "PRUNED"), shown_status("FINISHED", "FINISHED")
    ('KILLED', 'FINISHED')
    """
    return _WITHOUT_RESULT.get(state, status)


def run_key(run: str, chain: int) -> str:
    """Key of a run in MLflow: the registry's run id, and the number of the attempt with which its chain of attempts
    began.
    """
    return f"{run}.{chain}"


def run_of_key(key: str) -> str:
    """Registry's run id in a key."""
    return key.rpartition(".")[0]


# MLflow's limits, which every tracker keeps.
PARAM_LENGTH = 6000
TAG_LENGTH = 8000


@dataclass(frozen=True)
class DatasetInfo:
    """Dataset of a run as MLflow shows it. `shape` is text for readers, such as `uint8 [1, 28, 28], 60000 samples`."""

    name: str
    digest: str
    url: str | None
    shape: str
    context: str = "training"


class RunTracker(Protocol):
    """One run in a tracker. Only `flush` and `end` must reach the store, and no method raises for a store that fails.

    `at` is the time of recording in milliseconds since 1970, by default now.
    """

    run_id: str
    reason: str  # why something waits, as far as it is known

    def scalars(self, step: int, values: Mapping[str, float]) -> Mapping[str, float]:
        """Records finite values at a step, without any I/O, and returns the values that the store shows at this step.

        These differ from `values` when a killed attempt has recorded the step before: its values stay. Names of values
        that are not finite go to the tag `aigc_lab.nonfinite`.
        """

    def points(self, points: "Iterable[MetricPoint]") -> None:
        """Records points with the times at which they were spooled."""

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """Records scores like `scalars`, by their bare names: `fid` becomes `score/fid`."""

    def image(
        self,
        key: str,
        pixels: "numpy.typing.NDArray[numpy.uint8]",
        step: int,
        *,
        at: int | None = None,
        png: Path | None = None,
    ) -> None:
        """Shows pixels, uint8 [H, W] or [H, W, C], under `key`, with a slider over the steps.

        `png` is a file with the same picture, if there is one; it must exist until the picture is delivered. Raises
        `ValueError` for other pixels and for names that no store takes.
        """

    def text(self, name: str, text: str) -> None:
        """Stores text as the artifact `name`, such as `samples/000250.txt`."""

    def artifact(self, path: Path, folder: str, name: str = "") -> None:
        """Stores a file in a folder of the run's artifacts (`""`: the top folder), under `name` or its own name. Raises
        `ValueError` for a file that does not exist.
        """

    def tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags, the only part of a run that may change."""

    def flush(self) -> int:
        """Delivers the backlog, and returns the number of pieces (points, images, …) that are still undelivered: 0 when
        the store works.
        """

    def end(self, status: Status, tags: Mapping[str, str], *, at: int | None = None) -> int:
        """Delivers the backlog, sets the tags and closes the run, once. Returns the number of pieces that the store
        failed to take, and logs it; pieces that the store refused for good are logged and not counted.
        """


class Tracker(Protocol):
    """Opens runs. Raises `UsageError` for an address that cannot work and `Failure` for a store that fails."""

    def experiment(self, name: str) -> str:
        """Id of the experiment of this name, which is created if there is none."""

    def abandon(self, experiment_id: str, key: str) -> None:
        """Closes the run of `key` as KILLED if its process died and left it RUNNING."""

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
        """Opens the run of `key` (see `run_key`): a new one, or the existing one again."""


class MetricPoint(NamedTuple):
    """Value of a metric at a step; `timestamp` is in milliseconds since 1970."""

    name: str
    value: float
    timestamp: int
    step: int


class Recorder:
    """Base of every tracker's run: checks names, sorts out values that are not finite, and collects points until
    `flush`.
    """

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
        """Records points whose names and values were checked when they were spooled."""
        self._points += points

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        self.scalars(step, {f"score/{name}": value for name, value in values.items()})

    def _nonfinite_tag(self) -> str:
        counts = sorted(self._nonfinite.items(), key=lambda each: (each[1][1], each[0]))  # the same however it is told
        parts = (f"{name}: {count} from step {first}" for name, (count, first, _) in counts)
        return shortened("; ".join(parts), TAG_LENGTH)

    def _check_image(self, key: str, pixels: "numpy.typing.NDArray[numpy.uint8]") -> None:
        assert not self._ended, f"run {self.run_id} has ended"
        checked("image", key)
        shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
        if str(pixels.dtype) != "uint8" or not shaped:
            raise ValueError(f"image {key}: needs uint8 [H, W] or [H, W, C], not {pixels.dtype} {list(pixels.shape)}")


def now() -> int:
    """Current time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags with checked names, and values cut to MLflow's limit. Raises `ValueError` for a name that MLflow refuses."""
    return {checked("tag", name): shortened(str(value), TAG_LENGTH) for name, value in tags.items()}


def as_text(value: object) -> str:
    """Value of a parameter as MLflow shows it: containers as JSON, everything else as `str`."""
    return json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else str(value)


def shortened(text: str, limit: int) -> str:
    """Text of at most `limit` characters; a longer one is cut, and ends with its full length."""
    note = f"… ({len(text)} characters)"
    return text if len(text) <= limit else text[: limit - len(note)] + note
