"""Times the commands that read, in processes of their own, on a registry of 1,000 runs.

python tests/benchmarks/bench_cli.py [--runs 1000] [--repeat 5]

Wall time depends on the machine, so each command is also given as a multiple of starting Python.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert

from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Attempt, Run, ScalarSummary, Score, Trial


def fill(registry: Registry, runs: int, *, seeds: int = 2, scores: int = 30, name: str = "bench") -> str:
    """A sweep of `runs` finished runs with `scores` final scores each, written in bulk."""
    import random
    from datetime import UTC, datetime

    draw = random.Random(0)
    sweep = registry.sweep(name, f"{name}-digest", {}, "score0", "lower")
    trials, rows, attempts, scored, scalars = [], [], [], [], []
    for trial in range(runs // seeds):
        config = {"lr": draw.uniform(1e-4, 1e-3), "loss": draw.choice(["hinge", "nonsaturating"])}
        trials.append(
            {"sweep_id": sweep, "number": trial, "system": "dcgan", "config": config, "params": {}, "state": "FINISHED"}
        )
        for seed in range(seeds):
            run, now = f"{sweep}.{trial}.{seed}", datetime.now(UTC)
            of_run = {"sweep_id": sweep, "trial": trial, "seed": seed, "role": "search"}
            times = {"created_at": now, "finished_at": now, "seconds": 1.5}
            rows.append(of_run | times | {"id": run, "state": "FINISHED"})
            attempts.append(
                {"run_id": run, "number": 1, "state": "FINISHED", "started_at": now, "ended_at": now, "environment": {}}
            )
            for number in range(scores):
                value = draw.lognormvariate(2, 1)
                about = {"checkpoint": "last", "step": 100, "split": "holdout", "n": 5000, "better": "lower"}
                numbers = {"value": value, "low": value * 0.9, "high": value * 1.1, "floor": 0.1}
                named = {"run_id": run, "name": f"score{number}", "signature": f"score{number}|n:5000"}
                scored.append(about | numbers | named)
            scalars.append({"run_id": run, "name": "loss/g", "last": 1.0, "minimum": 0.5, "maximum": 2.0, "step": 100})
    with registry.write() as connection:
        for table, values in ((Trial, trials), (Run, rows), (Attempt, attempts), (Score, scored)):
            connection.execute(insert(table), values)
        connection.execute(insert(ScalarSummary), scalars)
    return sweep


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--runs", type=int, default=1000)
    arguments.add_argument("--repeat", type=int, default=5)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as home:
        with Registry.open(f"sqlite:///{Path(home) / 'registry.db'}") as registry:
            fill(registry, options.runs)
        environment = os.environ | {"AIGC_LAB_HOME": home}
        lab = [sys.executable, "-c", "from aigc_lab.cli import main; main()"]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "import sqlalchemy": [sys.executable, "-c", "import sqlalchemy"],
            "--help": [*lab, "--help"],
            "list systems": [*lab, "list", "systems"],
            "compare": [*lab, "compare"],
            "compare --json": [*lab, "compare", "--json"],
            "runs --json": [*lab, "runs", "--json"],
            "show": [*lab, "show", "bench.0.0"],
        }
        base = 0.0
        print(f"{options.runs} runs of 30 scores; median of {options.repeat}")
        for name, command in commands.items():
            seconds = []
            for _ in range(options.repeat + 1):
                start = time.perf_counter()
                subprocess.run(command, env=environment, check=True, capture_output=True)
                seconds.append(time.perf_counter() - start)
            median = statistics.median(seconds[1:])  # the first fills the file cache
            base = base or median
            print(f"{name:24} {median:6.3f} s   {median / base:6.1f} x python -c pass")


if __name__ == "__main__":
    main()
