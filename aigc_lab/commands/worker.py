"""`aigc-lab worker`: joins a sweep that another process runs, here or on another machine."""

import os
import sys
import time

from aigc_lab.display.wording import counted
from aigc_lab.errors import UsageError
from aigc_lab.host import environment, visible
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import show_sweep
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
        on_cpu = environment.device(device) == "cpu"
        _say(f"joining {sweep}, which process {row['pid']} on {row['host']} runs")
        if on_cpu and (line := crowded(registry, sweep, threads)):
            _say(line)
        terms = Terms(sweep, device, threads, until_empty=until_empty, leave_by=leave_by, job=_job())
        count = work(settings, registry, terms, _say)
        _say(f"left {sweep} after {count} run{'s' * (count != 1)}")


def crowded(registry: Registry, sweep: str, threads: int | None) -> str | None:
    """A sentence where this worker and those that are here already would take more CPU threads than there are cores,
    each as many as this one; None otherwise.
    """
    own = show_sweep(registry, sweep)["experiment"]["training"].get("threads") or environment.threads()
    own, cores = min(own, threads or own), environment.cores()
    workers = liveness.workers(registry)
    others = sum(each["alive"] and each["process"].here is True and "cuda" not in each["device"] for each in workers)
    if own * (others + 1) <= cores:
        return None
    share = max(1, cores // (others + 1))
    return (
        f"{counted(others + 1, 'worker')} here, of {counted(own, 'CPU thread')} each, share {counted(cores, 'core')}; "
        f"with --threads {share} they would not wait for each other"
    )


def _job() -> str | None:
    """What Slurm, or submitit in its place, calls the job in which this process runs; None outside one."""
    named = os.environ.get
    if named("SUBMITIT_EXECUTOR") == "local":
        return named("SUBMITIT_LOCAL_JOB_ID")
    array, task = named("SLURM_ARRAY_JOB_ID"), named("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else named("SLURM_JOB_ID")


def _say(text: str) -> None:
    print(visible.line(text), file=sys.stderr, flush=True)
