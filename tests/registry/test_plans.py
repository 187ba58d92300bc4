"""What a large registry on PostgreSQL is asked: one sweep's rows are found by indexes, whatever the others have."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from conftest import Postgres
from registries import fill_server
from sqlalchemy import event, text

from aigc_lab.registry import liveness
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.run_queue import Evaluated
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_trials, run_outcomes

# Tables with a row a run, or more.
LARGE = ("run", "trial", "attempt", "score", "verdict", "checkpoint", "queued_run", "evaluation")


class World(NamedTuple):
    registry: Registry
    sweep: str


@pytest.fixture(scope="module")
def world(server: Postgres) -> Iterator[World]:
    """Two hundred sweeps of a hundred runs: a plan that reads a whole table would read two hundred times as much, and
    the server knows it.
    """
    with Registry.open(server.database()) as registry:
        yield World(registry, fill_server(registry, 200, 20_000, 2)[70])


@contextmanager
def statements(registry: Registry) -> Iterator[list[tuple[str, Any]]]:
    """What the server is asked within."""
    asked = list[tuple[str, Any]]()

    def hear(_: Any, __: Any, statement: str, parameters: Any, ___: Any, ____: Any) -> None:
        asked.append((statement, parameters))

    event.listen(registry._engine, "before_cursor_execute", hear)
    try:
        yield asked
    finally:
        event.remove(registry._engine, "before_cursor_execute", hear)


def whole_tables(registry: Registry, asked: list[tuple[str, Any]]) -> list[str]:
    """The large tables that these statements read from end to end, as the server plans them, and by which."""
    found = []
    with registry._engine.connect() as connection:
        connection.execute(text("SET random_page_cost = 1.1"))  # as on a disk without a moving head, or in memory
        for statement, parameters in asked:
            if not re.match(r"\s*(SELECT|UPDATE|DELETE|WITH)\b", statement):
                continue
            rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()
            read = re.findall(r"Seq Scan on (\w+)", "\n".join(rows))
            found += [f"{table}: {statement}" for table in read if table in LARGE]
        connection.rollback()
    return found


READS: dict[str, Callable[[World], object]] = {
    "compare": lambda world: compare_trials(world.registry, world.sweep, most=20),
    "compare all of it": lambda world: compare_trials(world.registry, world.sweep),
    "runs": lambda world: list_runs(world.registry, world.sweep),
    "show": lambda world: show_run(world.registry, f"{world.sweep}.3.0"),
    "outcomes": lambda world: run_outcomes(world.registry, world.sweep),
    "trials": lambda world: list_trials(world.registry, world.sweep),
    "running": lambda world: liveness.running(world.registry, world.sweep),
    "news": lambda world: world.registry.news(world.sweep, [f"{world.sweep}.3.0", f"{world.sweep}.4.0"]),
    "waiting": lambda world: world.registry.waiting(world.sweep),
    "answered": lambda world: world.registry.answered(f"{world.sweep}.3.0", 50),
}


@pytest.mark.parametrize("name", READS)
def test_what_is_read_of_a_sweep_is_found_by_indexes(world: World, name: str) -> None:
    with statements(world.registry) as asked:
        READS[name](world)
    assert asked and not whole_tables(world.registry, asked)


def test_a_run_is_done_by_indexes(world: World) -> None:
    registry, run = world.registry, f"{world.sweep}.49.1"
    with statements(registry) as asked:
        worker = registry.join(world.sweep, "cpu")
        registry.offer(run)
        claimed = registry.claim(world.sweep, worker)
        assert claimed is not None and claimed.run == run
        attempt = registry.begin(run, {}, claim=claimed.claim)
        registry.beat(run, attempt, step=1)
        registry.evaluated(world.sweep, Evaluated(run, 60, 1.0, 0.1, None))
        registry.answer(run, 60, stop=False)
        registry.lose(run, "its worker was lost", claim=claimed.claim)
        registry.withdraw(world.sweep)
        registry.leave(worker)
    assert len(asked) > 20 and not whole_tables(registry, asked)


def test_a_missing_index_is_seen(world: World) -> None:
    with world.registry.read() as connection, statements(world.registry) as asked:
        connection.execute(text("SELECT count(*) FROM run WHERE reason = 'none'"))
    assert whole_tables(world.registry, asked)
