"""Alembic's environment for the registry. New file: `versions/rev_<next>.py`, then raise `tables.SCHEMA`."""
