"""Who runs a sweep: one process at a time, which others can see and ask to stop."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import outage, signals
from aigc_lab.host.files import locked
from aigc_lab.host.processes import Process
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.run_lifecycle import BEAT, Outdated
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


def wait_for_turn(registry: Registry, sweep: str, say: Callable[[str], None]) -> bool:
    """Waits until the process that runs the sweep is lost. False when it ends in order: the sweep has ended, or
    somebody has stopped it, and there is nothing to take over.
    """
    row = liveness.supervisor(registry, sweep)
    if row is not None and row["alive"]:
        say(f"sweep {sweep} is run by process {row['pid']} on {row['host']}; this one takes over if that is lost")
    while row is not None and row["alive"]:
        signals.raise_if_interrupted()
        time.sleep(_LOOK)
        row = liveness.supervisor(registry, sweep)
    if row is None:
        say(f"nobody runs {sweep} any more: it has ended, or was stopped")
        return False
    say(f"process {row['pid']} on {row['host']}, which ran {sweep}, was lost; this one takes over")
    return True


@contextmanager
def supervised(registry: Registry, sweep: str) -> Iterator[threading.Event]:
    """Records that this process runs the sweep. The event is set when somebody asks that no further run be begun; one
    who asks to stop now interrupts this process as SIGTERM does.

    Raises `UsageError` when another process runs it, and `Outdated` when this process was taken for lost meanwhile: it
    is interrupted, and leaves the sweep to whoever runs it now.
    """
    before = refuse_supervised(registry, sweep)
    if not registry.supervise(sweep, instead_of=None if before is None else before["process"]):
        raise UsageError(f"sweep {sweep} was begun by another process at this moment; wait for it, or stop it")
    finishing, ended, lost = threading.Event(), threading.Event(), list[Outdated]()

    def watch() -> None:
        beat, asked = 0.0, False
        while not ended.wait(_LOOK):
            beat += _LOOK
            try:
                with outage.tries_once():
                    signal = registry.watch(sweep) if beat >= BEAT else registry.wanted(sweep)
            except Outdated as error:
                if not ended.is_set():
                    lost.append(error)
                    finishing.set()
                    signals.request_stop()
                return
            except Failure:
                continue  # a registry that fails for a while is asked again
            beat = 0.0 if beat >= BEAT else beat
            if signal is not None:
                finishing.set()
            if signal == "checkpoint" and not asked:
                asked = True
                signals.request_stop()

    threading.Thread(target=watch, name="supervisor", daemon=True).start()
    try:
        yield finishing
    except BaseException:
        if lost:
            raise lost[0] from None
        raise
    finally:
        ended.set()
        with suppress(Failure):
            registry.release(sweep)
