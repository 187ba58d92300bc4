"""How many CPU threads each run takes where `execution.threads` is auto: the number with the most runs per hour.

A few steps of each system are timed by the clock with 1, 2, 4, … threads. So many workers as these leave room for on
the cores are taken to go on as fast as one alone; that they share memory and caches is not in it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from aigc_lab import plugins
from aigc_lab.executors.base import Place
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.host import environment
from aigc_lab.sweeps import probes
from aigc_lab.sweeps.budget import most_runs
from aigc_lab.sweeps.estimate import default_plans
from aigc_lab.sweeps.needs import most_at_once
from aigc_lab.training.plain import Plain

# Seconds that one timing takes, about, and that all of one system may take.
_TIMED, _PATIENCE = 0.1, 5.0
# More threads are not worth a little.
_MORE = 1.05


def threaded(
    experiment: Experiment, places: Sequence[Place], cache: Path, *, chooses: bool
) -> tuple[list[Place], str | None]:
    """The places with the threads that are measured to be best, and a sentence on that; as they are, and None, where
    the experiment does not ask for it or they are no CPUs.

    With `chooses` the number of workers follows from that of the threads (`places.choose_places`). Otherwise it stays,
    and each run has its share of the cores at most.
    """
    if experiment.file.execution.threads is None or places[0].device != "cpu":
        return list(places), None
    cores = environment.cores()
    most = min(environment.threads(), cores if chooses else max(1, cores // len(places)))
    workers = min(most_runs(experiment), most_at_once(experiment)) if chooses else len(places)
    seconds = _seconds(experiment, most, cache)
    best, rates = fastest(seconds, cores, workers)
    chosen = [replace(place, threads=best) for place in places]
    if len(rates) == 1:
        return chosen, f"execution.threads: {_count(best)} for a run; no other number has room here"
    others = ", ".join(f"{rate / rates[best]:.2f} with {threads}" for threads, rate in rates.items() if threads != best)
    return chosen, f"execution.threads: {_count(best)} for a run, for most runs per hour (measured: of these {others})"


def fastest(seconds: Mapping[int, float], cores: int, workers: int) -> tuple[int, dict[int, float]]:
    """The number of threads with the most steps per second of all workers, fewer where more gain little; and the steps
    per second of each number. `seconds` are those of a step, by threads; `workers` the most there can be.

    >>> fastest({1: 1.0, 2: 0.6, 4: 0.5}, cores=4, workers=100)[0], fastest({1: 1.0, 2: 0.6, 4: 0.5}, 4, workers=1)[0]
    (1, 4)
    """
    rates = {threads: max(1, min(cores // threads, workers)) / each for threads, each in sorted(seconds.items())}
    most = max(rates.values())
    return next(threads for threads, rate in rates.items() if rate * _MORE >= most), rates


def _count(threads: int) -> str:
    return f"{threads} CPU thread{'s' * (threads > 1)}"


def _seconds(experiment: Experiment, most: int, cache: Path) -> dict[int, float]:
    """Seconds of a step of each system, one after another, by the number of threads; 1, 2, 4, … and the `most`."""
    numbers = sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})
    if len(numbers) == 1:
        return {most: 1.0}
    timings = [measured(plan, numbers, cache) for plan in default_plans(experiment)]
    known = set.intersection(*(set(timing) for timing in timings))
    return {number: sum(timing[number] for timing in timings) for number in numbers if number in known}


def measured(plan: Configuration, numbers: Sequence[int], cache: Path) -> dict[int, float]:
    """Seconds of a step of a plan by the number of threads, from the cache where they are known."""
    facts = probes.facts(plan, "cpu") | {"numbers": list(numbers)}

    def measure() -> probes.Json:
        return {str(number): seconds for number, seconds in _measure(plan, numbers).items()}

    return probes.remembered(
        cache / "threads", facts, measure, lambda stored: {int(number): each for number, each in stored.items()}
    )


def _measure(plan: Configuration, numbers: Sequence[int]) -> dict[int, float]:
    begun, seconds = time.perf_counter(), dict[int, float]()
    with plugins.blamed(plan.system_class):
        replicas = probes.fresh(plan, "cpu", 1)
        for number in numbers:
            environment.settle(number)
            once = probes.seconds_of_step(plan, replicas, Plain, 1, time.perf_counter, 1)
            steps = max(1, min(50, int(_TIMED / once)))
            seconds[number] = probes.seconds_of_step(plan, replicas, Plain, steps, time.perf_counter)
            if time.perf_counter() - begun > _PATIENCE:
                break
    return seconds
