"""The one process that imports MLflow while a sweep runs: it ships what the runs spool, until it is told to finish.

`Writer` starts `python -m aigc_lab.tracking.writer`, talks to it, and starts another when it dies. When the sweep's
process dies, the writer delivers what it can at once and ends; what remains is delivered when the sweep goes on.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import visible
from aigc_lab.host.channel import Channel, Closed
from aigc_lab.host.files import locked
from aigc_lab.host.settings import Settings
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.store import Registry
from aigc_lab.tracking import spool
from aigc_lab.tracking.backlog import Told
from aigc_lab.tracking.base import run_of_key
from aigc_lab.tracking.messages import Deliver, Delivered, Finish
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.tracking.shipper import Shipper

_LOG = logging.getLogger(__name__)

# Between two looks at the spool; while the store fails, between two tries, doubled up to the longest.
_PAUSE, _LONGEST = 0.25, 30.0
# How long the end of a sweep waits for a store that does not take anything.
_PATIENCE = 30.0
# A writer whose sweep is gone ends within so many seconds, in the middle of a request if need be.
_LAST_SECONDS = 8.0
# Trainings go first where there are fewer cores than processes: what is late for MLflow waits on the disk.
_NICE = 10
# Before another writer is started in place of one that died, doubled up to the longest.
_RESTART = 3.0


def spool_folder(settings: Settings, sweep: str) -> Path:
    """Where the runs of a sweep spool."""
    return settings.home / "spool" / sweep


class Writer:
    """The writer of one sweep: running from `start` until `finish`, whatever kills it."""

    def __init__(self, settings: Settings, sweep: str) -> None:
        self._settings = settings
        self._sweep = sweep
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._lock = threading.Lock()  # of the two above
        self._finishing = threading.Event()

    def start(self) -> None:
        """Returns at once; the process takes seconds to import MLflow."""
        process = self._begin()
        threading.Thread(target=self._guard, args=(process,), name="writer-guard", daemon=True).start()

    def _begin(self) -> "subprocess.Popen[bytes]":
        ours, theirs = socket.socketpair()
        with theirs:
            log = self._settings.home / "logs" / "writer.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "aigc_lab.tracking.writer", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
        if self._channel is not None:
            self._channel.close()
        self._process, self._channel = process, Channel(ours, Delivered)
        # Not on the command line, which everybody on the machine can read: an address may hold a password.
        with contextlib.suppress(Closed):
            self._channel.send(Deliver(home=str(self._settings.home), sweep=self._sweep))
        return process

    def _guard(self, process: "subprocess.Popen[bytes]") -> None:
        """Starts another writer when one dies, less and less often; one that ended by itself has said why."""
        pause = _RESTART
        while process.wait() != 0 and not self._finishing.wait(pause):
            with self._lock:
                if self._finishing.is_set():
                    return
                _LOG.warning("the writer of %s ended with code %d; starting another", self._sweep, process.returncode)
                try:
                    process = self._begin()
                except OSError as error:  # no memory, no process: what it would deliver waits
                    _LOG.warning("the writer of %s cannot be started: %s", self._sweep, error)
            pause = min(2 * pause, _LONGEST)

    def finish(self, patience: float | None = None) -> str | None:
        """Waits until everything is delivered; with `patience`, for so many seconds at most, and else for as long as
        the store takes something every now and then. Returns None, or the sentence that says what is not and why.
        """
        with self._lock:
            self._finishing.set()
            if self._channel is None or self._process is None:
                return None
            try:
                if self._process.poll() not in (None, 0):  # it died a moment ago, or was not to be started again yet
                    self._begin()
            except OSError as error:
                return self._lacking(f"its writer cannot be started: {error}")
        answer = self._farewell(patience)
        if answer is not None and answer.waiting == 0:
            return None
        return self._lacking(answer.reason if answer else self._how(patience))

    def _lacking(self, reason: str) -> str:
        place = spool_folder(self._settings, self._sweep)
        return f"MLflow lacks a part of this sweep, which waits in {place}: {reason}; the same command delivers it"

    def _farewell(self, patience: float | None) -> Delivered | None:
        """The writer's last words, if it has any before the patience is at its end."""
        assert self._channel is not None
        assert self._process is not None
        try:
            with contextlib.suppress(Closed):
                self._channel.send(Finish(patience=patience))
            if patience is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(patience)
                self._process.kill()  # nothing is lost by it
            answer = self._channel.receive()
            self._process.wait()
        finally:
            self._process.kill()
            self._process.wait()
            self._channel.close()
            self._channel = None
        return answer if isinstance(answer, Delivered) else None

    def _how(self, patience: float | None) -> str:
        assert self._process is not None
        code = self._process.returncode
        if patience is not None and code == -signal.SIGKILL:
            return f"it did not take everything within {patience:g} seconds"
        return f"the writer ended with code {code}; see {self._settings.home / 'logs' / 'writer.log'}"


@contextmanager
def shipping(
    settings: Settings, sweep: str, *, wait: bool = True, registry: Registry | None = None
) -> Iterator[Shipper]:
    """The shipper of a sweep's spool, which nobody else ships meanwhile; `registry` is the home's, where it is open
    already.

    Raises `BlockingIOError` when somebody does and this one is not to `wait`.
    """
    folder = spool_folder(settings, sweep)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(folder / spool.LOCK, wait=wait))
        known = registry or stack.enter_context(open_registry(settings, create=True, patient=True))
        tracker = MlflowTracker(settings.tracking_uri, settings.artifacts)

        def opened(key: str, experiment: str, run: str) -> None:
            known.set_mlflow_experiment(sweep, experiment)
            known.set_mlflow_run(run_of_key(key), run)

        tracker.prewarm()
        yield Shipper(folder, tracker, opened)
        tracker.settle()


def main() -> None:
    """The process: argument one is the number of its end of the channel."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the sweep says when to end
    os.nice(_NICE)
    visible.guard()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    channel = Channel(socket.socket(fileno=int(sys.argv[1])), Deliver, Finish)
    config = channel.receive()
    if not isinstance(config, Deliver):
        return
    settings, sweep = Settings.load(Path(config.home)), config.sweep
    wanted = _Wanted()
    threading.Thread(target=wanted.listen, args=(channel,), daemon=True).start()
    failed = False
    try:
        # A writer that is still delivering for a process that died goes first.
        with shipping(settings, sweep) as shipper:
            waiting, reason = _ship(shipper, wanted, Told(spool_folder(settings, sweep)))
    except (UsageError, Failure) as error:  # the registry is away for longer than anybody waits for it
        _LOG.warning("%s", error)
        waiting, reason, failed = 1, str(error), True
    with contextlib.suppress(Closed):
        channel.send(Delivered(waiting=waiting, reason=reason))
    if failed:
        sys.exit(1)  # so that another is started, which may find it again


class _Wanted:
    """What the sweep's process wants: that this one finishes, or nothing any more because it is gone."""

    def __init__(self) -> None:
        self.finish = threading.Event()
        self.patience = _PATIENCE
        self.gone = False

    def listen(self, channel: Channel) -> None:
        try:
            while (message := channel.receive()) is not None:
                self.patience = (message.patience if isinstance(message, Finish) else None) or _PATIENCE
                self.finish.set()
        except Failure as error:  # who does not speak its language is as good as gone
            _LOG.warning("%s", error)
        self.gone = True
        self.finish.set()
        time.sleep(_LAST_SECONDS)
        os._exit(1)  # a store that hangs may hold the other thread for longer


def _ship(shipper: Shipper, wanted: _Wanted, told: Callable[[str], None] = lambda reason: None) -> tuple[int, str]:
    """Ships until it may end: all is delivered, or nothing has been taken for as long as anybody would wait. Returns
    how many runs wait, and why.
    """
    pause = _PAUSE
    failing: float | None = None  # since when nothing has been taken, counted from the wish to finish
    before = 0
    while True:
        last = wanted.finish.is_set()  # what was spooled before the wish is seen by the look that follows it
        waiting, reason, hope = attempt(shipper)
        told(reason)
        now = time.monotonic()
        failing = (failing or now) if waiting >= before and waiting and last else None
        before = waiting
        if last and (not waiting or not hope or wanted.gone or now - (failing or now) > wanted.patience):
            return waiting, reason
        pause = min(2 * pause, _LONGEST) if waiting else _PAUSE
        if last:
            time.sleep(min(pause, 2.0, wanted.patience / 4))
        else:
            wanted.finish.wait(pause)


def attempt(shipper: Shipper) -> tuple[int, str, bool]:
    """One try: how many runs wait after it (one at least, when the store fails altogether), why, and whether waiting
    may help.
    """
    try:
        waiting = shipper.ship()
    except (UsageError, Failure) as error:
        return 1, str(error), isinstance(error, Failure)
    return waiting, (shipper.reason or "the store does not take everything") if waiting else "", True


if __name__ == "__main__":
    main()
    # Nothing is left to do, and MLflow's threads would take their time.
    logging.shutdown()
    os._exit(0)
