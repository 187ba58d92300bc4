"""A home that lies elsewhere than where it was made: said in one line, corrected by one command."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from aigc_lab.commands import doctor
from aigc_lab.errors import UsageError
from aigc_lab.host.settings import Settings
from aigc_lab.registry.home import OpenedHome
from aigc_lab.registry.records import StoredArtifact, StoredCheckpoint
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.tracking import relocation
from aigc_lab.tracking.mlflow import MlflowTracker

SWEEP = "ring-01234567"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIGC_LAB_HOME", "AIGC_LAB_REGISTRY_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home whose path needs escaping, with one run in MLflow that has a file; and the run's id in MLflow."""
    home = tmp_path_factory.mktemp("old place") / "100%_home"
    home.mkdir()
    tracker = MlflowTracker(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts")
    run = tracker.start(tracker.experiment(SWEEP), "run", "key", {}, {})
    run.text("note.txt", "hello")
    run.end("FINISHED", {})
    return home, run.run_id


def record(home: Path, elsewhere: Path) -> None:
    with Registry.open(f"sqlite:///{home / 'registry.db'}", home=home) as registry:
        sweep = registry.sweep("ring", "01234567", {}, "rkl", "lower")
        registry.trial(sweep, 0, "point_gan", {}, {})
        run = registry.run(sweep, 0, 0, "search")
        checkpoint = StoredCheckpoint("last", 1, str(home / "checkpoints" / "last.safetensors"), "00", 1)
        artifacts = [
            StoredArtifact(name, "image/png", path)
            for name, path in (
                ("samples", str(home / "artifacts" / "samples.png")),
                ("elsewhere", f"{elsewhere}-2/samples.png"),
            )
        ]
        registry.finish(run, registry.begin(run, {}), RunState.FINISHED, checkpoints=[checkpoint], artifacts=artifacts)


def files(home: Path) -> list[str]:
    with Registry.open(f"sqlite:///{home / 'registry.db'}", home=home, create=False) as registry:
        row = show_run(registry, f"{SWEEP}.0.0")
    return [file["path"] for file in (*row["checkpoints"], *row["artifacts"])]


def expected(home: Path, old: Path) -> list[str]:
    inside = [str(home / "checkpoints" / "last.safetensors"), f"{old}-2/samples.png"]
    return [*inside, str(home / "artifacts" / "samples.png")]


def test_the_registry_moves_with_its_home(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    record(old, old)
    assert files(old) == expected(old, old)
    old.rename(new)
    assert files(new) == expected(new, old)


def test_the_home_of_a_sqlite_registry_is_its_folder_unless_told(tmp_path: Path) -> None:
    record(tmp_path, tmp_path)
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}", create=False) as registry:
        assert registry.located("artifacts/x.png") == str(tmp_path / "artifacts" / "x.png")


def test_a_moved_home_is_refused_then_repaired(made: tuple[Path, str], tmp_path: Path) -> None:
    from mlflow import MlflowClient

    old, run = made
    home = Path(shutil.copytree(old, tmp_path / "new"))
    record(home, old)
    with Registry.open(f"sqlite:///{home / 'registry.db'}", home=old) as registry, registry.write() as connection:
        for table in ("checkpoint", "artifact"):  # as the version before recorded them
            inside = "path NOT LIKE '/%'"
            connection.exec_driver_sql(f"UPDATE {table} SET path = ? || '/' || path WHERE {inside}", (str(old),))
    settings = Settings.load(home)
    relocation.check_relocation(Settings.load(old))
    with pytest.raises(UsageError, match="was made at .*100%_home.*'aigc-lab doctor --repair'") as refused:
        relocation.check_relocation(settings)
    assert "\n" not in str(refused.value)

    found = {check.name: check for check in doctor.examine(home, repair=True)}
    assert found["repair"].state == "ok"
    assert "place" not in found
    relocation.check_relocation(settings)
    assert files(home) == expected(home, old)
    client = MlflowClient(tracking_uri=settings.tracking_uri)
    assert client.get_run(run).info.artifact_uri.startswith(home.as_uri())
    experiment = client.get_experiment_by_name(SWEEP)
    assert experiment is not None
    assert experiment.artifact_location == f"{home.as_uri()}/artifacts/mlflow/{SWEEP}"
    assert [file.path for file in client.list_artifacts(run)] == ["note.txt"]
    assert client.search_runs([experiment.experiment_id])[0].info.run_id == run

    (backup,) = home.glob("mlflow.db.*.backup")
    with closing(sqlite3.connect(backup)) as database:
        assert database.execute("SELECT artifact_uri FROM runs").fetchone()[0].startswith(old.as_uri())
    with OpenedHome(settings) as opened:
        assert doctor._repaired(opened)[0].found == "nothing to correct"
    assert list(home.glob("mlflow.db.*.backup")) == [backup]


def test_another_name_of_the_same_home_is_not_a_move(made: tuple[Path, str], tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(made[0])
    relocation.check_relocation(Settings.load(link))


def test_a_store_outside_the_home_may_serve_several(
    made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{made[0] / 'mlflow.db'}")
    relocation.check_relocation(Settings.load(tmp_path / "another"))
    assert relocation.repair(Settings.load(tmp_path / "another")) is None
