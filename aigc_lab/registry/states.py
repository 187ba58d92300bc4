"""The states of a run, a trial or an attempt."""

import re
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


# What names a number that is none in the reason of an error, and the errors of files and machines, which may hold such
# words as parts of a path.
_NAN = re.compile(r"\b(nans?|infs?|infinity|(non|not|must be|only|no)[ -]?(a )?finite)\b(?![/\\.]\w)", re.IGNORECASE)
_ELSEWHERE = re.compile(
    r"out of memory|\w*(File|Directory|Permission|OS|IO|Module|Import|Connection|Timeout|Memory|Accelerator)\w*Error"
)


def is_nan_failure(reason: str | None) -> bool:
    """Whether the reason of a run that FAILED says that its own numbers were not finite.

    A metric or a system of the user's may raise so: `ValueError: array must not contain infs or NaNs`. A loss, a weight
    or samples that are not finite end a run as DIVERGED.

    >>> is_nan_failure("ValueError: Input contains NaN."), is_nan_failure("FileNotFoundError: no /data/nan/x.png")
    (True, False)
    """
    if reason is None or _ELSEWHERE.match(reason):
        return False
    return reason.startswith("FloatingPointError") or _NAN.search(reason) is not None


def counted_state(state: str, reason: str | None) -> RunState:
    """The state as which statistics count a run: DIVERGED for one that FAILED by NaN or infinity of its own."""
    own = state == RunState.FAILED and is_nan_failure(reason)
    return RunState.DIVERGED if own else RunState(state)
