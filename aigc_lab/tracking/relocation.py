"""Repair of a moved home: MLflow records absolute addresses of files, which then point to the old place.

The registry stores paths relative to the home and is not concerned. Nothing here imports MLflow.
"""

import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host.settings import Settings
from aigc_lab.tracking.address import sqlite_file

# `MlflowTracker.experiment` gives every sweep the folder <home>/artifacts/mlflow/<sweep>.
_OURS = re.compile(r"(file://.*)/artifacts/mlflow/[^/]+")
# What MLflow calls a column that holds the address of files.
_COLUMNS = ("artifact_location", "artifact_uri", "storage_location", "source")


def old_homes(settings: Settings) -> list[Path]:
    """Former paths of this home in MLflow's records; empty when all is well.

    Only a database inside the home is examined, since one elsewhere may belong to several homes.
    """
    store = _own_store(settings)
    if store is None:
        return []
    with closing(_connect(store, "ro")) as database:
        return [_path(uri) for uri in _old(database, settings.home)]


def check_relocation(settings: Settings) -> None:
    """Raises `UsageError` for a home that was moved: new files would go to the old place, and old ones could not be
    found.
    """
    homes = old_homes(settings)
    if homes:
        raise UsageError(
            f"home {settings.home} was made at {homes[0]}, and MLflow still looks for its files there; "
            f"'aigc-lab doctor --repair' corrects its records (with a backup of mlflow.db)"
        )


def repair(settings: Settings) -> Path | None:
    """Corrects MLflow's addresses in one transaction. Returns the backup made before, or None if nothing was wrong.

    Raises `Failure` when the database cannot be written.
    """
    store = _own_store(settings)
    if store is None:
        return None
    new_uri = settings.home.as_uri()
    backup = store.with_name(f"{store.name}.{time.strftime('%Y%m%d-%H%M%S')}.backup")
    try:
        with closing(_connect(store, "rw")) as database:
            old_uris = _old(database, settings.home)
            if not old_uris:
                return None
            with closing(sqlite3.connect(backup)) as copy:
                database.backup(copy)
            with database:
                for table, column in _address_columns(database):
                    for old_uri in old_uris:
                        # A prefix as it is written, not a pattern: a path may hold % and _.
                        database.execute(
                            f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) '  # noqa: S608 -- its own names
                            f'WHERE substr("{column}", 1, ?) = ?',
                            (new_uri, len(old_uri) + 1, len(old_uri) + 1, f"{old_uri}/"),
                        )
    except sqlite3.Error as error:
        raise Failure(f"{store}: cannot be corrected ({error}); it is as it was") from None
    return backup


def _own_store(settings: Settings) -> Path | None:
    if not re.match(r"sqlite\W", settings.tracking_uri):  # one that cannot be parsed is no file either
        return None
    store = sqlite_file(settings.tracking_uri).absolute()
    inside = store.resolve().is_relative_to(settings.home.resolve())
    return store if inside and store.is_file() and store.stat().st_size else None


def _connect(store: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{store.as_uri()}?mode={mode}", uri=True, timeout=10)


def _old(database: sqlite3.Connection, home: Path) -> list[str]:
    """Addresses of homes in MLflow's experiments, without other spellings of this home's address."""
    try:
        locations = [row[0] for row in database.execute("SELECT artifact_location FROM experiments")]
    except sqlite3.Error:  # not MLflow's: `address.check_address` has the words for it
        return []
    named = {match[1] for match in map(_OURS.fullmatch, filter(None, locations)) if match}
    return sorted(uri for uri in named if _path(uri).resolve() != home.resolve())


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def _address_columns(database: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [
        (table, row[1])
        for table in tables
        for row in database.execute(f'PRAGMA table_info("{table}")')
        if row[1] in _COLUMNS
    ]
