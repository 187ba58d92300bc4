"""Workers that others start: runs are offered, and whoever joins does them (`aigc-lab worker SWEEP`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aigc_lab.executors.shared.queued import Queued
from aigc_lab.runs.resources import Resources


class Queue(Queued):
    """Starts nothing: as many runs are under way as workers have joined."""

    starts_workers = False

    def open(self, resources: Resources, spool: Path) -> None:
        super().open(resources, spool)
        self._say(
            f"runs wait for workers, on any machine that sees the stores: aigc-lab worker {self._experiment.sweep}"
        )

    def watch(self, workers: Sequence[dict[str, Any]]) -> None:
        """They look after themselves."""
