"""How far the trainer is from the bare computation: `uv run python tests/benchmarks/bench_train.py`.

The bare loop does the same step by hand: the same networks, batches, losses and moving average, torch's own fused
Adam, data that lies on the device, noise from one stream, and neither scalars nor gradient norms kept. Both are timed
in turns in one process, and what counts is the ratio. Our Adam leaves out what torch's does around its kernel, so that
100 % is not the limit.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from aigc_lab.benchmarks.shared.bare import bare
from aigc_lab.data.shared.batches import Batches
from aigc_lab.experiment import experiment
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState

SEGMENT, ROUNDS = 100, 7
RACES = [
    *(("digits-8x8", "dcgan"), ("digits-8x8", "vae"), ("ring", "point_gan")),
    *(("pydoc", "lstm_lm"), ("pydoc", "transformer_lm"), ("pydoc", "text_vae")),
]


def prepare(name: str, system: str) -> tuple[Callable[[], TrainingState], Batches, float]:
    loaded = experiment.load_experiment(name, [("system", system, "bench")], data_dir=Path("data"))
    plan = loaded.resolve(lambda hole: loaded.defaults(system).get(hole.name, hole.ends()[0]))
    torch.set_num_threads(plan.training.threads or torch.get_num_threads())

    def fresh() -> TrainingState:
        return TrainingState.fresh(
            plan.system_class,
            plan.system_config,
            plan.dataset.shape,
            seed=0,
            batch_size=plan.training.batch_size,
            device="cpu",
        )

    return fresh, Batches(plan.dataset.load("train"), plan.training.batch_size, 0), plan.training.ema


def ours(state: TrainingState, batches: Batches, decay: float, steps: int = SEGMENT) -> Callable[[], None]:
    def segment() -> None:
        for _ in train_one(
            state, batches, seed=0, steps=state.step + steps, every=steps, decay=decay, precision="fp32"
        ):
            pass

    return segment


def main() -> None:
    print(f"{'system':12} {'bare ms/step':>13} {'ours ms/step':>13} {'of bare speed':>14}")
    for name, system in RACES:
        fresh, batches, decay = prepare(name, system)
        contestants = {"bare": bare(fresh(), batches, decay, SEGMENT), "ours": ours(fresh(), batches, decay)}
        times: dict[str, list[float]] = {key: [] for key in contestants}
        for _ in range(ROUNDS):
            for key, segment in contestants.items():
                started = time.process_time()
                segment()
                times[key].append((time.process_time() - started) / SEGMENT * 1000)
        best = {key: statistics.median(values[1:]) for key, values in times.items()}
        print(f"{system:12} {best['bare']:13.3f} {best['ours']:13.3f} {best['bare'] / best['ours']:13.0%}")


if __name__ == "__main__":
    main()
