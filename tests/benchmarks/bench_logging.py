"""What a run's logging costs: `uv run python tests/benchmarks/bench_logging.py`.

dcgan on digits is trained as its experiment says, and what it logs at every interval is written to a spool, each
interval with a delivery to the disk (in a sweep that is once an evaluation, or every 15 seconds). Both are timed in one
process, and what counts is their ratio.
"""

import statistics
import tempfile
import time
from pathlib import Path

from bench_train import prepare

from aigc_lab.experiment import experiment
from aigc_lab.tracking.spool import SpoolTracker
from aigc_lab.training.loop import train_one

INTERVALS = 5


def main() -> None:
    every = experiment.load_experiment("digits-8x8", [], data_dir=Path("data")).file.training.log_every
    fresh, batches, decay = prepare("digits-8x8", "dcgan")
    training: list[float] = []
    logging: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        run = SpoolTracker(Path(folder)).start("bench", "bench", "bench", {}, {})
        for now in train_one(
            fresh(), batches, seed=0, steps=INTERVALS * every, every=every, decay=decay, precision="fp32"
        ):
            begun = time.perf_counter()
            run.scalars(now.step, dict(now.scalars) | {"dynamics/samples_per_second": now.samples_per_second})
            run.flush()
            logging.append(time.perf_counter() - begun)
            training.append(now.seconds)
    step, logged = statistics.median(training[1:]), statistics.median(logging[1:])
    print(f"{every} steps {step * 1000:.1f} ms, {len(now.scalars) + 1} scalars and a flush {logged * 1000:.3f} ms:")
    print(f"logging takes {logged / step:.3%} of the time of training")


if __name__ == "__main__":
    main()
