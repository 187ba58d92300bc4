"""Times the commands that read, in processes of their own, on a registry of 100,000 runs with 30 scores each.

uv run python tests/benchmarks/bench_scale.py [--sweeps 20] [--runs 100000] [--scores 30] [--repeat 3] [--keep DIR]
uv run python tests/benchmarks/bench_scale.py --postgres --runs 1000000 --sweeps 200 --scores 2

For each command: wall time, time on the CPU (user and system, which other people's work on the machine hardly changes),
and the peak of its memory. `--keep` fills a folder once and reads it again the next time. `--postgres` starts a server
for it, from the package of the tests, and asks about one sweep alone.
"""

import argparse
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_sweeps, list_trials, run_outcomes

LAB = [sys.executable, "-c", "from aigc_lab.cli import main; main()"]

EXPERIMENT = {
    "data": {"name": "digits"},
    "system": {"name": "dcgan", "lr": {"log": [1e-4, 1e-3]}},
    "training": {"steps": 100, "log_every": 50, "evaluate_every": 50},
    "evaluation": "image-small",
    "objective": {"minimize": "score0"},
}

# Runs of two seeds a trial. One in 50 failed, one in 40 diverged, and the last ten of a sweep are under way.
_NUMBERS = "WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n + 1 < :count) "
_STATE = (
    "CASE WHEN n >= :count - 10 THEN 'RUNNING' WHEN n % 50 = 7 THEN 'FAILED' WHEN n % 40 = 9 THEN 'DIVERGED' "
    "ELSE 'FINISHED' END"
)
_TRIALS = (
    _NUMBERS + "INSERT INTO trial SELECT :sweep, n / 2, CASE n % 4 WHEN 0 THEN 'dcgan' ELSE 'vae' END, "
    """json_object('lr', 0.0001 * (1 + n % 97), 'loss', 'hinge'), '{}', 'FINISHED', 10.0 + (n * 7919 % 100003) / 1e3 """
    "FROM i WHERE n % 2 = 0"
)
_RUNS = (
    _NUMBERS + "INSERT INTO run (id, sweep_id, trial, seed, role, state, reason, seconds, created_at, finished_at) "
    f"SELECT :sweep || '.' || (n / 2) || '.' || (n % 2), :sweep, n / 2, n % 2, 'search', {_STATE}, "
    "CASE WHEN n % 50 = 7 THEN 'CUDA out of memory' WHEN n % 40 = 9 THEN 'loss is nan' END, "
    "CASE WHEN n < :count - 10 THEN 1.5 END, datetime('2026-01-01', n || ' seconds') || '.000000', "
    "CASE WHEN n < :count - 10 THEN datetime('2026-01-01', (n + 1) || ' seconds') || '.000000' END FROM i"
)
_ATTEMPTS = (
    "INSERT INTO attempt (run_id, number, state, started_at, ended_at, environment, host, boot, pid, process_started, "
    "heartbeat_at, chain, from_step, step) SELECT id, 1, state, created_at, finished_at, '{}', 'elsewhere', '', 1, '', "
    "created_at, 1, 0, 50 FROM run WHERE sweep_id = :sweep"
)
_SCORES = (
    _NUMBERS
    + "INSERT INTO score (run_id, checkpoint, step, split, name, value, low, high, n, floor, signature, better) "
    "SELECT run.id, 'last', 100, 'holdout', 'score' || n, "
    "v, v * 0.9, v * 1.1, 5000, 0.1, 'score' || n || '|n:5000|features:classifier-9f3a|real:holdout', 'lower' "
    "FROM (SELECT id, 1.0 + (rowid * 7919 % 100003) / 1e3 AS v FROM run WHERE sweep_id = :sweep AND state = 'FINISHED')"
    " AS run, i"
)
_SCALARS = (
    "INSERT INTO scalar_summary SELECT id, 'loss/g', 1.0, 0.5, 2.0, 100 FROM run WHERE sweep_id = :sweep "
    "AND state = 'FINISHED'"
)


def fill(home: Path, sweeps: int, runs: int, scores: int) -> list[str]:
    """So many sweeps with so many runs in all, by SQL alone; their ids, the newest first."""
    path = home / "registry.db"
    with Registry.open(f"sqlite:///{path}") as registry:
        experiment = EXPERIMENT | {"search": {"trials": runs // sweeps // 2, "seeds": 2}}
        made = [registry.sweep(f"bench{i}", f"{i:08}", experiment, "score0", "lower") for i in range(sweeps)]
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA synchronous = OFF")
        (index,) = database.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'ix_score_checkpoint_name_run_id'"
        ).fetchone()
        database.execute("DROP INDEX ix_score_checkpoint_name_run_id")  # made once at the end: a tenth of the time
        for sweep in made:
            of = {"sweep": sweep, "count": runs // sweeps}
            for statement in (_TRIALS, _RUNS, _ATTEMPTS):
                database.execute(statement, of)
            database.execute(_SCORES, of | {"count": scores})
            database.execute(_SCALARS, of)
        database.execute(index)
    return made[::-1]


class Cost(NamedTuple):
    """Seconds on the clock, seconds of CPU, and the peak of memory in MB."""

    wall: float
    cpu: float
    peak: float


def cost(home: Path, words: list[str]) -> Cost:
    """Of one command in a process of its own."""
    begun = time.perf_counter()
    silent = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, silent, 1), (os.POSIX_SPAWN_DUP2, silent, 2)]
    environment = os.environ | {"AIGC_LAB_HOME": str(home)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # every start would compile SQLAlchemy again: a second of CPU
    child = os.posix_spawn(sys.executable, [*LAB, *words], environment, file_actions=actions)
    _, status, used = os.wait4(child, 0)
    os.close(silent)
    if status:
        raise SystemExit(f"{' '.join(words)}: exit status {os.waitstatus_to_exitcode(status)}")
    return Cost(time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def told(name: str, costs: list[Cost]) -> None:
    wall, cpu, peak = (statistics.median(values) for values in zip(*costs, strict=True))
    print(f"{name:28} {wall:6.2f} s   CPU {cpu:6.2f} s   {peak:6.0f} MB", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser()
    for name, default in (("sweeps", 20), ("runs", 100_000), ("scores", 30), ("repeat", 3)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    arguments.add_argument("--keep", type=Path)
    arguments.add_argument("--postgres", action="store_true")
    options = arguments.parse_args()
    if options.postgres:
        return on_server(options)
    with tempfile.TemporaryDirectory() as scratch:
        home: Path = options.keep or Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "registry.db").exists():
            fill(home, options.sweeps, options.runs, options.scores)
        with Registry.open(f"sqlite:///{home / 'registry.db'}") as registry:
            known = list_sweeps(registry)
            begun = time.perf_counter()
            rows = len(run_outcomes(registry, known[0]["sweep"])), len(list_trials(registry, known[0]["sweep"]))
            seconds = time.perf_counter() - begun
        sweep = known[0]["sweep"]
        print(f"{len(known)} sweeps; {(home / 'registry.db').stat().st_size / 1e6:.0f} MB; median of {options.repeat}")
        print(f"at the start of a sweep      {seconds:6.2f} s   ({rows[0]} outcomes and {rows[1]} trials of {sweep})")
        commands = [["--help"]]
        for words in (["compare"], ["compare", sweep], ["runs"], ["runs", sweep], ["status"], ["status", sweep]):
            commands += [words, [*words, "--json"]]
        commands += [["compare", "--where", "lr < 1e-3 and system = dcgan"], ["compare", "--by", "system"]]
        commands += [
            ["compare", "--csv"],
            ["runs", "--state", "FAILED"],
            ["show", f"{sweep}.3.0"],
            ["show", f"{sweep}.3.0", "--json"],
        ]
        for words in commands:
            told(" ".join(words), [cost(home, words) for _ in range(options.repeat)])
    return None


def on_server(options: argparse.Namespace) -> None:
    """The same on PostgreSQL, of one sweep among many."""
    sys.path.append(str(Path(__file__).parents[1]))
    from conftest import Postgres
    from registries import fill_server

    with tempfile.TemporaryDirectory(prefix="lab-") as scratch:
        server = Postgres(Path(scratch) / "pg")
        try:
            url = server.database()
            begun = time.perf_counter()
            with Registry.open(url, home=Path(scratch)) as registry:
                sweep = fill_server(registry, options.sweeps, options.runs, options.scores)[options.sweeps // 3]
            print(f"{options.runs} runs in {options.sweeps} sweeps, filled in {time.perf_counter() - begun:.0f} s")
            os.environ["AIGC_LAB_REGISTRY_URL"] = url
            for words in (["compare", sweep], ["compare", sweep, "--json"], ["runs", sweep], ["status", sweep]):
                told(" ".join(words), [cost(Path(scratch), words) for _ in range(options.repeat)])
        finally:
            server.stop()


if __name__ == "__main__":
    main()
