"""Gaps of a run in MLflow: what the registry and the home have of it and MLflow does not."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from aigc_lab.tracking.base import MetricPoint
from aigc_lab.tracking.mlflow import MlflowFile


class Shown(NamedTuple):
    """A picture of a run: its family (`samples`, or a view such as `reconstructions`), and its step."""

    family: str
    step: int

    def __str__(self) -> str:
        return f"the {self.family} of step {self.step}"


@dataclass(frozen=True)
class RunGaps:
    """Missing parts of a run in MLflow: the `run` itself, params, files by place, and pictures (with the time in the
    name of their other file, if there is one).

    `steps` are the existing steps of each metric. `values` are the right last values of metrics whose last value
    differs in MLflow, and `ends` the step and time of the wrong ones.
    """

    run: bool
    steps: Mapping[str, set[int]]
    params: set[str]
    pictures: Mapping[Shown, int | None]
    files: set[str]
    values: Mapping[str, float] = field(default_factory=dict)
    ends: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def has_point(self, metric: str, step: int) -> bool:
        """Whether MLflow has a value of the metric at this step."""
        return step in self.steps.get(metric, ())

    def with_history(self, steps: Mapping[str, set[int]], ends: Mapping[str, tuple[int, int]]) -> "RunGaps":
        """The same gaps of a run whose metrics have these steps, and end at these steps and times."""
        return replace(self, steps=steps, ends=ends)

    def corrections(self) -> "Iterator[MetricPoint]":
        """Points that outdate MLflow's wrong last values, which it never deletes: of equal steps it shows the later
        time.
        """
        for name, value in self.values.items():
            if name in self.ends:
                step, at = self.ends[name]
                yield MetricPoint(name, value, at + 1, step)


def shown_pictures(files: Mapping[str, MlflowFile]) -> dict[Shown, dict[str, tuple[str, int]]]:
    """Files of a run's pictures among MLflow's artifacts, by end of the file name: (place, time in the name)."""
    pictures: dict[Shown, dict[str, tuple[str, int]]] = defaultdict(dict)
    pattern = re.compile(r"images/([\w-]+)~grid\+step\+(\d+)\+timestamp\+(\d+)\+[\w-]+(\.png|\+compressed\.webp)")
    for place, file in files.items():
        match = pattern.fullmatch(place)
        if match is not None and file.size:
            pictures[Shown(match[1], int(match[2]))][match[4]] = place, int(match[3])
    return pictures
