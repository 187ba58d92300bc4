"""The migrations yield exactly the tables of `tables.py`, and its constant names the last of them."""

from pathlib import Path
from unittest import mock

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.command import upgrade
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from aigc_lab.registry import migrations
from aigc_lab.registry.engine import open_engine
from aigc_lab.registry.models import list_models
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_sweeps
from aigc_lab.registry.tables import METADATA, SCHEMA

pytestmark = pytest.mark.usefixtures("migrated")


def test_schema_is_the_newest_migration() -> None:
    folder = Path(migrations.__file__).parent
    assert ScriptDirectory(str(folder)).get_current_head() == SCHEMA


def test_the_migrations_yield_exactly_the_tables(tmp_path: Path) -> None:
    with Registry.open(f"sqlite:///{tmp_path / 'a.db'}") as registry, registry.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA) == []


def test_the_comparison_sees_a_difference(tmp_path: Path) -> None:
    """A test of the test above: without this an empty difference could mean that nothing was compared."""
    with Registry.open(f"sqlite:///{tmp_path / 'a.db'}") as registry, registry.write() as connection:
        connection.exec_driver_sql("ALTER TABLE score DROP COLUMN floor")
        connection.exec_driver_sql("DROP INDEX ix_score_checkpoint_name_run_id")
        found = compare_metadata(MigrationContext.configure(connection), METADATA)
        assert {entry[0] for entry in found} == {"add_column", "add_index"}


def test_keys_and_cascades_are_those_of_the_tables(tmp_path: Path) -> None:
    """SQLite's half of what autogenerate does not compare: primary keys and ON DELETE."""
    with Registry.open(f"sqlite:///{tmp_path / 'a.db'}") as registry, registry.read() as connection:
        for table in METADATA.sorted_tables:
            columns = connection.exec_driver_sql(f"PRAGMA table_info({table.name})").mappings().all()
            key = [row["name"] for row in sorted(columns, key=lambda row: row["pk"]) if row["pk"]]
            assert key == [column.name for column in table.primary_key.columns]
            rules = connection.exec_driver_sql(f"PRAGMA foreign_key_list({table.name})").mappings().all()
            declared = {key.referred_table.name: key.ondelete or "NO ACTION" for key in table.foreign_key_constraints}
            assert {row["table"]: row["on_delete"] for row in rules} == declared


def test_a_registry_of_the_first_schema_keeps_its_rows(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with mock.patch.object(command, "upgrade", lambda config, head: upgrade(config, "0001")):
        engine = open_engine(url, create=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO sweep VALUES ('a-1', 'a', '1', '{}', 'fd', 'lower', '2026-01-01', '')")
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "0001"
    with Registry.open(url, create=False) as registry, registry.read() as connection:
        assert [row["sweep"] for row in list_sweeps(registry)] == ["a-1"]
        assert list_models(registry) == []
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == SCHEMA
