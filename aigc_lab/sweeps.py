"""One execution of an experiment: as many trials as asked for, each over its seeds, and the best confirmed.

The registry says what has been done; the same command goes on from there, after an end as after an interruption.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aigc_lab import environment, search
from aigc_lab.batches import Batches
from aigc_lab.errors import UsageError
from aigc_lab.evaluate import Evaluator
from aigc_lab.experiment import Configuration, Experiment
from aigc_lab.features import FeatureStore
from aigc_lab.registry import queries
from aigc_lab.registry.records import Role
from aigc_lab.registry.states import State
from aigc_lab.registry.store import Registry
from aigc_lab.search import Study, Suggestion, total_trials
from aigc_lab.settings import Settings
from aigc_lab.tables import duration
from aigc_lab.tracking import address
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.trainer import Diverged, Progress, train
from aigc_lab.trainer import State as TrainingState
from aigc_lab.trial import Job, Lab, Outcome, Watcher, execute


class Display(Protocol):
    """Who shows a sweep while it goes on."""

    def say(self, text: str) -> None:
        """One line about what happens next."""

    def begin(self, job: Job, number: int, total: int) -> None:
        """A run starts: the `number`th of `total` (at most: a pruned trial has fewer)."""

    def progress(self, now: Progress) -> None: ...

    def scored(self, step: int, value: float) -> None: ...

    def end(self, job: Job, outcome: Outcome) -> None: ...


@dataclass(frozen=True)
class Estimate:
    """What a sweep will cost at most, from a few steps of each system that were timed now."""

    trials: int
    runs: int
    seconds: float
    step_ms: dict[str, float]

    def __str__(self) -> str:
        steps = ", ".join(f"{system} {ms:.1f} ms/step" for system, ms in self.step_ms.items())
        return f"{self.trials} trials, at most {self.runs} runs, about {duration(self.seconds)} of training ({steps})"


def estimate(experiment: Experiment, device: str, trials: int) -> Estimate:
    """Times a few steps of every system at its paper's defaults, after a few that warm up."""
    file = experiment.file
    step_ms = {}
    for system in experiment.systems:
        values = {"system": system} | experiment.defaults(system)
        plan = experiment.resolve(lambda hole, values=values: values.get(hole.name, hole.ends()[0]))  # type: ignore[misc]
        step_ms[plan.system] = 1000 * _seconds_per_step(plan, device)
    searched, confirmed = trials * file.search.seeds, _confirmations(experiment, trials)
    # The confirmed ones may all be of the slowest system.
    seconds = (searched * statistics.mean(step_ms.values()) + confirmed * max(step_ms.values())) / 1000
    return Estimate(trials, searched + confirmed, seconds * file.training.steps, step_ms)


def _confirmations(experiment: Experiment, trials: int) -> int:
    confirm = experiment.file.confirm
    return min(confirm.top, trials) * confirm.seeds if confirm else 0


def _seconds_per_step(plan: Configuration, device: str, warm: int = 3, timed: int = 10) -> float:
    training = plan.training
    environment.settle(training.threads)
    state = TrainingState.fresh(
        plan.system_class, plan.system_config, plan.dataset.shape, seed=0, batch_size=training.batch_size, device=device
    )
    batches = Batches(plan.dataset.load("train").to(device), training.batch_size, seed=0)
    options = {"seed": 0, "decay": training.ema, "precision": training.precision}
    started = time.perf_counter()
    for steps in (warm, warm + timed):
        started = time.perf_counter()
        # What diverges here takes as long, and is told when it is a run.
        with suppress(Diverged):
            for _ in train(state, batches, steps=steps, every=steps, **options):  # type: ignore[arg-type]
                pass
    return (time.perf_counter() - started) / timed


def check_stores(settings: Settings) -> None:
    """Raises `UsageError` for a home or a store that cannot be used; makes them where there are none."""
    settings.prepare()
    # All that exists is looked at before anything is made.
    address.check(settings.tracking_uri)
    search.check(settings.optuna_url, create=False)
    Registry.open(settings.registry_url).close()
    search.check(settings.optuna_url)


def open_lab(experiment: Experiment, settings: Settings, device: str, say: Callable[[str], None]) -> Lab:
    """Opens the stores, which have been checked, and prepares the judge."""
    registry = Registry.open(settings.registry_url)
    tracker = MlflowTracker(settings.tracking_uri, settings.artifacts)
    tracker.prewarm()
    file = experiment.file
    plan = experiment.resolve(lambda hole: hole.ends()[0])
    environment.settle(file.training.threads)
    features = FeatureStore(
        plan.dataset, cache=settings.cache, weights_dir=settings.weights_dir, device=device, say=say
    )
    evaluator = Evaluator(experiment.protocol, experiment.metrics, plan.dataset, features)
    evaluator.prepare()
    return Lab(settings, registry, tracker, evaluator, device)


def run_sweep(experiment: Experiment, lab: Lab, display: Display) -> str:
    """Runs, or goes on with, the sweep of a checked experiment, and returns its id."""
    study = Study(f"{experiment.name}-{experiment.digest[:8]}", lab.settings.optuna_url, experiment)
    sweep = _Sweep(experiment, lab, display)
    trials = total_trials(experiment)
    with _alone(lab.settings.home / "locks" / f"{sweep.id}.lock", sweep.id):
        sweep.total = trials * experiment.file.search.seeds + _confirmations(experiment, trials)
        for number in range(trials):
            sweep.trial(study, number)
        sweep.confirm()
    return sweep.id


def run_single(experiment: Experiment, lab: Lab, display: Display, seed: int) -> str:
    """One run of an experiment without holes, and its id. A run that has ended is not repeated."""
    sweep = _Sweep(experiment, lab, display)
    with _alone(lab.settings.home / "locks" / f"{sweep.id}.lock", sweep.id):
        sweep.total = 1
        sweep.search(experiment.resolve(lambda hole: hole.ends()[0]), 0, sorted({seed, *sweep.seeds_done(0)}), None)
    return f"{sweep.id}.0.{seed}"


# What the same command does not do again. It does again what was interrupted, and what failed: its cause may be mended.
_KEPT = (State.FINISHED, State.PRUNED, State.DIVERGED)


class _Sweep:
    """The bookkeeping of one sweep: what is done, what comes next."""

    def __init__(self, experiment: Experiment, lab: Lab, display: Display) -> None:
        self._experiment = experiment
        self._lab = lab
        self._display = display
        objective = experiment.file.objective
        self.total = 0
        self.id = lab.registry.sweep(
            experiment.name, experiment.digest, experiment.document.data, objective.score, objective.better
        )
        self._worst = max if objective.better == "lower" else min
        self._done = {
            (row["trial"], row["seed"]): Outcome(State(row["state"]), row["value"], row["reason"])
            for row in queries.outcomes(lab.registry, self.id)
            if row["state"] in _KEPT
        }
        self._mlflow_experiment: str | None = None

    def trial(self, study: Study, number: int) -> None:
        """Trial `number` of the study over its seeds."""
        suggestion = study.trial(number)
        seeds = range(self._experiment.file.search.seeds)
        state, value = self.search(self._experiment.resolve(suggestion.pick), number, seeds, suggestion)
        if state != State.FAILED:
            suggestion.tell(value, pruned=state == State.PRUNED)

    def seeds_done(self, number: int) -> list[int]:
        """The seeds of a trial whose runs have ended and are kept."""
        return [seed for trial, seed in self._done if trial == number]

    def search(
        self, plan: Configuration, number: int, seeds: Iterable[int], suggestion: Suggestion | None
    ) -> tuple[State, float | None]:
        """Does the runs of a trial and records what became of it: the first may be pruned, and then the others are not
        run.
        """
        registry = self._lab.registry
        registry.trial(self.id, number, plan.system, plan.chosen, plan.values)
        outcomes = []
        try:
            for seed in seeds:
                outcomes.append(self.run(plan, number, seed, "search", suggestion if seed == 0 else None))
                if outcomes[0].state in (State.PRUNED, State.FAILED):
                    break
        except BaseException as error:
            registry.finish_trial(self.id, number, State.FAILED if isinstance(error, Exception) else State.KILLED, None)
            raise
        state, value = self._value(number, outcomes)
        registry.finish_trial(self.id, number, state, value)
        return state, value

    def _value(self, number: int, outcomes: list[Outcome]) -> tuple[State, float | None]:
        """The median over the seeds; a diverged seed counts as the worst value that the search had seen by then, so
        that going on with a sweep does not change what a trial was worth.
        """
        if outcomes[0].state == State.PRUNED:
            return State.PRUNED, None
        seeds = self._experiment.file.search.seeds
        by_then = [outcome for (trial, seed), outcome in self._done.items() if trial <= number and seed < seeds]
        seen = [outcome.value for outcome in by_then if outcome.value is not None]
        values = [
            self._worst(seen) if outcome.state == State.DIVERGED and seen else outcome.value for outcome in outcomes
        ]
        known = [value for value in values if value is not None]
        if not known:
            return outcomes[0].state, None
        diverged = all(outcome.state == State.DIVERGED for outcome in outcomes)
        return State.DIVERGED if diverged else State.FINISHED, statistics.median(known)

    def run(self, plan: Configuration, number: int, seed: int, role: Role, suggestion: Suggestion | None) -> Outcome:
        """The outcome of a run: the stored one, or that of doing it now."""
        if (number, seed) in self._done:
            return self._done[number, seed]
        registry = self._lab.registry
        if self._mlflow_experiment is None:
            self._mlflow_experiment = self._lab.tracker.experiment(self.id)
            registry.set_mlflow_experiment(self.id, self._mlflow_experiment)
        job = Job(
            registry.run(self.id, number, seed, role),
            self.id,
            number,
            seed,
            role,
            plan,
            self._experiment.file.objective,
            self._mlflow_experiment,
        )
        self._display.begin(job, len(self._done) + 1, self.total)
        outcome = execute(job, self._lab, _Watcher(self._display, suggestion, plan.system))
        self._done[number, seed] = outcome
        self._display.end(job, outcome)
        return outcome

    def confirm(self) -> None:
        """The best trials by what the search saw (the reference split), with seeds that it has not."""
        confirm, file = self._experiment.file.confirm, self._experiment.file
        if confirm is None:
            return
        finished = [
            row
            for row in queries.trials(self._lab.registry, self.id)
            if row["state"] == State.FINISHED and row["value"] is not None
        ]
        finished.sort(key=lambda row: row["value"], reverse=file.objective.better == "higher")
        for row in finished[: confirm.top]:
            plan = self._experiment.resolve(lambda hole, row=row: row["params"][hole.name])  # type: ignore[misc]
            for seed in range(file.search.seeds, file.search.seeds + confirm.seeds):
                self.run(plan, row["trial"], seed, "confirm", None)


@dataclass(frozen=True)
class _Watcher(Watcher):
    """Passes what happens to the display, and asks the pruner where there is one to ask."""

    display: Display
    suggestion: Suggestion | None
    system: str

    def progress(self, now: Progress) -> None:
        self.display.progress(now)

    def scored(self, step: int, value: float) -> bool:
        self.display.scored(step, value)
        return self.suggestion is not None and self.suggestion.should_stop(self.system, step, value)


@contextmanager
def _alone(path: Path, sweep: str) -> Iterator[None]:
    """Two processes on one sweep would do the same runs: the second is refused. The kernel frees a dead one's lock."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"sweep {sweep} is being run by another process; wait for it, or stop it first") from None
        yield
