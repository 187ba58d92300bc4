"""The states of a run, a trial or an attempt."""

from enum import StrEnum

from aigc_lab.errors import UsageError
from aigc_lab.host.content import unknown_name


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


def named_state(name: str | None) -> RunState | None:
    """The state of a name in any case; None for none. Raises `UsageError` for another name."""
    if name is not None and name.upper() not in RunState.__members__:
        raise UsageError(f"--state: {unknown_name('state', name.upper(), list(RunState.__members__))}")
    return None if name is None else RunState(name.upper())
