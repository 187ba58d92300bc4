"""Several homes on one registry: a sweep is written by the home that has its files, and by no other."""

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import typer
from shell import command
from sqlalchemy import update

from aigc_lab import cli
from aigc_lab.archive.export import export
from aigc_lab.commands import doctor
from aigc_lab.errors import UsageError
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.host.settings import Settings
from aigc_lab.registry import homes
from aigc_lab.registry.records import StoredCheckpoint
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import show_sweep
from aigc_lab.registry.tables import METADATA, Home, Sweep
from aigc_lab.sweeps import ownership
from aigc_lab.tracking import relocation, writer
from aigc_lab.tracking.spool import SpoolTracker

TEXT = """\
data: {name: ring, points: 500}
system: {name: point_gan, hidden: 16}
training: {steps: 40, batch_size: 16, log_every: 10, evaluate_every: 10, threads: 1}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
"""

# Every command, and the words that would change the sweep or its home's part of a store. One that is not here fails the
# test: who adds a command says whether it writes, and a command that writes must ask `ownership` first.
WRITES = {
    "sweep": "sweep mine.yaml --device cpu",
    "train": "train mine.yaml --seed 7 --device cpu",
    "resume": "resume mine --device cpu",
    "stop": "stop mine",
    "worker": "worker mine --device cpu",
    "delete": "delete mine --yes",
    "import": "import mine.tar",
    "spool": "spool --flush",
    "promote": "promote {run} --force --reason untrained",
    "rejudge": "rejudge mine --device cpu",
    "reconcile": "reconcile",
}
# What reads, or writes to where it is told and to caches; `doctor --repair` is the remedy; `export` needs the files.
READS = {
    *("verify", "status", "runs", "show", "compare", "report", "models", "list", "check", "init", "doctor", "ui"),
    *("sample", "evaluate", "export", "judge collapse", "judge stability", "judge seeds", "plot"),
    *("cache list", "cache verify", "cache clear", "bench"),
}


def registered() -> set[str]:
    """The names of all commands, those of groups with the group before."""

    def walk(command: Any, name: str) -> Iterator[str]:
        if not hasattr(command, "commands"):
            yield name
            return
        for part, each in command.commands.items():
            yield from walk(each, f"{name} {part}".strip())

    return set(walk(typer.main.get_command(cli.app), ""))


class Two:
    """A folder with homes `a` and `b`, and a registry beside them that both use. `a` has a sweep of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.a, self.b = folder, folder / "a", folder / "b"
        self.url = f"sqlite:///{folder / 'shared.db'}"
        (folder / "mine.yaml").write_text(TEXT)
        settings = Settings.load(self.a)
        found = load_experiment("mine.yaml", [], data_dir=settings.data_dir, weights=settings.weights)
        check_experiment(found)
        self.sweep = found.sweep
        settings.prepare()
        (settings.artifacts / self.sweep).mkdir()
        with self.registry() as registry:
            registry.sweep("mine", found.digest, found.document.data, "rkl", "lower", source="mine.yaml")
            registry.trial(self.sweep, 0, "point_gan", {}, {})
            self.run = registry.run(self.sweep, 0, 0, "search")
            weights = settings.checkpoints / self.sweep / "0.0" / "1" / "last.safetensors"
            weights.parent.mkdir(parents=True)
            weights.write_bytes(b"")
            kept = StoredCheckpoint("last", 40, str(weights), "00", 0)
            registry.finish(self.run, registry.begin(self.run, {}), RunState.FINISHED, checkpoints=[kept])
            ownership.claim(registry, settings, self.sweep)

    def registry(self, home: Path | None = None) -> Registry:
        return Registry.open(self.url, home=home or self.a)

    def refuse(self, home: Path) -> None:
        with self.registry(home) as registry:
            ownership.refuse(registry, Settings.load(home), self.sweep)

    def claim(self, home: Path) -> None:
        with self.registry(home) as registry:
            ownership.claim(registry, Settings.load(home), self.sweep)

    def owner(self) -> homes.StoredHome | None:
        with self.registry() as registry:
            return homes.home(registry, homes.owners(registry)[self.sweep])

    def rows(self) -> dict[str, list[object]]:
        with self.registry() as registry, registry.read() as connection:
            return {name: [*map(tuple, connection.execute(table.select()))] for name, table in METADATA.tables.items()}


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Two:
    for name in list(os.environ):
        if name.startswith(("AIGC_LAB_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIGC_LAB_REGISTRY_URL", f"sqlite:///{tmp_path / 'shared.db'}")
    return Two(tmp_path)


def spooled(home: Path, sweep: str) -> None:
    """Something that waits for MLflow in a home."""
    run = SpoolTracker(writer.spool_folder(Settings.load(home), sweep)).start(sweep, "run", "key.1", {}, {})
    run.flush()


# ---- commands


def test_every_command_is_known_to_read_or_to_write() -> None:
    assert registered() == WRITES.keys() | READS
    assert not WRITES.keys() & READS


@pytest.fixture
def armed(two: Two, monkeypatch: pytest.MonkeyPatch) -> Two:
    """All that the commands of `WRITES` need to have something to write from home `b`."""
    archive = export_of(two)
    assert archive.exists()
    spooled(two.b, two.sweep)
    with two.registry() as registry:
        registry.supervise(two.sweep)
    monkeypatch.setenv("AIGC_LAB_HOME", str(two.b))
    return two


def export_of(two: Two) -> Path:
    with mock.patch("aigc_lab.archive.export._files", return_value={}):  # its files are none that could be packed
        return export(two.sweep, Settings.load(two.a), two.folder / "mine.tar", force=True).path


@pytest.mark.parametrize("name", sorted(WRITES.keys() - {"reconcile", "import"}))
def test_a_command_that_writes_is_refused_in_another_home(armed: Two, name: str) -> None:
    before = armed.rows()
    told = command(*WRITES[name].format(run=armed.run).split())
    assert told.code == 2
    assert f"sweep {armed.sweep} belongs to home {armed.a}, and this one may only read it; run this there" in told.why
    assert armed.rows() == before


@pytest.mark.parametrize("name", sorted(WRITES.keys() - {"import"}))
def test_a_command_that_writes_asks_whether_the_home_has_moved(
    armed: Two, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`promote` in a copied home wrote into the old one."""
    before = armed.rows()
    monkeypatch.setattr(relocation, "old_homes", lambda settings: [Path("/there/before")])
    monkeypatch.setenv("AIGC_LAB_HOME", str(armed.a))
    spooled(armed.a, armed.sweep)
    told = command(*WRITES[name].format(run=armed.run).split())
    assert told.code == 2 and "was made at /there/before" in told.why
    assert armed.rows() == before


def test_another_home_reads_and_leaves_what_others_left_behind(armed: Two) -> None:
    assert command("compare", "mine", "--json")[0] == 0
    assert command("show", armed.run)[0] == 0
    told = command("reconcile")
    assert told.code == 0 and f"{armed.sweep}: it is left alone" in told.output + told.errors
    checks = {check.name: check for check in doctor.examine(armed.b)}
    assert checks["sweeps"].state == "ok" and str(armed.a) in checks["sweeps"].found


def test_another_home_does_not_show_the_sweeps_of_others_again(armed: Two) -> None:
    """It made empty runs, and the registry that both use named those."""
    with armed.registry() as registry:
        registry.release(armed.sweep)
    before = armed.rows()
    for words in (["--dry-run"], []):
        told = command("reconcile", "--mlflow", *words)
        assert told.code == 0 and f"{armed.a}, and this one may only read it" in told.output + told.errors
        assert "it is left alone" in told.output + told.errors
        told = command("reconcile", "--mlflow", armed.sweep, *words)
        assert told.code == 2 and f"belongs to home {armed.a}" in told.why
    assert armed.rows() == before


def test_another_home_does_not_call_the_sweeps_of_others_lost(two: Two) -> None:
    """It said that MLflow has none of their runs, and to delete them."""
    Settings.load(two.b).prepare()
    said = f"sweep {two.sweep} belongs to home {two.a}; verify it there"
    told = command("verify", "--home", str(two.b), "--json")
    assert told.code == 0
    assert json.loads(told.output) == {"checked": {}, "problems": [], "notes": [said]}
    told = command("verify", "mine", "--home", str(two.b))
    assert told.code == 2 and said in told.why
    told = command("verify", "mine", "--home", str(two.a), "--json")
    assert json.loads(told.output)["checked"]["sweeps"] == 1


# ---- homes that were moved, copied, lost


def test_a_home_that_was_moved_goes_on_and_is_recorded_where_it_is(two: Two) -> None:
    moved_to = two.folder / "c"
    two.a.rename(moved_to)
    two.claim(moved_to)
    owner = two.owner()
    assert owner is not None and owner.path == str(moved_to)


def test_a_copy_on_the_same_registry_is_refused_and_becomes_a_home_of_its_own(two: Two) -> None:
    shutil.copytree(two.a, two.b)
    for call in (two.refuse, two.claim):
        with pytest.raises(UsageError, match=f"home {two.b} is a copy of {two.a}, .* aigc-lab doctor --repair"):
            call(two.b)
    two.claim(two.a)
    repaired = [check.found for check in doctor.examine(two.b, repair=True) if check.name == "repair"]
    assert repaired == [f"this home is a copy of {two.a}, and a home of its own now"]
    with pytest.raises(UsageError, match=f"belongs to home {two.a}"):
        two.claim(two.b)
    with two.registry(two.b) as registry:
        sweep = registry.sweep("other", "0" * 64, {}, "rkl", "lower")
        ownership.claim(registry, Settings.load(two.b), sweep)


def test_a_copy_with_stores_of_its_own_goes_on(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIGC_LAB_REGISTRY_URL")
    shutil.move(two.folder / "shared.db", two.a / "registry.db")
    shutil.copytree(two.a, two.b)
    for home in (two.b, two.a):
        settings = Settings.load(home)
        with Registry.open(settings.registry_url, home=home) as registry:
            ownership.claim(registry, settings, two.sweep)
    doctor.examine(two.b, repair=True)
    settings = Settings.load(two.b)
    with Registry.open(settings.registry_url, home=two.b) as registry:
        ownership.claim(registry, settings, two.sweep)
    monkeypatch.setenv("AIGC_LAB_OPTUNA_URL", f"sqlite:///{two.folder / 'optuna.db'}")
    shutil.copytree(two.a, two.folder / "c")  # its own registry, and a study that it would share
    settings = Settings.load(two.folder / "c")
    with (
        Registry.open(settings.registry_url, home=settings.home) as registry,
        pytest.raises(UsageError, match="is a copy of"),
    ):
        ownership.claim(registry, settings, two.sweep)


def repaired(home: Path) -> list[str]:
    return [check.found for check in doctor.examine(home, repair=True) if check.name == "repair"]


def test_sweeps_of_a_home_that_is_gone_are_taken_over_with_their_files(two: Two) -> None:
    shutil.copytree(two.a / "checkpoints", two.b / "checkpoints")
    shutil.rmtree(two.a)
    with pytest.raises(UsageError, match=f"belongs to home {two.a}, which is not there, .* aigc-lab doctor --repair"):
        two.claim(two.b)
    before = {check.name: check for check in doctor.examine(two.b)}
    assert before["sweeps"].state == "warning" and "doctor --repair takes over" in before["sweeps"].remedy
    assert repaired(two.b) == [f"{two.sweep} of home {two.a}, whose files lie here, belong to this home now"]
    two.claim(two.b)


def test_sweeps_of_a_home_that_was_moved_stay_its_own(two: Two) -> None:
    """`doctor --repair` elsewhere made them another home's, which had none of their files."""
    moved_to = two.folder / "a2"
    two.a.rename(moved_to)
    spooled(two.b, two.sweep)  # no file of the sweep
    said = rf"if it was moved, run aigc-lab doctor --repair there; .*: aigc-lab doctor --adopt {two.sweep}"
    with pytest.raises(UsageError, match=said):
        two.claim(two.b)
    sweeps = next(check for check in doctor.examine(two.b) if check.name == "sweeps")
    assert sweeps.state == "warning" and re.search(said, sweeps.remedy)
    assert [bool(re.search(said, each)) for each in repaired(two.b)] == [True]
    assert repaired(moved_to) == [f"this home, which was at {two.a} on {socket.gethostname()}, lies here now"]
    owner = two.owner()
    assert owner is not None and owner.path == str(moved_to)
    two.claim(moved_to)


def test_a_home_that_was_away_gets_back_what_another_adopted_without_files(two: Two) -> None:
    moved_to = two.folder / "a2"
    two.a.rename(moved_to)
    with two.registry(two.b) as registry:
        ownership.adopt(registry, Settings.load(two.b), [two.sweep])
    with pytest.raises(UsageError, match="its files lie here and not there: aigc-lab doctor --repair"):
        two.claim(moved_to)
    assert f"{two.sweep} of home {two.b}, whose files lie here, belong to this home now" in repaired(moved_to)
    two.claim(moved_to)
    shutil.copytree(moved_to / "checkpoints", two.b / "checkpoints", dirs_exist_ok=True)
    with pytest.raises(UsageError, match=f"both have files of it; .* aigc-lab doctor --adopt {two.sweep}"):
        two.claim(two.b)
    assert repaired(two.b) == ["nothing to correct"]


def test_a_home_of_another_machine_cannot_be_seen_and_is_given_up_by_name(two: Two) -> None:
    with two.registry() as registry, registry.write() as connection:
        connection.execute(update(Home).values(host="elsewhere", path="/not/here"))
    with pytest.raises(UsageError, match=f"/not/here on elsewhere.* aigc-lab doctor --adopt {two.sweep}"):
        two.claim(two.b)
    assert "nothing to correct" in [check.found for check in doctor.examine(two.b, repair=True)]
    assert command("doctor", "--adopt", "mine", "--home", str(two.b), "--json")[0] == 0
    two.claim(two.b)
    with two.registry() as registry, pytest.raises(UsageError, match=f"belongs to home {two.b}"):
        ownership.refuse_foreign(registry, Settings.load(two.a), two.sweep)


def test_a_home_that_came_from_another_machine_is_recorded_on_demand(two: Two) -> None:
    with two.registry() as registry, registry.write() as connection:
        connection.execute(update(Home).values(host="elsewhere", path="/not/here"))
    with pytest.raises(UsageError, match="was at /not/here on elsewhere when it last wrote"):
        two.claim(two.a)
    doctor.examine(two.a, repair=True)
    two.claim(two.a)


def test_a_sweep_of_before_is_claimed_by_the_home_that_has_its_files(two: Two) -> None:
    with two.registry() as registry, registry.write() as connection:
        connection.execute(update(Sweep).values(home_id=None))
        connection.execute(Home.delete())
    (two.a / "home-id").unlink()
    with pytest.raises(UsageError, match="its files are not in"):
        two.claim(two.b)
    two.claim(two.a)
    with pytest.raises(UsageError, match=f"belongs to home {two.a}"):
        two.claim(two.b)


def test_a_home_that_lost_its_id_is_known_by_its_place(two: Two) -> None:
    before = (two.a / "home-id").read_text()
    (two.a / "home-id").unlink()
    two.claim(two.a)
    assert (two.a / "home-id").read_text() == before


def test_of_two_homes_that_begin_a_sweep_at_once_one_gets_it(two: Two) -> None:
    with two.registry() as registry:
        sweep = registry.sweep("race", "1" * 64, {}, "rkl", "lower")
        for home in (two.a, two.b):
            ownership.refuse(registry, Settings.load(home), sweep)  # both may
        ownership.claim(registry, Settings.load(two.a), sweep)
        with pytest.raises(UsageError, match=f"sweep {sweep} belongs to home {two.a}"):
            ownership.claim(registry, Settings.load(two.b), sweep)
        assert show_sweep(registry, sweep)["id"] == sweep
