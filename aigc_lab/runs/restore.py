"""The state that an attempt trains on from: the newest checkpoint that fits, else a fresh one."""

import itertools
import logging
from collections.abc import Iterable
from dataclasses import replace

from aigc_lab.data.base import Dataset
from aigc_lab.runs.job import Job
from aigc_lab.shape import Shape
from aigc_lab.training import checkpoint
from aigc_lab.training.state import TrainingState

_LOG = logging.getLogger(__name__)


def restored(
    job: Job, device: str, stored: Iterable[checkpoint.Stored]
) -> tuple[TrainingState, checkpoint.Stored | None]:
    """The state of the first of the checkpoints that fits the job's configuration, and that checkpoint; a fresh state
    and None where none does. A checkpoint of another version of the system is left out with a warning.
    """
    plan = job.configuration
    for each in itertools.chain(stored, [None]):
        state = TrainingState.fresh(
            plan.system_class,
            plan.system_config,
            _shape(plan.dataset),
            seed=job.seed,
            batch_size=plan.training.batch_size,
            device=device,
            channels_last=plan.training.channels_last,
            averaged=plan.training.ema > 0,
        )
        if each is None:
            break
        try:
            checkpoint.restore_state(state, each.state)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            _LOG.warning("%s: of another version of the system, so it is not used: %s", each.state, error)
            continue
        return state, each
    return state, None


def _shape(dataset: Dataset) -> Shape:
    """The dataset's shape, with the names of its classes where only `class_names` says them."""
    shape, names = dataset.shape, dataset.class_names
    if names is None or shape.class_names is not None or len(names) != shape.classes:
        return shape
    return replace(shape, class_names=tuple(names))
