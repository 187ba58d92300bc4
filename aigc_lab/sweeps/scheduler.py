"""The execution of an experiment: its trials, each over its seeds, and the confirmation of the best.

The registry records what is done. The same command goes on from there, after an end or an interruption.
"""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from aigc_lab.errors import Failure
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.host import environment
from aigc_lab.host.thread_pool import ThreadPool
from aigc_lab.registry import liveness
from aigc_lab.registry.records import Role
from aigc_lab.registry.run_lifecycle import RESULTS
from aigc_lab.registry.states import RunState
from aigc_lab.registry.steering import Steering
from aigc_lab.registry.sweeps import list_trials, run_outcomes
from aigc_lab.runs.job import Job, RunOutcome, Watcher
from aigc_lab.sweeps.budget import most_runs, total_trials
from aigc_lab.sweeps.confirmation import confirm_best
from aigc_lab.sweeps.session import Opened
from aigc_lab.sweeps.steering import worth
from aigc_lab.sweeps.study import Study, Suggestion

if TYPE_CHECKING:
    from aigc_lab.training.state import Progress


class Display(Protocol):
    """The display of a running sweep; it is called from as many threads as runs go on at once."""

    def say(self, text: str) -> None:
        """One line about what happens next."""

    def begin(self, job: Job, number: int, total: int) -> None:
        """A run starts: the `number`th of `total` (at most: a pruned trial has fewer)."""

    def progress(self, job: Job, now: "Progress") -> None: ...

    def scored(self, job: Job, step: int, value: float) -> None: ...

    def end(self, job: Job, outcome: RunOutcome) -> None: ...


def run_sweep(experiment: Experiment, opened: Opened, display: Display, *, retry_failed: bool = False) -> None:
    """Runs the sweep, or goes on with it. Failed runs are repeated with `retry_failed`, and where libraries, code or
    device have changed since.
    """
    sweep = _Sweep(experiment, opened, display, retry_failed)
    trials = total_trials(experiment)
    sweep.total = most_runs(experiment)
    with closing(Study(opened.sweep, opened.resources.settings.optuna_url, experiment)) as study:
        sweep.search_all(study, trials)
    sweep.confirm()


def run_seeds(
    experiment: Experiment, opened: Opened, display: Display, seeds: Sequence[int], *, retry_failed: bool = False
) -> list[str]:
    """Trains runs of an experiment without holes together, and returns their ids. Runs that ended are not repeated."""
    sweep = _Sweep(experiment, opened, display, retry_failed)
    sweep.total = len(seeds)
    sweep.seeds(experiment.resolve(lambda hole: hole.ends()[0]), seeds)
    return [f"{opened.sweep}.0.{seed}" for seed in seeds]


class _Sweep:
    """The state of one sweep: what is done, and what comes next."""

    def __init__(self, experiment: Experiment, opened: Opened, display: Display, retry_failed: bool) -> None:
        self._experiment = experiment
        self._finishing = opened.finishing
        self._id = opened.sweep
        self._registry = opened.resources.registry
        self._executor = opened.executor
        self._display = display
        self._pool = ThreadPool(opened.executor.slots, opened.executor.stop, grows=opened.executor.grows)
        opened.executor.changed_slots = self._pool.resize
        #: whether the seeds of a trial that cannot be pruned begin together, to be trained as one program
        self._at_once = bool(opened.resources.replicas) and experiment.file.search.pruner == "none"
        self.total = 0
        self._steering = Steering.of(experiment.document.data)
        self._worst = max if experiment.file.objective.better == "lower" else min
        settled = RESULTS if retry_failed else RESULTS | {RunState.FAILED}
        changed = set() if retry_failed else self._failed_elsewhere(opened.resources.device)
        self._done = {
            (row["trial"], row["seed"]): RunOutcome(RunState(row["state"]), row["value"], row["reason"])
            for row in run_outcomes(self._registry, self._id)
            if row["state"] in settled and row["run"] not in changed
        }
        failed = sum(outcome.state == RunState.FAILED for outcome in self._done.values())
        if failed:
            again = "the same would happen again; --retry-failed tries nevertheless"
            display.say(
                f"{failed} run{'s' * (failed > 1)} failed before and {'are' if failed > 1 else 'is'} left: {again}"
            )

        runs = Counter(trial for trial, seed in self._done if seed < experiment.file.search.seeds)
        # (trial, number of its runs) -> how it ended
        self._ended = {
            (row["trial"], runs[row["trial"]]): (RunState(row["state"]), row["value"])
            for row in list_trials(self._registry, self._id)
            if row["state"] in RESULTS
        }

    def _failed_elsewhere(self, device: str) -> set[str]:
        """Ids of runs that failed in another environment than this one."""
        now, kinds = environment.describe(device), ("device", "versions", "git_commit", "git_dirty")
        return {
            run
            for run, then in liveness.failures(self._registry, self._id).items()
            if any(then.get(kind) != now.get(kind) for kind in kinds)
        }

    def search_all(self, study: Study, trials: int) -> None:
        """Runs every trial over its seeds. A trial is asked for only when a worker is free, so that the sampler knows
        as much as it can. Seeds of trials that were begun come before new trials.
        """
        with self._pool:
            for number in range(trials):
                self._pool.enter()
                if self._finishing.is_set():
                    self._pool.leave()
                    return
                suggestion = study.trial(number)
                plan = self._experiment.resolve(suggestion.pick)
                self._pool.start(self._trial, plan, number, range(self._experiment.file.search.seeds), suggestion)

    def seeds(self, plan: Configuration, seeds: Sequence[int]) -> None:
        """Runs trial 0 with these seeds, beside those that it had."""
        registry = self._registry
        registry.trial(self._id, 0, plan.system, plan.chosen, plan.values)
        jobs = [self._job(plan, 0, seed, "search") for seed in seeds if (0, seed) not in self._done]
        if not jobs:
            return
        for job in jobs:
            self._display.begin(job, 1, len(jobs))
        try:
            outcomes = self._executor.together(jobs, [_Watcher(self._display, job, None) for job in jobs])
        except BaseException:
            with suppress(Failure):  # the error that is being handled says more
                registry.finish_trial(self._id, 0, RunState.KILLED, None)
            raise
        for job, outcome in zip(jobs, outcomes, strict=True):
            self._done[0, job.seed] = outcome
            self._display.end(job, outcome)
        of_all_seeds = [outcome for (_, _), outcome in sorted(self._done.items())]
        registry.finish_trial(self._id, 0, *self._value(0, of_all_seeds))

    def _trial(self, plan: Configuration, number: int, seeds: Sequence[int], suggestion: Suggestion | None) -> None:
        """Does the runs of a trial and records its end. The first run may be pruned; then the others are not run, nor
        are they when it fails, unless all begin `_at_once`.
        """
        registry = self._registry
        registry.trial(self._id, number, plan.system, plan.chosen, plan.values)
        try:
            first, *others = seeds
            runs = [partial(self._run, plan, number, first, "search", suggestion)]
            runs += [partial(self._run, plan, number, seed, "search", None) for seed in others]
            if self._at_once:
                ended_runs = self._pool.each(runs, holding=True)
            else:
                ended_runs = [runs[0]()]
                if ended_runs[0] is not None and ended_runs[0].state not in (RunState.PRUNED, RunState.FAILED):
                    ended_runs += self._pool.each(runs[1:], holding=True)
        except BaseException:
            with suppress(Failure):  # the error that is being handled says more
                registry.finish_trial(self._id, number, RunState.KILLED, None)
            raise
        outcomes = [outcome for outcome in ended_runs if outcome is not None]
        if len(outcomes) < len(ended_runs):  # somebody asked that no further run be begun
            registry.finish_trial(self._id, number, RunState.KILLED, None)
            return
        # What a trial was worth stays: a diverged seed counts as the worst value that had been seen by then.
        ended = self._ended.get((number, len(outcomes)))
        state, value = ended or self._value(number, outcomes)
        registry.finish_trial(self._id, number, state, value)
        if suggestion is not None:
            told = worth(registry, self._id, number, value, self._steering)
            suggestion.tell(told.values, pruned=state == RunState.PRUNED, violations=told.violations)

    def _value(self, number: int, outcomes: list[RunOutcome]) -> tuple[RunState, float | None]:
        """The median over the seeds. A diverged seed, or one whose value is not finite, counts as the worst value that
        the search had seen by then, so that continuing a sweep does not change the value of a trial.
        """
        if outcomes[0].state == RunState.PRUNED:
            return RunState.PRUNED, None
        seeds = self._experiment.file.search.seeds
        by_then = [outcome for (trial, seed), outcome in list(self._done.items()) if trial <= number and seed < seeds]
        seen = [value for outcome in by_then if (value := _finite(outcome)) is not None]
        values = [
            self._worst(seen) if outcome.state in RESULTS and _finite(outcome) is None and seen else _finite(outcome)
            for outcome in outcomes
        ]
        numbers = [value for value in values if value is not None]
        if not numbers:
            return outcomes[0].state, None
        diverged = all(outcome.state == RunState.DIVERGED for outcome in outcomes)
        return RunState.DIVERGED if diverged else RunState.FINISHED, statistics.median(numbers)

    def _run(
        self, plan: Configuration, number: int, seed: int, role: Role, suggestion: Suggestion | None
    ) -> RunOutcome | None:
        """The outcome of a run: the stored one, or that of doing it now. None if no further run is begun."""
        if (number, seed) in self._done:
            return self._done[number, seed]
        if self._finishing.is_set():
            return None
        job = self._job(plan, number, seed, role)
        self._display.begin(job, len(self._done) + 1, self.total)
        outcome = self._executor.run(job, _Watcher(self._display, job, suggestion))
        self._done[number, seed] = outcome
        self._display.end(job, outcome)
        return outcome

    def _job(self, plan: Configuration, number: int, seed: int, role: Role) -> Job:
        run = self._registry.run(self._id, number, seed, role)
        return Job(run, self._id, number, seed, role, plan, self._experiment.file.objective)

    def confirm(self) -> None:
        """Runs the best trials by the reference split, which the search saw, with fresh seeds."""
        if self._experiment.file.confirm is None or self._finishing.is_set():
            return
        with self._pool:
            confirm_best(self._experiment, self._steering, self._registry, self._id, self._run_all, self._done)

    def _run_all(self, wanted: Sequence[tuple[int, int]], role: Role) -> bool:
        """Does the runs (trial, seed) of configurations that the search has chosen."""
        params = {row["trial"]: row["params"] for row in list_trials(self._registry, self._id)}
        trials = {trial for trial, _ in wanted}
        plans = {trial: self._experiment.resolve(lambda hole, of=trial: params[of][hole.name]) for trial in trials}  # type: ignore[misc]
        work = [partial(self._run, plans[trial], trial, seed, role, None) for trial, seed in wanted]
        return None not in self._pool.each(work)


def _finite(outcome: RunOutcome) -> float | None:
    """The value of a run; None if it is not finite, as in the registry."""
    return outcome.value if outcome.value is not None and math.isfinite(outcome.value) else None


@dataclass(frozen=True)
class _Watcher(Watcher):
    """Passes the progress of a run to the display, and its scores to the pruner."""

    display: Display
    job: Job
    suggestion: Suggestion | None

    def progress(self, now: "Progress") -> None:
        self.display.progress(self.job, now)

    def scored(self, step: int, value: float, *, error: float = math.nan, collapse: str | None = None) -> bool:
        self.display.scored(self.job, step, value)
        if self.suggestion is None:
            return False
        system = self.job.configuration.system
        return self.suggestion.should_stop(system, step, value, error=error, collapse=collapse)
