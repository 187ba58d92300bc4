"""What two processes gain for one run: `uv run python tests/benchmarks/bench_parallel.py`.

One run with a joined batch, by one process and by two, in turns, one thread each; milliseconds by the clock per step.
Two is the most that two processes can gain. What is lost to it: both draw all the noise and make the same update, and
every phase exchanges its gradients and each batch normalisation its moments.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from aigc_lab.data.shared.batches import Batches
from aigc_lab.experiment import experiment
from aigc_lab.training import process_group
from aigc_lab.training.loop import train
from aigc_lab.training.parallel import OnDevices
from aigc_lab.training.plain import Plain
from aigc_lab.training.state import Replica, TrainingState

STEPS, ROUNDS = 10, 5


def prepare(name: str, system: str, batch_size: int) -> Replica:
    loaded = experiment.load_experiment(name, [("system", system, "bench")], data_dir=Path("data"))
    plan = loaded.resolve(lambda hole: loaded.defaults(system).get(hole.name, hole.ends()[0]))
    state = TrainingState.fresh(
        plan.system_class, plan.system_config, plan.dataset.shape, seed=0, batch_size=batch_size, device="cpu"
    )
    return Replica(state, Batches(plan.dataset.load("train"), batch_size, 0), 0)


def timed(replica: Replica, course: Any) -> float:
    """Milliseconds of a step by the clock, after one that warms up and is checked."""
    first = replica.state.step
    options = {"every": 1, "decay": 0.99, "precision": "fp32", "course": course}
    started, seconds = 0.0, 0.0
    for _ in train([replica], steps=first + 1 + STEPS, **options):
        if replica.state.step == first + 1:
            started = time.perf_counter()
        seconds = time.perf_counter() - started
    return 1000 * seconds / STEPS


def main() -> None:
    torch.set_num_threads(1)
    two = OnDevices(process_group.opened(2, "cpu"))
    print(f"{'system':12} {'batch':>6} {'one, ms':>9} {'two, ms':>9} {'gain':>6}")
    for name, system, batch_size in (
        ("digits-8x8", "dcgan", 64),
        ("digits-8x8", "dcgan", 256),
        ("digits-8x8", "vae", 256),
        ("ring", "point_gan", 256),
    ):
        replica = prepare(name, system, batch_size)
        times = [(timed(replica, Plain), timed(replica, two)) for _ in range(ROUNDS)]
        one, both = (statistics.median(each) for each in zip(*times, strict=True))
        print(f"{system:12} {batch_size:6} {one:9.2f} {both:9.2f} {one / both:6.2f}", flush=True)


if __name__ == "__main__":
    main()
