"""The trainer beside the same step written by hand, with torch's own fused Adam and nothing logged."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from aigc_lab.benchmarks.base import Benchmark, Case, Setting, Size, Unmeasured
from aigc_lab.benchmarks.shared import trainings
from aigc_lab.benchmarks.shared.bare import bare
from aigc_lab.training.state import Replica

_RACES = (("digits-8x8", "dcgan"), ("digits-8x8", "vae"), ("ring", "point_gan"))
_STEPS: Mapping[Size, int] = {"full": 50, "quick": 10, "tiny": 1}
_ROUNDS: Mapping[Size, int] = {"full": 7, "quick": 3, "tiny": 2}


class Step(Benchmark):
    """Systems of shipped experiments, at the batch, precision and moving average of their files."""

    seconds: ClassVar[Mapping[Size, float]] = {"full": 80, "quick": 10, "tiny": 2}

    def cases(self, setting: Setting) -> Iterator[Case | Unmeasured]:
        for experiment, system in _RACES:
            plan, steps = trainings.plan_of(experiment, system, setting.data_dir), _STEPS[setting.size]
            batches, decay = trainings.batches_of(plan, setting.device), plan.training.ema
            replica = Replica(trainings.state_of(plan, setting.device), batches, 0)
            yield Case(
                f"{system} on {experiment}",
                "the same step by hand",
                run=trainings.segments([replica], steps, decay=decay, every=plan.training.log_every),
                beside=bare(trainings.state_of(plan, setting.device), batches, decay, steps),
                units=steps * plan.training.batch_size,
                unit="samples",
                rounds=_ROUNDS[setting.size],
            )
