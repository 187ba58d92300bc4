"""What a run logs at an interval, written to its spool with a delivery to the disk, beside the interval's training."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from aigc_lab.benchmarks.base import Benchmark, Case, Setting, Size, Unmeasured
from aigc_lab.benchmarks.shared import trainings
from aigc_lab.tracking.spool import SpoolTracker
from aigc_lab.training.state import Progress, Replica

_STEPS: Mapping[Size, int] = {"full": 50, "quick": 10, "tiny": 1}
_ROUNDS: Mapping[Size, int] = {"full": 7, "quick": 3, "tiny": 2}
_EXPERIMENT, _SYSTEM = "digits-8x8", "dcgan"


class Logging(Benchmark):
    """By the clock, since a disk is waited for. Only a part of the interval is trained, and scaled up."""

    seconds: ClassVar[Mapping[Size, float]] = {"full": 15, "quick": 4, "tiny": 1}

    def cases(self, setting: Setting) -> Iterator[Case | Unmeasured]:
        plan, steps = trainings.plan_of(_EXPERIMENT, _SYSTEM, setting.data_dir), _STEPS[setting.size]
        newest: list[Progress] = []
        training = trainings.segments(
            [Replica(trainings.state_of(plan, setting.device), trainings.batches_of(plan, setting.device), 0)],
            steps,
            decay=plan.training.ema,
            precision="fp32",
            told=lambda progress: newest.__setitem__(slice(None), [progress]),
        )
        training()  # there is something to log
        run = SpoolTracker(setting.folder / "spool").start("bench", "bench", "bench", {}, {})
        step = 0

        def log() -> None:
            nonlocal step
            step += 1
            now = newest[0]
            run.scalars(step, dict(now.scalars) | {"dynamics/samples_per_second": now.samples_per_second})
            run.flush()

        yield Case(
            f"{_SYSTEM} on {_EXPERIMENT}, {len(newest[0].scalars) + 1} scalars",
            f"{plan.training.log_every} steps",
            run=log,
            beside=training,
            units=1,
            units_beside=steps / plan.training.log_every,
            unit="intervals",
            rounds=_ROUNDS[setting.size],
            says="cost",
            clock="wall",
        )
