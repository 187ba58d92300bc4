"""Homes in folders of any name: every database, file and address stays in the folder that was named."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import WriterHere
from harness import plain_environment
from shell import command
from sqlalchemy.engine import make_url

from aigc_lab.cli import completion
from aigc_lab.commands import verify
from aigc_lab.host.settings import Settings, sqlite_path, sqlite_url
from aigc_lab.registry.store import Registry
from aigc_lab.tracking import writer

NAMES = ["plain", "feature%2Fgan", "50%", "a?mode=ro", "no #3", "R&D", "zwei Wörter", "me@work:1", "{sweep}", "%7B+%"]
TEXT = """\
data: {name: ring, points: 500}
system: {name: point_gan, hidden: 16, lr: {log: [1e-4, 1e-2]}}
training: {steps: 20, batch_size: 16, log_every: 10, evaluate_every: 10, threads: 1}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
search: {trials: 2, seeds: 1}
"""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", ["/work", "relative"])
def test_the_address_of_a_file_means_that_file(folder: str, name: str) -> None:
    path = Path(folder, name, "registry.db")
    assert make_url(sqlite_url(path)).database == str(path)
    assert sqlite_path(sqlite_url(path)) == path
    assert Settings.load(path.parent).registry_url == sqlite_url(path.absolute())


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgresql+psycopg://me@host/a", "nonsense"])
def test_an_address_of_no_file(url: str) -> None:
    assert sqlite_path(url) is None


def test_a_sweep_stays_in_a_folder_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(plain_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setattr(writer, "Writer", WriterHere)
    folder = tmp_path / "feature%2Fgan ? # & ü {x}%"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("mine.yaml").write_text(TEXT)
    done = command("sweep", "mine.yaml", "--device", "cpu")
    assert done.code == 0, done.errors
    promoted = command("promote", "mine", "--force", "--reason", "a test")
    assert promoted.code == 0, promoted.errors

    assert {path.name for path in Path(".aigc-lab").glob("*.db")} == {"registry.db", "optuna.db", "mlflow.db"}
    # Nothing beside the folder, under another reading of its name.
    assert list(tmp_path.iterdir()) == [folder]
    assert {path.name for path in folder.iterdir()} == {"mine.yaml", ".aigc-lab"}
    settings = Settings.load()
    with Registry.open(settings.registry_url, create=False) as registry:
        result = verify.verify_sweeps(registry, settings)
    assert not result.problems, str(result)
    assert result.checked["MLflow runs"] == result.checked["runs"] == 2
    assert result.checked["models"] == 1
    assert completion.sweeps("mine") != []
    doctor = command("doctor").output
    assert "schema" in doctor
    assert "1 studies" in doctor
    # A home is found again by all stores after it was moved.
    shutil.move(folder, tmp_path / "b?%41")
    monkeypatch.chdir(tmp_path / "b?%41")
    assert command("doctor", "--repair").code == 0
    settings = Settings.load()
    with Registry.open(settings.registry_url, create=False) as registry:
        assert not verify.verify_sweeps(registry, settings).problems
