"""What is trained to be timed: the systems of shipped experiments, as their files say, in segments of so many steps."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aigc_lab.data.shared.batches import Batches
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.training.loop import Courses, train
from aigc_lab.training.plain import Plain
from aigc_lab.training.state import MatmulPrecision, Precision, Progress, Replica, Round, TrainingState

# No training that is timed reaches it.
_ENDLESS = 1 << 40


def plan_of(experiment: str, system: str, data_dir: Path, **training: object) -> Configuration:
    """A system of a shipped experiment at its paper's defaults; `training` changes keys of that section."""
    keys = [(f"training.{key}", str(value), "bench") for key, value in training.items()]
    loaded = load_experiment(experiment, [("system", system, "bench"), *keys], data_dir=data_dir)
    return loaded.resolve(lambda hole: loaded.defaults(system).get(hole.name, hole.ends()[0]))


def state_of(plan: Configuration, device: str, *, seed: int = 0, config: Any = None) -> TrainingState:
    """A fresh state of a plan; `config` takes the place of the system's."""
    return TrainingState.fresh(
        plan.system_class,
        plan.system_config if config is None else config,
        plan.dataset.shape,
        seed=seed,
        batch_size=plan.training.batch_size,
        device=device,
        averaged=plan.training.ema > 0,
    )


def batches_of(plan: Configuration, device: str, seed: int = 0) -> Batches:
    return Batches(plan.dataset.load("train").to(device), plan.training.batch_size, seed)


def segments(
    replicas: Sequence[Replica],
    steps: int,
    *,
    decay: float,
    precision: Precision = "fp32",
    matmul_precision: MatmulPrecision = "highest",
    course: Courses = Plain,
    every: int | None = None,
    told: Callable[[Progress], object] = lambda progress: None,
) -> Callable[[], None]:
    """A call that trains all replicas for so many steps more. `told` hears of each replica's progress.

    It is one training that goes on from call to call: what begins it, such as stacking, is paid in the first. Scalars
    are collected `every` so many steps, wherever a segment ends; by default where it ends.
    """
    how: dict[str, Any] = {
        "decay": decay,
        "precision": precision,
        "matmul_precision": matmul_precision,
        "course": course,
    }
    state, end = replicas[0].state, 0

    def hear(ended: Round) -> None:
        for _, progress in ended:
            if not isinstance(progress, Progress):
                raise progress
            told(progress)

    rounds = train(replicas, steps=_ENDLESS, every=every or steps, paused=lambda: state.step >= end, **how)

    def segment() -> None:
        nonlocal end
        end = state.step + steps
        while state.step < end:
            hear(next(rounds))

    return segment
