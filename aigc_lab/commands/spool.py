"""`aigc-lab spool`: the records of each sweep that MLflow has not received yet, shown and delivered."""

import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from aigc_lab.display import terminal, wording
from aigc_lab.display.terminal import Text
from aigc_lab.errors import Failure
from aigc_lab.host.settings import Settings
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.home import OpenedHome
from aigc_lab.registry.store import Registry
from aigc_lab.sweeps import ownership
from aigc_lab.tracking import backlog
from aigc_lab.tracking.backlog import DeliveryStatus
from aigc_lab.tracking.writer import attempt, shipping, spool_folder

Row = dict[str, Any]

_OWN_WRITER = "it is being delivered by another process: the writer of a sweep that is run, or this command"


def spool_rows(sweep: str | None, settings: Settings) -> list[Row]:
    """One row for each sweep with undelivered records, or one for the sweep that is named (its id, or its name for the
    newest). Raises `UsageError` for an unknown sweep.
    """
    with OpenedHome(settings) as opened:
        return _rows(_sweeps(sweep, opened), settings, every=sweep is not None)


def flush_spools(sweep: str | None, settings: Settings) -> list[Row]:
    """Delivers what MLflow lacks, with progress on standard error; returns the rows of `spool_rows` afterwards."""
    with OpenedHome(settings) as opened:
        sweeps = _sweeps(sweep, opened)
        waits = [row["sweep"] for row in _rows(sweeps, settings) if row["records"]]
        opened.create = True  # the records are delivered even where the registry is lost
        for each in waits:
            ownership.refuse(opened.registry, settings, each)
        reasons = {each: _deliver(each, settings, opened.registry) for each in waits}
    rows = _rows(reasons, settings, every=True) or _rows(sweeps, settings, every=sweep is not None)
    return [row | {"error": reasons.get(row["sweep"]) or row["error"]} for row in rows]


def require_delivered(rows: Sequence[Row]) -> None:
    """Raises `Failure` when records remain undelivered after `flush_spools`."""
    left = [row for row in rows if row["records"]]
    if left:
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        raise Failure(f"{left[0]['sweep']}{more}: {left[0]['records']} records wait on: {left[0]['error']}")


def spool_table(rows: Sequence[Row]) -> RenderableType:
    """One line a sweep, and below it what went wrong."""
    waits = [row for row in rows if row["records"]]
    if not waits:
        return Text("nothing waits: MLflow has everything")
    table = Table(box=None, pad_edge=False)
    table.add_column("sweep", no_wrap=True, min_width=max(len(row["sweep"]) for row in waits))
    for name in ("runs", "records", "points", "pictures", "size"):
        table.add_column(name, justify="right")
    for name in ("waits for", "all delivered", "why"):
        table.add_column(name, overflow="fold")
    for row in waits:
        counts = (str(row[name]) for name in ("runs", "records", "points", "pictures"))
        why = row["error"] or (_OWN_WRITER if row["writer"] else "nobody has tried; --flush delivers it")
        before = f"{_age(row['delivered_at'])} ago" if row["delivered_at"] else ""
        table.add_row(
            *map(terminal.cell, (row["sweep"], *counts, _size(row["bytes"]), _age(row["since"]), before, why))
        )
    return table


def _rows(sweeps: Iterable[str], settings: Settings, *, every: bool = False) -> list[Row]:
    """The rows of sweeps: of those with undelivered records, or of `every` one."""
    rows = [_row(sweep, settings) for sweep in sweeps]
    return [row for row in rows if row["records"] or every]


def _sweeps(name: str | None, opened: OpenedHome) -> list[str]:
    """The sweeps with a spool on the disk; or the one that is named, which the registry is asked for if it has none."""
    root = opened.settings.home / "spool"
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if name is None or name in names:
        return names if name is None else [name]
    return [find_sweep(opened.registry, name)]


def _row(sweep: str, settings: Settings) -> Row:
    folder = spool_folder(settings, sweep)
    row = {"sweep": sweep} | vars(backlog.sweep_backlog(folder)) | vars(DeliveryStatus.of(folder))
    times = {name: _iso(row[name]) for name in ("since", "delivered_at", "error_at")}
    return row | times | {"writer": backlog.has_writer(folder)}


def _deliver(sweep: str, settings: Settings, registry: Registry) -> str:
    """Delivers for as long as something is taken; returns why the rest is not."""
    folder, left = spool_folder(settings, sweep), -1
    try:
        with _progress(sweep, folder), shipping(settings, sweep, wait=False, registry=registry) as shipper:
            status = backlog.StatusWriter(folder)
            while True:
                waits, reason, _ = attempt(shipper)
                status(reason)
                before, left = left, backlog.sweep_backlog(folder).bytes
                if not waits or left == before:
                    return reason
    except BlockingIOError:
        return _OWN_WRITER


@contextmanager
def _progress(sweep: str, folder: Path) -> Iterator[None]:
    """On a terminal what is left, every second; else a line."""
    done, console = threading.Event(), terminal.console(stderr=True)

    def line() -> str:
        left = backlog.sweep_backlog(folder)
        return f"{sweep}: {left.runs} runs, {left.records} records, {left.pictures} pictures, {_size(left.bytes)} wait"

    if not console.is_terminal:
        print(f"{line()}; delivering", file=sys.stderr)
        yield
        return
    with console.status(Text(line())) as shown:

        def watch() -> None:
            while not done.wait(1.0):
                shown.update(Text(line()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def _iso(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def _age(moment: str) -> str:
    age = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    return wording.duration(max(0.0, age))  # a clock may have been set back


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
