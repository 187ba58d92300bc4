"""A real PostgreSQL under the registry and under Optuna: swept on, restarted in the middle, away for too long, resumed,
verified, and a sweep that travels between the two kinds of store.
"""

import contextlib
import io
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from conftest import Postgres, WriterHere
from harness import empty_mlflow, plain_environment
from sqlalchemy import text

from aigc_lab import cli, outage, sweeps, verification
from aigc_lab.registry import queries
from aigc_lab.registry.store import Registry
from aigc_lab.settings import Settings
from aigc_lab.tracking import writer

TEXT = """\
data: {name: ring, points: 500}
system: {name: point_gan, hidden: 16, lr: {log: [1e-4, 1e-2]}, loss: {choice: [nonsaturating, hinge]}}
training: {steps: 40, batch_size: 16, log_every: 10, evaluate_every: 10, threads: 1, checkpoint_seconds: 0}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
search: {trials: 3, seeds: 1, pruner: median}
"""
SWEEP = ["sweep", "mine.yaml", "--device", "cpu", "--json"]


class Told(NamedTuple):
    code: int
    output: str
    errors: str


def command(*words: str) -> Told:
    """A command in this process."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["aigc-lab", *words]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        pytest.raises(SystemExit) as left,
    ):
        cli.main()
    told = Told(int(left.value.code or 0), output.getvalue(), errors.getvalue())
    assert "Traceback" not in told.errors, told.errors
    return told


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's, empty: making them takes seconds."""
    return empty_mlflow(tmp_path_factory.mktemp("empty"))


@contextlib.contextmanager
def place(folder: Path, tables: Path, *, registry: str = "", optuna: str = "") -> Iterator[None]:
    """A folder to work in, whose home has its registry and Optuna's storage where it is said."""
    (folder / "home").mkdir(parents=True, exist_ok=True)
    if not (folder / "home" / "mlflow.db").exists():
        shutil.copy(tables, folder / "home" / "mlflow.db")
    (folder / "mine.yaml").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(plain_environment()):
            patch.delenv(name)
        patch.setenv("AIGC_LAB_HOME", str(folder / "home"))
        for name, url in (("REGISTRY", registry), ("OPTUNA", optuna)):
            if url:
                patch.setenv(f"AIGC_LAB_{name}_URL", url)
        patch.setattr(writer, "Writer", WriterHere)
        patch.chdir(folder)
        yield


def results() -> dict[str, Any]:
    """Of each run of the newest sweep: how it ended, its scores, and the digests of its weights."""
    settings = Settings.load()
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        sweep = queries.find_sweep(registry, "mine")
        shown = [queries.show(registry, row["run"]) for row in queries.runs(registry, sweep)]
    return {
        run["run"]: (run["state"], run["scores"], sorted((file["kind"], file["sha256"]) for file in run["checkpoints"]))
        for run in shown
    }


def agreed() -> None:
    settings = Settings.load()
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        found = verification.verify(registry, settings)
    assert not found.problems and not found.notes, str(found)
    assert found.checked["runs"] == found.checked["MLflow runs"] == 3


@contextlib.contextmanager
def at(evaluation: int, happen: Callable[[], object]) -> Iterator[None]:
    """Something happens before this evaluation of those that come within is told."""
    scored, count = sweeps._Watcher.scored, 0

    def counted(watcher: sweeps._Watcher, step: int, value: float) -> bool:
        nonlocal count
        count += 1
        if count == evaluation:
            happen()
        return scored(watcher, step, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps._Watcher, "scored", counted)
        yield
    assert count >= evaluation


class World(NamedTuple):
    """A sweep that nothing happened to, in a home with both stores on PostgreSQL."""

    folder: Path
    registry: str
    optuna: str
    truth: dict[str, Any]


@pytest.fixture(scope="module")
def world(server: Postgres, tables: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder, registry, optuna = tmp_path_factory.mktemp("world"), server.database(), server.database()
    with place(folder, tables, registry=registry, optuna=optuna):
        told = command(*SWEEP)
        assert told.code == 0, told.errors
        assert "away" not in told.errors
        return World(folder, registry, optuna, results())


@pytest.fixture
def fresh(postgres: Postgres, tables: Path, tmp_path: Path) -> Iterator[Postgres]:
    with place(tmp_path, tables, registry=postgres.database(), optuna=postgres.database()):
        yield postgres


def test_a_sweep_on_postgres_is_that_on_sqlite(world: World, tables: Path, tmp_path: Path) -> None:
    with place(world.folder, tables, registry=world.registry, optuna=world.optuna):
        assert not list((world.folder / "home").glob("registry.db*"))
        agreed()
        assert command(*SWEEP).code == 0  # does nothing over
        assert results() == world.truth
    with place(tmp_path, tables):
        assert command(*SWEEP).code == 0
        assert results() == world.truth


@pytest.mark.parametrize("evaluation", [2, 6])
def test_a_restart_is_waited_for(fresh: Postgres, world: World, evaluation: int) -> None:
    def restart() -> None:
        fresh.stop()
        threading.Timer(1.0, fresh.start).start()

    with at(evaluation, restart):
        told = command(*SWEEP)
    assert told.code == 0, told.errors
    assert told.errors.count("Optuna's storage postgresql+psycopg://") == 2  # away, and back
    assert "is away (" in told.errors and "; waiting up to 60 s" in told.errors and "is back" in told.errors
    assert results() == world.truth
    agreed()


def test_a_server_that_stays_away_ends_the_sweep_which_goes_on_later(
    fresh: Postgres, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIGC_LAB_STORE_PATIENCE", "0.5")
    with at(6, fresh.stop):
        told = command(*SWEEP)
    assert told.code == 1
    (line,) = [line for line in told.errors.splitlines() if line.startswith("error: ")]
    assert "is away (" in line and "was waited for 0.5 s" in line
    assert "aigc-lab resume mine-" in line and line.endswith("goes on")
    fresh.start()
    told = command("resume", "mine", "--device", "cpu", "--json")
    assert told.code == 0, told.errors
    assert results() == world.truth
    agreed()
