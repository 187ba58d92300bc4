"""Finding the sweep or the run that a user means."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from sqlalchemy import ColumnElement, Connection, func, select

from aigc_lab.errors import UsageError
from aigc_lab.host.content import unknown_name
from aigc_lab.registry.columns import BATCH
from aigc_lab.registry.database import repeated
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Run, Sweep


@repeated
def find_sweep(registry: Registry, id_or_name: str) -> str:
    """The id of the sweep with this id, else of the newest sweep of this name. Raises `UsageError` with the nearest."""
    with registry.read() as connection:
        return sweep_id(connection, id_or_name)


def sweep_id(connection: Connection, id_or_name: str) -> str:
    """`find_sweep`, within a transaction."""
    exact = connection.scalar(select(Sweep.c.id).where(Sweep.c.id == id_or_name))
    if exact is not None:
        return str(exact)
    newest = connection.scalar(
        select(Sweep.c.id).where(Sweep.c.name == id_or_name).order_by(Sweep.c.created_at.desc(), Sweep.c.id).limit(1)
    )
    if newest is not None:
        return str(newest)
    names = list(connection.scalars(select(Sweep.c.name).distinct()))
    if not names:
        raise UsageError(f"unknown sweep '{id_or_name}'; the registry is empty, run a sweep first")
    near = get_close_matches(id_or_name, list(connection.scalars(select(Sweep.c.id))), n=3, cutoff=0.8)
    raise UsageError(unknown_name("sweep", id_or_name, near or names))


def sweep_ids(connection: Connection, sweep: str | Sequence[str] | None) -> list[str] | None:
    """The ids of the sweeps that are meant, each once; None, which means all, for no name."""
    names = [sweep] if isinstance(sweep, str) else list(sweep or ())
    return list(dict.fromkeys(sweep_id(connection, name) for name in names)) or None


def of_sweep(connection: Connection, sweep: str | None) -> ColumnElement[bool]:
    """The condition that a row is of the sweep that is meant; true of any row where `sweep` is None."""
    return Sweep.c.id.is_not(None) if sweep is None else Sweep.c.id == sweep_id(connection, sweep)


@repeated
def find_run(registry: Registry, id_or_name: str) -> str:
    """The id of the run with this id; `<name>.<trial>.<seed>` means the newest sweep of that name. Raises `UsageError`
    with the nearest.
    """
    with registry.read() as connection:
        return run_id(connection, id_or_name)


def run_id(connection: Connection, id_or_name: str) -> str:
    """`find_run`, within a transaction."""
    if connection.scalar(select(Run.c.id).where(Run.c.id == id_or_name)) is not None:
        return id_or_name
    if (
        connection.scalar(select(Sweep.c.id).where((Sweep.c.id == id_or_name) | (Sweep.c.name == id_or_name)))
        is not None
    ):
        raise UsageError(f"{id_or_name} is a sweep, not a run; 'aigc-lab runs {id_or_name}' lists its runs")
    name, *rest = id_or_name.rsplit(".", 2)  # the name of a sweep may hold dots
    sweep = sweep_id(connection, name)
    run = ".".join([sweep, *rest])
    if connection.scalar(select(Run.c.id).where(Run.c.id == run)) is not None:
        return run
    # The likely ones, not all: comparing texts takes its time. A trial's seeds first.
    trial = int(rest[0]) if len(rest) == 2 and re.fullmatch(r"[0-9]{1,9}", rest[0]) else 0
    runs = select(Run.c.id).where(Run.c.sweep_id == sweep)
    likely = connection.scalars(runs.order_by(Run.c.trial != trial, Run.c.trial, Run.c.seed).limit(BATCH))
    near = get_close_matches(run, list(likely), n=3, cutoff=0.8)
    count = connection.scalar(select(func.count()).select_from(runs.subquery()))
    hint = f"did you mean {' or '.join(near)}?" if near else f"'aigc-lab runs {sweep}' lists its {count} runs"
    raise UsageError(f"unknown run '{id_or_name}'; {hint}")
