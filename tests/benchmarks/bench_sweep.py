"""Where a sweep's time goes: `uv run python tests/benchmarks/bench_sweep.py`.

Runs a short sweep over digits in an empty home, as a user does, and prints: the time from the command to the first
training (with the classifier to be trained, and with it stored), evaluation as a share of a run, and what the platform
costs between two runs. The reference for the last two is the bare training of the same runs, in the same process.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

LAB = [sys.executable, "-c", "from aigc_lab.cli import main; main()"]


def lab(home: Path, *words: str) -> Any:
    done = subprocess.run([*LAB, *words, "--home", str(home), "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def first_training(home: Path, *words: str) -> tuple[float, list[dict[str, Any]]]:
    """Seconds from the command to the beginning of the first attempt, and what `show` says of all runs since then."""
    known = {run["run"] for run in lab(home, "runs")} if (home / "registry.db").exists() else set()
    begun = time.time()
    lab(home, "sweep", "digits-8x8", *words)
    shown = [lab(home, "show", run["run"]) for run in lab(home, "runs") if run["run"] not in known]
    shown.sort(key=lambda run: run["attempts"][-1]["started_at"])
    return stamp(shown[0]["attempts"][-1]["started_at"]) - begun, shown


def stamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def main() -> None:
    words = [
        "--workers",
        "1",
        "--trials",
        "4",
        "--set",
        "search.pruner=none",
        "--set",
        "confirm.top=1",
        "--set",
        "confirm.seeds=1",
    ]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        cold, runs = first_training(home, *words)
        warm, _ = first_training(home, *words, "--set", "search.seed=1", "--trials", "1")
    training = [run["scalars"]["time/training_seconds"] for run in runs]
    evaluation = [run["scalars"]["time/evaluation_seconds"] for run in runs]
    attempts = [run["attempts"][-1] for run in runs]
    between = [stamp(after["started_at"]) - stamp(before["ended_at"]) for before, after in itertools.pairwise(attempts)]
    inside = [run["seconds"] - a - b for run, a, b in zip(runs, training, evaluation, strict=True)]
    overhead = [gap + rest for gap, rest in zip(between, inside[1:], strict=True)]
    print(f"{os.cpu_count()} CPUs, {len(runs)} runs")
    print(f"to the first training, empty home      {cold:6.1f} s  (the classifier is trained)")
    print(f"to the first training, known home      {warm:6.1f} s")
    print(f"bare training of a run, median         {statistics.median(training):6.1f} s")
    print(f"evaluation and pictures, of training   {sum(evaluation) / sum(training):6.1%}")
    print(
        f"platform between two runs, median      {statistics.median(overhead):6.2f} s  (largest {max(overhead):.2f} s)"
    )
    print(f"platform between two runs, of training {sum(overhead) / sum(training[1:]):6.1%}")


if __name__ == "__main__":
    main()
