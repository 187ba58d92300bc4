"""What a sweep will cost, before it is begun."""

import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from aigc_lab import plugins
from aigc_lab.data.shared.batches import Batches
from aigc_lab.display.wording import duration
from aigc_lab.executors.base import Place
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.host import environment
from aigc_lab.sweeps.budget import confirmations, most_runs, total_trials
from aigc_lab.systems.base import Phase
from aigc_lab.training.captured import SETTLED, as_ever
from aigc_lab.training.loop import train
from aigc_lab.training.state import Replica, TrainingState

# Seconds that timing one system may take, about.
_PATIENCE = 5.0
# How many times as long as the median a step may be: one with a lazy penalty is a few times as long.
_HELD_UP = 10


@dataclass(frozen=True)
class Estimate:
    """What a sweep will cost at most, from a few steps of each system that were timed now."""

    trials: int
    runs: int
    seconds: float
    step_ms: dict[str, float]
    workers: int = 1
    #: seconds that metrics train networks of their own, and a sentence on these; 0 and "" where none does
    scoring: float = 0.0
    scored_by: str = ""

    def shared(self, workers: int) -> Self:
        """The same work of one worker, done by so many, as far as there are runs for all."""
        workers = min(workers, self.runs)
        part = self.workers / workers
        return replace(self, seconds=self.seconds * part, scoring=self.scoring * part, workers=workers)

    def __str__(self) -> str:
        steps = ", ".join(f"{system} {ms:.1f} ms/step" for system, ms in self.step_ms.items())
        shared = f" on {self.workers} workers" if self.workers > 1 else ""
        return (
            f"{_count(self.trials, 'trial')}, at most {_count(self.runs, 'run')}, about {duration(self.seconds)} of "
            f"training{shared} ({steps}); starting and scoring come on top{self._learned}"
        )

    @property
    def _learned(self) -> str:
        if not self.scored_by:
            return ""
        return f": about {duration(self.scoring)} to train {self.scored_by}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def default_plans(experiment: Experiment) -> Iterator[Configuration]:
    """A plan of every system, at its paper's defaults."""
    for system in experiment.systems:
        values = {"system": system} | experiment.defaults(system)
        yield experiment.resolve(lambda hole, values=values: values.get(hole.name, hole.ends()[0]))  # type: ignore[misc]


def estimate(experiment: Experiment, places: Sequence[Place], gains: Mapping[str, float] | None = None) -> Estimate:
    """Times a few steps of every system at its paper's defaults, of each stretch of the training in which other phases
    run, after a few that warm up, as one worker will have them: on its device, with its share of the cores. That
    workers also share memory and caches is not in it. A system whose runs are trained as one program, by its title in
    `gains`, is so many times as fast.
    """
    trials, place = total_trials(experiment), places[0]
    file = experiment.file
    step_ms = {}
    for plan in default_plans(experiment):
        with plugins.blamed(plan.system_class):
            step_ms[plan.title] = 1000 * _seconds_per_step(plan, place) / (gains or {}).get(plan.title, 1.0)
    searched, confirmed = trials * file.search.seeds, confirmations(experiment, trials)
    # The confirmed ones may all be of the slowest system.
    seconds = (searched * statistics.mean(step_ms.values()) + confirmed * max(step_ms.values())) / 1000
    seconds *= file.training.steps / len(places)
    learned, names = _learning(experiment)
    scored = (searched + confirmed) * learned / len(places)
    return Estimate(trials, most_runs(experiment), seconds, step_ms, len(places), scored, names)


def _learning(experiment: Experiment, warm: int = 3, timed: int = 10) -> tuple[float, str]:
    """Seconds that the metrics train networks of their own in one run, which were timed for a few steps of each, and
    which these are. Every evaluation and the holdout are scored; what floors and earlier weights cost is not in it.
    """
    training, seconds, names = experiment.file.training, 0.0, []
    scorings = -(-training.steps // training.evaluate_every) + 1
    for metric in experiment.metrics:
        learning = metric.learning(experiment.dataset)
        if learning is None:
            continue
        learning.train(warm)
        started = time.perf_counter()
        learning.train(timed)
        each = (time.perf_counter() - started) / timed
        seconds += each * learning.networks * learning.steps * scorings
        name = plugins.name_of(type(metric))
        names.append(f"{learning.networks} networks of {learning.steps} steps at each scoring ({name})")
    return seconds, " and ".join(names)


def _seconds_per_step(plan: Configuration, place: Place, warm: int = 3, timed: int = 10) -> float:
    training = plan.training
    environment.settle(min(training.threads or environment.threads(), place.threads))
    state = TrainingState.fresh(
        plan.system_class,
        plan.system_config,
        plan.dataset.shape,
        seed=0,
        batch_size=training.batch_size,
        device=place.device,
        channels_last=training.channels_last,
        averaged=training.ema > 0,
    )
    batches = Batches(plan.dataset.load("train").to(place.device), training.batch_size, seed=0)
    ends = [*stretches(state.phases, training.steps), training.steps]
    total = 0.0
    for begin, end in itertools.pairwise(ends):
        state.step = begin
        total += (end - begin) * _timed(state, batches, plan, place.device, warm, timed)
    return total / training.steps


def stretches(phases: Sequence[Phase], steps: int) -> list[int]:
    """The first steps, in order, of the stretches of a training in which the same phases run."""
    changes = {step for phase in phases for step in (phase.start, phase.stop) if step is not None}
    return sorted({0} | {step for step in changes if step < steps})


def _timed(state: TrainingState, batches: Batches, plan: Configuration, device: str, warm: int, timed: int) -> float:
    """Seconds of a step, from the state's on."""
    first, single = state.step, list[float]()
    for steps in (1, 2, warm, warm + timed):
        ends = [time.perf_counter()]
        with as_ever():
            ends += [time.perf_counter() for _ in _steps(state, batches, plan, first + steps)]
        each = _typical(ends, device)
        single.append(each)
        # A step that long is no longer for what the first one does besides, nor was it held up.
        if len(single) > 1 and min(single) * timed > _PATIENCE:
            return min(single)
        if sum(single) > 3 * _PATIENCE:  # some are long, and some are not
            return statistics.fmean(single)
    if each * (SETTLED + timed) > _PATIENCE or state.system.uncapturable is not None:
        return each  # of a step that long little is saved as a program
    ends, state.step = [], first  # no step is timed that lies beyond those of before
    for _ in _steps(state, batches, plan, first + max(SETTLED, timed) + 1):
        ends.append(time.perf_counter())
        if len(ends) == SETTLED:
            state.step = first
        elif len(ends) == SETTLED + timed:
            return _typical(ends[SETTLED - 1 :], device)
    return each


def _typical(ends: Sequence[float], device: str) -> float:
    """Seconds of a step from the times at which each ended, the first of them that at which the first began; 0 for no
    step. On a CPU a step that was held up by something else counts for no more than `_HELD_UP` others, and so does one
    of a kind that is rare and as long; a device is waited for at the last step alone, whose time says nothing of the
    others'.
    """
    if len(ends) < 2:
        return 0.0
    if device != "cpu":
        return (ends[-1] - ends[0]) / (len(ends) - 1)
    seconds = [end - begin for begin, end in itertools.pairwise(ends)]
    longest = _HELD_UP * statistics.median(seconds)
    return statistics.fmean(min(each, longest) for each in seconds)


def _steps(state: TrainingState, batches: Batches, plan: Configuration, steps: int) -> Iterator[object]:
    """Trains the state to `steps` steps, and yields after each."""
    training = plan.training
    options: dict[str, Any] = {
        "decay": training.ema,
        "precision": training.precision,
        "matmul_precision": training.matmul_precision,
    }
    # What diverges here takes as long, and is told when it is a run.
    yield from train([Replica(state, batches, 0)], steps=steps, every=steps, paused=lambda: True, **options)
