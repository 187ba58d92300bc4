"""Opening a registry: what is made, what is refused, and what nobody may read in a message."""

import os
import signal
import sqlite3
from pathlib import Path

import pytest
from registries import a_run, start, url_in

from aigc_lab.errors import UsageError
from aigc_lab.registry.store import Registry

pytestmark = pytest.mark.usefixtures("migrated")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(url_in(tmp_path))


def test_a_missing_registry_is_not_created_by_a_reader(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no registry at .*; run a sweep first, or name the home with --home"):
        Registry.open(url_in(tmp_path / "home"), create=False)
    assert not (tmp_path / "home").exists()


def test_the_file_is_in_wal_mode_and_keeps_its_foreign_keys(registry: Registry) -> None:
    with registry.read() as connection:
        names = ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 120000, "synchronous": 1}


@pytest.mark.parametrize("create", [True, False])
def test_a_newer_schema_is_refused_and_left_as_it_was(tmp_path: Path, create: bool) -> None:
    Registry.open(url_in(tmp_path)).close()
    file = tmp_path / "registry.db"
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(UsageError, match="has schema 9999, this version of aigc-lab reads .*upgrade aigc-lab"):
        Registry.open(url_in(tmp_path), create=create)
    assert file.read_bytes() == before


def test_another_programs_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "registry.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE studies (id INTEGER)")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(UsageError, match=r"holds another program's tables \(studies\)"):
        Registry.open(url_in(tmp_path))
    assert file.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "registry.db"
    file.write_text("these are my notes, not a database\n" * 100)
    before = file.read_bytes()
    for create in (True, False):
        with pytest.raises(UsageError, match="is not a database file"):
            Registry.open(url_in(tmp_path), create=create)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////proc/none/registry.db", "cannot be written"),
        ("sqlite:////dev/null/registry.db", "cannot be written"),
        ("sqlite:////", "cannot be opened or written"),
        ("mysql://me:secret@host/db", "it must begin with sqlite:// or postgresql"),
        ("nonsense", "cannot be used"),
        ("postgresql+psycopg://[", "cannot be reached"),
        ("postgresql+pg8000://me:secret@host/db", "cannot be used"),  # a driver that is not installed
    ],
)
def test_a_url_that_cannot_be_opened_is_one_line_without_the_password(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Registry.open(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreachable_server_is_one_line_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(UsageError, match="cannot be reached") as caught:
        Registry.open("postgresql+psycopg://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)


KILLED_WHILE_CREATING = """
    import os, signal, sys
    from alembic import command
    real = command.upgrade
    def dies(*arguments):
        real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    command.upgrade = dies
    from aigc_lab.registry.store import Registry
    Registry.open(sys.argv[1])
"""


def test_a_creation_that_was_killed_is_done_again(tmp_path: Path) -> None:
    process = start(KILLED_WHILE_CREATING, url_in(tmp_path))
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert os.path.exists(tmp_path / "registry.db")
    with pytest.raises(UsageError, match="no registry"):
        Registry.open(url_in(tmp_path), create=False)
    with Registry.open(url_in(tmp_path)) as registry:
        a_run(registry)
