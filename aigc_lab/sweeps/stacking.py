"""How many alike runs are trained as one program: as many as are faster so, measured here once and kept.

A stack shares what a step costs beside its arithmetic, which is most of a small network's step; but stacked
convolutions are grouped ones, which are slower on CPUs. So nothing is taken for granted: a few steps of each system are
trained one by one and stacked, in processor time on a CPU and by the clock on a GPU. What was measured lies in the
home's cache, under everything that it depends on.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from aigc_lab import plugins
from aigc_lab.executors.base import Place
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.experiment.sections import AUTO, OFF
from aigc_lab.host import environment
from aigc_lab.host.allocator import keep_freed_memory
from aigc_lab.host.capacity import free_memory
from aigc_lab.runs.alike import unstackable
from aigc_lab.sweeps import needs, probes
from aigc_lab.sweeps.estimate import default_plans
from aigc_lab.training.course import Course
from aigc_lab.training.own_numbers import with_other_numbers
from aigc_lab.training.plain import Plain
from aigc_lab.training.recorder import Diverged
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Progress, Replica

# Numbers of replicas that are tried: with more, a search would know too little of what it has asked for.
_WIDTHS = (2, 4, 8, 16)
# A stack that is hardly faster is not worth its company, and a wider one not worth a little more.
_GAIN, _MORE = 1.2, 1.1
# Seconds that one timing takes, about, and that all of one system may take.
_TIMED, _PATIENCE = 0.1, 10.0
# What a loss or a norm of the first step may differ by, of itself, stacked and alone: a fault is of another size.
_OFF = 1e-2
# Of the free memory that stacks may take: a backward pass of stacked weights holds more than was estimated.
_SHARE = 0.5


@dataclass(frozen=True)
class Timing:
    """Seconds of a step of one run: `alone`, and by the number of replicas in a stack; empty with a `reason`."""

    alone: float = math.nan
    stacked: dict[int, float] = field(default_factory=dict)
    reason: str | None = None

    def gain(self, width: int) -> float:
        """How many times as fast a stack so wide is."""
        return self.alone / self.stacked[width] if width in self.stacked else 1.0

    @property
    def best(self) -> int:
        """The fewest replicas that are about as fast as any number; 1 where none is faster than one after another.

        >>> Timing(1.0, {2: 0.8, 4: 0.5, 8: 0.48}).best, Timing(1.0, {2: 1.3}).best
        (4, 1)
        """
        fastest = min(self.stacked.values(), default=math.inf)
        if not fastest * _GAIN <= self.alone:
            return 1
        return next(width for width, seconds in sorted(self.stacked.items()) if seconds <= fastest * _MORE)


@dataclass(frozen=True)
class Stacks:
    """How many runs of each system, by its title, are trained as one program, only where several are; how many times as
    fast that is; and a sentence on each system.
    """

    replicas: dict[str, int] = field(default_factory=dict)
    gains: dict[str, float] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def capped(self, most: int) -> "Stacks":
        """Stacks of so many runs at most."""
        capped = {title: min(count, most) for title, count in self.replicas.items() if min(count, most) > 1}
        return Stacks(capped, {title: self.gains[title] for title in capped}, self.lines)

    @property
    def most(self) -> int:
        """The most runs that a worker does at once."""
        return max(self.replicas.values(), default=1)


def choose_stacks(
    experiment: Experiment,
    places: Sequence[Place],
    asked: int | Literal["auto", "off"],
    at_most: int,
    cache: Path,
) -> Stacks:
    """Stacks of each system's runs, of which `at_most` so many go on at each place. A number that is `asked` for is
    taken where the runs can be stacked and memory holds them, whatever it gains.
    """
    chosen = Stacks()
    if asked in (OFF, 1) or at_most < 2:
        return chosen
    for plan in default_plans(experiment):
        fits = _fitting(plan, places)
        most = min(at_most, fits)
        widths = [width for width in (_WIDTHS if asked == AUTO else (int(asked),)) if width <= most]
        if asked != AUTO and not widths and most > 1:
            widths = [most]
        timing = measured(plan, places[0], widths, cache) if widths else Timing()
        width = timing.best if asked == AUTO else max(timing.stacked, default=1)
        if width > 1:
            chosen.replicas[plan.title], chosen.gains[plan.title] = width, timing.gain(width)
        chosen.lines.append(f"{plan.title}: {_said(timing, width, fits)}")
    return chosen


def _said(timing: Timing, width: int, fits: int) -> str:
    if width > 1:
        gain = timing.gain(width)
        times = f"{gain:.1f} times as fast as" if gain >= 1 else f"{1 / gain:.1f} times as slow as"
        return f"{width} alike runs as one program, {times} one after another (measured)"
    if timing.reason is not None:
        return f"one run after another: {timing.reason}"
    if fits < 2:
        return "one run after another: memory holds no two as one program"
    if not timing.stacked:
        return "one run after another"
    widest = max(timing.stacked)
    return f"one run after another: {widest} as one program take {1 / timing.gain(widest):.2f} of the time (measured)"


def _fitting(plan: Configuration, places: Sequence[Place]) -> int:
    """How many replicas the free memory of a place holds, about; 1 at least."""
    device = places[0].device
    free = _SHARE * free_memory(device) / sum(place.device == device for place in places)
    with suppress(*needs.REFUSALS):
        return max(1, int(free / max(needs.cost(plan, int(free), device).of(plan.training.batch_size), 1)))
    return max(_WIDTHS)


# ---- the measurement


def measured(plan: Configuration, place: Place, widths: Sequence[int], cache: Path) -> Timing:
    """The timing of a plan at these widths, from the cache where it is known."""
    facts = probes.facts(plan, place.device) | {"widths": list(widths), "threads": _threads(plan, place)}

    def measure() -> dict[str, Any]:
        return asdict(_measure(plan, place, widths))

    def read(stored: dict[str, Any]) -> Timing:
        return Timing(stored["alone"], {int(key): value for key, value in stored["stacked"].items()}, stored["reason"])

    return probes.remembered(cache / "stacking", facts, measure, read)


def _threads(plan: Configuration, place: Place) -> int:
    return min(plan.training.threads or environment.threads(), place.threads)


def _measure(plan: Configuration, place: Place, widths: Sequence[int]) -> Timing:
    reason = unstackable(plan)
    if reason is not None:
        return Timing(reason=reason)
    environment.settle(_threads(plan, place))
    keep_freed_memory()
    clock = _clock(place.device)
    begun = clock()
    with plugins.blamed(plan.system_class):
        pair = probes.fresh(plan, place.device, 2)
        alone = _timed(plan, pair[:1], Plain, 3)
    steps = max(3, min(400, int(_TIMED / alone)))
    try:
        if reason := _difference(plan, place.device):
            return Timing(reason=reason)
        alone = _timed(plan, pair[:1], Plain, steps)
        stacked: dict[int, float] = {}
        for width in sorted(widths):
            replicas = probes.fresh(plan, place.device, width)
            stacked[width] = _timed(plan, replicas, Stacked, max(3, steps // width))
            # Where a few replicas gain nothing, many do not.
            useless = width >= 4 and min(stacked.values()) > alone
            if useless or clock() - begun > _PATIENCE:
                break
        alone = min(alone, _timed(plan, pair[:1], Plain, steps))  # others may have slowed the machine meanwhile
    except Exception as error:  # noqa: BLE001 -- a user's system may do anything; alone it trains
        return Timing(reason=f"as one program they cannot be trained ({_first_line(error)})")
    return Timing(alone, stacked)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0][:200]


def _clock(device: str) -> Callable[[], float]:
    """What the processor did, which other processes change little; of a GPU what has passed."""
    return time.process_time if device == "cpu" else time.perf_counter


def _timed(plan: Configuration, replicas: Sequence[Replica], course: type[Course], steps: int) -> float:
    clock = _clock(next(replicas[0].state.system.parameters()).device.type)
    return probes.seconds_of_step(plan, replicas, course, steps, clock)


def _difference(plan: Configuration, device: str) -> str | None:
    """What a scalar of the first step is, stacked and alone, where it is not the same to rounding. The two replicas
    differ in the numbers that only losses read, as those of a search would.
    """
    ends: list[dict[int, Progress | Diverged]] = []
    configs = [plan.system_config, with_other_numbers(plan.system_class, plan.system_config)]
    for course in (Plain, Stacked):
        replicas = probes.fresh(plan, device, 2, configs)
        reached = [pair for pairs in probes.rounds(plan, replicas, course, 1, 1) for pair in pairs]
        ends.append({replica.seed: end for replica, end in reached})
    for seed, one in ends[0].items():
        two = ends[1][seed]
        if isinstance(one, Diverged) or isinstance(two, Diverged):
            continue
        for name, value in one.scalars.items():
            other = two.scalars.get(name, math.nan)
            if abs(value - other) > _OFF * max(abs(value), abs(other)) + 1e-3:
                return f"as one program {name} is {other:.4g} after the first step, and {value:.4g} alone"
    return None
