"""Nudges between a process and the one that started it: look now, and not only when you would have looked anyway.

What there is to see stands in the registry; a nudge that is lost costs the time until the next look.
"""

import contextlib
import os
import socket
import threading

#: set when this process was nudged; whoever waits for something to look at clears it
awake = threading.Event()
_parent: list[socket.socket] = []


def wait(seconds: float) -> bool:
    """Waits so long, or until this process is nudged; whether it was."""
    nudged = awake.wait(seconds)
    if nudged:  # or one that comes just now would be lost
        awake.clear()
    return nudged


def has_parent(descriptor: int) -> None:
    """Says that the process which started this one hears at a socket."""
    _parent[:] = [socket.socket(fileno=os.dup(descriptor))]


def parent() -> None:
    """Nudges the process that started this one, if it hears."""
    for line in _parent:
        nudge(line)


def nudge(line: socket.socket) -> None:
    """Nudges whoever hears at the other end. One that has not heard the last ones yet, or is gone, is left alone."""
    with contextlib.suppress(OSError):
        line.send(b"\n", socket.MSG_DONTWAIT)
