"""State of a run between two steps, and its progress at the end of an interval."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from aigc_lab import noise
from aigc_lab.data.shared.batches import Batches
from aigc_lab.systems.base import Phase, System
from aigc_lab.training.averages import average_of
from aigc_lab.training.optimizers import build_optimizer, trained
from aigc_lab.training.recorder import Diverged, Recorder

Precision = Literal["fp32", "bf16"]
#: torch's names for how float32 matrices are multiplied
MatmulPrecision = Literal["highest", "high", "medium"]


@dataclass
class TrainingState:
    """State of a run between two steps: `system`, the moving `average` of the modules it samples with (without one,
    these modules on the system's own weights), optimisers, and the `recorder` with the rows of the current interval.

    Noise and data order are functions of the seed and the step, so this state is enough to continue.
    """

    system: System
    average: System
    batch_size: int
    #: whether the average has memory of its own; if not, it samples with the system's weights
    averaged: bool = True
    phases: list[Phase] = field(init=False)
    optimizers: dict[str, torch.optim.Optimizer] = field(init=False)
    recorder: Recorder = field(init=False)
    step: int = 0

    def __post_init__(self) -> None:
        self.phases = self.system.phases(self.batch_size)
        self.optimizers = {phase.name: build_optimizer(phase.optimizer, trained(phase)) for phase in self.phases}
        self.recorder = Recorder(self.system, self.optimizers)

    @classmethod
    def fresh(
        cls,
        kind: type[System],
        config: Any,
        shape: Any,
        *,
        seed: int,
        batch_size: int,
        device: str,
        channels_last: bool = False,
        averaged: bool = True,
    ) -> "TrainingState":
        """State before step 1: a system on the device with initial weights keyed by the seed. With `channels_last`
        convolution weights have that memory layout, and so do their outputs. Without `averaged` no moving average is
        kept: the state is to be trained with a decay of 0.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise.generator(seed, "weights").initial_seed())
            system = kind(config, shape).to(device)
        if channels_last:
            system = system.to(memory_format=torch.channels_last)
        return cls(system, average_of(system, averaged=averaged), batch_size, averaged)


@dataclass
class Replica:
    """Run among those that are trained together: its state, its data, and the seed of its noise. Whoever iterates over
    the training may set `live` to False, which ends its training.
    """

    state: TrainingState
    batches: Batches
    seed: int
    live: bool = True


@dataclass(frozen=True)
class Progress:
    """Progress of a run after `step` steps; scalars are means over the steps since the last one, and gradient norms
    those of each phase's last step.

    `seconds` is the cost of these steps: their duration, shared among the runs that were trained in it.
    `samples_per_second` is the run's own speed by the clock.
    """

    step: int
    scalars: Mapping[str, float]
    seconds: float
    samples_per_second: float


#: the replicas that ended an interval together, and how each stands
Round = list[tuple[Replica, Progress | Diverged]]
