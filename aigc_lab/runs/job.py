"""Interface between scheduling and execution of runs: a job, its outcome, and a watcher."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from aigc_lab.errors import Failure
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.sections import Objective
from aigc_lab.registry.records import Role
from aigc_lab.registry.states import RunState

if TYPE_CHECKING:
    from aigc_lab.training.state import Progress


@dataclass(frozen=True)
class Job:
    """Configuration and seed of a run, with its place in the registry."""

    run: str
    sweep: str
    trial: int
    seed: int
    role: Role
    configuration: Configuration
    objective: Objective
    #: by which a worker holds the run in the queue; None where it is not queued
    claim: int | None = None


@dataclass(frozen=True)
class RunOutcome:
    """Final state of a run. `value` is the objective of the resulting weights on the reference split."""

    state: RunState
    value: float | None
    reason: str | None = None
    #: what it cost: its share of its process's time in all attempts; None where that is not known
    seconds: float | None = field(default=None, compare=False, repr=False)


class Crowded(Failure):
    """A run has met the end of a memory that it shares with others: it is to be done again where there is more."""


class TooMany(Failure):
    """Runs that are trained as one program have met the end of memory: those in `runs` are to be done again, fewer at
    once.
    """

    def __init__(self, reason: str, runs: frozenset[str]) -> None:
        super().__init__(reason)
        self.runs = runs


class Watcher(Protocol):
    """Observer of a run while it trains: a display, a pruner."""

    def progress(self, now: "Progress") -> None:
        """Called after each interval of training."""

    def scored(self, step: int, value: float, *, error: float = math.nan, collapse: str | None = None) -> bool:
        """Called with the objective on the reference split, its standard error (NaN if unknown) and the collapse
        verdict on the same samples (None where none is given); True stops the run as PRUNED.
        """


@runtime_checkable
class Forewarned(Watcher, Protocol):
    """Watcher that answers later: it is told what `scored` is going to ask, while others are still evaluated."""

    def evaluated(self, step: int, value: float, *, error: float = math.nan, collapse: str | None = None) -> None:
        """Called with what `scored` is called with soon."""
