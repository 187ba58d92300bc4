"""A real Ray cluster of nodes on the loopback, which end with it and can be killed."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

# No more memory than a test needs.
_OBJECTS = 80 << 20
# Ray refuses a second node on the loopback, and takes the machine's address for it; this lets one be.
_START = """
from ray._private import ray_constants, services
ray_constants.ENABLE_RAY_CLUSTER = True
services.get_node_ip_address = lambda address=None: "127.0.0.1"
from ray.scripts.scripts import main
main()
"""


class RayNode:
    """A node: `ray start --block` and all that it started."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        command = [sys.executable, "-c", _START, "start", "--block", "--disable-usage-stats"]
        command += ["--node-ip-address", "127.0.0.1", "--num-gpus", "0", "--object-store-memory", str(_OBJECTS)]
        # Ray gives a node half a minute to start, which a machine that is busy with other tests may need.
        for _ in range(3):
            self._process = subprocess.Popen(
                [*command, *words],
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            assert self._process.stdout is not None
            lines = []
            for line in self._process.stdout:
                lines.append(line)
                if "Ray runtime started" in line:
                    return
            self.kill()
        raise AssertionError("".join(lines))

    def processes(self) -> list[Any]:
        """Its processes, with the workers' own."""
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        return []

    def kill(self) -> None:
        """As if its power was cut."""
        processes = self.processes()
        for number in (signal.SIGSTOP, signal.SIGKILL):  # none may see another go
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        self._process.wait()


class RayCluster:
    """A cluster with a head, which is told these `words` of `ray start`; `node` adds one. `environment` is that of
    whoever is to find it.
    """

    def __init__(self, *words: str) -> None:
        self._words = words

    def __enter__(self) -> Self:
        # Not below pytest's own folder: an address of a socket has room for a hundred characters.
        self._folder = tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
            port, client_port = server.getsockname()[1], other.getsockname()[1]
        self.environment = {
            "RAY_ADDRESS": f"127.0.0.1:{port}",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's word for the loopback only
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        own = {key: value for key, value in self.environment.items() if key != "RAY_ADDRESS"}
        self._own = own | {"RAY_AUTH_MODE": "token"}
        head = ["--head", "--port", str(port), "--include-dashboard=false", "--temp-dir", str(self.folder)]
        head += ["--ray-client-server-port", str(client_port), "--no-monitor"]
        self.nodes = [RayNode([*head, *self._words], self._own)]
        return self

    def __exit__(self, *error: object) -> None:
        for node in reversed(self.nodes):
            node.kill()
        self._folder.cleanup()

    def node(self, *words: str) -> RayNode:
        """Another node."""
        self.nodes.append(RayNode(["--address", self.environment["RAY_ADDRESS"], *words], self._own))
        return self.nodes[-1]
