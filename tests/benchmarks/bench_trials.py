"""What the platform costs a trial: `uv run python tests/benchmarks/bench_trials.py [--trials 80] [--workers 1 4]`.

A sweep of trials that do practically nothing (one step of a tiny GAN on the ring, 160 samples scored) in an empty home
on SQLite, without pruning, for each number of worker processes. Counted from the first attempt's beginning to the last
one's end: trials per second, and the seconds that a worker spends on a trial beside its training and evaluation. The
reference, timed in the same process tree before and after, is a bare loop that trains and scores the same, with nothing
stored. Seconds of CPU are those of the whole command, with all its processes.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry

LAB = [sys.executable, "-c", "from aigc_lab.cli import main; main()"]
# A user's second start compiles no library.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

# 2,500 samples are 50 of each mode and a bootstrap of 200: work. The fewer are scored, the more is the platform's.
EXPERIMENT = """
data: {name: ring, points: 1000}
system: {name: point_gan, latent_size: 2, hidden: 8, generator_layers: 1, lr: {log: [1e-4, 1e-3]}}
training: {steps: 1, batch_size: 2, log_every: 1, evaluate_every: 1, ema: 0.0, threads: 1}
evaluation: {name: points, samples: 160, metrics: [{modes: {replicates: 20}}]}
objective: {minimize: rkl}
search: {sampler: tpe, pruner: none, trials: TRIALS, seeds: 1}
"""


def lab(home: Path, *words: str) -> None:
    done = subprocess.run(
        [*LAB, *words, "--home", str(home), "--json"], env=ENVIRONMENT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)


def bare(file: Path, home: Path) -> float:
    """Seconds of a trial's training and scoring alone, warm; run in a process of its own, as a trial is."""
    done = subprocess.run([sys.executable, __file__, "--bare", str(file), str(home)], capture_output=True, check=True)
    return float(done.stdout)


def loop(file: Path, home: Path) -> None:
    """The bare loop of `bare`: build, train, sample, score on both splits, 20 times."""
    from aigc_lab.data.shared.batches import Batches
    from aigc_lab.experiment import experiment
    from aigc_lab.host import environment
    from aigc_lab.host.weights import WeightsPolicy
    from aigc_lab.scoring.evaluator import SCORING_SPLITS, Evaluator
    from aigc_lab.scoring.feature_store import FeatureStore
    from aigc_lab.training.loop import train_one
    from aigc_lab.training.state import TrainingState

    environment.settle(1)
    read = experiment.load_experiment(file, [], data_dir=home)
    plan = read.resolve(lambda hole: hole.ends()[0])
    features = FeatureStore(plan.dataset, cache=home, weights=WeightsPolicy(), device="cpu", say=lambda text: None)
    evaluator = Evaluator(read.protocol, read.metrics, plan.dataset, features)
    evaluator.prepare()
    seconds, batch = [], plan.training.batch_size
    for seed in range(20):
        begun = time.perf_counter()
        state = TrainingState.fresh(
            plan.system_class, plan.system_config, plan.dataset.shape, seed=seed, batch_size=batch, device="cpu"
        )
        batches = Batches(plan.dataset.load("train"), batch, seed)
        for _ in train_one(state, batches, seed=seed, steps=plan.training.steps, every=1, precision="fp32"):
            pass
        for split in SCORING_SPLITS:
            evaluator.evaluate(state.average.generate(read.protocol.samples, seed, "evaluation", split), split)
        seconds.append(time.perf_counter() - begun)
    print(statistics.median(seconds[5:]))


def measured(file: Path, workers: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        home, begun = Path(folder), time.perf_counter()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        lab(home, "sweep", str(file), "--workers", str(workers))
        whole, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        with Registry.open(f"sqlite:///{home / 'registry.db'}", home=home) as registry:
            shown = [show_run(registry, run["run"]) for run in list_runs(registry)]
    attempts = [run["attempts"][-1] for run in shown]
    starts, ends = (
        [datetime.fromisoformat(one[key]).timestamp() for one in attempts] for key in ("started_at", "ended_at")
    )
    work = [run["scalars"]["time/training_seconds"] + run["scalars"]["time/evaluation_seconds"] for run in shown]
    span = max(ends) - min(starts)
    return {
        "per_second": len(shown) / span,
        "trial": workers * span / len(shown),
        "work": statistics.mean(work),
        "overhead": workers * span / len(shown) - statistics.mean(work),
        "cpu": after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime,
        "whole": whole,
    }


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--trials", type=int, default=80)
    arguments.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    arguments.add_argument("--bare", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.bare:
        return loop(*options.bare)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "noop.yaml"
        file.write_text(EXPERIMENT.replace("TRIALS", str(options.trials)))
        print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {options.trials} trials")
        before = bare(file, Path(folder))
        for workers in options.workers:
            found = measured(file, workers)
            print(
                f"{workers} workers: {found['per_second']:6.2f} trials/s; a trial {found['trial']:.3f} s of a worker, "
                f"training and evaluation {found['work']:.3f} s of them, overhead {found['overhead']:.3f} s; "
                f"{found['trial'] / before:.1f} × the bare loop; whole command {found['whole']:.1f} s, "
                f"CPU {found['cpu']:.1f} s",
                flush=True,
            )
        print(f"bare loop: {before * 1000:.1f} ms before, {bare(file, Path(folder)) * 1000:.1f} ms after")
    return None


if __name__ == "__main__":
    main()
