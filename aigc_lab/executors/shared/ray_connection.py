"""The other end of `ray_driver`: the process that is connected to a Ray cluster, as the sweep's process holds it."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aigc_lab.errors import Failure, UsageError

Json = dict[str, Any]

# Seconds for a cluster to answer, and for the process to end after it was asked to: workers have ten of them.
_ANSWER, _CLOSE = 120.0, 15.0
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would send the working directory to every node
}
# Ray's own word for "this machine only", which it knows from other systems: else its ports are open to the network.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


class Connection:
    """Process that is connected to a cluster, or about to be; what it and Ray print goes to `log`."""

    def __init__(self, demand: Mapping[str, Any], log: Path) -> None:
        self._log, self._address = log, demand["address"]
        self._events: queue.SimpleQueue[Json] = queue.SimpleQueue()
        self._closing = False
        environment = _token_mode() | os.environ | _ENVIRONMENT | (_LOOPBACK if self._address == "local" else {})
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "aigc_lab.executors.shared.ray_driver"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=environment,
                text=True,
                start_new_session=True,  # Ctrl-C is for the sweep, which says what becomes of the workers
            )
        self._write = threading.Lock()
        threading.Thread(target=self._read, name="ray", daemon=True).start()
        self._send(demand)

    def connected(self) -> Json:
        """What the cluster is: `nodes`, the `room` for workers when nobody else is there, `gpus`.

        Raises `UsageError` where there is none, or it cannot ever hold a worker, and `Failure` where nothing answers.
        """
        try:
            event = self._events.get(timeout=_ANSWER)
        except queue.Empty:
            raise Failure(f"the Ray cluster at {self._address} does not answer; see {self._log}") from None
        if event["event"] == "lost":
            raise Failure(f"cannot connect to the Ray cluster at {self._address}; see {self._log}")
        if event["event"] == "refused":
            raise UsageError(f"executor ray: {event['text']}")
        return event

    def events(self) -> Iterator[Json]:
        """What has happened to workers since."""
        with suppress(queue.Empty):
            while True:
                event = self._events.get_nowait()
                if event["event"] != "lost":
                    yield event

    def lost(self) -> str | None:
        """Why nothing can be heard of the cluster any more; None while something can."""
        if self._closing or self._process.poll() is None:
            return None
        return f"the connection to the Ray cluster at {self._address} was lost (see {self._log})"

    def tell(self, **command: Any) -> None:
        """Has something done, unless the process is gone. Callable from any thread."""
        self._send(command)

    def close(self) -> None:
        """Ends the workers, which may still record that their runs were interrupted, and the process."""
        self._closing = True
        self._send({"do": "close"})
        try:
            self._process.wait(_CLOSE)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def kill(self) -> None:
        """Ends the process at once."""
        self._closing = True
        self._process.kill()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with self._write, suppress(OSError, ValueError):
            print(json.dumps(message), file=self._process.stdin, flush=True)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._events.put({"event": "lost"})


def _token_mode() -> dict[str, str]:
    """That a token is shown where there is one: Ray asks for one by default, and by default does not show it."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    return {"RAY_AUTH_MODE": "token"} if os.environ.get("RAY_AUTH_TOKEN") or path.is_file() else {}
