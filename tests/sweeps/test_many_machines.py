"""One sweep on several machines, here homes that share PostgreSQL and a store: what one loses another goes on with."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Postgres
from harness import empty_mlflow, plain_environment

from aigc_lab.errors import UsageError
from aigc_lab.registry import liveness
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry

TEXT = """\
data: {name: ring, points: 500}
system: {name: point_gan, hidden: 16, lr: {log: [1e-4, 1e-2]}}
training: {steps: 400, batch_size: 16, log_every: 50, evaluate_every: 100, threads: 1, checkpoint_seconds: 0}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
search: {trials: 4, seeds: 1, sampler: random, pruner: median}
"""


class Machines:
    """Homes with the same stores, and the commands that go on in them."""

    def __init__(self, folder: Path, stores: dict[str, str], stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self._environment = plain_environment() | stores
        (folder / "mine.yaml").write_text(TEXT)

    def start(self, home: str, *words: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from aigc_lab.cli import main; main()", *words],
            cwd=self.folder,
            env=self._environment | {"AIGC_LAB_HOME": str(self.folder / home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    @contextmanager
    def registry(self) -> Iterator[Registry]:
        with Registry.open(self._environment["AIGC_LAB_REGISTRY_URL"], create=False) as registry:
            yield registry

    def supervisor(self) -> int | None:
        """The process that runs the sweep and has opened it to workers."""
        try:
            with self.registry() as registry:
                sweep = find_sweep(registry, "mine")
                row = liveness.supervisor(registry, sweep)
                return None if row is None or registry.opening(sweep) is None else int(row["pid"])
        except UsageError:
            return None  # there is no registry yet, or no sweep

    def running(self) -> list[int]:
        """The processes that train now."""
        with self.registry() as registry:
            return [row["pid"] for row in liveness.running(registry)]


@pytest.fixture
def machines(tmp_path: Path, postgres: Postgres) -> Iterator[Machines]:
    stores = {
        "AIGC_LAB_REGISTRY_URL": postgres.database(),
        "AIGC_LAB_OPTUNA_URL": postgres.database(),
        "AIGC_LAB_STORE_URL": (tmp_path / "store").as_uri(),
        "MLFLOW_TRACKING_URI": f"sqlite:///{empty_mlflow(tmp_path)}",
    }
    with ExitStack() as stack:
        yield Machines(tmp_path, stores, stack)


def until(true: Callable[[], Any], seconds: float = 180.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)
    return found


def test_the_process_that_runs_a_sweep_is_lost_and_another_takes_over(machines: Machines) -> None:
    first = machines.start("a", "sweep", "mine.yaml", "--executor", "queue", "--device", "cpu")
    assert until(machines.supervisor) == first.pid
    worker = machines.start("b", "worker", "mine", "--device", "cpu", "--threads", "1")
    second = machines.start("c", "resume", "mine", "--standby", "--executor", "queue", "--device", "cpu")
    assert until(machines.running) == [worker.pid]
    os.kill(first.pid, signal.SIGKILL)
    told, _ = second.communicate(timeout=240)
    assert second.returncode == 0, told
    assert f"process {first.pid} on" in told and "was lost; this one takes over" in told
    left, _ = worker.communicate(timeout=120)
    assert worker.returncode == 0, left
    assert "is not run any more: it has ended, or was stopped" in left
    with machines.registry() as registry:
        runs = [show_run(registry, row["run"]) for row in list_runs(registry, find_sweep(registry, "mine"))]
    assert {run["state"] for run in runs} <= {"FINISHED", "PRUNED"} and len(runs) == 4
    for run in runs:
        # The worker went on while nobody ran the sweep: nothing was begun twice.
        assert [attempt["state"] for attempt in run["attempts"]] == [run["state"]]
        assert run["environment"]["pid"] == worker.pid
