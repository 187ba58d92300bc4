"""Runs a command that ends when its parent process ends.

`python -m aigc_lab.host.child_process COMMAND …`, with a pipe as standard input. The kernel closes the pipe even when
its holder is killed with -9, and a process that watches it can still end the whole group, grandchildren included; a
signal on the parent's death (PR_SET_PDEATHSIG) would reach the child alone. Start it in a session of its own, since it
ends its whole process group.
"""

import os
import select
import signal
import subprocess
import sys
import time

_GRACE = 5.0


def main() -> None:
    # Standard input is the pipe that is watched here; the command must not read from it.
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    # A second thread would be simpler to wait with, but a signal that wakes `select` needs none.
    reader, writer = os.pipe()
    # `set_wakeup_fd` demands it: a full pipe must not block a signal handler.
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    while child.poll() is None:
        ready = select.select([sys.stdin, reader], [], [])[0]
        if sys.stdin in ready or any(number != signal.SIGCHLD for number in os.read(reader, 64)):
            break
    _end_group(child)


def _end_group(child: "subprocess.Popen[bytes]") -> None:
    """Asks the process group to end, and kills its remaining processes after a grace period, this one included."""
    os.killpg(0, signal.SIGTERM)  # here it only wakes
    until = time.monotonic() + _GRACE
    while child.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
