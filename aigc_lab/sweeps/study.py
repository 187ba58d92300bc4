"""Optuna, as a sweep uses it: suggestions for holes, samplers keyed by trial, and pruning within a system.

Optuna owns suggestions and nothing else; what happened to a trial is the registry's to say.
"""

import logging
import sqlite3
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from aigc_lab import noise, plugins
from aigc_lab.config import Better
from aigc_lab.errors import Failure, UsageError
from aigc_lab.experiment import space
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.experiment.sections import Search
from aigc_lab.host import outage
from aigc_lab.host.files import beside, locked
from aigc_lab.host.outage import StoreAway
from aigc_lab.host.settings import discreet, masked
from aigc_lab.pruners.base import Curve, Pruner
from aigc_lab.registry.engine import away, server_options, soon
from aigc_lab.sweeps.cached_storage import CachedStorage

_SYSTEM = "system"
# Addresses at which this process has found a storage: what goes away there is waited for.
_known: set[str] = set()


def _fixed(experiment: Experiment) -> list[dict[str, Any]]:
    """Values that are fixed for the first trials: the whole grid, or each system's paper defaults."""
    systems, search = experiment.systems, experiment.file.search
    if search.sampler != "grid":
        choice = {_SYSTEM} if len(systems) > 1 else set()
        return [dict.fromkeys(choice, system) | experiment.defaults(system) for system in systems]
    points = space.grid(experiment.document)
    if not search.per_system:
        return points
    of = {system: [point for point in points if point.get(_SYSTEM, system) == system] for system in systems}
    longest = max(map(len, of.values()))
    return [of[system][i] for i in range(longest) for system in systems if i < len(of[system])]


def check_storage(url: str, *, create: bool = True) -> None:
    """Raises `UsageError` for a storage that cannot be used. Makes one where there is none, if `create`."""
    parsed = make_url(url) if url.startswith("sqlite") else None
    path = Path(parsed.database) if parsed is not None and parsed.database else None
    new = path is not None and not path.exists()
    if new and not create:
        return
    # Two processes that make Optuna's tables in one file at once would die of each other.
    with _explained(url), locked(beside(path)):
        outage.ask(_label(url), lambda: open_storage(url), partial(_away, url=url))
        if path is not None and new:
            with closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA journal_mode = WAL")  # stays in the file: readers never wait for a writer


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except StoreAway:
        raise
    except Exception as error:  # noqa: BLE001 -- SQLAlchemy's, Optuna's and the driver's errors share no base
        # A port that is none may be a part of a password.
        reason = "it is not an address" if type(error) is ValueError else str(error).strip().partition("\n")[0]
        shown = f"{_label(url)} cannot be used ({discreet(reason, url)})"
        raise UsageError(f"{shown}; see AIGC_LAB_OPTUNA_URL") from None


def trial_states(url: str, sweep: str) -> dict[int, tuple[str, float | None]]:
    """What Optuna knows of the trials of a sweep: number -> the name of its state, and its value. Empty for none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _explained(url):
        try:
            study = optuna.load_study(study_name=sweep, storage=open_storage(url))
        except KeyError:
            return {}
        return {
            trial.number: (trial.state.name, trial.value if trial.state == TrialState.COMPLETE else None)
            for trial in study.get_trials(deepcopy=False)
        }


def _away(error: Exception, url: str) -> str | None:
    """As `registry.engine.away`, of an error that Optuna may have wrapped."""
    judged = away if url in _known else soon
    return judged(error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error, url)


def _label(url: str) -> str:
    return f"Optuna's storage {masked(url)}"


@contextmanager
def _failing() -> Iterator[None]:
    """A storage that fails while a sweep goes on: its disk is full, its server is gone, somebody else locks it."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        # Optuna's own words are a guess, and a wrong one; what was wrong is what it caught.
        reason = str(getattr(error.__cause__, "orig", None) or error).strip().partition("\n")[0]
        raise Failure(f"Optuna's storage: {discreet(reason, '')}; see AIGC_LAB_OPTUNA_URL") from error


def open_storage(url: str, *, connected: bool = False) -> optuna.storages.RDBStorage:
    """Optuna's storage. Another process may lock an SQLite file for a while; left alone, it would wait for 5 s.

    Nothing closes what Optuna has opened but the garbage collector, at any moment. A file is therefore opened for each
    use anew, unless whoever wants to stay `connected`, which halves the time that a trial costs, closes it.
    """
    # A server may restart during a sweep of days: a pooled connection is tried before it is used.
    how: dict[str, Any] = {"pool_pre_ping": True, "connect_args": server_options(make_url(url))}
    if url.startswith("sqlite"):
        how = {"connect_args": {"timeout": 120}}
        if not connected and make_url(url).database not in (None, "", ":memory:"):
            how["poolclass"] = NullPool
    opened = optuna.storages.RDBStorage(url, engine_kwargs=how)
    _known.add(url)
    return opened


class Study:
    """The Optuna study of a sweep. Trials are numbered from 0. Asked for one after the other, the same number always
    gets the same suggestions; where several run at once, they depend on which of them ended first.

    Safe to use from several threads: Optuna on SQLite may give one trial to two who ask at once.
    """

    def __init__(self, name: str, url: str, experiment: Experiment) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        file = experiment.file
        self._experiment = experiment
        self._search: Search = file.search
        self._first = _fixed(experiment)
        self._lock = threading.RLock()
        label, gone = _label(url), partial(_away, url=url)
        with _explained(url):
            self._storage = outage.ask(label, lambda: open_storage(url, connected=True), gone)
            self._study = optuna.create_study(
                study_name=name,
                storage=CachedStorage(self._storage, label, gone),
                direction="minimize" if file.objective.better == "lower" else "maximize",
                load_if_exists=True,
                pruner=optuna.pruners.NopPruner()
                if experiment.pruner.idle
                else _Pruning(experiment.pruner(file.training.steps)),
            )

    def close(self) -> None:
        """Closes its connections; every thread has given its own back."""
        self._storage.engine.dispose()

    def _system(self, number: int) -> dict[str, Any]:
        """With `per_system` the systems take turns; a sampler left alone would starve those that seem to lose."""
        systems = self._experiment.systems
        take_turns = self._search.per_system and len(systems) > 1
        return {_SYSTEM: systems[number % len(systems)]} if take_turns else {}

    def trial(self, number: int) -> "Suggestion":
        """Trial `number`, asked for now unless it was before; numbers come in order."""
        with self._lock, _failing():
            return self._ask(number)

    def _ask(self, number: int) -> "Suggestion":
        existing = self._study.get_trials(deepcopy=False)
        self._study.sampler = self._sampler(number)
        if number < len(existing) and existing[number].state != TrialState.WAITING:
            trial = optuna.Trial(self._study, existing[number]._trial_id)  # noqa: SLF001 -- there is no public way
        else:
            assert number <= len(existing), f"trial {number} is asked for before trial {len(existing)}"
            fixed = self._first[number] if number < len(self._first) else self._system(number)
            if number == len(existing) and fixed:
                self._study.enqueue_trial(fixed)
            trial = self._study.ask()
        assert trial.number == number, f"Optuna gave trial {trial.number} for {number}: another process uses this study"
        return Suggestion(self._study, trial, self._lock)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        # A sampler for each trial: a continued sweep goes on as an uninterrupted one would have.
        seed = noise.generator(self._search.seed, "sampler", number).initial_seed() % 2**32
        if self._search.sampler == "tpe":
            # Conditional choices need group; ten random trials to begin with would be most of a small sweep.
            startup = min(10, max(2 * len(self._experiment.systems), self._search.trials // 4))
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=startup)
        return optuna.samplers.RandomSampler(seed=seed)


class Suggestion:
    """One trial as Optuna sees it."""

    def __init__(self, study: optuna.Study, trial: optuna.Trial, lock: threading.RLock) -> None:
        self._study = study
        self._trial = trial
        self._lock = lock

    def pick(self, hole: space.Hole) -> Any:
        """A value for a hole, one of Python's own types; the same one however often it is asked."""
        with _failing():
            if hole.kind == "choice":
                return self._trial.suggest_categorical(hole.name, hole.labels)
            if hole.kind == "int":
                return int(self._trial.suggest_int(hole.name, int(hole.low), int(hole.high)))
            return float(self._trial.suggest_float(hole.name, hole.low, hole.high, log=hole.kind == "log"))

    def should_stop(self, system: str, step: int, value: float) -> bool:
        """Reports an intermediate value and asks the pruner. A repeated attempt reports nothing twice, and one of a
        trial that Optuna knows the end of is left alone.
        """
        with self._lock, _failing():
            known = self._study.get_trials(deepcopy=False)[self._trial.number]
            if known.state.is_finished():
                return False
            if step not in known.intermediate_values:
                self._trial.set_user_attr(_SYSTEM, system)
                self._trial.report(value, step)
            # The pruner that prunes nothing need not read what the trials are by now.
            prunes = not isinstance(self._study.pruner, optuna.pruners.NopPruner)
            return prunes and bool(self._trial.should_prune())  # Optuna may say it in NumPy's words

    def tell(self, value: float | None, *, pruned: bool = False) -> None:
        """Ends the trial: a value, pruned, or (with neither) without a value. Telling twice is harmless."""
        state = TrialState.PRUNED if pruned else TrialState.FAIL if value is None else None
        with self._lock, _failing():
            self._study.tell(self._trial.number, None if state else value, state=state, skip_if_finished=True)


class _Pruning(optuna.pruners.BasePruner):
    """A pruner of ours, as Optuna asks it: among trials of one system."""

    def __init__(self, pruner: Pruner) -> None:
        self._pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        system = trial.user_attrs.get(_SYSTEM)
        others = [
            Curve(other.intermediate_values, other.state == TrialState.COMPLETE)
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number and other.user_attrs.get(_SYSTEM) == system
        ]
        better: Better = "lower" if study.direction == optuna.study.StudyDirection.MINIMIZE else "higher"
        with plugins.blamed(type(self._pruner)):
            return bool(self._pruner.stops(Curve(trial.intermediate_values), others, better))
