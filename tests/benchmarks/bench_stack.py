"""What replicas gain as one program: `uv run python tests/benchmarks/bench_stack.py`.

R replicas, each with a learning rate of its own, one after the other and stacked, in turns in one process on one
thread; milliseconds of processor time per step of one replica. Above 1 the stack is faster. On a processor the
arithmetic is the same and stacked convolutions are grouped ones, so that a gain is not a matter of course.
"""

import statistics
import time
from pathlib import Path

import torch

from aigc_lab.data.shared.batches import Batches
from aigc_lab.experiment import experiment
from aigc_lab.training.loop import train
from aigc_lab.training.plain import Plain
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Replica, TrainingState

SEGMENT, ROUNDS = 32, 3


def prepare(name: str, system: str, count: int, batch_size: int = 64) -> list[Replica]:
    changes = [("system", system, "bench"), ("training.batch_size", str(batch_size), "bench")]
    loaded = experiment.load_experiment(name, changes, data_dir=Path("data"))
    plan = loaded.resolve(lambda hole: loaded.defaults(system).get(hole.name, hole.ends()[0]))
    torch.set_num_threads(1)
    samples, size = plan.dataset.load("train"), plan.training.batch_size
    made = []
    for seed in range(count):
        config = plan.system_config.model_copy(update={"lr": plan.system_config.lr * (1 + seed / 10)})
        state = TrainingState.fresh(
            plan.system_class, config, plan.dataset.shape, seed=seed, batch_size=size, device="cpu"
        )
        made.append(Replica(state, Batches(samples, size, seed), seed))
    return made


def main() -> None:
    print(f"{'system':12} {'R':>3} {'in turn, ms':>12} {'stacked, ms':>12} {'gain':>6}")
    for name, system in (("ring", "point_gan"), ("digits-8x8", "vae"), ("digits-8x8", "dcgan")):
        for count in (4, 16):
            runs, steps = prepare(name, system, count), max(3, SEGMENT // count)
            times: dict[str, list[float]] = {"in turn": [], "stacked": []}
            for _ in range(ROUNDS):
                for key, course in (("in turn", Plain), ("stacked", Stacked)):
                    until = runs[0].state.step + steps
                    started = time.process_time()
                    for _ in train(runs, steps=until, every=steps, decay=0.99, precision="fp32", course=course):
                        pass
                    times[key].append((time.process_time() - started) / steps / count * 1000)
            plain, stacked = (statistics.median(times[key]) for key in ("in turn", "stacked"))
            print(f"{system:12} {count:3} {plain:12.3f} {stacked:12.3f} {plain / stacked:6.2f}", flush=True)


if __name__ == "__main__":
    main()
