"""Training loop: one page, read top to bottom.

`train` is a generator over R ≥ 1 runs. Every so many steps it yields how they stand; whoever iterates logs, evaluates,
saves, or stops. It knows neither Optuna nor MLflow, and the device is waited for once an interval: when the scalars
cross to the host. What a step is stands in `Course.step`; how it is computed is up to the kind of course.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aigc_lab.data.shared.batches import Batches
from aigc_lab.nets.precision import products
from aigc_lab.training.course import Course
from aigc_lab.training.plain import Plain
from aigc_lab.training.recorder import Diverged
from aigc_lab.training.state import MatmulPrecision, Precision, Progress, Replica, Round, TrainingState


class Courses(Protocol):
    """What makes courses of replicas: a class of them, or what knows more of how they are to be trained."""

    def of(self, replicas: Sequence[Replica], decay: float, precision: Precision) -> Sequence[Course]: ...


def train(
    replicas: Sequence[Replica],
    *,
    steps: int,
    every: int,
    decay: float = 0.0,
    precision: Precision,
    matmul_precision: MatmulPrecision = "highest",
    course: Courses = Plain,
    interrupted: Callable[[], bool] = lambda: False,
    paused: Callable[[], bool] = lambda: False,
) -> Iterator[Round]:
    """Trains the states in place to `steps` steps. Yields the replicas that are at a multiple of `every` or at the last
    step, each with its progress, or with `Diverged` if it diverged in this interval. Gradient norms are measured in the
    last step of an interval alone.

    A state that diverged is not worth keeping. It is not trained further, nor is one whose replica was set `live =
    False`; the others go on.

    `course` is `Plain`, one replica after another, `Stacked`, all as one program, or `OnDevices`, each by several
    processes. `decay` is the moving average's, 0 for none. `matmul_precision` holds within a step alone: whoever
    iterates samples and scores as precisely as before. When `interrupted()` is true, training ends after a whole
    step, wherever in an interval: the states can be stored and trained further, to the same bits. When `paused()` is
    true within an interval, a round of no replicas is yielded. Raises `ValueError` for replicas that the course cannot
    train together.
    """

    def form(members: Sequence[Replica]) -> Sequence[Course]:
        with products(matmul_precision):  # the course tells other processes
            return course.of(members, decay, precision)

    courses = form([replica for replica in replicas if _goes_on(replica, steps)])
    intervals = {id(replica): _Interval(replica.state.step) for replica in replicas}
    try:
        started = _resumed(courses)
        while courses and not interrupted():
            with products(matmul_precision):
                for each in courses:
                    each.step(min((each.at // every + 1) * every, steps))
            due = [each for each in courses if each.at % every == 0 or each.at == steps]
            if not due:
                if paused():
                    yield []
                continue
            ended = [pair for each in due for pair in each.collect()]  # which waits for the device
            seconds, running = time.perf_counter() - started, [one for each in courses for one in each.replicas]
            for replica in running:
                intervals[id(replica)].add(seconds, len(running))
            yield [(replica, intervals[id(replica)].end(replica, scalars)) for replica, scalars in ended]
            courses = [rest for each in courses for rest in _remaining(each, steps, form)]
            started = _resumed(courses)
    finally:
        for each in courses:
            each.close()


def train_one(state: TrainingState, batches: Batches, *, seed: int, **options: Any) -> Iterator[Progress]:
    """Progress of a single run by `train`. Raises `Diverged` at the end of the interval in which a value stopped being
    finite.
    """
    for ((_, end),) in train([Replica(state, batches, seed)], **options):
        if isinstance(end, Diverged):
            raise end
        yield end


def _goes_on(replica: Replica, steps: int) -> bool:
    return replica.live and replica.state.step < steps


def _remaining(course: Course, steps: int, form: Callable[[list[Replica]], Sequence[Course]]) -> Sequence[Course]:
    """The course; if some of its replicas have left or ended, courses of the others."""
    others = [replica for replica in course.replicas if _goes_on(replica, steps)]
    if len(others) == len(course.replicas):
        return [course]
    course.close()
    return form(others)


def _resumed(courses: Sequence[Course]) -> float:
    """Time at which the courses go on, with their systems in training mode."""
    for each in courses:
        each.resume()
    return time.perf_counter()


@dataclass
class _Interval:
    """Interval of a replica: its first step, and its seconds, by the clock and as the replica's share among all in
    training.
    """

    first: int
    by_clock: float = 0.0
    share: float = 0.0

    def add(self, seconds: float, together: int) -> None:
        self.by_clock, self.share = self.by_clock + seconds, self.share + seconds / together

    def end(self, replica: Replica, scalars: Mapping[str, float] | Diverged) -> Progress | Diverged:
        """Progress of the replica at the end of the interval; the next one begins."""
        step, first, by_clock, share = replica.state.step, self.first, self.by_clock, self.share
        self.first, self.by_clock, self.share = step, 0.0, 0.0
        if isinstance(scalars, Diverged):
            return scalars
        return Progress(step, scalars, share, (step - first) * replica.batches.size / by_clock)
