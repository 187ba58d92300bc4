"""The one process that imports MLflow while a sweep runs: it ships what the runs spool, until it is told to finish.

`Writer` starts `python -m aigc_lab.tracking.writer` and talks to it. When the sweep's process dies, the writer delivers
what it can at once and ends; what remains is delivered when the sweep goes on.
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
from pathlib import Path

from aigc_lab.channel import Channel, Closed
from aigc_lab.errors import Failure, UsageError
from aigc_lab.files import locked
from aigc_lab.registry.store import Registry
from aigc_lab.settings import Settings
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.tracking.shipper import Shipper

_LOG = logging.getLogger(__name__)

# Between two looks at the spool; while the store fails, between two tries, doubled up to the longest.
_PAUSE, _LONGEST = 0.25, 30.0
# How long the end of a sweep waits for a store that does not take anything.
_PATIENCE = 30.0


def spool_folder(settings: Settings, sweep: str) -> Path:
    """Where the runs of a sweep spool."""
    return settings.home / "spool" / sweep


class Writer:
    """The writer of one sweep: running from `start` until `finish`."""

    def __init__(self, settings: Settings, sweep: str) -> None:
        self._settings = settings
        self._sweep = sweep
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None

    def start(self) -> None:
        """Returns at once; the process takes seconds to import MLflow."""
        ours, theirs = socket.socketpair()
        with theirs:
            log = self._settings.home / "logs" / "writer.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "aigc_lab.tracking.writer", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
        self._channel = Channel(ours)
        # Not on the command line, which everybody on the machine can read: an address may hold a password.
        self._channel.send(home=str(self._settings.home), sweep=self._sweep)

    def finish(self) -> str | None:
        """Waits until everything is delivered. Returns None, or the sentence that says what is not and why."""
        if self._channel is None or self._process is None:
            return None
        with contextlib.suppress(Closed):
            self._channel.send(finish=True)
        try:
            answer = self._channel.receive()
            self._process.wait()
        finally:
            self._process.kill()
            self._process.wait()
            self._channel.close()
            self._channel = None
        if answer is not None and answer["waiting"] == 0:
            return None
        reason = answer["reason"] if answer else f"the writer ended with code {self._process.returncode}"
        place = spool_folder(self._settings, self._sweep)
        return f"MLflow lacks a part of this sweep, which waits in {place}: {reason}; the same command delivers it"


def main() -> None:
    """The process: argument one is the number of its end of the channel."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the sweep says when to end
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    config = channel.receive()
    if config is None:
        return
    settings, sweep = Settings.load(Path(config["home"])), config["sweep"]
    folder = spool_folder(settings, sweep)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = _Wanted()
    threading.Thread(target=wanted.listen, args=(channel,), daemon=True).start()
    # A writer that is still delivering for a process that died goes first.
    with locked(folder / ".lock"), Registry.open(settings.registry_url, home=settings.home) as registry:
        tracker = MlflowTracker(settings.tracking_uri, settings.artifacts)

        def opened(key: str, experiment: str, run: str) -> None:
            registry.set_mlflow_experiment(sweep, experiment)
            registry.set_mlflow_run(key.rpartition(".")[0], run)

        tracker.prewarm()
        waiting, reason = _ship(Shipper(folder, tracker, opened), wanted)
    with contextlib.suppress(Closed):
        channel.send(waiting=waiting, reason=reason)


class _Wanted:
    """What the sweep's process wants: that this one finishes, or nothing any more because it is gone."""

    def __init__(self) -> None:
        self.finish = threading.Event()
        self.gone = False

    def listen(self, channel: Channel) -> None:
        self.gone = channel.receive() is None
        self.finish.set()


def _ship(shipper: Shipper, wanted: _Wanted) -> tuple[int, str]:
    """Ships until it may end: all is delivered, or nothing has been taken for as long as anybody would wait. Returns
    how many runs wait, and why.
    """
    pause, reason = _PAUSE, ""
    failing: float | None = None  # since when nothing has been taken, counted from the wish to finish
    before = 0
    while True:
        last = wanted.finish.is_set()  # what was spooled before the wish is seen by the look that follows it
        try:
            waiting = shipper.ship()
        except UsageError as error:
            return 1, str(error)
        except Failure as error:
            waiting, reason = 1, str(error)
        now = time.monotonic()
        failing = (failing or now) if waiting >= before and waiting and last else None
        before = waiting
        if last and (not waiting or wanted.gone or now - (failing or now) > _PATIENCE):
            return waiting, reason or "the store does not take everything"
        pause = min(2 * pause, _LONGEST) if waiting else _PAUSE
        if last:
            time.sleep(min(pause, 2.0))
        else:
            wanted.finish.wait(pause)


if __name__ == "__main__":
    main()
    # Nothing is left to do, and MLflow's threads would take their time.
    logging.shutdown()
    os._exit(0)
