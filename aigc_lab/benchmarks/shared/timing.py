"""A case, timed in turns with its reference: medians and quartiles of all rounds."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aigc_lab.benchmarks.base import Case, Clock

Json = dict[str, Any]


@dataclass
class Timing:
    """Rounds of a case so far: seconds of what is measured and of its reference, by the case's clock."""

    case: Case
    clock: Clock
    rounds: list[tuple[float, float]] = field(default_factory=list)

    def row(self) -> Json:
        """The rounds as plain data: work per second of both, and their ratio, which is taken within each round."""
        case = self.case
        beside = case.units if case.units_beside is None else case.units_beside
        ours = [case.units / mine for mine, _ in self.rounds]
        theirs = [beside / other for _, other in self.rounds]
        speed = [a / b for a, b in zip(ours, theirs, strict=True)]
        return {
            "case": case.name,
            "reference": case.reference,
            "unit": case.unit,
            "says": case.says,
            "clock": self.clock,
            "rounds": len(self.rounds),
            "ratio": spread(speed if case.says == "speed" else [1 / each for each in speed]),
            "per_second": spread(ours),
            "reference_per_second": spread(theirs),
            "seconds": [list(each) for each in self.rounds],
        }


def spread(values: Sequence[float]) -> Json:
    """Median and quartiles; of one value, that value.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
    {'median': 3.0, 'low': 2.0, 'high': 4.0}
    """
    if len(values) == 1:
        return {"median": values[0], "low": values[0], "high": values[0]}
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high}


def take(timing: Timing, device: str, after: Callable[[int], object] = lambda rounds: None) -> None:
    """Times all rounds of a case, after a call of each contestant that is not counted. Who goes first changes with
    every round, so that a machine that slows down favours neither. `after` is told of each round.

    An interruption leaves whole rounds alone.
    """
    case = timing.case
    for call in (case.run, case.beside):
        call()
    _settled(device)
    for number in range(case.rounds):
        order = (case.run, case.beside) if number % 2 == 0 else (case.beside, case.run)
        first, second = (_seconds(call, timing.clock, device) for call in order)
        timing.rounds.append((first, second) if number % 2 == 0 else (second, first))
        after(number + 1)


def _seconds(call: Callable[[], object], clock: Clock, device: str) -> float:
    read = time.process_time if clock == "cpu" else time.perf_counter
    begun = read()
    call()
    _settled(device)
    # A clock has a step; nothing takes no time.
    return max(read() - begun, 1e-9)


def _settled(device: str) -> None:
    """Waits until the device has done what it was told."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
