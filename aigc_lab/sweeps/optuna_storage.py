"""Optuna's storage: opened, made and checked, with its failures explained and its outages waited for."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import outage
from aigc_lab.host.files import beside, locked
from aigc_lab.host.outage import StoreAway
from aigc_lab.host.settings import discreet, masked
from aigc_lab.registry.engine import away, pool_options, server_options, soon

# Connections of a process to a server: threads that ask Optuna do so one after the other (`CachedStorage`).
_CONNECTIONS = 2
# Addresses at which this process has found a storage: what goes away there is waited for.
_seen: set[str] = set()


def check_storage(url: str, *, create: bool = True) -> None:
    """Raises `UsageError` for a storage that cannot be used. Makes one where there is none, if `create`."""
    parsed = make_url(url) if url.startswith("sqlite") else None
    path = Path(parsed.database) if parsed is not None and parsed.database else None
    new = path is not None and not path.exists()
    if new and not create:
        return
    # Two processes that make Optuna's tables in one file at once would die of each other.
    with explained(url), locked(beside(path)):
        outage.ask(label(url), lambda: open_storage(url), partial(away_reason, url=url))
        if path is not None and new:
            with closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA journal_mode = WAL")  # stays in the file: readers never wait for a writer


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Raises `UsageError` with the storage's address, without its password, for any error but an outage."""
    try:
        yield
    except StoreAway:
        raise
    except Exception as error:  # noqa: BLE001 -- SQLAlchemy's, Optuna's and the driver's errors share no base
        # A port that is none may be a part of a password.
        reason = "it is not an address" if type(error) is ValueError else str(error).strip().partition("\n")[0]
        shown = f"{label(url)} cannot be used ({discreet(reason, url)})"
        raise UsageError(f"{shown}; see AIGC_LAB_OPTUNA_URL") from None


def open_storage(url: str, *, connected: bool = False) -> optuna.storages.RDBStorage:
    """Optuna's storage. Another process may lock an SQLite file for a while; left alone, it would wait for 5 s.

    Nothing closes what Optuna has opened but the garbage collector, at any moment. A file is therefore opened for each
    use anew, unless whoever wants to stay `connected`, which halves the time that a trial costs, closes it.
    """
    pool = pool_options(_CONNECTIONS) | {"pool_pre_ping": True}  # a server may restart during a sweep of days
    how: dict[str, Any] = {"connect_args": server_options(make_url(url)), **pool}
    if url.startswith("sqlite"):
        how = {"connect_args": {"timeout": 120}}
        if not connected and make_url(url).database not in (None, "", ":memory:"):
            how["poolclass"] = NullPool
    opened = optuna.storages.RDBStorage(url, engine_kwargs=how)
    _seen.add(url)
    return opened


def trial_states(url: str, sweep: str) -> dict[int, tuple[str, float | None]]:
    """What Optuna knows of the trials of a sweep: number -> the name of its state, and its value, of several
    objectives that of the first. Empty for none.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with explained(url):
        try:
            study = optuna.load_study(study_name=sweep, storage=open_storage(url))
        except KeyError:
            return {}
        return {
            trial.number: (trial.state.name, trial.values[0] if trial.state == TrialState.COMPLETE else None)
            for trial in study.get_trials(deepcopy=False)
        }


@contextmanager
def failing() -> Iterator[None]:
    """Raises `Failure` where the storage fails during a sweep: a full disk, a server that is gone, a lock."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        # Optuna's own words are a guess, and a wrong one; what was wrong is what it caught.
        reason = str(getattr(error.__cause__, "orig", None) or error).strip().partition("\n")[0]
        raise Failure(f"Optuna's storage: {discreet(reason, '')}; see AIGC_LAB_OPTUNA_URL") from error


def away_reason(error: Exception, url: str) -> str | None:
    """The reason if the error, perhaps wrapped by Optuna, says that the storage is away; None of any other."""
    judged = away if url in _seen else soon
    return judged(error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error, url)


def label(url: str) -> str:
    """What messages call the storage: its address without the password."""
    return f"Optuna's storage {masked(url)}"
