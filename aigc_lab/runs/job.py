"""One run to be done, how it ended, and who looks on. Whoever hands out runs needs no more than this."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.sections import Objective
from aigc_lab.registry.records import Role
from aigc_lab.registry.states import RunState

if TYPE_CHECKING:
    from aigc_lab.training.state import Progress


@dataclass(frozen=True)
class Job:
    """A configuration and a seed, with their place in the registry."""

    run: str
    sweep: str
    trial: int
    seed: int
    role: Role
    configuration: Configuration
    objective: Objective


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended; `value` is the objective on the reference split, of the weights that are the result."""

    state: RunState
    value: float | None
    reason: str | None = None


class Watcher(Protocol):
    """Who looks on while a run trains: a display, a pruner."""

    def progress(self, now: "Progress") -> None:
        """An interval has passed."""

    def scored(self, step: int, value: float) -> bool:
        """The objective on the reference split; True stops the run as PRUNED."""
