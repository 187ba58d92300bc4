"""Who runs a sweep: one process at a time, which others can see and ask to stop."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import outage, signals
from aigc_lab.host.files import locked
from aigc_lab.host.processes import Process
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.run_lifecycle import BEAT
from aigc_lab.registry.store import Registry

# Seconds between two looks at what somebody wants of this process.
_LOOK = 1.0


def lock_file(settings: Settings, sweep: str) -> Path:
    """Held by the process that runs the sweep; the kernel frees it when that dies."""
    return settings.home / "locks" / f"{sweep}.lock"


@contextmanager
def alone(settings: Settings, sweep: str) -> Iterator[None]:
    """Two processes on one sweep would do the same runs: the second is refused."""
    path = lock_file(settings, sweep)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path, wait=False))
        except BlockingIOError:
            raise UsageError(
                f"sweep {sweep} is being run by another process; wait for it, or stop it first: aigc-lab stop {sweep}"
            ) from None
        yield


def refuse_supervised(registry: Registry, sweep: str) -> liveness.Json | None:
    """Raises `UsageError` when another process runs the sweep: of this home or of one that shares the registry, here
    or on another machine. Returns what a process that is gone left behind of itself.
    """
    row = liveness.supervisor(registry, sweep)
    if row is not None and row["alive"] and row["process"] != Process.this():
        raise UsageError(
            f"sweep {sweep} is being run by process {row['pid']} on {row['host']}; wait for it, or stop it first: "
            f"aigc-lab stop {sweep}"
        )
    return row


@contextmanager
def supervised(registry: Registry, sweep: str) -> Iterator[threading.Event]:
    """Records that this process runs the sweep. The event is set when somebody asks that no further run be begun; one
    who asks to stop now interrupts this process as SIGTERM does.

    Raises `UsageError` when another process runs it.
    """
    before = refuse_supervised(registry, sweep)
    if not registry.supervise(sweep, instead_of=None if before is None else before["process"]):
        raise UsageError(f"sweep {sweep} was begun by another process at this moment; wait for it, or stop it")
    finishing, ended = threading.Event(), threading.Event()

    def watch() -> None:
        beat, asked = 0.0, False
        while not ended.wait(_LOOK):
            beat += _LOOK
            with suppress(Failure), outage.tries_once():  # a registry that fails for a while is asked again
                signal = registry.watch(sweep) if beat >= BEAT else registry.wanted(sweep)
                beat = 0.0 if beat >= BEAT else beat
                if signal is not None:
                    finishing.set()
                if signal == "checkpoint" and not asked:
                    asked = True
                    signals.request_stop()

    threading.Thread(target=watch, name="supervisor", daemon=True).start()
    try:
        yield finishing
    finally:
        ended.set()
        with suppress(Failure):
            registry.release(sweep)
