"""The registry: the life of every run, its scores and its files, in SQLite or PostgreSQL.

Plain types: `states.py`, `records.py`, `run_lifecycle.py`, `marks.py`. The schema: `tables.py`. Opening: `home.py`,
`engine.py`, `database.py`. Writing: `store.py` with `attempts.py`, `promotions.py`, `supervisors.py`; `homes.py`.
Reading: `find.py`, `sweeps.py`, `runs.py`, `verdicts.py`, `models.py`, `comparison.py` with `ranking.py`,
`liveness.py`, `audit.py`.
"""
