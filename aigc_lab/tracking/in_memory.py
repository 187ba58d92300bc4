"""Tracker that keeps everything in lists: for tests, and for use without MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aigc_lab.host.names import checked
from aigc_lab.tracking import base
from aigc_lab.tracking.base import KEY, NONFINITE, DatasetInfo, Status, shortened

if TYPE_CHECKING:
    import numpy
    import numpy.typing


@dataclass
class MemoryTracker:
    """Tracker that keeps all runs in memory, under the contract of `Tracker`."""

    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, "MemoryRun"] = field(default_factory=dict)
    marks: dict[str, dict[str, str]] = field(default_factory=dict)  # of experiments, by their ids

    def mark(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        self.marks.setdefault(experiment_id, {}).update(tags)

    def experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, str(len(self.experiments) + 1))

    def abandon(self, experiment_id: str, key: str) -> None:
        run = self.runs.get(key)
        if run is not None and run.experiment_id == experiment_id and run.status == "RUNNING":
            run.end("KILLED", {})

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
    ) -> "MemoryRun":
        assert experiment_id in self.experiments.values(), f"no experiment {experiment_id}"
        run = self.runs.setdefault(checked("run", key), MemoryRun(f"memory-{len(self.runs) + 1}", experiment_id, name))
        run.reopen(
            {
                checked("param", param): shortened(base.as_text(value), base.PARAM_LENGTH)
                for param, value in params.items()
            },
            {KEY: key} | base.clean_tags(tags),
            dataset,
        )
        return run


class MemoryRun(base.Recorder):
    """Recorded content of one run. `metrics` holds the flushed points as (step, value)."""

    def __init__(self, run_id: str, experiment_id: str, name: str) -> None:
        super().__init__(run_id)
        self.experiment_id = experiment_id
        self.name = name
        self.status: Literal["RUNNING"] | Status = "RUNNING"
        self.params: dict[str, str] = {}
        self.tag: dict[str, str] = {}
        self.dataset: DatasetInfo | None = None
        self.metrics: dict[str, list[tuple[int, float]]] = {}
        self.images: list[tuple[str, int, numpy.typing.NDArray[numpy.uint8]]] = []
        self.texts: dict[str, str] = {}
        self.artifacts: dict[str, bytes] = {}

    def reopen(self, params: dict[str, str], tags: dict[str, str], dataset: DatasetInfo | None) -> None:
        """Opens the run again: existing params stay, tags are updated, and a new dataset replaces the old one."""
        self.status, self._ended = "RUNNING", False
        self.params = params | self.params
        self.tag |= tags
        self.dataset = dataset or self.dataset

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
        self.images.append((key, step, pixels.copy()))

    def text(self, name: str, text: str) -> None:
        assert not self._ended, f"run {self.run_id} has ended"
        self.texts[checked("artifact", name)] = text

    def artifact(self, path: Path, folder: str, name: str = "") -> None:
        assert not self._ended, f"run {self.run_id} has ended"
        if not path.is_file():
            raise ValueError(f"artifact {path}: no such file")
        name = name or path.name
        self.artifacts[f"{checked('artifact', folder)}/{name}" if folder else name] = path.read_bytes()

    def tags(self, tags: Mapping[str, str]) -> None:
        assert not self._ended, f"run {self.run_id} has ended"
        self.tag |= base.clean_tags(tags)

    def flush(self) -> int:
        for point in self._points:
            self.metrics.setdefault(point.name, []).append((point.step, point.value))
        self._points.clear()
        if self._nonfinite:
            self.tag[NONFINITE] = self._nonfinite_tag()
        return 0

    def end(self, status: Status, tags: Mapping[str, str], *, at: int | None = None) -> int:
        if not self._ended:
            try:
                self.flush()
                self.tags(tags)
            finally:
                self.status, self._ended = status, True
        return 0
