"""What replicas gain as one program: `uv run python tests/benchmarks/bench_stack.py [R …]`, by default 4 and 16.

R replicas, each with a learning rate of its own, one after another (each as fast as one alone) and stacked, in turns in
one process on one thread; milliseconds of processor time per step of one replica, batches of 64. Above 1 the stack is
faster. On a processor the arithmetic is the same and stacked convolutions are grouped ones, so that a gain is not a
matter of course; the last column is the width that `--replicas auto` chooses.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from aigc_lab.data.shared.batches import Batches
from aigc_lab.executors.base import Place
from aigc_lab.experiment import experiment
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.host.allocator import keep_freed_memory
from aigc_lab.sweeps.stacking import measured
from aigc_lab.training.course import Course
from aigc_lab.training.loop import train
from aigc_lab.training.plain import Plain
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Replica, TrainingState

CASES = (("ring", "point_gan"), ("digits-8x8", "vae"), ("digits", "dcgan"))
SECONDS, ROUNDS, BATCH = 0.5, 7, 64


def planned(name: str, system: str) -> Configuration:
    changes = [("system", system, "bench"), ("training.batch_size", str(BATCH), "bench")]
    changes += [("training.channels_last", "false", "bench")]
    loaded = experiment.load_experiment(name, changes, data_dir=Path("data"))
    return loaded.resolve(lambda hole: loaded.defaults(system).get(hole.name, hole.ends()[0]))


def prepare(plan: Configuration, count: int) -> list[Replica]:
    samples = plan.dataset.load("train")
    made = []
    for seed in range(count):
        config = plan.system_config.model_copy(update={"lr": plan.system_config.lr * (1 + seed / 10)})
        state = TrainingState.fresh(
            plan.system_class, config, plan.dataset.shape, seed=seed, batch_size=BATCH, device="cpu"
        )
        made.append(Replica(state, Batches(samples, BATCH, seed), seed))
    return made


def milliseconds(replicas: Sequence[Replica], course: type[Course], steps: int) -> Iterator[float]:
    """Processor time of a step of one replica, of so many steps each time."""
    options: dict[str, Any] = {"decay": 0.99, "precision": "fp32", "course": course}
    loop = train(replicas, steps=10**9, every=steps, **options)
    while True:
        started = time.process_time()
        next(loop)
        yield (time.process_time() - started) / steps / len(replicas) * 1000


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{'system':12} {'R':>3} {'alone, ms':>10} {'stacked, ms':>12} {'gain':>6}  auto")
    for name, system in CASES:
        plan = planned(name, system)
        with tempfile.TemporaryDirectory() as cache:
            auto = measured(plan, Place("cpu", 1), (2, 4, 8, 16), Path(cache)).best
        for count in [int(word) for word in sys.argv[1:]] or [4, 16]:
            steps = max(3, int(SECONDS * 1000 / next(milliseconds(prepare(plan, 1), Plain, 5))))
            one = milliseconds(prepare(plan, 1), Plain, steps)
            all_of_them = milliseconds(prepare(plan, count), Stacked, max(3, steps // count))
            times = [(next(one), next(all_of_them)) for _ in range(ROUNDS + 1)][1:]  # the first warms up
            plain, stacked = (statistics.median(column) for column in zip(*times, strict=True))
            print(f"{system:12} {count:3} {plain:10.3f} {stacked:12.3f} {plain / stacked:6.2f}  {auto}", flush=True)


if __name__ == "__main__":
    main()
