"""What a user can get wrong: one line naming place, key and remedy, exit 2, before any training; stores untouched."""

import contextlib
import gc
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pytest
from shell import mistakes

from aigc_lab import cli
from aigc_lab.commands import sweep
from aigc_lab.executors import inline

RING = """\
data: {name: ring, points: 2000}
system:
  name: point_gan
  hidden: 16
  lr: 1e-3
training: {steps: 20, batch_size: 32, log_every: 10, evaluate_every: 20, threads: 1}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
"""
STORES = ("registry.db", "optuna.db", "mlflow.db")


@pytest.fixture(autouse=True, scope="module")
def _plain_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
                patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which something has been done, at rest."""
    folder = tmp_path_factory.mktemp("filled")
    (folder / "mine.yaml").write_text(RING)
    sweep.sweep_experiment(str(folder / "mine.yaml"), [], device="cpu", dry_run=False, json=True, home=folder / "home")
    for store in STORES:
        with closing(sqlite3.connect(folder / "home" / store)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / "home"


@pytest.fixture
def home(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which nothing may be trained."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("something was trained")

    monkeypatch.setattr(sweep, "estimate", refuse)
    monkeypatch.setattr(inline, "execute", refuse)
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(filled, tmp_path / "home", ignore=shutil.ignore_patterns("*-wal", "*-shm")))


def contents(home: Path) -> dict[str, str]:
    """Every file with its hash. What SQLite keeps beside an open database is looked at, not counted."""
    found = {}
    for path in sorted(home.rglob("*")):
        if path.name.endswith("-wal"):
            # It goes when the last connection is closed, which may be between the list and the look.
            size = path.stat().st_size if path.exists() else 0
            assert size == 0, f"{path} was written"
        elif path.name.endswith("-shm"):
            continue
        elif path.is_file():
            found[str(path.relative_to(home))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class Shell:
    """Types commands, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch = monkeypatch
        self._capture = capsys

    def refused(self, *arguments: str) -> str:
        self._patch.setattr(sys, "argv", ["aigc-lab", *arguments])
        self._capture.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        shown = self._capture.readouterr()
        assert stopped.value.code == 2, shown.err
        assert shown.out == ""
        (line,) = mistakes(shown.err)
        assert line.startswith("error: "), shown.err
        return line.removeprefix("error: ")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


# ---- files

FILES = [
    ("steps: 20", "stepz: 20", "mine.yaml:6: training.stepz: unknown key; did you mean steps"),
    ("steps: 20", "steps: many", "mine.yaml:6: training.steps: it should be a valid integer"),
    ("steps: 20", "steps: -20", "mine.yaml:6: training.steps: it should be greater than or equal to 1, not -20"),
    (
        "lr: 1e-3",
        "lr: {log: [1e-3, 1e-4]}",
        "mine.yaml:5: system.lr.log: the low end 0.001 is above the high end 0.0001",
    ),
    (
        "lr: 1e-3",
        "lr: {log: [0, 1e-4]}",
        "mine.yaml:5: system.lr.log: the low end 0 of a logarithmic range must be above 0",
    ),
    ("point_gan", "point_gam", "mine.yaml:3: system.name: unknown system 'point_gam'; did you mean point_gan?"),
    ("name: ring", "name: rings", "mine.yaml:1: data.name: unknown dataset 'rings'; did you mean ring"),
    ("name: points", "name: point", "mine.yaml:7: evaluation: unknown protocol 'point'; did you mean points?"),
    (
        "samples: 400",
        "samples: 10001",
        "mine.yaml:7: evaluation.samples: protocol points takes 10001 samples, and the",
    ),
    ("{minimize: rkl}", "{minimize: rkl", "mine.yaml:9:1: YAML syntax: "),
    ("system:", "system: 5\nsystem:", "mine.yaml:3: system: this key stands here twice; keep one"),
    (
        "lr: 1e-3",
        "critic_layers: 0",
        "mine.yaml:5: system.critic_layers: it should be greater than or equal to 1, not 0",
    ),
]


@pytest.mark.parametrize("command", ["sweep", "train"])
@pytest.mark.parametrize(("old", "new", "said"), FILES)
def test_a_wrong_file(home: Path, shell: Shell, command: str, old: str, new: str, said: str) -> None:
    before = contents(home)
    assert old in RING
    Path("mine.yaml").write_text(RING.replace(old, new, 1))
    assert shell.refused(command, "mine.yaml", "--home", str(home)).startswith(said)
    assert contents(home) == before


def test_a_fresh_home_is_not_even_made(home: Path, shell: Shell, tmp_path: Path) -> None:
    for old, new, _ in FILES:
        Path("mine.yaml").write_text(RING.replace(old, new, 1))
        shell.refused("sweep", "mine.yaml", "--home", "fresh")
    assert not (tmp_path / "fresh").exists()


# ---- options


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep", "rign"], "unknown experiment 'rign'; did you mean ring?"),
        (["train", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["sweep", "good.yaml", "--set", "training.steps"], "--set training.steps: write --set KEY=VALUE"),
        (["sweep", "good.yaml", "--set", "training.stepz=1"], "--set training.stepz=1: training.stepz: unknown key"),
        (["sweep", "good.yaml", "--set", "training=[1"], "--set training=[1:1:3: YAML syntax: "),
        (
            ["sweep", "good.yaml", "--steps", "-5"],
            "--steps -5: training.steps: it should be greater than or equal to 1",
        ),
        (["sweep", "good.yaml", "--trials", "0"], "--trials 0: search.trials: it should be greater than or equal to 1"),
        (["sweep", "good.yaml", "--seeds", "-1"], "--seeds -1: search.seeds: it should be greater than or equal to 1"),
        (
            ["sweep", "good.yaml", "--steps", "9" * 300],
            f"--steps {'9' * 300}:1: a number of 300 digits; 100 are read at",
        ),
        (["sweep", "good.yaml", "--workers", "9999999"], "Invalid value for '--workers': "),
        (["train", "good.yaml", "--seed", str(2**63)], "Invalid value for '--seed': "),
        (["train", "good.yaml", "--set", "training.batch_size=99999999999"], "--set training.batch_size=99999999999: "),
        (["sweep", "good.yaml", "--device", "tpu"], "--devices tpu: there is no such device; use cpu, cuda"),
        (["sweep", "good.yaml", "--device", "meta"], "--devices meta: use cpu, cuda"),
        (["train", "good.yaml", "--device", "cuda:99"], "--devices cuda:99: this machine has "),
        (
            ["train", "good.yaml", "--set", "system.lr={log: [1e-4, 1e-3]}"],
            "good.yaml: train takes one configuration, and system.lr is still open; decide with --set",
        ),
        (
            ["train", "good.yaml", "--set", "system={choice: [{name: point_gan, lr: {log: [1e-4, 1e-3]}}]}"],
            "good.yaml: train takes one configuration, and system, system.point_gan.lr are still open",
        ),
    ],
)
def test_a_wrong_option(home: Path, shell: Shell, arguments: list[str], said: str) -> None:
    before = contents(home)
    Path("good.yaml").write_text(RING)
    assert shell.refused(*arguments, "--home", str(home)).startswith(said)
    assert contents(home) == before


LONG = "a" * 300


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["init", LONG], "DIR "),
        (["init", "a/ /b"], "DIR "),
        (["runs", "--home", LONG], "--home "),
        (["report", "mine", "-o", LONG], "-o "),
        (["report", "mine", "-o", "no-such-folder/x.html"], "no-such-folder/x.html: there is no folder"),
        (["export", "mine", "-o", "ä" * 200], "-o "),
        (["sample", "mine", "-o", f"a/{LONG}"], "-o "),
        (["evaluate", "--generated", "mine", "--neighbours", f"{LONG}.png"], "--neighbours "),
        (["promote", "mine", "--name", LONG], "--name "),
        (["promote", "mine", "--alias", LONG], "--alias "),
        (["sweep", f"{LONG}.yaml"], f"{LONG}.yaml"),
        (["check", f"./{LONG}.py"], f"./{LONG}.py: no such file"),
    ],
)
def test_a_name_that_no_file_can_have(home: Path, shell: Shell, arguments: list[str], said: str) -> None:
    before = contents(home)
    options = [] if arguments[0] == "init" or "--home" in arguments else ["--home", str(home)]
    message = shell.refused(*arguments, *options)
    assert message.startswith(said)
    if said.endswith(" "):
        assert any(word in message for word in ("255 bytes at most", "zero byte", "nothing but spaces", "letters"))
    assert contents(home) == before


def test_the_longest_name_that_a_file_can_have(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for end in (".html", ".tar"):
        name = "a" * (255 - len(end)) + end
        command = {".html": "report", ".tar": "export"}[end]
        monkeypatch.setattr(sys, "argv", ["aigc-lab", command, "mine", "-o", name, "--home", str(home)])
        with contextlib.suppress(SystemExit):
            cli.main()
        assert Path(name).is_file()


# ---- homes and stores


@pytest.mark.parametrize("command", ["sweep", "train"])
@pytest.mark.parametrize("bad", ["/dev/null/x", "a-file", "a-file/inside"])
def test_a_home_that_cannot_be_written(home: Path, shell: Shell, command: str, bad: str) -> None:
    Path("good.yaml").write_text(RING)
    Path("a-file").write_text("precious")
    message = shell.refused(command, "good.yaml", "--home", bad)
    assert message.startswith(f"home {Path(bad).absolute()} cannot be written (")
    assert message.endswith("name another with --home or AIGC_LAB_HOME")
    assert Path("a-file").read_text() == "precious"


NEWER = {
    "registry.db": ("UPDATE alembic_version SET version_num = '9999'", "has schema 9999", "upgrade aigc-lab"),
    "optuna.db": ("UPDATE alembic_version SET version_num = 'v9.9.9.a'", "Optuna's storage", "AIGC_LAB_OPTUNA_URL"),
    "mlflow.db": ("UPDATE alembic_version SET version_num = 'ffffffffffff'", "newer MLflow", "upgrade mlflow"),
}


@pytest.mark.parametrize("command", ["sweep", "train"])
@pytest.mark.parametrize("store", STORES)
def test_a_store_of_a_newer_version(home: Path, shell: Shell, command: str, store: str) -> None:
    statement, problem, remedy = NEWER[store]
    with closing(sqlite3.connect(home / store)) as database:
        database.execute(statement)
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = contents(home)
    Path("good.yaml").write_text(RING)
    message = shell.refused(command, "good.yaml", "--home", str(home))
    assert store in message
    assert problem in message
    assert remedy in message
    assert contents(home) == before


@pytest.mark.parametrize("store", STORES)
def test_a_store_that_is_no_database(home: Path, shell: Shell, store: str) -> None:
    (home / store).write_text("no database " * 1000)
    before = contents(home)
    Path("good.yaml").write_text(RING)
    assert store in shell.refused("sweep", "good.yaml", "--home", str(home))
    assert contents(home) == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which files are open")
@pytest.mark.parametrize("bad", STORES)
def test_what_was_looked_at_is_closed_at_once(home: Path, shell: Shell, bad: str) -> None:
    """Not when the garbage collector comes by: a process that has been told of a mistake may go on for long."""
    (home / bad).write_text("no database " * 1000)
    Path("good.yaml").write_text(RING)
    gc.collect()
    gc.disable()
    try:
        shell.refused("sweep", "good.yaml", "--home", str(home))
        assert opened(home) == []
    finally:
        gc.enable()


def opened(home: Path) -> list[str]:
    """The files of a home that this process has open."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.append(os.readlink(entry))
    return [name for name in found if name.startswith(str(home))]


@pytest.mark.parametrize(
    ("variable", "address", "said"),
    [
        ("AIGC_LAB_REGISTRY_URL", "mysql://me:secret@host/x", "AIGC_LAB_REGISTRY_URL"),
        ("AIGC_LAB_OPTUNA_URL", "nonsense://me:secret@host/x", "AIGC_LAB_OPTUNA_URL"),
        ("AIGC_LAB_OPTUNA_URL", "postgresql+psycopg://me:secret@host:port/x", "AIGC_LAB_OPTUNA_URL"),
        ("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:1", "127.0.0.1:1"),
    ],
)
def test_a_wrong_address(
    home: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, variable: str, address: str, said: str
) -> None:
    before = contents(home)
    Path("good.yaml").write_text(RING)
    monkeypatch.setenv(variable, address)
    message = shell.refused("sweep", "good.yaml", "--home", str(home))
    assert said in message
    assert "secret" not in message
    assert contents(home) == before


def test_an_mlflow_server_that_does_not_answer(home: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once, and waited for less than five seconds."""
    waited = []

    def silent(request: Any, timeout: float) -> NoReturn:
        waited.append(timeout)
        raise urllib.error.URLError(TimeoutError("timed out"))

    monkeypatch.setattr(urllib.request, "urlopen", silent)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    Path("good.yaml").write_text(RING)
    before = contents(home)
    message = shell.refused("sweep", "good.yaml", "--home", str(home))
    assert "http://mlflow.example:5000" in message
    assert "MLFLOW_TRACKING_URI" in message
    assert len(waited) == 1
    assert waited[0] < 5
    assert contents(home) == before


# ---- in a process of its own


def test_a_mistake_as_a_user_makes_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RING.replace("lr:", "lrr:"))
    command = [sys.executable, "-c", "from aigc_lab.cli import main; main()", "sweep", "mine.yaml"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIGC_LAB_")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    began, said = done.stderr.splitlines()
    assert began == "sweep mine.yaml: importing torch, which takes some seconds …"
    assert said == "error: mine.yaml:5: system.lrr: unknown key; did you mean lr?"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
