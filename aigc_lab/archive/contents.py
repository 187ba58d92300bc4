"""Contents of a sweep: its rows in all tables of the registry, and its folders in the home.

Rows are found by the schema: a table belongs to a sweep when its rows are deleted with it (`ON DELETE CASCADE`).
Promotions are not, since they belong to the home.
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
    """Rows of a sweep by table, as plain JSON, in the order of their keys; empty lists for an unknown sweep.

    Values that hold in one home only are None. RUNNING becomes KILLED, since the process stays behind, and a path
    becomes the name of a file in an archive (see `name`).
    """
    by_table: Rows = {}
    with registry.read() as connection:
        for table in _TABLES:
            query = select(table).where(_belongs_to(table, sweep)).order_by(*table.primary_key)
            by_table[table.name] = [_plain_row(table, dict(row)) for row in connection.execute(query).mappings()]
    for row in with_path(by_table):
        row["path"] = name(registry.recorded(registry.located(row["path"])), sweep)
    return by_table


def with_path(rows: Rows) -> list[Row]:
    """Rows with the path of a file."""
    return [row for of_table in rows.values() for row in of_table if "path" in row]


def name(recorded: str, sweep: str) -> str:
    """Name in an archive of a place in the home: `artifacts/<sweep>/0.1/samples.png` without the sweep."""
    first, _, rest = recorded.partition("/")
    return f"{first}/{rest.removeprefix(f'{sweep}/')}" if rest.startswith(f"{sweep}/") else recorded


def place(name: str, sweep: str) -> str:
    """Place in the home of a file of an archive."""
    first, _, rest = name.partition("/")
    return f"{first}/{sweep}/{rest}"


def _belongs_to(table: Table, sweep: str) -> ColumnElement[bool]:
    if table is Sweep:
        return Sweep.c.id == sweep
    if "sweep_id" in table.c:
        return table.c.sweep_id == sweep
    return table.c.run_id.in_(select(Run.c.id).where(Run.c.sweep_id == sweep))


def _plain_row(table: Table, row: Row) -> Row:
    plain = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
    return travelling_row(table.name, plain)


def travelling_row(table: str, row: Row) -> Row:
    """Row for another home: not RUNNING, and without values that hold in one home only, and without where its runs were
    executed, which would mean other machines there.
    """
    row = row | dict.fromkeys(_HOMEBOUND.get(table, ()))
    if isinstance(experiment := row.get("experiment"), dict):
        row["experiment"] = {key: value for key, value in experiment.items() if key != "execution"}
    if row.get("state") == RunState.RUNNING:
        row["state"] = RunState.KILLED.value
        if "reason" in row:
            row["reason"] = _INTERRUPTED
    return row


def parse_rows(content: Any) -> Rows:
    """Rows read from a file, checked against the tables. Raises `UsageError` for rows that do not fit them."""
    if not isinstance(content, dict) or not all(isinstance(of, list) for of in content.values()):
        raise UsageError("its rows are not tables")
    unknown = sorted(content.keys() - {table.name for table in _TABLES})
    if unknown:
        raise UsageError(f"table {unknown[0]!r} is unknown; upgrade aigc-lab")
    return {table.name: [_parse_row(table, row) for row in content.get(table.name, [])] for table in _TABLES}


def _parse_row(table: Table, row: Any) -> Row:
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
    return travelling_row(table.name, plain)


def _fits(kind: Any, value: Any) -> bool:
    if isinstance(kind, JSON):
        # Escaped, a lone surrogate would pass for text.
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
    """Whether a string has no lone surrogates: JSON can hold them, and no database stores them."""
    return not re.search("[\ud800-\udfff]", value)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def check_together(rows: Rows, sweep: str) -> None:
    """Raises `UsageError` for rows that contradict each other; they are inserted into a registry in memory."""
    engine = create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            METADATA.create_all(connection)
            _insert(connection, rows, sweep)
    finally:
        engine.dispose()


def store(registry: Registry, checked_rows: Rows, sweep: str) -> None:
    """Inserts checked rows, all of them or none. Raises `UsageError` for rows that contradict each other."""
    with registry.write() as connection:
        _insert(connection, checked_rows, sweep)


def _insert(connection: Connection, rows: Rows, sweep: str) -> None:
    try:
        for table in _TABLES:
            if table_rows := [_database_row(table, row, sweep) for row in rows[table.name]]:
                connection.execute(insert(table), table_rows)
    except IntegrityError as error:
        reason = str(error.orig).partition("\n")[0]
        raise UsageError(f"the rows of {sweep} do not fit together ({reason})") from None


def _database_row(table: Table, row: Row, sweep: str) -> Row:
    moments = (column.name for column in table.c if isinstance(column.type, Moment))
    stored_row = row | {moment: row[moment] and _moment(row[moment]) for moment in moments}
    return stored_row | {"path": place(row["path"], sweep)} if "path" in row else stored_row


def delete_rows(connection: Connection, sweep: str, run: str | None) -> None:
    """Deletes the rows of a sweep, or of one of its runs, with all rows that depend on them."""
    connection.execute(delete(Sweep).where(Sweep.c.id == sweep) if run is None else delete(Run).where(Run.c.id == run))


# ---- names


def component(name: str, what: str) -> str:
    """The name, if it can be that of one file in a folder. Raises `UsageError` for any other."""
    if not re.fullmatch(r"\w[\w. -]*", name) or len(name.encode()) > 200:
        raise UsageError(f"{what} {name!r:.80}: use up to 200 letters, digits and _ . -, the first no . or -")
    return name


def folders(settings: Settings, sweep: str, run: str | None = None) -> list[Path]:
    """Folders with files of a sweep, or of one of its runs, apart from MLflow's. Some may not exist."""
    component(sweep, "sweep")
    spool = writer.spool_folder(settings, sweep)
    if run is None:
        return [settings.artifacts / sweep, settings.checkpoints / sweep, spool]
    name = component(run.removeprefix(f"{sweep}."), "run")
    spooled = [folder for folder in spool.glob("*") if re.fullmatch(re.escape(run) + r"\.\d+", folder.name)]
    return [settings.artifacts / sweep / name, settings.checkpoints / sweep / name, *spooled]


# ---- one at a time


@contextmanager
def exclusive(settings: Settings, sweep: str, registry: Registry | None = None) -> Iterator[None]:
    """Context in which no other process runs the sweep. Raises `UsageError` when one does, or still delivers it to
    MLflow.
    """
    lock = lock_of(settings, sweep)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        spool = writer.spool_folder(settings, sweep)
        for path, doing in ((lock, "run"), (spool / ".lock", "delivered to MLflow")):
            try:
                # Without a spool nothing is being delivered, and there is no folder for its lock.
                if path is lock or spool.is_dir():
                    stack.enter_context(locked(path, wait=False))
            except BlockingIOError:
                raise UsageError(f"sweep {sweep} is being {doing} by another process; wait, or stop it first") from None
        if registry is not None:
            refuse_supervised(registry, sweep)
        yield


def lock_of(settings: Settings, sweep: str) -> Path:
    """Lock file of a sweep, held by the process that runs it."""
    return settings.home / "locks" / f"{component(sweep, 'sweep')}.lock"
