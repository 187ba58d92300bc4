"""`aigc-lab worker`: joins a sweep that another process runs, here or on another machine."""

import os
import sys
import time

from aigc_lab.errors import UsageError
from aigc_lab.host import environment, visible
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.home import open_registry
from aigc_lab.runs.worker import Terms, work
from aigc_lab.sweeps import ownership


def join(
    settings: Settings,
    name: str,
    *,
    device: str,
    threads: int | None,
    until_empty: bool,
    leave_after: float | None = None,
) -> None:
    """Does runs of the sweep (an id, or a name for the newest) until it has ended, this process is told to stop, or
    `leave_after` seconds have passed.

    Raises `UsageError` for an unknown sweep, one that nobody runs, one of another home, and a device that is not there.
    """
    leave_by = None if leave_after is None else time.monotonic() + leave_after
    settings.prepare()
    with open_registry(settings, connected=True, connections=1) as registry:
        sweep = find_sweep(registry, name)
        ownership.refuse(registry, settings, sweep)
        row = liveness.supervisor(registry, sweep)
        if row is None:
            raise UsageError(f"nobody runs {sweep}, so there is nothing to do; first: aigc-lab resume {sweep}")
        environment.device(device)
        _say(f"joining {sweep}, which process {row['pid']} on {row['host']} runs")
        terms = Terms(sweep, device, threads, until_empty=until_empty, leave_by=leave_by, job=_job())
        count = work(settings, registry, terms, _say)
        _say(f"left {sweep} after {count} run{'s' * (count != 1)}")


def _job() -> str | None:
    """What Slurm, or submitit in its place, calls the job in which this process runs; None outside one."""
    named = os.environ.get
    if named("SUBMITIT_EXECUTOR") == "local":
        return named("SUBMITIT_LOCAL_JOB_ID")
    array, task = named("SLURM_ARRAY_JOB_ID"), named("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else named("SLURM_JOB_ID")


def _say(text: str) -> None:
    print(visible.line(text), file=sys.stderr, flush=True)
