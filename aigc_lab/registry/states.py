"""The states of a run, a trial or an attempt."""

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands. Verdicts (collapse, stability) are something else."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    PRUNED = "PRUNED"
    DIVERGED = "DIVERGED"
    FAILED = "FAILED"
    KILLED = "KILLED"

    @property
    def ended(self) -> bool:
        return self not in (RunState.QUEUED, RunState.RUNNING)
