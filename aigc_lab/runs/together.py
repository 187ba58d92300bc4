"""Several runs as one program, and fewer at once where memory ends."""

from collections.abc import Callable, Sequence

from aigc_lab.host import gpus
from aigc_lab.runs.job import Job, RunOutcome, TooMany, Watcher
from aigc_lab.runs.resources import Resources
from aigc_lab.runs.run import execute


def execute_together(
    jobs: Sequence[Job],
    resources: Resources,
    watchers: Sequence[Watcher],
    *,
    ended: Callable[[Job, RunOutcome], None],
    fewer: Callable[[int], None],
) -> None:
    """Does alike runs as one program; each is a run of its own, and `ended` is called with its outcome as soon as it
    has one. Where memory ends, they go on from their checkpoints in two halves, one after the other, and so on; `fewer`
    is called with the number in the larger half. Raises as `execute` does.
    """
    try:
        execute(jobs, resources, watchers, stacked=len(jobs) > 1, ended=ended)
        return
    except TooMany as error:
        left = error.runs
    # Outside of the handler, where the error no longer holds what had filled the memory.
    if gpus.is_gpu(resources.device):
        gpus.forget(resources.device)
    pairs = [(job, watcher) for job, watcher in zip(jobs, watchers, strict=True) if job.run in left]
    middle = -(-len(pairs) // 2)
    fewer(middle)
    for half in (pairs[:middle], pairs[middle:]):
        if half:
            execute_together(*_unzipped(half, resources), ended=ended, fewer=fewer)


def _unzipped(pairs: Sequence[tuple[Job, Watcher]], resources: Resources) -> tuple[list[Job], Resources, list[Watcher]]:
    return [job for job, _ in pairs], resources, [watcher for _, watcher in pairs]
