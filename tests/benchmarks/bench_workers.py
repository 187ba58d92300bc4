"""What a second worker gains: `uv run python tests/benchmarks/bench_workers.py`.

Runs the same sweep (one thread a run, no pruning) with one worker and with two, each in an empty home, and prints
trials per second while runs go on: from the first attempt's beginning to the last one's end. Starting processes is not
in it, and is printed beside it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

LAB = [sys.executable, "-c", "from aigc_lab.cli import main; main()"]
TRIALS, STEPS = 8, 2000


def lab(home: Path, *words: str) -> Any:
    done = subprocess.run([*LAB, *words, "--home", str(home), "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def measured(workers: int) -> tuple[float, float]:
    """Trials per second while they run, and seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        home, begun = Path(folder), time.perf_counter()
        options = ["--trials", str(TRIALS), "--steps", str(STEPS), "--workers", str(workers), "--set", "confirm=null"]
        lab(home, "sweep", "ring", *options)
        whole = time.perf_counter() - begun
        attempts = [lab(home, "show", run["run"])["attempts"][-1] for run in lab(home, "runs")]
    starts, ends = (
        [datetime.fromisoformat(attempt[key]) for attempt in attempts] for key in ("started_at", "ended_at")
    )
    return TRIALS / (max(ends) - min(starts)).total_seconds(), whole


def main() -> None:
    one, whole_one = measured(1)
    two, whole_two = measured(2)
    print(f"{os.cpu_count()} CPUs, {TRIALS} trials of ring, {STEPS} steps")
    print(f"one worker   {one:.3f} trials/s   whole command {whole_one:.1f} s")
    print(f"two workers  {two:.3f} trials/s   whole command {whole_two:.1f} s")
    print(f"ratio        {two / one:.2f}")


if __name__ == "__main__":
    main()
