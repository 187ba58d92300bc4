"""Opening the registry's database: it is created or migrated where needed, and whatever fails is one line."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool

from aigc_lab.errors import UsageError
from aigc_lab.host import outage
from aigc_lab.host.files import beside, locked
from aigc_lab.host.settings import discreet, masked
from aigc_lab.registry.tables import SCHEMA

_ELSEWHERE = "name another home with --home or AIGC_LAB_HOME"
# The index of a write-ahead log takes 32 KiB, and the log as much as its last transactions.
_ROOM = 1 << 20
_MIGRATION_LOCK = 0x_A16C_1AB  # any number, the same in every process
# SQLSTATEs of a server that is away: shut down, crashed, starting up, without a free connection; and of a transaction
# that it has rolled back for another's sake.
_AWAY = frozenset({"57P01", "57P02", "57P03", "57P05", "53300", "40001", "40P01"})
# What a server says that is there and will soon take connections. Its words may be in another language.
_SOON = ("starting up", "shutting down", "too many", "remaining connection slots", "not yet accepting")
# Limits for libpq, which else waits for ever: for a connection, and for an answer of a machine that has vanished.
_LIBPQ = {"connect_timeout": 10, "keepalives_idle": 20, "keepalives_interval": 5, "tcp_user_timeout": 30_000}
# Connections to a server that a process holds at most, whose threads take turns: a server has a hundred for all. Then
# the seconds after which a thread that waits for its turn takes the server for away.
CONNECTIONS, TURN = 4, 60.0
# Seconds after which a connection that nobody has used is tried first.
_REST = 1.0
# Addresses at which this process has found a registry: what goes away there is waited for.
_reached: set[str] = set()


def away(error: Exception, url: str) -> str | None:
    """The reason of an error that says that the server at `url` is away for now, or wants to be asked again; None for
    others. A SQLite file never is: who finds it locked has waited already.
    """
    if isinstance(error, PoolTimeout):
        return "no connection became free"  # all that this process may have wait for an answer
    if not isinstance(error, DBAPIError) or type(error.orig).__module__.partition(".")[0] == "sqlite3":
        return None
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    unanswered = state is None and isinstance(error, OperationalError | InterfaceError)
    lost = error.connection_invalidated or unanswered or state in _AWAY or str(state).startswith("08")
    return discreet(first_line(error), url) if lost else None


def soon(error: Exception, url: str) -> str | None:
    """As `away`, of an address that may be mistyped: only what a server says that will soon be there."""
    reason = away(error, url)
    return reason if reason is not None and any(word in str(error) for word in _SOON) else None


def server_options(url: URL) -> dict[str, object]:
    """Options of a PostgreSQL driver with which it notices a server that has gone away; those in the address win."""
    if url.get_backend_name() != "postgresql" or not url.get_driver_name().startswith("psycopg"):
        return {}
    return {name: value for name, value in _LIBPQ.items() if name not in url.query}


def pool_options(connections: int) -> dict[str, Any]:
    """Options of an engine on a server: its pool has so many connections, and the one that was used last goes first."""
    return {"pool_size": connections, "max_overflow": 0, "pool_timeout": TURN, "pool_use_lifo": True}


def _try_after_rest(engine: Engine) -> None:
    """Has the connections of an engine tried before they are used after a rest, in which a server may have restarted
    during a sweep of days. One that was used just now is not: that would be a fifth of all that is asked.
    """

    @event.listens_for(engine, "checkin")
    def _rests(_: Any, record: Any) -> None:
        record.info["rests since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _is_used(connection: Any, record: Any, _: Any) -> None:
        since = record.info.get("rests since")
        if since is None or time.monotonic() - since < _REST:
            return
        try:
            alive = engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error:
            alive = False
        if not alive:
            raise DisconnectionError  # the pool gives another in its place


def open_engine(
    url: str, *, create: bool, connected: bool = False, patient: bool = False, connections: int = CONNECTIONS
) -> Engine:
    """An engine on a registry of the current schema. Raises `UsageError` as `Registry.open` says."""
    with _explained(url):
        parsed = make_url(url)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ArgumentError("it must begin with sqlite:// or postgresql+psycopg://")
        path = _file(parsed)
        if path is not None and not path.exists():
            if not create:
                raise _missing(url)
            path.parent.mkdir(parents=True, exist_ok=True)
        engine = _engine(parsed, connected, connections)
        reason = away if patient or url in _reached else soon
        schema = outage.ask(label(url), lambda: _schema_of(engine), partial(reason, url=url))
        if schema is None and not create:
            raise _missing(url)
        if schema != SCHEMA:
            _migrate(url, engine, path)
    _reached.add(url)
    return engine


def label(url: str) -> str:
    """The name of the registry in messages, without a password."""
    return f"registry {masked(url)}"


def _schema_of(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return _schema(connection)


def inspect_schema(url: str) -> tuple[str | None, float]:
    """The version of the schema at `url` as it is, None where there is none yet, and a server's time in seconds of
    Unix (ours for a file). Creates and migrates nothing; raises `UsageError` as `Registry.open` says.
    """
    with _explained(url):
        parsed = make_url(url)
        path = _file(parsed)
        if path is not None and not path.exists():
            return None, time.time()
        if path is None:
            parsed = parsed.update_query_dict({"connect_timeout": "4"})  # `server_options` leaves it as it is
        with _engine(parsed).connect() as connection:
            remote = connection.dialect.name == "postgresql"
            now = connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) if remote else None
            return _schema(connection), time.time() if now is None else float(now)


def folder_of(url: str) -> Path | None:
    """Where the file of a SQLite database lies; None for a server and for a database in memory."""
    path = _file(make_url(url))
    return None if path is None else path.absolute().parent


def sqlite_file(url: str) -> Path | None:
    """The file of the SQLite database at an address; None for every other, an impossible one included."""
    try:
        return _file(make_url(url))
    except (ArgumentError, ValueError):
        return None


def _file(url: URL) -> Path | None:
    """The file of a SQLite database; None for a server and for a database in memory."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def _engine(url: URL, connected: bool = False, connections: int = 1) -> Engine:
    if url.get_backend_name() != "sqlite":
        engine = create_engine(url, connect_args=server_options(url), **pool_options(connections))
        _try_after_rest(engine)
        return engine
    # A connection a transaction: nothing stays open that nobody closes. Who writes for hours stays connected.
    path = _file(url)
    engine = create_engine(url, poolclass=NullPool) if path and not connected else create_engine(url)

    @event.listens_for(engine, "do_connect")
    def _connecting(_: object, __: object, ___: object, options: dict[str, Any]) -> sqlite3.Connection | None:
        if path is None or not _at_rest(path):
            return None
        still: sqlite3.Connection = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True, **options)
        return still

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: object) -> None:
        connection.isolation_level = None  # Python's own BEGIN comes too late and never before DDL
        for pragma in ("busy_timeout = 120000", "foreign_keys = ON", "synchronous = NORMAL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _at_rest(path: Path) -> bool:
    """Whether nobody writes a database, and nobody can from here: reading it then needs no files beside it, for which
    there would be no place. A log beside it holds what is not in it yet, and is read as usual.
    """
    log = Path(f"{path}-wal")
    return path.exists() and not os.access(path.parent, os.W_OK) and not (log.exists() and log.stat().st_size)


def _schema(connection: Connection) -> str | None:
    """The schema's version as Alembic wrote it; None in an empty database; raises `_Foreign` in anybody else's."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        if tables:
            raise _Foreign(f"holds another program's tables ({', '.join(sorted(tables)[:3])})")
        return None
    versions = list(connection.scalars(text("SELECT version_num FROM alembic_version")))
    if len(versions) != 1 or (versions == [SCHEMA] and "sweep" not in tables):
        raise _Foreign("holds another program's tables")
    return str(versions[0])


def _migrate(url: str, engine: Engine, path: Path | None) -> None:
    """Brings the schema up to date in one transaction, while every other process that wants the same waits."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with locked(beside(path)):
        # The mode is kept in the file. It cannot be set inside a transaction, and must not be set in a foreign file.
        with engine.connect() as connection:
            schema = _schema(connection)
        if schema is not None:
            try:
                ScriptDirectory.from_config(config).get_revision(schema)
            except CommandError:
                problem = f"has schema {schema}, this version of aigc-lab reads {SCHEMA}"
                raise _Foreign(problem, f"upgrade aigc-lab, or {_ELSEWHERE}") from None
        if path is not None:
            raw = engine.raw_connection()
            raw.cursor().execute("PRAGMA journal_mode = WAL")
            raw.close()
        with engine.execution_options(writes=True).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


class _Foreign(Exception):
    """What is at the URL is not a registry that this version can read."""

    def __init__(self, problem: str, remedy: str = _ELSEWHERE) -> None:
        super().__init__(f"{problem}; nothing was changed; {remedy}")


def _missing(url: str) -> UsageError:
    return UsageError(f"no registry at {masked(url)}; run a sweep first, or name the home with --home")


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turns what can go wrong on opening into one line that names the URL and the remedy."""
    shown = masked(url)
    server = "check AIGC_LAB_REGISTRY_URL and that the server runs"
    try:
        yield
    except _Foreign as error:
        raise UsageError(f"{shown} {error}") from None
    except OSError as error:
        raise UsageError(f"{shown} cannot be written ({error.strerror}); {_ELSEWHERE}") from None
    except UsageError:
        raise
    except (ArgumentError, ModuleNotFoundError) as error:
        raise UsageError(f"registry URL {shown} cannot be used ({error}); see AIGC_LAB_REGISTRY_URL") from None
    except ValueError:  # SQLAlchemy takes a part of the address for a port, and quotes it: it may be a password
        raise UsageError(f"registry URL {shown} is not an address; see AIGC_LAB_REGISTRY_URL") from None
    except DBAPIError as error:
        problem = discreet(first_line(error), url)
        if not url.startswith("sqlite"):
            raise UsageError(f"{shown} cannot be reached ({problem}); {server}") from None
        if "not a database" in problem or "malformed" in problem:
            raise UsageError(f"{shown} is not a database file; nothing was changed; {_ELSEWHERE}") from None
        path = _file(make_url(url))
        if path is not None and _full(path.parent):
            raise UsageError(f"{shown} cannot be opened: its disk is full ({problem}); make room on it") from None
        raise UsageError(f"{shown} cannot be opened or written ({problem}); {_ELSEWHERE}") from None


def _full(folder: Path) -> bool:
    """Whether its disk has no room for what SQLite puts beside a database even to read it."""
    try:
        free = os.statvfs(folder)
    except OSError:
        return False
    return free.f_bavail * free.f_frsize < _ROOM


def first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
