"""Run by Alembic: migrates the connection that the registry hands over, inside the registry's transaction."""

from alembic import context

from aigc_lab.registry.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
