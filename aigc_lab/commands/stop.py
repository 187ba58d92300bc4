"""Stopping a sweep from another process, which may run on another machine."""

import signal
import time
from pathlib import Path

from aigc_lab.errors import Failure
from aigc_lab.host.processes import Process
from aigc_lab.host.settings import Settings, as_typed
from aigc_lab.registry import liveness
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.sweeps import ownership

# It is told within seconds, and has ten to save its runs.
_PATIENCE = 15.0
# The kernel takes a moment to end a large one.
_DEATH = 5.0


def stop_sweep(registry: Registry, settings: Settings, name: str, *, finish: bool, home: Path | None) -> str:
    """Asks the process that runs a sweep to stop, and waits until it has, unless the runs under way are to `finish`.
    Returns what there is to say. Raises `Failure` when it does not stop.
    """
    sweep = find_sweep(registry, name)
    ownership.refuse(registry, settings, sweep)
    again = as_typed(f"aigc-lab resume {sweep}", settings, home)
    before = liveness.supervisor(registry, sweep)
    if before is None:
        return f"nobody runs {sweep}; {again} goes on with it, if it has not ended"
    if not before["alive"]:
        registry.want_of_workers(sweep, "stop")
        return f"process {before['pid']} on {before['host']}, which ran {sweep}, was lost; {again} goes on"
    running = liveness.running(registry, sweep)
    registry.want(sweep, "finish" if finish else "checkpoint")
    if finish:
        runs = f"{len(running)} run{'s' * (len(running) != 1)} under way"
        return f"{sweep} stops when its {runs} ended; aigc-lab stop {sweep} does not wait for that"
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        now = liveness.supervisor(registry, sweep)
        if now is None:
            return _stopped(registry, sweep, running, again)
        if not now["alive"]:  # in order, it would have said so: it was killed, or left at its limit without saving
            return (
                f"process {before['pid']} on {before['host']}, which ran {sweep}, did not end in order and was killed;"
                f" {again} goes on from the last checkpoints"
            )
        time.sleep(0.2)
    if _killed(before["process"]):
        return f"process {before['pid']} did not stop within {_PATIENCE:.0f} s and was killed; {again} goes on"
    raise Failure(f"{sweep} has not stopped within {_PATIENCE:.0f} s: process {before['pid']} on {before['host']}")


def _stopped(registry: Registry, sweep: str, running: list[liveness.Json], again: str) -> str:
    """What became of the attempts that were `running` when the sweep was asked to stop, once its process has ended."""
    killed = [each["run"] for each in running if _was_killed(registry, each["run"])]
    if not killed:
        return f"{sweep} has stopped; {again} goes on from there"
    named = ", ".join(killed[:3]) + (", …" if len(killed) > 3 else "")
    return (
        f"{sweep} was stopped, and {len(killed)} of its runs had to be killed before they could save where they were"
        f" ({named}); {again} goes on from their last checkpoints"
    )


def _was_killed(registry: Registry, run: str) -> bool:
    """Whether the process of a run was ended from outside: one that ends in order has a result, or says of itself that
    it was interrupted, and where.
    """
    row = liveness.ended(registry, run)
    unfinished = (RunState.RUNNING, RunState.KILLED, RunState.QUEUED)
    return row is not None and row["state"] in unfinished and not (row["reason"] or "").startswith("interrupted ")


def _killed(process: Process) -> bool:
    """Ends a process of this machine that hears nothing: it is in a call that never returns. What is on the disk is
    enough to go on from.
    """
    if not process.here or process == Process.this():
        return False
    process.signal(signal.SIGKILL)
    until = time.monotonic() + _DEATH
    while process.alive and time.monotonic() < until:
        time.sleep(0.05)
    return not process.alive
