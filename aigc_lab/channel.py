"""Messages between two processes of one machine: JSON, one a line, over a socket."""

import json
import socket
from typing import Any

Message = dict[str, Any]


class Closed(Exception):
    """The other end is gone."""


class Channel:
    """One end. `receive` returns None once the other end is gone, and `send` raises `Closed`."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lines = end.makefile("rb")

    def send(self, **message: Any) -> None:
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise Closed(str(error)) from None

    def receive(self) -> Message | None:
        try:
            line = self._lines.readline()
        except OSError:
            return None
        # A line without its end was being written when the other process died.
        return json.loads(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        self._lines.close()
        self._socket.close()
