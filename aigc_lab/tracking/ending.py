"""The end of a run beyond the registry: what MLflow is told of it, and which of its files go.

It is the same whether the training process ends the run, the process that finds it dead, an import, or `reconcile
--mlflow`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aigc_lab.host import run_folders
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.tracking.base import Status, run_of_key, status_of
from aigc_lab.tracking.spool import SpoolTracker

Tell = Callable[[Status, Mapping[str, str]], object]


@dataclass(frozen=True)
class Ending:
    """How a run ended: its `verdicts` as (kind, step, verdict), the step of its last weights, None without any, and the
    `floor` of its objective (what real samples score) with the standard deviation of that, as far as there is one.
    """

    state: RunState
    reason: str | None = None
    verdicts: Sequence[tuple[str, int, str]] = ()
    result_step: int | None = None
    floor: tuple[float | None, float | None] = (None, None)

    @property
    def status(self) -> Status:
        """Its status in MLflow."""
        return status_of(self.state)

    @property
    def tags(self) -> dict[str, str]:
        """Its tags in MLflow: state, reason, floor, and the newest verdict of each kind. Verdicts on collapse count up
        to the step of the result, since training may have continued after it.
        """
        result = math.inf if self.result_step is None else self.result_step
        by_step = sorted(self.verdicts, key=lambda each: each[1])
        newest = {kind: verdict for kind, step, verdict in by_step if kind != "collapse" or step <= result}
        told = {"state": str(self.state)} | newest | ({"reason": self.reason} if self.reason else {})
        floor, deviation = self.floor
        if floor is not None:
            told["floor"] = f"{floor:.3g}" + ("" if deviation is None else f" ± {deviation:.3g}")
        return told

    @property
    def resumable(self) -> bool:
        """Whether the run may go on from its training states: it was interrupted, or its scoring failed, before which
        it stores its last weights.
        """
        rescued = self.state == RunState.FAILED and self.result_step is not None
        return rescued or self.state == RunState.KILLED

    def complete(self, settings: Settings, place: tuple[str, int, int], attempt: int, tell: Tell | None) -> None:
        """Tells MLflow (by `tell`, None if it has never heard of the run), then removes superfluous files; `place` is
        the run's sweep, trial and seed. Nothing is removed of a run that was interrupted.
        """
        if tell is not None:
            tell(self.status, self.tags)
        if self.state != RunState.KILLED:
            run_folders.collect(settings, *place, keep=attempt, states=not self.resumable)


def conclude(registry: Registry, settings: Settings, spool: SpoolTracker, key: str) -> None:
    """Completes the end of a run whose process died after it had stored how the run ended. A run that has not ended, or
    is unknown, counts as KILLED.
    """
    run = liveness.ended(registry, run_of_key(key))
    if run is None:
        unknown = Ending(RunState.KILLED)
        spool.end(key, unknown.status, unknown.tags)
        return
    state = RunState(run["state"])
    ended = state if state.ended else RunState.KILLED
    ending = Ending(ended, run["reason"], run["verdicts"], run["result_step"], run["floor"])
    place = run["sweep"], run["trial"], run["seed"]
    ending.complete(settings, place, run["attempt"] or 0, lambda status, tags: spool.end(key, status, tags))
