"""The training of runs that one process does together, a `Round` at a time."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from aigc_lab.experiment.sections import Training
from aigc_lab.host import signals
from aigc_lab.host.allocator import keep_freed_memory
from aigc_lab.training import process_group
from aigc_lab.training.loop import train
from aigc_lab.training.parallel import OnDevices
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Replica, Round


def rounds(replicas: Sequence[Replica], training: Training, device: str, *, stacked: bool) -> Iterator[Round]:
    """Rounds of all replicas: one program each, or `stacked` as one. On several devices, other processes train with
    this one. Ends early, after a whole step, when this process is to stop.
    """
    options: dict[str, Any] = {
        "steps": training.steps,
        "every": training.log_every,
        "decay": training.ema,
        "precision": training.precision,
        "matmul_precision": training.matmul_precision,
        "interrupted": signals.stop_requested,
    }
    if training.devices > 1 and replicas:
        options["course"] = OnDevices(process_group.opened(training.devices, device))
    if stacked:
        keep_freed_memory()
        yield from _stacked(replicas, options)
    else:
        yield from train(replicas, **options)


def _stacked(replicas: Sequence[Replica], options: dict[str, Any]) -> Iterator[Round]:
    """Rounds of a stack. Replicas that begin behind the others, since their last checkpoints lie further back, catch up
    first, and then all are one program.
    """
    levels = sorted({replica.state.step for replica in replicas})
    for level, following in itertools.zip_longest(levels, levels[1:]):
        company = [replica for replica in replicas if replica.live and replica.state.step <= level]

        def caught_up(company: list[Replica] = company, until: int | None = following) -> bool:
            there = until is not None and all(replica.state.step >= until for replica in company if replica.live)
            return there or signals.stop_requested()

        yield from train(company, course=Stacked, **options | {"interrupted": caught_up})
        if signals.stop_requested():
            return
