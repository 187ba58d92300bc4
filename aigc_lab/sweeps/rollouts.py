"""The memory of rollouts, said before the start, and refused where it cannot fit."""

from typing import NoReturn

import torch

from aigc_lab.experiment import space
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.host.capacity import format_bytes
from aigc_lab.nets.rollouts import RolloutMemory


def rollout_memory(plan: Configuration, device: str) -> RolloutMemory | None:
    """What the rollouts of a configuration hold at most on a device; None where it makes none."""
    with torch.device("meta"):
        system = plan.system_class(plan.system_config, plan.dataset.shape)
        return system.rollout_memory(plan.training.batch_size, device)


def describe_rollouts(memory: RolloutMemory) -> str:
    """What they hold, for the announcement of a sweep."""
    return (
        f"rollouts: at most {format_bytes(memory.of(memory.at_once))} a run ({_completions(memory.at_once)} at once of "
        f"{_beginnings(memory)})"
    )


def refuse_rollouts(
    experiment: Experiment, filled: space.Filled, plan: Configuration, memory: RolloutMemory, free: int
) -> NoReturn:
    """Raises `UsageError` for rollouts that `free` bytes cannot hold, with the number at once that fits."""
    said = (
        f"rollouts: {_completions(memory.at_once)} at once of {_beginnings(memory)} need "
        f"{format_bytes(memory.of(memory.at_once))} and {format_bytes(free)} are free"
    )
    if (fits := min(memory.most(free), memory.at_once)) > 0:
        key = "rollouts_at_once" if plan.system_config.rollouts_at_once else "rollouts"
        experiment.document.fail(filled.source(("system", key)), f"{said}; rollouts_at_once: {fits} fits")
    least = format_bytes(memory.of(1))
    experiment.document.fail(
        filled.source(("training", "batch_size")),
        f"{memory.sentences:,}: {said}, and one at once needs {least}; choose a smaller batch_size",
    )


def _completions(number: int) -> str:
    return f"{number:,} completion{'' if number == 1 else 's'}"


def _beginnings(memory: RolloutMemory) -> str:
    return f"{memory.beginnings:,} beginnings of {memory.sentences:,} sentences"
