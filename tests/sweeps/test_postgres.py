"""A real PostgreSQL under the registry and under Optuna: swept on, restarted in the middle, away for too long, resumed,
verified, and a sweep that travels between the two kinds of store.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest
from conftest import Postgres, WriterHere
from harness import PROGRAM, plain_environment
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from shell import at, command
from sqlalchemy import func, select, update

from aigc_lab.commands import doctor, verify
from aigc_lab.host.settings import Settings
from aigc_lab.registry import database, liveness
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.records import StoredPromotion
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import AliasEvent, Attempt
from aigc_lab.sweeps.cached_storage import CachedStorage
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


@contextlib.contextmanager
def place(folder: Path, empty_mlflow: Path, *, registry: str = "", optuna: str = "") -> Iterator[None]:
    """A folder to work in, whose home has its registry and Optuna's storage where it is said."""
    (folder / "home").mkdir(parents=True, exist_ok=True)
    if not (folder / "home" / "mlflow.db").exists():
        shutil.copy(empty_mlflow, folder / "home" / "mlflow.db")
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
        sweep = find_sweep(registry, "mine")
        shown = [show_run(registry, row["run"]) for row in list_runs(registry, sweep)]
    return {
        run["run"]: (run["state"], run["scores"], sorted((file["kind"], file["sha256"]) for file in run["checkpoints"]))
        for run in shown
    }


def agreed() -> None:
    settings = Settings.load()
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        found = verify.verify_sweeps(registry, settings)
    assert not found.problems and not found.notes, str(found)
    assert found.checked["runs"] == found.checked["MLflow runs"] == 3


class World(NamedTuple):
    """A sweep that nothing happened to, in a home with both stores on PostgreSQL."""

    folder: Path
    registry: str
    optuna: str
    truth: dict[str, Any]


@pytest.fixture(scope="module")
def world(server: Postgres, empty_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder, registry, optuna = tmp_path_factory.mktemp("world"), server.database(), server.database()
    with place(folder, empty_mlflow, registry=registry, optuna=optuna):
        told = command(*SWEEP)
        assert told.code == 0, told.errors
        assert "away" not in told.errors
        return World(folder, registry, optuna, results())


@pytest.fixture
def fresh(postgres: Postgres, empty_mlflow: Path, tmp_path: Path) -> Iterator[Postgres]:
    with place(tmp_path, empty_mlflow, registry=postgres.database(), optuna=postgres.database()):
        yield postgres


def test_a_sweep_on_postgres_is_that_on_sqlite(world: World, empty_mlflow: Path, tmp_path: Path) -> None:
    with place(world.folder, empty_mlflow, registry=world.registry, optuna=world.optuna):
        assert not list((world.folder / "home").glob("registry.db*"))
        agreed()
        assert command(*SWEEP).code == 0  # does nothing over
        assert results() == world.truth
    with place(tmp_path, empty_mlflow):
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


def test_a_restart_is_waited_for_by_workers_too(fresh: Postgres, world: World) -> None:
    """They write to the registry in processes of their own, and say nothing: their sweep's process does."""

    def restart() -> None:
        fresh.stop()
        threading.Timer(1.0, fresh.start).start()

    with at(3, restart):
        told = command(*SWEEP, "--workers", "2", "--set", "search.pruner=none")
    assert told.code == 0, told.errors
    assert "is away (" in told.errors and "is back" in told.errors
    assert {state for state, _, _ in results().values()} == {"FINISHED"}
    agreed()


def test_a_sweep_travels_between_the_kinds_of_store(
    postgres: Postgres, world: World, empty_mlflow: Path, tmp_path: Path
) -> None:
    archive, again = tmp_path / "mine.tar", tmp_path / "again.tar"
    with place(world.folder, empty_mlflow, registry=world.registry, optuna=world.optuna):
        assert command("export", "mine", "-o", str(archive)).code == 0
    with place(tmp_path / "file", empty_mlflow):
        assert command("import", str(archive)).code == 0
        assert results() == world.truth
        agreed()
        assert command(*SWEEP).code == 0 and results() == world.truth  # nothing is left to do
        assert command("export", "mine", "-o", str(again)).code == 0
    assert again.read_bytes() == archive.read_bytes()
    with place(tmp_path / "server", empty_mlflow, registry=postgres.database(), optuna=postgres.database()):
        assert command("import", str(again)).code == 0
        assert results() == world.truth
        agreed()


def test_another_home_on_the_same_server_reads_and_does_not_write(
    world: World, empty_mlflow: Path, tmp_path: Path
) -> None:
    """Two homes on one registry would train the same runs, and scatter their files."""
    with place(tmp_path / "other", empty_mlflow, registry=world.registry, optuna=world.optuna):
        told = command(*SWEEP, "--trials", "4")
        assert told.code == 2 and f"belongs to home {world.folder / 'home'}" in told.errors
        assert command("compare", "mine", "--json").code == 0
        assert results() == world.truth


def test_an_empty_optuna_database_is_no_problem(fresh: Postgres) -> None:
    checks = {check.name: check for check in doctor.examine()}
    for name in ("registry", "optuna"):
        assert checks[name].state == "ok" and checks[name].found.endswith("none yet: made by the first sweep")


# ---- writes whose answer is lost


@pytest.fixture
def registry(fresh: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry of which every commit is followed by the loss of the connection, once for each transaction."""
    settings = Settings.load()
    with Registry.open(settings.registry_url, home=settings.home) as opened:
        failed = set[int]()

        @contextlib.contextmanager
        def write() -> Iterator[Any]:
            with original() as connection:
                yield connection
            if len(failed) % 2 == 0:
                failed.add(len(failed))
                raise database.ConnectionLost("the connection was lost after the commit")
            failed.add(len(failed))

        original = opened.write
        monkeypatch.setattr(opened, "write", write)
        yield opened


def test_a_write_whose_answer_was_lost_is_done_once(registry: Registry) -> None:
    sweep = registry.sweep("mine", "0" * 64, {}, "rkl", "lower")
    registry.trial(sweep, 0, "point_gan", {}, {})
    run = registry.run(sweep, 0, 0, "search")
    assert registry.supervise(sweep)
    assert registry.begin(run, {}) == 1
    registry.beat(run, 1, step=3)
    registry.finish(run, 1, RunState.FINISHED, seconds=1.0)
    promoted = StoredPromotion("m", 1, run, "last", "d", "s", "p", "uri", "id")
    assert registry.promote(promoted) and not registry.promote(promoted)
    assert registry.point("m", "champion", 1, "me") is None
    assert registry.point("m", "champion", 1, "me") == 1
    with registry.read() as connection:
        assert connection.scalar(select(func.count()).select_from(Attempt)) == 1
        assert connection.scalar(select(func.count()).select_from(AliasEvent)) == 1


class Forgetful(RDBStorage):
    """An Optuna storage of which every second answer is lost: it was done, and the connection broke."""

    lost = 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith(("set_trial", "create_new_trial")):

            def ask(*given: Any, **named: Any) -> Any:
                done = found(*given, **named)
                Forgetful.lost += 1
                if Forgetful.lost % 2:
                    raise ConnectionError("lost")
                return done

            return ask
        return found


def test_an_answer_of_optuna_that_was_lost_leaves_no_gap(tmp_path: Path) -> None:
    """Trials are numbered without gaps, and samplers draw nothing twice."""

    def trials(name: str, kind: type[RDBStorage]) -> list[Any]:
        away = lambda error: str(error) if isinstance(error, ConnectionError) else None  # noqa: E731
        storage = CachedStorage(kind(f"sqlite:///{tmp_path / name}.db"), name, away)
        made = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=1))
        for number in range(4):
            if number == 1:
                made.enqueue_trial({"x": 0.5})
            trial = made.ask()
            assert trial.number == number
            value = trial.suggest_float("x", 0, 1)
            trial.report(value, 1)
            made.tell(trial, value) if number != 2 else made.tell(trial, state=TrialState.PRUNED)
        return [(each.number, each.state, each.params, each.value) for each in storage._database.get_all_trials(1)]

    assert trials("forgetful", Forgetful) == trials("sound", RDBStorage)
    assert Forgetful.lost > 10


# ---- liveness


def test_silence_counts_from_when_the_server_could_hear_it(fresh: Postgres) -> None:
    """After an outage every process of another machine has been silent for longer than a lease."""
    settings = Settings.load()
    with Registry.open(settings.registry_url, home=settings.home) as registry:
        sweep = registry.sweep("mine", "0" * 64, {}, "rkl", "lower")
        registry.trial(sweep, 0, "point_gan", {}, {})
        run = registry.run(sweep, 0, 0, "search")
        registry.begin(run, {})
        with registry.write() as connection:
            before = datetime.now(UTC) - timedelta(seconds=500)
            connection.execute(update(Attempt).values(host="elsewhere", heartbeat_at=before))
        fresh.stop()
        fresh.start()
        (row,) = liveness.running(registry, sweep)
        assert row["alive"] and row["age"] > 400


# ---- real outages


@pytest.mark.long
@pytest.mark.parametrize("workers", ["children", "joined"])
def test_workers_wait_for_a_minute(
    fresh: Postgres, world: World, workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of this machine, and those that have joined by `aigc-lab worker`: all wait, and none is taken for lost."""
    monkeypatch.setenv("AIGC_LAB_STORE_PATIENCE", "150")
    options, joined = ["--workers", "2"], list[subprocess.Popen[str]]()
    if workers == "joined":
        options = ["--executor", "queue"]

    def join() -> None:
        words = [sys.executable, "-c", PROGRAM, "worker", "mine", "--device", "cpu", "--threads", "1"]
        pause = time.monotonic() + 60
        while time.monotonic() < pause and not sweeps.exists():
            time.sleep(0.2)
        joined.extend(subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2))

    def restart() -> None:
        fresh.stop()
        threading.Timer(60.0, fresh.start).start()

    sweeps = tmp_path / "home" / "spool"
    starter = threading.Thread(target=join)
    if workers == "joined":
        starter.start()
    with at(3, restart):
        told = command(*SWEEP, *options, "--set", "search.pruner=none")
    if workers == "joined":
        starter.join()
    left = [worker.communicate(timeout=60)[1] for worker in joined]
    assert told.code == 0, told.errors
    assert "is away (" in told.errors and "is back" in told.errors and "lost" not in told.errors
    assert {state for state, _, _ in results().values()} == {"FINISHED"}
    assert all(f"left {find()}" in said for said in left), left
    agreed()


def find() -> str:
    settings = Settings.load()
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        return find_sweep(registry, "mine")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.4, 12, 70])
def test_outages_that_were_met(fresh: Postgres, world: World, seconds: float) -> None:
    """A restart, a longer one, and one that takes longer than anybody waits."""

    def restart() -> None:
        fresh.stop()
        back.start()

    back = threading.Timer(seconds, fresh.start)
    with at(6, restart):
        told = command(*SWEEP)
    back.join()
    assert told.code == (1 if seconds > 60 else 0), told.errors
    if seconds > 60:
        assert "was waited for 60 s" in told.errors and "aigc-lab resume mine-" in told.errors
        assert command("resume", "mine", "--device", "cpu", "--json").code == 0
    assert results() == world.truth
    agreed()
