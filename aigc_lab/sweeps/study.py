"""The Optuna study of a sweep: suggestions for holes, by samplers keyed by trial.

Optuna owns suggestions and nothing else; what happened to a trial is the registry's to say.
"""

import logging
import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import optuna
from optuna.trial import TrialState

from aigc_lab.experiment import space
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.experiment.sections import Search
from aigc_lab.host import outage
from aigc_lab.sweeps.cached_storage import CachedStorage
from aigc_lab.sweeps.optuna_storage import away_reason, explained, failing, label, open_storage
from aigc_lab.sweeps.pruning import SYSTEM, PrunerAdapter
from aigc_lab.sweeps.samplers import EVALUATION, sampler


def _fixed(experiment: Experiment) -> list[dict[str, Any]]:
    """Values that are fixed for the first trials: the whole grid, or each system's paper defaults."""
    systems, search = experiment.systems, experiment.file.search
    if search.sampler != "grid":
        choice = {SYSTEM} if len(systems) > 1 else set()
        return [dict.fromkeys(choice, system) | experiment.defaults(system) for system in systems]
    points = space.grid(experiment.document)
    if not search.per_system:
        return points
    of = {system: [point for point in points if point.get(SYSTEM, system) == system] for system in systems}
    longest = max(map(len, of.values()))
    return [of[system][i] for i in range(longest) for system in systems if i < len(of[system])]


class Study:
    """The Optuna study of a sweep. Trials are numbered from 0. Asked for one after the other, the same number always
    gets the same suggestions; where several run at once, they depend on which of them ended first.

    Safe to use from several threads: Optuna on SQLite may give one trial to two who ask at once.
    """

    def __init__(self, name: str, url: str, experiment: Experiment) -> None:
        # Its warnings tell of the inside of a sampler ("Study already converged"), amid the progress of runs.
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        file = experiment.file
        self._experiment = experiment
        self._search: Search = file.search
        self._first = _fixed(experiment)
        # Who reads standard errors and verdicts: otherwise they are not stored with each evaluation.
        self._tells = not experiment.pruner.idle or file.search.sampler == "gp"
        self._lock = threading.RLock()
        storage_label, away = label(url), partial(away_reason, url=url)
        with explained(url):
            self._storage = outage.ask(storage_label, lambda: open_storage(url, connected=True), away)
            self._study = optuna.create_study(
                study_name=name,
                storage=CachedStorage(self._storage, storage_label, away),
                directions=["minimize" if each.better == "lower" else "maximize" for each in file.objectives],
                load_if_exists=True,
                pruner=optuna.pruners.NopPruner()
                if experiment.pruner.idle
                else PrunerAdapter(experiment.pruner(file.training.steps)),
            )

    def close(self) -> None:
        """Closes its connections; every thread has given its own back."""
        self._storage.engine.dispose()

    def _system(self, number: int) -> dict[str, Any]:
        """With `per_system` the systems take turns; a sampler left alone would starve those that seem to lose."""
        systems = self._experiment.systems
        take_turns = self._search.per_system and len(systems) > 1
        return {SYSTEM: systems[number % len(systems)]} if take_turns else {}

    def trial(self, number: int) -> "Suggestion":
        """Trial `number`, asked for now unless it was before; numbers come in order."""
        with self._lock, failing():
            return self._ask(number)

    def _ask(self, number: int) -> "Suggestion":
        existing = self._study.get_trials(deepcopy=False)
        self._study.sampler = sampler(self._search, number, len(self._experiment.systems))
        if number < len(existing) and existing[number].state != TrialState.WAITING:
            trial = optuna.Trial(self._study, existing[number]._trial_id)  # noqa: SLF001 -- there is no public way
        else:
            assert number <= len(existing), f"trial {number} is asked for before trial {len(existing)}"
            fixed = self._first[number] if number < len(self._first) else self._system(number)
            if number == len(existing) and fixed:
                self._study.enqueue_trial(fixed)
            trial = self._study.ask()
        assert trial.number == number, f"Optuna gave trial {trial.number} for {number}: another process uses this study"
        return Suggestion(self._study, trial, self._lock, tells=self._tells)


class Suggestion:
    """One trial as Optuna sees it."""

    def __init__(self, study: optuna.Study, trial: optuna.Trial, lock: threading.RLock, *, tells: bool) -> None:
        self._study = study
        self._trial = trial
        self._lock = lock
        self._tells = tells

    def pick(self, hole: space.Hole) -> Any:
        """A value for a hole, one of Python's own types; the same one however often it is asked."""
        with failing():
            if hole.kind == "choice":
                return self._trial.suggest_categorical(hole.name, hole.labels)
            if hole.kind == "int":
                return int(self._trial.suggest_int(hole.name, int(hole.low), int(hole.high)))
            return float(self._trial.suggest_float(hole.name, hole.low, hole.high, log=hole.kind == "log"))

    def should_stop(
        self, system: str, step: int, value: float, *, error: float = math.nan, collapse: str | None = None
    ) -> bool:
        """Reports an intermediate value, with its standard error and the collapse verdict on its samples, and asks the
        pruner. A repeated attempt reports nothing twice, and one of a trial that Optuna knows the end of is left alone.
        """
        if len(self._study.directions) > 1:  # Optuna takes no intermediate values of several objectives
            return False
        with self._lock, failing():
            trial = self._study.get_trials(deepcopy=False)[self._trial.number]
            if trial.state.is_finished():
                return False
            if step not in trial.intermediate_values:
                self._trial.set_user_attr(SYSTEM, system)
                if self._tells:  # before the value: what has a value is not reported again
                    told = {"error": error if math.isfinite(error) else None, "collapse": collapse}
                    self._trial.set_user_attr(f"{EVALUATION}{step}", told)
                self._trial.report(value, step)
            # The pruner that prunes nothing need not read what the trials are by now.
            prunes = not isinstance(self._study.pruner, optuna.pruners.NopPruner)
            return prunes and bool(self._trial.should_prune())  # Optuna may say it in NumPy's words

    def tell(
        self,
        value: float | Sequence[float] | None,
        *,
        pruned: bool = False,
        violations: Mapping[str, float] | None = None,
    ) -> None:
        """Ends the trial: a value (of several objectives one each), pruned, or (with neither) without a value. The
        `violations` are Optuna's constraints by name: one above 0 is violated. Telling twice is harmless.
        """
        state = TrialState.PRUNED if pruned else TrialState.FAIL if value is None else None
        with self._lock, failing():
            known = self._study.get_trials(deepcopy=False)[self._trial.number]
            if known.state.is_finished():
                return
            for name, violation in (violations or {}).items():
                if name not in known.constraints:
                    self._trial.set_constraint(name, violation)
            with warnings.catch_warnings():
                # `search_notes` says so before the start.
                warnings.filterwarnings("ignore", "Constraints have been set, but CmaEsSampler will not use them")
                self._study.tell(self._trial.number, None if state else value, state=state, skip_if_finished=True)
