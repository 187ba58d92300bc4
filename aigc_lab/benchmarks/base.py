"""What `aigc-lab bench` measures: each file of this folder is one measurement, found by its name.

A measurement yields cases. A case times one thing and its reference in turns, in one process, so that what is printed
is a ratio of two times of the same minutes; how is up to `shared.timing`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from aigc_lab.host.weights import WeightsPolicy

#: `tiny` is for tests: it shows that a measurement works, and nothing else
Size = Literal["full", "quick", "tiny"]
#: seconds of the processor, of all threads of this process, or seconds by the clock
Clock = Literal["cpu", "wall"]
#: `speed`: how many times as fast as the reference; `cost`: which part of the reference's time it takes
Says = Literal["speed", "cost"]


@dataclass(frozen=True)
class Setting:
    """What is measured with: a device, so many threads, so much effort, an empty folder, caches, and where contestants
    lie.
    """

    device: str
    threads: int
    size: Size
    folder: Path
    data_dir: Path
    cache: Path
    weights: WeightsPolicy
    peers: Path | None = None

    @property
    def clock(self) -> Clock:
        """Clock of what computes: a busy machine stretches the wall's; of several threads, and of a GPU, it alone is
        right.
        """
        return "cpu" if self.threads == 1 and self.device == "cpu" else "wall"


@dataclass(frozen=True)
class Case:
    """One ratio. A call of `run` does `units` units of work, a call of `beside` `units_beside` of them (None: as many).

    `reference` says what `beside` is. `clock` is the setting's unless given.
    """

    name: str
    reference: str
    run: Callable[[], object]
    beside: Callable[[], object]
    units: float
    unit: str
    rounds: int
    units_beside: float | None = None
    says: Says = "speed"
    clock: Clock | None = None


@dataclass(frozen=True)
class Unmeasured:
    """A case that cannot be timed here, and why."""

    name: str
    reason: str


class Benchmark(ABC):
    """A measurement: a class without a state, whose module's first line says what it times."""

    #: seconds that it takes by the clock, about, on two cores of a server
    seconds: ClassVar[Mapping[Size, float]]

    def check(self, setting: Setting) -> None:  # noqa: B027 -- most have nothing to refuse
        """Raises `UsageError` for what the user has to correct, before anything is measured."""

    @abstractmethod
    def cases(self, setting: Setting) -> Iterator[Case | Unmeasured]:
        """Cases, each prepared when it is asked for: what one holds may be gone when the next is timed."""
