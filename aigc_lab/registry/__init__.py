"""The registry: the life of every run, its scores and its files, in SQLite or PostgreSQL.

`states.py` and `records.py` are plain types; `tables.py` is the schema, `store.py` writes, `queries.py` reads.
"""
