"""Names become folders, files and rows: none leads out of the home, whichever way it comes in."""

import os
import sys
from pathlib import Path

import pytest
from shell import mistakes

from aigc_lab import cli
from aigc_lab.archive.contents import component, folders, lock_of
from aigc_lab.commands import sweep
from aigc_lab.errors import UsageError
from aigc_lab.experiment import experiment
from aigc_lab.host.names import checked
from aigc_lab.host.settings import Settings
from aigc_lab.registry.store import Registry
from aigc_lab.tracking.in_memory import MemoryTracker
from aigc_lab.tracking.spool import SpoolTracker

NAMES = [
    "../x",
    "/etc/x",
    "a/../../x",
    "a\0b",
    "x" * 5000,
    "größe/..",
    "-rf",
    ".",
    "..",
    "",
    "a\nb",
    "../../home",
    "a\\..\\b",
]
TEXT = """\
data: {name: ring, points: 2000}
system: {name: point_gan, hidden: 16, lr: 1e-3}
training: {steps: 20, batch_size: 32, log_every: 10, evaluate_every: 10, threads: 1}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
"""
# Each takes a name where the ? stands.
COMMANDS = [
    "sweep ?",
    "train ?",
    "show ?",
    "runs ?",
    "compare ?",
    "report ?",
    "delete ? --yes",
    "export ?",
    "import ?",
    "promote ?",
    "promote digits --name ?",
    "promote digits --alias ?",
    "sample ?",
    "check ?",
    "list ?",
    "train points.yaml --set data.name=?",
    "train points.yaml --set system.name=?",
    "train points.yaml --set evaluation.name=?",
    "train points.yaml --set data.name=?.py",
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a sweep without runs; beside it, files that nobody may touch or take for something else."""
    for name in list(os.environ):
        if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sweep, "estimate", None)  # nothing is trained here
    Path("points.yaml").write_text(TEXT)
    settings = Settings.load(tmp_path / "home")
    settings.prepare()
    with Registry.open(settings.registry_url, home=settings.home) as registry:
        registry.sweep("digits", "0123456789", {}, "fd", "lower")
    return settings.home


def contents(folder: Path) -> dict[str, bytes]:
    """Of every file but locks, and but what SQLite keeps beside an open database."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm", ".lock")))
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:12])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_on_the_command_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    if command == "import ?" and "\0" in name:
        pytest.skip("no command line can hold it, and click says so in its own words")
    words = [word.replace("?", name) for word in command.split()]
    if name.startswith("-") and "?" in command.split():  # else it is an option, which click refuses in its own words
        place = command.split().index("?")
        words = words if words[place - 1].startswith("--") else [*words[:place], *words[place + 1 :], "--", name]
    before = contents(home.parent)
    monkeypatch.setattr(sys, "argv", ["aigc-lab", words[0], "--home", str(home), *words[1:]])
    if words[0] == "list":
        monkeypatch.setattr(sys, "argv", ["aigc-lab", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr()
    assert ended.value.code == 2, shown.err
    (line,) = mistakes(shown.err)
    assert shown.out == "" and line.startswith("error: "), shown.err
    assert contents(home.parent) == before


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:12])
def test_a_name_in_a_file_or_in_python(home: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="it needs a name of letters"):
        experiment.load_experiment({"name": name, "data": {"name": "ring"}}, data_dir=home)
    for entrance in (
        lambda: component(name, "sweep"),
        lambda: lock_of(Settings.load(home), name),
        lambda: folders(Settings.load(home), name),
        lambda: folders(Settings.load(home), "digits", f"digits.{name}"),
    ):
        with pytest.raises(UsageError, match="use up to 200 letters"):
            entrance()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "-rf"], ids=lambda name: ascii(name)[:12])
def test_a_name_that_mlflow_gets(tmp_path: Path, name: str) -> None:
    """MLflow takes a name that begins with a dash; it is no file's there, but a part of an address."""
    for noun in ("artifact", "image", "metric", "param", "tag", "run"):
        with pytest.raises(ValueError, match=f"{noun} name"):
            checked(noun, name)
    with pytest.raises(ValueError, match="run name"):
        SpoolTracker(tmp_path).start("a", "b", name, {}, {})
    tracker = MemoryTracker()
    run = tracker.start(tracker.experiment("a"), "b", "key", {}, {})
    with pytest.raises(ValueError, match="artifact name"):
        run.text(name, "")
    assert list(tmp_path.iterdir()) == []
