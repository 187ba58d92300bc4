"""What belongs to a sweep: its rows in the registry, whatever tables there are, and its folders in the home.

Rows are found by the schema: a table belongs to a sweep when its rows go with it (`ON DELETE CASCADE`). Promotions do
not: they are a home's own.
"""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Double,
    Table,
    create_engine,
    delete,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError

from aigc_lab.errors import UsageError
from aigc_lab.host.files import locked
from aigc_lab.host.settings import Settings
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import METADATA, Attempt, Moment, Run, Supervisor, Sweep
from aigc_lab.sweeps.supervision import refuse_supervised
from aigc_lab.tracking import writer

Row = dict[str, Any]
Rows = dict[str, list[Row]]

# The process that runs a sweep belongs to its machine; every other table that goes with a sweep travels with it.
_TABLES = [
    table
    for table in METADATA.sorted_tables
    if table is Sweep or (table is not Supervisor and any(key.ondelete == "CASCADE" for key in table.foreign_keys))
]
# What means something in one home only: its id, MLflow's ids, and the states on disk that an attempt could go on from.
_HOMEBOUND = {
    Sweep.name: ("mlflow_experiment_id", "home_id"),
    Run.name: ("mlflow_run_id",),
    Attempt.name: ("chain", "stored_step"),
}
_INTERRUPTED = "its process stayed in another home"


# ---- rows


def rows(registry: Registry, sweep: str) -> Rows:
    """Table -> the rows of a sweep, as plain JSON, in the order of their keys. Empty lists for a sweep that is unknown.

    What means something in one home only is None; what was RUNNING is KILLED, for its process is not elsewhere; and a
    path is the name of a file in an archive (`name`).
    """
    found: Rows = {}
    with registry.read() as connection:
        for table in _TABLES:
            query = select(table).where(_of(table, sweep)).order_by(*table.primary_key)
            found[table.name] = [_travelling(table, dict(row)) for row in connection.execute(query).mappings()]
    for row in with_path(found):
        row["path"] = name(registry.recorded(registry.located(row["path"])), sweep)
    return found


def with_path(rows: Rows) -> list[Row]:
    """The rows that point at a file."""
    return [row for of_table in rows.values() for row in of_table if "path" in row]


def name(recorded: str, sweep: str) -> str:
    """`artifacts/<sweep>/0.1/samples.png`, a place in the home, as it is called in an archive: without the sweep."""
    first, _, rest = recorded.partition("/")
    return f"{first}/{rest.removeprefix(f'{sweep}/')}" if rest.startswith(f"{sweep}/") else recorded


def place(name: str, sweep: str) -> str:
    """The place in the home of a file of an archive."""
    first, _, rest = name.partition("/")
    return f"{first}/{sweep}/{rest}"


def _of(table: Table, sweep: str) -> ColumnElement[bool]:
    if table is Sweep:
        return Sweep.c.id == sweep
    if "sweep_id" in table.c:
        return table.c.sweep_id == sweep
    return table.c.run_id.in_(select(Run.c.id).where(Run.c.sweep_id == sweep))


def _travelling(table: Table, row: Row) -> Row:
    plain = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
    return settled(table.name, plain)


def settled(table: str, row: Row) -> Row:
    """A row as it travels: at rest, and without what means something in one home only."""
    row = row | dict.fromkeys(_HOMEBOUND.get(table, ()))
    if row.get("state") == RunState.RUNNING:
        row["state"] = RunState.KILLED.value
        if "reason" in row:
            row["reason"] = _INTERRUPTED
    return row


def checked(given: Any) -> Rows:
    """Rows that were read from a file, if they fit the tables. Raises `UsageError` for those that do not."""
    if not isinstance(given, dict) or not all(isinstance(of, list) for of in given.values()):
        raise UsageError("its rows are not tables")
    unknown = sorted(given.keys() - {table.name for table in _TABLES})
    if unknown:
        raise UsageError(f"table {unknown[0]!r} is unknown; upgrade aigc-lab")
    return {table.name: [_checked(table, row) for row in given.get(table.name, [])] for table in _TABLES}


def _checked(table: Table, row: Any) -> Row:
    if not isinstance(row, dict):
        raise UsageError(f"a row of table {table.name} is not a mapping")
    unknown = sorted(row.keys() - set(table.c.keys()))
    if unknown:
        raise UsageError(f"column {unknown[0]!r} of table {table.name} is unknown; upgrade aigc-lab")
    plain: Row = dict.fromkeys(table.c.keys()) | row
    for column in table.c:
        value = plain[column.name]
        if not (column.nullable if value is None else _fits(column.type, value)):
            raise UsageError(f"{table.name}.{column.name} cannot be {value!r:.60}")
    if "state" in plain and plain["state"] not in set(RunState):
        raise UsageError(f"{table.name}.state cannot be {plain['state']!r:.60}")
    return settled(table.name, plain)


def _fits(kind: Any, value: Any) -> bool:
    if isinstance(kind, JSON):
        return _is_text(json.dumps(value, ensure_ascii=False))
    if isinstance(kind, BigInteger):
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if isinstance(kind, Boolean):
        return isinstance(value, bool)
    if isinstance(kind, Double):
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if not isinstance(value, str) or "\x00" in value or not _is_text(value):
        return False
    return not isinstance(kind, Moment) or _moment(value) is not None


def _is_text(value: str) -> bool:
    """Halves of characters, which JSON can name, are none, and no database stores them."""
    return not re.search("[\ud800-\udfff]", value)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def check_together(rows: Rows, sweep: str) -> None:
    """Raises `UsageError` for checked rows that contradict each other: they are tried in a registry in memory."""
    engine = create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            METADATA.create_all(connection)
            _insert(connection, rows, sweep)
    finally:
        engine.dispose()


def store(registry: Registry, stored: Rows, sweep: str) -> None:
    """Inserts checked rows, all of them or none. Raises `UsageError` for rows that do not fit together."""
    with registry.write() as connection:
        _insert(connection, stored, sweep)


def _insert(connection: Connection, rows: Rows, sweep: str) -> None:
    try:
        for table in _TABLES:
            if made := [_stored(table, row, sweep) for row in rows[table.name]]:
                connection.execute(insert(table), made)
    except IntegrityError as error:
        reason = str(error.orig).partition("\n")[0]
        raise UsageError(f"the rows of {sweep} do not fit together ({reason})") from None


def _stored(table: Table, row: Row, sweep: str) -> Row:
    moments = (column.name for column in table.c if isinstance(column.type, Moment))
    made = row | {moment: row[moment] and _moment(row[moment]) for moment in moments}
    return made | {"path": place(row["path"], sweep)} if "path" in row else made


def forget(connection: Connection, sweep: str, run: str | None) -> None:
    """Deletes the rows of a sweep, or of one of its runs; everything that belongs to them goes with them."""
    connection.execute(delete(Sweep).where(Sweep.c.id == sweep) if run is None else delete(Run).where(Run.c.id == run))


# ---- names


def component(name: str, what: str) -> str:
    """The name, if it can be that of one file in a folder. Raises `UsageError` for any other."""
    if not re.fullmatch(r"\w[\w. -]*", name) or len(name.encode()) > 200:
        raise UsageError(f"{what} {name!r:.80}: use up to 200 letters, digits and _ . -, the first no . or -")
    return name


def folders(settings: Settings, sweep: str, run: str | None = None) -> list[Path]:
    """Where the files of a sweep, or of one of its runs, lie, apart from MLflow's. Not all need exist."""
    component(sweep, "sweep")
    spool = writer.spool_folder(settings, sweep)
    if run is None:
        return [settings.artifacts / sweep, settings.checkpoints / sweep, spool]
    name = component(run.removeprefix(f"{sweep}."), "run")
    spooled = [folder for folder in spool.glob("*") if re.fullmatch(re.escape(run) + r"\.\d+", folder.name)]
    return [settings.artifacts / sweep / name, settings.checkpoints / sweep / name, *spooled]


# ---- one at a time


@contextmanager
def held(settings: Settings, sweep: str, registry: Registry | None = None) -> Iterator[None]:
    """Nobody runs the sweep meanwhile. Raises `UsageError` when somebody does, or still delivers it to MLflow."""
    lock = lock_of(settings, sweep)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        spool = writer.spool_folder(settings, sweep)
        for path, doing in ((lock, "run"), (spool / ".lock", "delivered to MLflow")):
            try:
                if path is lock or spool.is_dir():
                    stack.enter_context(locked(path, wait=False))
            except BlockingIOError:
                raise UsageError(f"sweep {sweep} is being {doing} by another process; wait, or stop it first") from None
        if registry is not None:
            refuse_supervised(registry, sweep)
        yield


def lock_of(settings: Settings, sweep: str) -> Path:
    """The lock that whoever runs the sweep holds."""
    return settings.home / "locks" / f"{component(sweep, 'sweep')}.lock"
