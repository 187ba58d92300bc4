"""The registry's database: transactions that are repeated while a server is away, and the paths of its files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from aigc_lab.errors import Failure
from aigc_lab.host import outage
from aigc_lab.host.settings import discreet
from aigc_lab.registry.engine import away, first_line, label

D = TypeVar("D", bound="Database")
P = ParamSpec("P")
T = TypeVar("T")


class ConnectionLost(Failure):
    """The server went away in the middle of a transaction, which may be done again."""


def repeated(transaction: Callable[Concatenate[D, P], T]) -> Callable[Concatenate[D, P], T]:
    """Decorates a function that reads or writes a registry in one transaction and may be repeated: it is, while the
    server is away (`outage`).
    """

    @wraps(transaction)
    def patient(database: D, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return database.patiently(lambda: transaction(database, *args, **kwargs))

    return patient


class Database:
    """An open database of the registry, and the home in which its files lie."""

    def __init__(self, url: str, engine: Engine, home: Path | None = None) -> None:
        self.url = url
        self._engine = engine
        self._home = home

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- paths

    def recorded(self, path: str) -> str:
        """A file's path as it is stored: relative to the home where it lies inside."""
        if self._home is None or not Path(path).is_relative_to(self._home):
            return path
        return Path(path).relative_to(self._home).as_posix()

    def located(self, stored: str) -> str:
        """Where the file of a stored path is; a path that was stored absolute stays as it is."""
        return str(self._home / stored) if self._home else stored

    # ---- transactions

    def patiently(self, work: Callable[[], T]) -> T:
        """The result of `work`, tried again while the server is away. Raises `StoreAway` when it stays away."""
        return outage.ask(label(self.url), work, self._away)

    def _away(self, error: Exception) -> str | None:
        return str(error) if isinstance(error, ConnectionLost) else away(error, self.url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view for queries: a server's transaction shows what others commit meanwhile, unless told.

        A server that is away is waited for. It may go away later, in the middle: functions that are `repeated` survive
        that.
        """
        engine = self._engine
        if engine.dialect.name != "sqlite":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with self._explained(), self.patiently(engine.connect) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, as `read` is. On SQLite it takes the write lock at once: a reader that turns writer cannot
        wait for it.
        """
        engine = self._engine.execution_options(writes=True)
        with self._explained(), self.patiently(engine.connect) as connection, connection.begin():
            yield connection

    def moment(self, connection: Connection) -> datetime:
        """The time now, in UTC, by the clock that all who use the database share: a server's own, or this machine's
        for a file. Signs of life are compared by it, since the clocks of machines differ.
        """
        if connection.dialect.name != "postgresql":
            return datetime.now(UTC)
        moment: datetime = connection.scalar(text("SELECT clock_timestamp()"))
        return moment.astimezone(UTC)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns an error of the database into a `Failure` of one line without a password."""
        try:
            yield
        except IntegrityError:
            raise  # a caller's mistake, such as a run of a trial that was never recorded
        except DBAPIError as error:
            reason = away(error, self.url)
            if reason is not None:
                raise ConnectionLost(reason) from error
            raise Failure(f"{label(self.url)}: {discreet(first_line(error), self.url)}") from error
