"""Check of a tracking address, within seconds and before MLflow is imported."""

import base64
import os
import re
import socket
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from aigc_lab.errors import UsageError
from aigc_lab.host.settings import discreet, masked, sqlite_path, sqlite_url


class Unreachable(UsageError):
    """No server answers at a tracking address: it is mistyped, or the server is down for the moment."""


# The kinds of database that MLflow keeps runs in.
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def check_address(tracking_uri: str) -> None:
    """Raises `UsageError` for a tracking address that cannot work, and `Unreachable` for one that does not answer now.

    Takes 5 seconds at most; imports and changes nothing.
    """
    parts = _split(tracking_uri)
    scheme = parts.scheme.partition("+")[0]
    unset = "unset MLFLOW_TRACKING_URI to use a local file"
    start = f"start one with: mlflow server --port {parts.port or 5000} --workers 1" if "http" in scheme else "start it"
    try:
        if scheme in ("", "file"):
            file = sqlite_url(Path(masked(unquote(parts.path))) / "mlflow.db")
            raise UsageError(f"{masked(tracking_uri)}: MLflow no longer writes to folders; use {file}, or {unset}")
        if scheme in ("http", "https"):
            # Less than the promised five seconds: the rest of the check takes time, too.
            _within(4.5, lambda: _check_server(tracking_uri))
        elif scheme == "sqlite":
            _check_sqlite(tracking_uri)
        elif scheme in _PORTS and parts.hostname:  # MLflow itself would try for minutes
            address = (parts.hostname, parts.port or _PORTS[scheme])
            _within(4.5, lambda: socket.create_connection(address, timeout=4).close())
    except OSError as error:
        reason = discreet(str(getattr(error, "reason", None) or error.strerror or error), tracking_uri)
        raise Unreachable(
            f"MLflow at {masked(tracking_uri)} cannot be reached ({reason}); {start}, or {unset}"
        ) from None


def _split(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
        _ = parts.port, parts.hostname
    except ValueError:  # what Python says of it quotes a part, which may be one of a password
        raise UsageError(f"MLFLOW_TRACKING_URI is not an address ({masked(uri)})") from None
    return parts


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Runs `call` for at most `seconds`, since socket timeouts limit neither name look-ups nor slow answers. Raises
    what `call` raises, or `TimeoutError`.
    """
    errors: list[BaseException] = [TimeoutError("no answer in time")]

    def work() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            errors[0] = error
        else:
            errors.clear()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]


def _check_server(uri: str) -> None:
    if not re.match(r"\d+\.\d+", _answer(uri, "/version")):
        other = "set MLFLOW_TRACKING_URI to one, or unset it"
        raise UsageError(f"what answers at {masked(uri)} is not an MLflow server; {other}")
    # Its version it tells under any name of its host; everything else only under those that it was given.
    _answer(uri, "/api/2.0/mlflow/experiments/get?experiment_id=0")


def _answer(uri: str, path: str) -> str:
    """How the answer of a server begins, without spaces around it; empty for one that is an error of the path alone."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    bare = urlunsplit(parts._replace(netloc=host, path=parts.path.rstrip("/")))
    request = urllib.request.Request(f"{bare}{path}", headers=authorization(uri))
    try:
        with urllib.request.urlopen(request, timeout=4) as answer:
            return str(answer.read(200).decode("utf-8", "replace").strip())
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(200).decode("utf-8", "replace")
        if error.code == 403 and "Host header" in said:
            raise UsageError(
                f"MLflow at {masked(uri)} does not answer under this name; start it with --allowed-hosts {host}"
            ) from None
        if error.code == 401 or (error.code == 403 and path == "/version"):  # of one experiment it says nothing
            raise UsageError(f"MLflow at {masked(uri)} refuses the credentials ({error.code})") from None
        if error.code >= 500:  # a proxy answers for a server that is down
            raise OSError(f"{error.code} {error.reason}") from None
    except HTTPException:  # what answers does not speak HTTP
        pass
    return ""


def authorization(uri: str) -> dict[str, str]:
    """Authorization header that MLflow's client would send: from the address, else from its environment variables."""
    parts = urlsplit(uri)
    user = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if user or password:
        return basic(user, password)
    return {"Authorization": f"Bearer {token}"} if token else {}


def basic(user: str, password: str) -> dict[str, str]:
    """Authorization header of a user with a password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def sqlite_file(uri: str) -> Path:
    """File of a SQLite store. Raises `UsageError` for one in memory."""
    path = sqlite_path(uri)
    if path is None:
        raise UsageError(f"{masked(uri)}: no other process could read a store in memory; use sqlite:///mlflow.db")
    return path


def _check_sqlite(uri: str) -> None:
    path = sqlite_file(uri)
    # SQLite creates an empty file at the first connection; MLflow makes its tables in either.
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return
    other = "name another file in MLFLOW_TRACKING_URI, or unset it"
    if not path.is_file():
        raise UsageError(f"{masked(uri)}: {path} is not a file; {other}")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as database:
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                return
            if not {"alembic_version", "experiments", "runs", "latest_metrics"} <= tables:
                raise UsageError(f"{masked(uri)}: {path} is the database of something other than MLflow; {other}")
            revisions = {row[0] for row in database.execute("SELECT version_num FROM alembic_version")}
    except sqlite3.Error as error:
        raise UsageError(f"{masked(uri)}: {path} cannot be read as a database ({error}); {other}") from None
    known_revisions, head = _revisions()
    if head is None or revisions == {head}:
        return
    if revisions <= known_revisions:
        raise UsageError(
            f"{masked(uri)}: written by an older MLflow; back it up, then run: mlflow db upgrade {masked(uri)}"
        )
    raise UsageError(f"{masked(uri)}: written by a newer MLflow than the one installed; upgrade mlflow, or {other}")


def _revisions() -> tuple[set[str], str | None]:
    """Database revisions that the installed MLflow knows, and the newest of them, read without importing it."""
    spec = find_spec("mlflow")
    folder = Path(spec.origin or "").parent / "store" / "db_migrations" / "versions" if spec else Path()
    revisions: set[str] = set()
    replaced: set[str] = set()
    for file in folder.glob("*.py") if spec else ():
        text = file.read_text("utf-8")
        revisions.update(re.findall(r"^revision\b[^=\n]*=\s*[\"'](\w+)", text, re.MULTILINE))
        for line in re.findall(r"^down_revision\b[^=\n]*=(.*)$", text, re.MULTILINE):
            replaced.update(re.findall(r"\w{6,}", line))
    heads = revisions - replaced
    return revisions, heads.pop() if len(heads) == 1 else None
