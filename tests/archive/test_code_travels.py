"""An exported sweep brings every file of code that its experiment names: shown, verified and gone on with elsewhere."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update
from test_archive import Home, _named, _plain_environment, empty, forged  # noqa: F401 -- fixtures

from aigc_lab.cli.options import changed
from aigc_lab.commands.sweep import resume_sweep, sweep_experiment
from aigc_lab.commands.verify import verify_sweeps
from aigc_lab.errors import Failure, UsageError
from aigc_lab.experiment import code_files
from aigc_lab.host import trust
from aigc_lab.host.files import sha256
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.tables import Attempt, Run

EXPERIMENT = """\
data: {name: ring, points: 2000}
system: {name: point_gan, hidden: 16, lr: {log: [1e-4, 1e-2]}, optimizer: ./own/rule.py}
training: {steps: 20, batch_size: 32, log_every: 10, evaluate_every: 10, threads: 1}
evaluation: {name: points, samples: 400, metrics: [{own/measure.py: {}}]}
objective: {minimize: rkl}
search: {trials: 2, seeds: 1, pruner: ./stops.py}
"""
FILES = {
    "own/rule.py": """
from aigc_lab.optimizers.sgd import SGD

class Rule(SGD):
    pass
""",
    "own/measure.py": """
from aigc_lab.metrics.modes import ModeCount

class Measure(ModeCount):
    pass
""",
    "stops.py": """
from aigc_lab.pruners.base import Pruner

class Stops(Pruner):
    def stops(self, run, others, better):
        return False
""",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty: Path) -> Home:  # noqa: F811
    folder = tmp_path_factory.mktemp("trained")
    (folder / "points.yaml").write_text(EXPERIMENT)
    (folder / "own").mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "home").mkdir()
    shutil.copy(empty, folder / "home" / "mlflow.db")
    home = Home(folder / "home", folder / "points.yaml")
    home.sweep()
    return home


@pytest.fixture
def other(trained: Home, tmp_path: Path, empty: Path) -> Home:  # noqa: F811
    (tmp_path / "other").mkdir()
    shutil.copy(empty, tmp_path / "other" / "mlflow.db")
    return Home(tmp_path / "other", trained.experiment)


@pytest.fixture
def elsewhere(trained: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The experiment's folder is gone, as it is on another machine."""
    folder, away = trained.experiment.parent, tmp_path / "away"
    away.mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("points.yaml", "own", "stops.py"):
        (folder / name).rename(away / name)
    yield
    for path in away.iterdir():
        path.rename(folder / path.name)


def interrupted(home: Home, run: str) -> None:
    """The run is as one whose process is gone, before it stored a state."""
    with home.registry() as registry, registry.write() as connection:
        connection.execute(update(Attempt).where(Attempt.c.run_id == run).values(state="RUNNING"))
        connection.execute(update(Run).where(Run.c.id == run).values(state="RUNNING", finished_at=None))


def test_every_file_that_the_experiment_names_is_in_the_archive(trained: Home) -> None:
    names = [name for name in _named(trained.export()) if name.startswith("checkpoints/code/")]
    assert names == ["checkpoints/code/own/measure.py", "checkpoints/code/own/rule.py", "checkpoints/code/stops.py"]


def test_an_archive_without_code_is_of_the_format_that_older_versions_read(trained: Home) -> None:
    assert json.loads(_named(trained.export("a.tar"))["manifest.json"])["format"] == 2
    copies = code_files.folder(trained.settings, trained.id)
    copies.rename(copies.with_name("away"))
    try:
        assert json.loads(_named(trained.export("b.tar"))["manifest.json"])["format"] == 1
    finally:
        copies.with_name("away").rename(copies)


def test_it_is_shown_verified_and_exported_again_without_running_anything(
    trained: Home, other: Home, elsewhere: None
) -> None:
    archive = trained.export("sent.tar")
    sweep = other.take(archive)
    copies = code_files.folder(other.settings, sweep)
    for name, text in FILES.items():
        assert (copies / name).read_text() == text
        line = f"{Path(name).name}, sha256 {sha256(copies / name)}, {copies / name}"
        # The optimiser's code lies beside weights, too, under the key that names it.
        assert f"it brings code: {line}" in other.said
    with trained.registry() as one, other.registry() as two:
        assert compare_trials(two, sweep).rows == compare_trials(one, sweep).rows
        assert verify_sweeps(two, other.settings, deep=True).problems == []
    assert other.export("again.tar").read_bytes() == archive.read_bytes()
    assert trust.trusted(other.path) == set()


def test_it_is_gone_on_with_once_its_code_is_trusted(trained: Home, other: Home, elsewhere: None) -> None:
    """Pruner, metric and optimiser run from their copies, and the scores are those of before, to the bit."""
    archive, run = trained.export("running.tar", force=True), f"{trained.id}.1.0"
    sweep = other.take(archive)
    with other.registry() as registry:
        before = show_run(registry, run)["scores"]
    with pytest.raises(UsageError, match=r"checkpoints/.*/code/.*nobody has trusted it.*--trust-code"):
        resume_sweep(sweep, device="cpu", home=other.path)
    other.take(archive, trust_code=True)
    interrupted(other, run)
    resume_sweep(sweep, device="cpu", home=other.path)
    with other.registry() as registry:
        row = show_run(registry, run)
    assert row["state"] == "FINISHED" and row["attempts"][-1]["state"] == "FINISHED" and len(row["attempts"]) == 2
    assert row["scores"] == before
    # A copy that has been changed is code that nobody has trusted.
    measure = code_files.folder(other.settings, sweep) / "own" / "measure.py"
    measure.write_text(measure.read_text() + "# changed\n")
    with pytest.raises(UsageError, match="measure.py: this code came from elsewhere, or has changed"):
        resume_sweep(sweep, device="cpu", home=other.path)


@pytest.mark.slow
def test_workers_find_the_copies_too(trained: Home, other: Home, elsewhere: None) -> None:
    sweep = other.take(trained.export("workers.tar", force=True), trust_code=True)
    for trial in (0, 1):
        interrupted(other, f"{sweep}.{trial}.0")
    resume_sweep(sweep, device="cpu", workers=2, home=other.path)
    with other.registry() as registry:
        assert {row["state"] for row in list_runs(registry, sweep)} == {"FINISHED"}


def test_files_that_are_there_are_used_before_their_copies(trained: Home, other: Home) -> None:
    """Who has the experiment's folder works on it: a changed pruner is another sweep."""
    sweep = other.take(trained.export("near.tar", force=True), trust_code=True)
    stops = trained.experiment.with_name("stops.py")
    stops.write_text(FILES["stops.py"] + "# changed\n")
    try:
        with pytest.raises(UsageError, match="stops.py: this code came from elsewhere, or has changed"):
            resume_sweep(sweep, device="cpu", home=other.path)
    finally:
        stops.write_text(FILES["stops.py"])
    resume_sweep(sweep, device="cpu", home=other.path)


def test_deleting_the_sweep_deletes_the_copies(trained: Home, other: Home) -> None:
    sweep = other.take(trained.export("deleted.tar", force=True))
    assert code_files.folder(other.settings, sweep).is_dir()
    other.delete(sweep)
    assert not code_files.folder(other.settings, sweep).exists()


def test_a_copy_that_is_no_file_is_not_exported(trained: Home, tmp_path: Path) -> None:
    link = code_files.folder(trained.settings, trained.id) / "link.py"
    link.symlink_to(trained.experiment)
    try:
        with pytest.raises(Failure, match="link.py is no file of code; remove it"):
            trained.export("link.tar")
    finally:
        link.unlink()


@pytest.mark.parametrize("name", ["checkpoints/code/note.txt", "checkpoints/code/../x.py", "artifacts/code/x.py"])
def test_nothing_else_is_taken_from_the_place_of_the_code(
    name: str, trained: Home, other: Home, tmp_path: Path
) -> None:
    def add(named: dict[str, bytes]) -> None:
        named[name] = b"x"

    file = forged(trained.export("plain.tar", force=True), tmp_path / "forged.tar", files=add)
    with pytest.raises(UsageError, match="nothing was stored"):
        other.take(file)
    assert not [name for name in other.files() if name.startswith("checkpoints")]


def test_a_name_that_leads_out_lies_under_its_bare_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    for name in ("/any/mine.py", "../mine.py", "~/mine.py"):
        assert code_files.leads_out(name) and code_files.copy_of(name) == Path("mine.py")
        code_files.keep({name: tmp_path / "mine.py"}, tmp_path / "copies")
        assert not code_files.needed([name], tmp_path / "none", tmp_path / "copies")
    assert (tmp_path / "copies" / "mine.py").read_text() == "x = 1\n"
    assert code_files.needed(["./mine.py"], tmp_path / "none", tmp_path / "copies")
    assert not code_files.needed(["./mine.py"], tmp_path, tmp_path / "copies")


def test_what_is_set_on_the_command_line_is_kept_too(trained: Home) -> None:
    """`--set search.pruner=./other.py`: the copy is of the file that the sweep was run with."""
    mine = trained.experiment.with_name("other.py")
    mine.write_text(FILES["stops.py"] + "# another\n")
    changes = changed(["search.pruner=./other.py", "training.steps=10", "search.trials=1"], {})
    sweep_experiment(str(trained.experiment), changes, device="cpu", json=True, home=trained.path)
    with trained.registry() as registry:
        newest = find_sweep(registry, "points")
    assert (code_files.folder(trained.settings, newest) / "other.py").read_text() == mine.read_text()
