"""The migrations yield exactly the tables of `tables.py`, and its constant names the last of them."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from aigc_lab.registry import migrations
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import METADATA, SCHEMA


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
            assert {row["on_delete"] for row in rules} <= {"CASCADE"}
            assert len({row["id"] for row in rules}) == len(table.foreign_key_constraints)
