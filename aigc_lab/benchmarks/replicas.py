"""Replicas stacked as one program beside the same replicas one after another, at widths 1 to 64."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from aigc_lab.benchmarks.base import Benchmark, Case, Setting, Size, Unmeasured
from aigc_lab.benchmarks.shared import trainings
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.host import capacity
from aigc_lab.training.captured import SETTLED
from aigc_lab.training.plain import Plain
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Replica, TrainingState

_BATCH = 64
_WIDTHS: Mapping[Size, Mapping[str, Sequence[int]]] = {
    "full": {"point_gan": (1, 2, 4, 8, 16, 32, 64), "dcgan": (16,)},
    "quick": {"point_gan": (1, 4, 16)},
    "tiny": {"point_gan": (2,)},
}
_EXPERIMENTS = {"point_gan": "ring", "dcgan": "digits-8x8"}
# Steps of one replica in a call, of all together; more than after which it is settled how they are computed.
_TOGETHER: Mapping[Size, int] = {"full": 512, "quick": 128, "tiny": 2}
_FEWEST: Mapping[Size, int] = {"full": SETTLED + 1, "quick": SETTLED + 1, "tiny": 2}
_ROUNDS: Mapping[Size, int] = {"full": 5, "quick": 3, "tiny": 2}
# Copies of a replica's weights at most: its own, its average's, its optimiser's two, gradients, stacked and not.
_COPIES = 12


class Replicas(Benchmark):
    """Each replica has a learning rate of its own. Stacked convolutions are grouped ones, so that on a processor a gain
    is not a matter of course.
    """

    seconds: ClassVar[Mapping[Size, float]] = {"full": 85, "quick": 10, "tiny": 2}

    def cases(self, setting: Setting) -> Iterator[Case | Unmeasured]:
        for system, widths in _WIDTHS[setting.size].items():
            plan = trainings.plan_of(_EXPERIMENTS[system], system, setting.data_dir, batch_size=_BATCH)
            for width in widths:
                name = f"{system}, {width} replica{'s' * (width > 1)}"
                if (reason := _too_large(plan, setting.device, width)) is not None:
                    yield Unmeasured(name, reason)
                    continue
                steps = max(_TOGETHER[setting.size] // width, _FEWEST[setting.size])
                alone, together = (
                    trainings.segments(
                        _replicas(plan, setting.device, width),
                        steps,
                        decay=plan.training.ema,
                        course=course,
                    )
                    for course in (Plain, Stacked)
                )
                yield Case(
                    name,
                    "one after another",
                    run=together,
                    beside=alone,
                    units=steps * width,
                    unit="replica-steps",
                    rounds=_ROUNDS[setting.size],
                )


def _state(plan: Configuration, device: str, seed: int) -> TrainingState:
    config = plan.system_config.model_copy(update={"lr": plan.system_config.lr * (1 + seed / 100)})
    return trainings.state_of(plan, device, seed=seed, config=config)


def _replicas(plan: Configuration, device: str, width: int) -> list[Replica]:
    return [
        Replica(_state(plan, device, seed), trainings.batches_of(plan, device, seed), seed) for seed in range(width)
    ]


def _too_large(plan: Configuration, device: str, width: int) -> str | None:
    """Why so many replicas are not trained here; None where their weights fit."""
    weights = sum(each.numel() * each.element_size() for each in _state(plan, device, 0).system.parameters())
    needed, free = 2 * _COPIES * width * weights, capacity.free_memory(device)
    if needed <= free // 2:
        return None
    return f"about {capacity.format_bytes(needed)} are needed, and {capacity.format_bytes(free)} are free"
