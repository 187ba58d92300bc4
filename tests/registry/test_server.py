"""A PostgreSQL server that many share: few connections, one clock, and one clear line where it cannot be used."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from conftest import Postgres
from registries import a_run
from shell import command
from sqlalchemy import text, update

from aigc_lab.errors import UsageError
from aigc_lab.host import signals
from aigc_lab.host.processes import Process
from aigc_lab.registry import engine, liveness, statements
from aigc_lab.registry.engine import CONNECTIONS
from aigc_lab.registry.run_lifecycle import LEASE, Outdated
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Supervisor
from aigc_lab.sweeps import supervision


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    with Registry.open(url) as opened:
        yield opened


def connections(url: str) -> int:
    """How many clients this server has in the database at an address: its own vacuum comes by once a minute."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
    name = url.partition("@/")[2].partition("?")[0]
    with psycopg.connect(url.replace("+psycopg", "").replace(f"/{name}?", "/postgres?")) as connection:
        row = connection.execute(query, [name]).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("most", [1, CONNECTIONS])
def test_threads_share_few_connections(url: str, most: int) -> None:
    """A worker has three threads, the process of a sweep with 64 workers has 64: the server has a hundred for all."""
    seen = list[int]()
    with Registry.open(url, connections=most) as registry:
        run = a_run(registry)

        def work() -> None:
            for _ in range(3):
                registry.offer(run)
                registry.waiting("digits-01234567")

        threads = [threading.Thread(target=work) for _ in range(64)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            seen.append(connections(url))
        for thread in threads:
            thread.join()
    assert 1 <= max(seen) <= most


# ---- clocks


def test_a_clock_that_is_an_hour_off_makes_nobody_lost(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life are of the server's clock, whatever the machine of a worker says."""
    run = a_run(registry)
    (sweep,) = (row["sweep"] for row in [liveness.ended(registry, run) or {}])
    elsewhere = Process("elsewhere", "boot", 1, "1")
    right = statements.now
    for hours in (1, -1):
        with monkeypatch.context() as patch:
            patch.setattr(statements, "now", lambda hours=hours: right() + timedelta(hours=hours))
            patch.setattr("time.time", lambda: 0.0)
            patch.setattr(Process, "this", lambda: elsewhere)
            worker = registry.join(sweep, "cpu")
            registry.offer(run)
            claimed = registry.claim(sweep, worker)
            assert claimed is not None
            attempt = registry.begin(run, {}, claim=claimed.claim)
            registry.beat_worker(worker)
            registry.beat(run, attempt, step=1)
            assert registry.supervise(sweep)
        found = [
            *liveness.workers(registry, sweep),
            *liveness.running(registry, sweep),
            *liveness.supervisors(registry),
        ]
        assert len(found) == 3
        for row in found:
            assert row["alive"] and abs(row["age"]) < LEASE / 2
        registry.leave(worker)
        registry.lose(run, "it was lost", claim=claimed.claim)
        registry.release(sweep, elsewhere)


# ---- servers that cannot be used


def test_a_newer_schema_is_refused_in_one_line(
    url: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIGC_LAB_REGISTRY_URL", url)
    monkeypatch.setenv("AIGC_LAB_HOME", str(tmp_path))
    a_run(registry)
    with registry.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for words in (["compare"], ["worker", "digits"], ["status"]):
        told = command(*words)
        assert told.code == 2 and "has schema 9999, this version of aigc-lab reads" in told.why
        assert "nothing was changed; upgrade aigc-lab" in told.why


@pytest.mark.parametrize("words", [["worker", "digits"], ["compare"], ["status"]])
def test_a_server_that_is_not_there_is_one_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIGC_LAB_REGISTRY_URL", f"postgresql+psycopg://me:secret@/lab?host={tmp_path}")
    monkeypatch.setenv("AIGC_LAB_HOME", str(tmp_path / "home"))
    told = command(*words)
    assert told.code == 2 and "cannot be reached (" in told.why and "secret" not in told.errors
    assert told.why.endswith("check AIGC_LAB_REGISTRY_URL and that the server runs")


# ---- two supervisors


def test_who_was_taken_for_lost_stops_and_says_so(registry: Registry) -> None:
    run = a_run(registry)
    sweep = "digits-01234567"
    registry.offer(run)
    other = Process("elsewhere", "boot", 1, "1")

    def run_it() -> None:
        with supervision.supervised(registry, sweep):
            with registry.write() as connection:
                columns = {"host": other.host, "boot": other.boot, "pid": 1, "process_started": "1"}
                connection.execute(update(Supervisor).values(columns))
            threading.Event().wait(20)

    with signals.handled(exits=False), pytest.raises(Outdated, match="was taken for lost; another may run the sweep"):
        run_it()
    (row,) = liveness.supervisors(registry)
    assert row["process"] == other, "the one who runs it now has lost it"
    assert registry.waiting(sweep) == 1
    with pytest.raises(UsageError, match="is being run by process 1 on elsewhere"):
        supervision.supervised(registry, sweep).__enter__()


def test_a_connection_that_has_rested_is_tried_before_it_is_used(
    registry: Registry, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of what is repeated: the server has been restarted meanwhile, and is there."""
    monkeypatch.setattr(engine, "_REST", 0.0)
    with registry.read() as connection:
        connection.scalar(text("SELECT 1"))
    postgres.stop()
    postgres.start()
    with registry.read() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
