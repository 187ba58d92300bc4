"""Writer process of a sweep: the only one that imports MLflow. It ships the spool until the sweep finishes.

`Writer` starts `python -m aigc_lab.tracking.writer`, sends it messages, and replaces it when it dies. When the sweep's
process dies, the writer delivers what it can at once and ends; the rest is delivered when the sweep continues.
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
from aigc_lab.tracking import spool_log
from aigc_lab.tracking.backlog import StatusWriter
from aigc_lab.tracking.base import run_of_key
from aigc_lab.tracking.messages import Deliver, Delivered, Finish
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.tracking.shipper import Shipper
from aigc_lab.tracking.view import keep_view

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
    """Folder of a sweep's spool."""
    return settings.home / "spool" / sweep


class Writer:
    """Writer process of one sweep, kept alive from `start` until `finish`."""

    def __init__(self, settings: Settings, sweep: str) -> None:
        self._settings = settings
        self._sweep = sweep
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._lock = threading.Lock()  # of the two above
        self._finishing = threading.Event()

    def start(self) -> None:
        """Starts the process and returns at once; it imports MLflow for seconds."""
        process = self._begin()
        threading.Thread(target=self._guard, args=(process,), name="writer-guard", daemon=True).start()

    def _begin(self) -> "subprocess.Popen[bytes]":
        ours, theirs = socket.socketpair()
        with theirs:
            log = self._settings.home / "logs" / "writer.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                process = subprocess.Popen(
                    # -P: a file in the working directory must not take the place of a module.
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
        """Restarts a writer that dies, at growing intervals. A writer that ends by itself has sent the reason."""
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
        """Waits until all records are delivered: for `patience` seconds at most, and without it as long as the store
        takes some every now and then. Returns None, or a sentence on the undelivered records and the reason.
        """
        with self._lock:
            self._finishing.set()
            if self._channel is None or self._process is None:
                return None
            try:
                if self._process.poll() not in (None, 0):  # it died a moment ago, or was not to be started again yet
                    self._begin()
            except OSError as error:
                return self._undelivered(f"its writer cannot be started: {error}")
        answer = self._last_message(patience)
        if answer is not None and answer.waiting == 0:
            return None
        return self._undelivered(answer.reason if answer else self._cause_of_end(patience))

    def _undelivered(self, reason: str) -> str:
        place = spool_folder(self._settings, self._sweep)
        return f"MLflow lacks a part of this sweep, which waits in {place}: {reason}; the same command delivers it"

    def _last_message(self, patience: float | None) -> Delivered | None:
        """Last message of the writer, or None if it sends none within its patience."""
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

    def _cause_of_end(self, patience: float | None) -> str:
        assert self._process is not None
        code = self._process.returncode
        if patience is not None and code == -signal.SIGKILL:
            return f"it did not take everything within {patience:g} seconds"
        return f"the writer ended with code {code}; see {self._settings.home / 'logs' / 'writer.log'}"


@contextmanager
def shipping(
    settings: Settings, sweep: str, *, wait: bool = True, registry: Registry | None = None
) -> Iterator[Shipper]:
    """Shipper of a sweep's spool, which no other process ships meanwhile. `registry` is the home's if it is open
    already.

    Raises `BlockingIOError` when another process ships it and `wait` is false.
    """
    folder = spool_folder(settings, sweep)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(folder / spool_log.LOCK, wait=wait))
        home_registry = registry or stack.enter_context(open_registry(settings, create=True, patient=True))
        tracker = MlflowTracker(settings.tracking_uri, settings.artifacts)

        viewed: set[str] = set()

        def record_ids(key: str, experiment: str, run: str) -> None:
            if experiment not in viewed:
                keep_view(tracker, home_registry, sweep, experiment)
                viewed.add(experiment)
            home_registry.set_mlflow_experiment(sweep, experiment)
            home_registry.set_mlflow_run(run_of_key(key), run)

        tracker.prewarm()
        yield Shipper(folder, tracker, record_ids)
        for experiment in viewed:  # by now its runs have pictures beside their samples
            keep_view(tracker, home_registry, sweep, experiment)
        tracker.settle()


def main() -> None:
    """Entry point of the process; argument one is the file descriptor of its channel."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the sweep says when to end
    os.nice(_NICE)
    visible.guard()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    channel = Channel(socket.socket(fileno=int(sys.argv[1])), Deliver, Finish)
    config = channel.receive()
    if not isinstance(config, Deliver):
        return
    settings, sweep = Settings.load(Path(config.home)), config.sweep
    instructions = _Instructions()
    threading.Thread(target=instructions.listen, args=(channel,), daemon=True).start()
    failed = False
    try:
        # A writer that is still delivering for a process that died goes first.
        with shipping(settings, sweep) as shipper:
            waiting, reason = _ship(shipper, instructions, StatusWriter(spool_folder(settings, sweep)))
    except (UsageError, Failure) as error:  # the registry is away for longer than anybody waits for it
        _LOG.warning("%s", error)
        waiting, reason, failed = 1, str(error), True
    with contextlib.suppress(Closed):
        channel.send(Delivered(waiting=waiting, reason=reason))
    if failed:
        sys.exit(1)  # so that another is started, which may find it again


class _Instructions:
    """Instructions of the sweep's process, received by a thread: to finish, or to end since that process is gone."""

    def __init__(self) -> None:
        self.finish = threading.Event()
        self.patience = _PATIENCE
        self.sweep_is_gone = False

    def listen(self, channel: Channel) -> None:
        try:
            while (message := channel.receive()) is not None:
                self.patience = (message.patience if isinstance(message, Finish) else None) or _PATIENCE
                self.finish.set()
        except Failure as error:  # who does not speak its language is as good as gone
            _LOG.warning("%s", error)
        self.sweep_is_gone = True
        self.finish.set()
        time.sleep(_LAST_SECONDS)
        os._exit(1)  # a store that hangs may hold the other thread for longer


def _ship(
    shipper: Shipper, instructions: _Instructions, report: Callable[[str], None] = lambda reason: None
) -> tuple[int, str]:
    """Ships until everything is delivered, or nothing has been taken for as long as the patience lasts. Returns the
    number of runs with undelivered records, and the reason.
    """
    pause = _PAUSE
    failing: float | None = None  # since when nothing has been taken, counted from the wish to finish
    previous = 0
    while True:
        last = instructions.finish.is_set()  # what was spooled before the wish is seen by the look that follows it
        waiting, reason, hope = attempt(shipper)
        report(reason)
        now = time.monotonic()
        failing = (failing or now) if waiting >= previous and waiting and last else None
        previous = waiting
        if last and (
            not waiting or not hope or instructions.sweep_is_gone or now - (failing or now) > instructions.patience
        ):
            return waiting, reason
        pause = min(2 * pause, _LONGEST) if waiting else _PAUSE
        if last:
            # The event is set by now, so that waiting for it would return at once.
            time.sleep(min(pause, 2.0, instructions.patience / 4))
        else:
            instructions.finish.wait(pause)


def attempt(shipper: Shipper) -> tuple[int, str, bool]:
    """Ships once. Returns the number of runs with undelivered records (at least one when the store fails altogether),
    the reason, and whether waiting may help.
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
