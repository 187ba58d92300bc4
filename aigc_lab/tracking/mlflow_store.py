"""Connection to an MLflow store: a client, the database file behind it, and its errors as one-line messages."""

import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import imports
from aigc_lab.host.files import beside, locked
from aigc_lab.host.settings import discreet, masked, sqlite_url
from aigc_lab.tracking.address import check_address, sqlite_file

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


# One request, no retry: `flush` is the retry. Hence a dead server holds a training up for 5 s at most.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # a bar for each file that is fetched or sent
}


class SourceMissing(Exception):
    """The file to be sent no longer exists."""


def open_client(uri: str) -> "MlflowClient":
    """Client of a store whose tables exist; a SQLite file is created. The first call of a process imports MLflow.
    Raises `UsageError` and `Failure`.
    """
    check_address(uri)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with imports.uncollected():
        from mlflow.tracking import MlflowClient

    with store_errors(uri, "store"):
        if urlsplit(uri).scheme.partition("+")[0] == "sqlite":
            _create_sqlite(sqlite_file(uri))
        return MlflowClient(tracking_uri=uri)


def store_exists(uri: str) -> bool:
    """Whether there is a store. Opening a SQLite address would create its file, so commands that only read ask here."""
    if urlsplit(uri).scheme.partition("+")[0] != "sqlite":
        return True
    file = sqlite_file(uri)
    return file.is_file() and file.stat().st_size > 0


def _create_sqlite(path: Path) -> None:
    """Creates the database file, complete or not at all, under a lock: processes that create the same tables at once
    make each other fail.

    It is built beside its target and renamed, so that a kill leaves nothing that looks like a database.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(beside(path)):
        if path.exists() and path.stat().st_size:
            return
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            whole = Path(folder, "whole.db")
            _create_tables(whole)
            whole.replace(path)


def _create_tables(path: Path) -> None:
    """Creates a database file with MLflow's tables, which nobody has open. It takes MLflow seconds."""
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it reports every table it creates
    draft = path.with_name("draft.db")
    MlflowClient(tracking_uri=sqlite_url(draft.absolute()))
    # MLflow keeps the draft open; a copy is nobody's.
    with closing(sqlite3.connect(draft)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = WAL")  # stays in the file: readers never wait for a writer


@contextmanager
def store_errors(uri: str, what: str) -> Iterator[None]:
    """Context in which the errors of a store become a `Failure` of one line without a password; `UsageError` passes."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - see MlflowRun._attempt
        raise Failure(f"MLflow at {masked(uri)}: {what}: {error_line(uri, error)}") from None


def error_line(uri: str, error: Exception) -> str:
    """First line of an error, without secrets: MLflow quotes the address that it called, password included."""
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    return discreet(text, uri)


def is_permanent(error: Exception) -> bool:
    """Whether another attempt is pointless: the run is deleted, the piece is invalid, or the file to send is missing.

    Errors of the operating system are not permanent: a disk that is full or closed, or a missing folder of the store,
    may take the piece later.
    """
    code: Any = getattr(error, "error_code", None)
    return isinstance(error, SourceMissing) or code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def local_folder(uri: str) -> Path | None:
    """Folder that an artifact address means if it lies on this machine, else None."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") and not parts.netloc else None
