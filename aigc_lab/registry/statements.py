"""What writes to the registry share: values as its columns take them, and statements that may be replayed."""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Table, delete, insert

from aigc_lab.errors import Failure

# ---- values


def now() -> datetime:
    """The time that a write records, in UTC."""
    return datetime.now(UTC)


def finite(value: float | None) -> float | None:
    """The value, or None where it is not finite: neither JSON nor every database has a word for NaN and infinity."""
    return float(value) if value is not None and math.isfinite(value) else None


def text(value: str | None) -> str | None:
    """The text without NUL, which PostgreSQL does not take."""
    return None if value is None else value.replace("\x00", "")


def plain(value: Any) -> Any:
    """The value as it comes back from a JSON column, so that a stored value can be compared with a new one."""

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        return finite(value) if isinstance(value, float) else value

    return json.loads(json.dumps(clean(value), allow_nan=False))


# ---- statements


def insert_new(connection: Connection, table: Table, **values: Any) -> bool:
    """Inserts a row unless one with its key is there, and says whether it did. Both databases say it alike, each in its
    own dialect.
    """
    dialect_insert: Callable[..., Any]
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as dialect_insert
    else:
        from sqlalchemy.dialects.postgresql import insert as dialect_insert
    result = connection.execute(dialect_insert(table).values(**values).on_conflict_do_nothing())
    return bool(result.rowcount)


def replace_rows(connection: Connection, table: Table, run: str, rows: list[dict[str, Any]]) -> None:
    """Puts these rows of a run in the place of all its rows in the table."""
    connection.execute(delete(table).where(table.c.run_id == run))
    if rows:
        connection.execute(insert(table), [row | {"run_id": run} for row in rows])


def require(exists: object, what: str) -> None:
    """Raises `Failure` unless `exists` is true: the registry has no `what`."""
    if not exists:
        raise Failure(f"the registry has no {what}")
