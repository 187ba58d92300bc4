"""The state that an attempt trains on from: the newest checkpoint that fits, else a fresh one."""

import itertools
import logging
from collections.abc import Iterable

from aigc_lab.runs.job import Job
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
            plan.dataset.shape,
            seed=job.seed,
            batch_size=plan.training.batch_size,
            device=device,
            channels_last=plan.training.channels_last,
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
