"""Who runs a sweep: one process at a time, which others can see and ask to stop."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from aigc_lab import interruption
from aigc_lab.errors import Failure, UsageError
from aigc_lab.files import locked
from aigc_lab.registry import lives
from aigc_lab.registry.life import BEAT
from aigc_lab.registry.store import Registry
from aigc_lab.settings import Settings

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


@contextmanager
def supervised(registry: Registry, sweep: str) -> Iterator[threading.Event]:
    """Records that this process runs the sweep. The event is set when somebody asks that no further run be begun; one
    who asks to stop now interrupts this process as SIGTERM does.

    Raises `UsageError` when a process of another machine runs it.
    """
    elsewhere = lives.supervisor(registry, sweep)
    if elsewhere is not None and elsewhere["alive"] and elsewhere["process"].here is None:
        raise UsageError(f"sweep {sweep} is being run on {elsewhere['host']}; wait for it, or stop it first")
    registry.supervise(sweep)
    finishing, ended = threading.Event(), threading.Event()

    def watch() -> None:
        beat, asked = 0.0, False
        while not ended.wait(_LOOK):
            beat += _LOOK
            with suppress(Failure):  # a registry that fails for a while is asked again
                wanted = registry.watch(sweep) if beat >= BEAT else registry.wanted(sweep)
                beat = 0.0 if beat >= BEAT else beat
                if wanted is not None:
                    finishing.set()
                if wanted == "checkpoint" and not asked:
                    asked = True
                    interruption.want()

    threading.Thread(target=watch, name="supervisor", daemon=True).start()
    try:
        yield finishing
    finally:
        ended.set()
        with suppress(Failure):
            registry.release(sweep)
