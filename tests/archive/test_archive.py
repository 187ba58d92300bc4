"""A sweep as one thing: exported and imported bit by bit, deleted everywhere, and refused where it must be."""

import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import struct
import tarfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import pytest
from conftest import WriterHere, supervisor
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient
from sqlalchemy import insert, select, update
from test_no_pickle import pickles

from aigc_lab import load
from aigc_lab.archive import bounds, contents, deletion, export, import_, mlflow_replay, optuna_study
from aigc_lab.commands import evaluate, verify
from aigc_lab.commands.rejudge import rejudge_sweep
from aigc_lab.commands.sweep import resume_sweep, sweep_experiment
from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors import inline
from aigc_lab.host import confined, trust
from aigc_lab.host.files import locked, sha256
from aigc_lab.host.settings import Settings
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.records import StoredPromotion
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import METADATA, Attempt, Run, Sweep
from aigc_lab.runs.job import Job, RunOutcome
from aigc_lab.runs.run import execute
from aigc_lab.serving.promotion import promote
from aigc_lab.sweeps.unfinished_deletion import Doomed
from aigc_lab.tracking import address, relocation, writer
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.web.report import render_report

POINTS = """\
data: {name: ring, points: 2000}
system:
  name: ./mine.py
  hidden: 16
  lr: {log: [1e-4, 1e-2]}
  loss: {choice: [nonsaturating, hinge]}
training: {steps: 20, batch_size: 32, log_every: 10, evaluate_every: 10, threads: 1}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
search: {trials: 2, seeds: 2}
confirm: {top: 1, seeds: 1}
"""
# A user's file, whose code travels with the weights.
MINE = '''
"""A system of one's own."""
from aigc_lab.systems import point_gan

class Mine(point_gan.PointGAN):
    pass
'''


class Home:
    """One home, and the commands in it."""

    def __init__(self, path: Path, experiment: Path) -> None:
        self.path, self.experiment = path, experiment
        self.settings = Settings.load(path)
        self.said: list[str] = []

    def sweep(self, **options: Any) -> list[dict[str, Any]]:
        return sweep_experiment(str(self.experiment), [], device="cpu", json=True, home=self.path, **options)

    def registry(self) -> Registry:
        return Registry.open(self.settings.registry_url, home=self.path)

    @property
    def id(self) -> str:
        with self.registry() as registry:
            return find_sweep(registry, "points")

    def export(self, name: str = "points.tar", **options: Any) -> Path:
        target = self.path.parent / name
        return export.export("points", self.settings, target, **({"force": False} | options)).path

    def take(self, file: Path, *, trust_code: bool = False) -> str:
        return import_.import_(file, self.settings, self.said.append, trust_code=trust_code)

    def delete(self, wanted: str = "points", *, sure: bool | None = True, dry_run: bool = False) -> str:
        self.said.clear()
        asked = None if sure is None else lambda _: sure
        deletion.delete(wanted, self.settings, self.said.append, asked, dry_run=dry_run)
        return "\n".join(self.said)

    def rows(self) -> contents.Rows:
        with self.registry() as registry:
            return contents.rows(registry, self.id)

    def counts(self) -> dict[str, int]:
        with self.registry() as registry, registry.read() as connection:
            return {name: len(connection.execute(table.select()).all()) for name, table in METADATA.tables.items()}

    def files(self) -> set[str]:
        """What belongs to sweeps, wherever in the home."""
        places = ("artifacts", "checkpoints", "spool", "locks", "deleting")
        found = {p.relative_to(self.path).as_posix() for place in places for p in (self.path / place).rglob("*")}
        return {name for name in found if (self.path / name).is_file() and not name.endswith("/.lock")}

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.settings.tracking_uri)

    def experiment_id(self) -> str:
        """Of the newest sweep, in MLflow."""
        found = self.client.get_experiment_by_name(self.id)
        assert found is not None
        return str(found.experiment_id)

    def shown(self) -> dict[str, Any]:
        """Key -> run, of what MLflow shows of the newest sweep."""
        experiment = self.client.get_experiment_by_name(self.id)
        runs = self.client.search_runs([experiment.experiment_id]) if experiment else []
        return {run.data.tags["aigc_lab.key"]: run for run in runs}


@pytest.fixture(autouse=True, scope="module")
def _plain_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "Writer", WriterHere)
        for name in list(os.environ):
            if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
                patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with MLflow's tables, which take seconds to make, and nothing in them."""
    path = tmp_path_factory.mktemp("empty")
    MlflowTracker(f"sqlite:///{path / 'mlflow.db'}", path)._client()
    return path / "mlflow.db"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty: Path) -> Home:
    """A home with a sweep that was really run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "points.yaml").write_text(POINTS)
    (folder / "mine.py").write_text(MINE)
    (folder / "home").mkdir()
    shutil.copy(empty, folder / "home" / "mlflow.db")
    home = Home(folder / "home", folder / "points.yaml")
    home.sweep()
    return home


@pytest.fixture(scope="module")
def archive(trained: Home) -> Path:
    return trained.export()


@pytest.fixture
def home(trained: Home, tmp_path: Path) -> Home:
    """The same, to be spoilt: a copy that MLflow knows the new place of."""
    shutil.copytree(trained.path, tmp_path / "home")
    relocation.repair(Settings.load(tmp_path / "home"))
    return Home(tmp_path / "home", trained.experiment)


@pytest.fixture
def other(trained: Home, tmp_path: Path, empty: Path) -> Home:
    """Another home, without a sweep."""
    (tmp_path / "other").mkdir()
    shutil.copy(empty, tmp_path / "other" / "mlflow.db")
    return Home(tmp_path / "other", trained.experiment)


def own_tags(run: Any) -> dict[str, str]:
    """The tags of an MLflow run without MLflow's."""
    return {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}


# ---- export and import


def test_the_same_sweep_is_the_same_bytes_in_every_home(trained: Home, archive: Path, other: Home) -> None:
    assert trained.export("again.tar").read_bytes() == archive.read_bytes()
    other.take(archive)
    assert other.export().read_bytes() == archive.read_bytes()


def test_what_is_in_the_file(trained: Home, archive: Path) -> None:
    with tarfile.open(archive, "r:") as tar:
        members = {member.name: member for member in tar.getmembers()}
        texts = {name: json.load(tar.extractfile(name) or io.BytesIO()) for name in members if "/" not in name}
    texts_first, files = list(members)[:3], list(members)[3:]
    assert texts_first == ["manifest.json", "registry.json", "study.json"] and files == sorted(files)
    for member in members.values():
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert member.isreg()
    last = {"last.safetensors", "last.json", "selected.safetensors", "selected.json", "mine.py"}
    names = {name for name in members if name.startswith("checkpoints/0.0/")}
    assert names == {f"checkpoints/0.0/1/{name}" for name in last}
    assert {"artifacts/0.0/curves.json", "artifacts/0.0/samples.png", "artifacts/0.0/samples/000010.png"} <= set(
        members
    )
    assert set(texts["manifest.json"]["files"]) == set(members) - {"manifest.json"}
    assert "promotion" not in texts["registry.json"] and "supervisor" not in texts["registry.json"]
    assert len(texts["registry.json"]["run"]) == 5 and len(texts["study.json"]["trials"]) == 2
    assert str(trained.path) not in str(texts["registry.json"]["checkpoint"])


def test_the_file_is_its_owners_alone_and_replaces_nothing(trained: Home, archive: Path, tmp_path: Path) -> None:
    assert archive.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="exists; name another with -o, or replace it with --force"):
        trained.export()
    archive_again = tmp_path / "again.tar"
    archive_again.write_bytes(b"something else")
    export.export("points", trained.settings, archive_again, force=True)
    assert sha256(archive_again) == sha256(archive)
    for target, said in ((tmp_path, "is a folder"), (tmp_path / "none" / "x.tar", "there is no folder")):
        with pytest.raises(UsageError, match=said):
            export.export("points", trained.settings, target, force=False)


def test_what_arrives_is_what_was_sent(trained: Home, archive: Path, other: Home) -> None:
    sweep = other.take(archive)
    assert sweep == trained.id and other.said[0] == f"{sweep}: 5 runs, {len(_named(archive)) - 3} files"
    assert other.rows() == trained.rows()
    assert optuna_study.dump(other.settings.optuna_url, sweep) == optuna_study.dump(trained.settings.optuna_url, sweep)
    with trained.registry() as one, other.registry() as two:
        assert compare_trials(two, sweep).rows == compare_trials(one, sweep).rows
        ours, theirs = (show_run(registry, f"{sweep}.0.0") for registry in (two, one))
        page = render_report(two, sweep, detailed=1).html
    assert [Path(file["path"]).is_file() for file in ours["checkpoints"] + ours["artifacts"]].count(False) == 0
    assert {file["sha256"] for file in ours["checkpoints"]} == {file["sha256"] for file in theirs["checkpoints"]}
    assert ours["mlflow_run_id"] not in (None, theirs["mlflow_run_id"])
    assert ours["attempts"][-1]["state"] == "FINISHED" and sweep in page
    assert "described" not in json.dumps(ours), "it is MLflow's"


def test_mlflow_shows_it_as_it_did_where_it_was_trained(trained: Home, archive: Path, other: Home) -> None:
    other.take(archive)
    here, there = other.shown(), trained.shown()
    assert here.keys() == there.keys() and len(here) == 5
    for key, run in here.items():
        assert run.info.status == there[key].info.status == "FINISHED"
        scores = {name: value for name, value in there[key].data.metrics.items() if name.startswith(("score/", "loss"))}
        assert scores.items() <= run.data.metrics.items()
        assert run.data.tags["imported"] == "true" and run.data.tags["state"] == "FINISHED"
        assert run.data.params == there[key].data.params and run.data.params["system"] == "mine"
        assert own_tags(run) == own_tags(there[key]) | {"imported": "true"}
        assert run.inputs.to_dictionary() == there[key].inputs.to_dictionary()
        ours, theirs = (
            [(point.step, point.value) for point in home.client.get_metric_history(of.info.run_id, "score/rkl")]
            for home, of in ((other, run), (trained, there[key]))
        )
        assert ours == theirs and len(ours) == 2
        folders = {file.path for file in other.client.list_artifacts(run.info.run_id)}
        assert {"model", "images"} <= folders
        models = {Path(file.path).name for file in other.client.list_artifacts(run.info.run_id, "model")}
        assert models == {"last.safetensors", "last.json", "selected.safetensors", "selected.json", "mine.py"}
    assert [path.name for path in (other.path / "spool").rglob("*") if path.is_file()] in ([], [".lock"])


def test_it_is_sampled_promoted_and_gone_on_with(
    trained: Home, archive: Path, other: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = other.take(archive, trust_code=True)
    there, here = (load(f"{sweep}.0.0", home=home.path).sample(50, seed=3) for home in (trained, other))
    assert (there == here).all()
    assert promote("points", other.settings, name=None, alias="champion", reason="a test").row["version"] == 1
    done: list[str] = []

    def noted(jobs: Sequence[Job], *rest: Any) -> list[RunOutcome]:
        done.extend(job.run for job in jobs)
        return execute(jobs, *rest)

    monkeypatch.setattr(inline, "execute", noted)
    before = other.rows()
    other.sweep()
    assert done == [] and other.rows() == before
    sweep_experiment(
        str(other.experiment), [("search.trials", "3", "--trials 3")], device="cpu", json=True, home=other.path
    )
    assert other.id == sweep and done[:2] == [f"{sweep}.2.0", f"{sweep}.2.1"]
    storage = optuna.storages.RDBStorage(other.settings.optuna_url)
    assert len(optuna.load_study(study_name=sweep, storage=storage).trials) == 3


def test_a_second_import_changes_nothing_and_mends_what_is_gone(archive: Path, other: Home) -> None:
    sweep = other.take(archive)
    lost = other.path / "checkpoints" / sweep / "0.0" / "1" / "last.safetensors"
    whole = sha256(lost)
    for content in (None, b"damaged"):
        lost.unlink() if content is None else lost.write_bytes(content)
        before, shown = other.counts(), other.shown().keys()
        other.take(archive)
        assert any("already here" in line for line in other.said) and sha256(lost) == whole
        assert other.counts() == before and other.shown().keys() == shown


def test_another_sweep_of_the_same_id_is_not_overwritten(archive: Path, other: Home) -> None:
    sweep = other.take(archive)
    with other.registry() as registry, registry.write() as connection:
        connection.execute(update(Run).where(Run.c.id == f"{sweep}.0.0").values(seconds=1.0))
    before, files = other.rows(), other.files()
    with pytest.raises(
        UsageError, match=f"sweep {sweep} is already here with other content; nothing was stored; delete"
    ):
        other.take(archive)
    assert other.rows() == before and other.files() == files


def test_a_study_of_somebody_else_is_not_overwritten(archive: Path, other: Home, trained: Home) -> None:
    other.settings.prepare()
    storage = optuna.storages.RDBStorage(other.settings.optuna_url)
    optuna.create_study(study_name=trained.id, storage=storage).enqueue_trial({"x": 1})
    with pytest.raises(UsageError, match="has a study points-.* with other trials"):
        other.take(archive)
    assert not any(name.startswith(("artifacts", "checkpoints")) for name in other.files())


def test_what_was_running_comes_to_rest(home: Home, other: Home) -> None:
    sweep = home.id
    with home.registry() as registry, registry.write() as connection:
        this = Attempt.c.run_id == f"{sweep}.1.1"
        connection.execute(update(Attempt).where(this).values(state="RUNNING", chain=1, stored_step=10))
        connection.execute(update(Run).where(Run.c.id == f"{sweep}.1.1").values(state="RUNNING", finished_at=None))
    other.take(home.export())
    with other.registry() as registry:
        assert all(row["state"] != "RUNNING" for row in list_runs(registry))
        row = show_run(registry, f"{sweep}.1.1")
        assert (row["state"], row["reason"]) == ("KILLED", "its process stayed in another home")
        assert {row["state"] for row in row["attempts"]} == {"KILLED"}
        assert registry.begin(f"{sweep}.1.1", {}) == 2 and registry.chain(f"{sweep}.1.1") == 2
    assert other.shown()[f"{sweep}.1.1.1"].info.status == "KILLED"


@pytest.mark.parametrize("at", ["_write_files", "restore", "spool", "store", "_show"])
def test_a_kill_leaves_nothing_half(archive: Path, other: Home, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """Killed before or after each step: the sweep is here whole or not at all, and the same command finishes."""
    owner: Any = {"restore": optuna_study, "spool": mlflow_replay, "store": contents}.get(at, import_)
    original = getattr(owner, at)
    for after in (False, True):

        def die(*given: Any, after: bool = after) -> None:
            if after:
                original(*given)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(owner, at, die)
            with pytest.raises(KeyboardInterrupt):
                other.take(archive)
        here = other.counts()
        assert (here["sweep"], here["run"]) == ((1, 5) if here["sweep"] else (0, 0))
    other.take(archive)
    assert other.counts()["run"] == 5 and len(other.shown()) == 5
    assert other.export().read_bytes() == archive.read_bytes()


def test_mlflow_is_down_and_gets_it_later(archive: Path, other: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        return "MLflow lacks a part of this sweep"  # type: ignore[return-value]

    with monkeypatch.context() as patch:
        patch.setattr(WriterHere, "finish", fail)
        other.take(archive)
    assert other.said[-1] == "MLflow lacks a part of this sweep" and other.counts()["run"] == 5
    assert len(list((other.path / "spool").glob("*/*/log.jsonl"))) == 5
    other.take(archive)
    assert len(other.shown()) == 5


def test_a_sweep_that_is_being_run_is_left_alone(home: Home, archive: Path) -> None:
    sweep = home.id
    lock = home.path / "locks" / f"{sweep}.lock"
    for path, doing in ((lock, "run"), (home.path / "spool" / sweep / ".lock", "delivered to MLflow")):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            calls: tuple[Callable[[], object], ...] = (home.export, home.delete, lambda: home.take(archive))
            for call in calls:
                with pytest.raises(UsageError, match=f"sweep {sweep} is being {doing} by another process"):
                    call()
    assert home.counts()["run"] == 5


def test_a_sweep_that_another_process_runs_is_left_alone(home: Home, archive: Path) -> None:
    """Its lock is not seen from another machine; the registry says it."""
    url, sweep, before = home.settings.registry_url, home.id, home.counts()
    with supervisor(url, sweep) as there:
        for call in (home.export, home.delete, lambda: home.take(archive)):
            with pytest.raises(UsageError, match=f"sweep {sweep} is being run by process {there.pid} on "):
                call()
        assert home.counts() == before | {"supervisor": 1}
        assert there.poll() is None
    assert home.delete(sure=False).endswith("nothing was deleted")


def test_a_sweep_of_another_home_is_neither_exported_nor_deleted_nor_replaced(
    home: Home, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its files a deletion would orphan them, and an export would find none."""
    assert home.sweep()  # nothing is left to do, and the home is recorded
    monkeypatch.setenv("AIGC_LAB_REGISTRY_URL", home.settings.registry_url)
    here, before, files = Home(tmp_path / "here", home.experiment), home.counts(), home.files()
    for call in (here.export, here.delete, lambda: here.delete(dry_run=True), lambda: here.take(archive)):
        with pytest.raises(UsageError, match=f"sweep {home.id} belongs to home {home.path}, .* run this there"):
            call()
    assert home.counts() == before and home.files() == files


def test_a_run_that_was_lost_and_done_again_arrives_in_order(home: Home, other: Home) -> None:
    """One in the chain of its first attempt, one in a chain of its own, which stays behind."""
    sweep = home.id
    with home.registry() as registry, registry.write() as connection:
        for run, chain in ((f"{sweep}.0.0", 1), (f"{sweep}.1.0", 2)):
            this = Attempt.c.run_id == run
            first = dict(connection.execute(select(Attempt).where(this)).mappings().one())
            connection.execute(update(Attempt).where(this).values(state="KILLED", crashed=True))
            connection.execute(insert(Attempt).values(first | {"number": 2, "chain": chain}))
    other.take(home.export())
    assert other.rows() == home.rows()
    assert [row["crashed"] for row in other.rows()["attempt"]].count(True) == 2
    assert other.shown().keys() == {f"{row['id']}.1" for row in other.rows()["run"]}
    with other.registry() as registry:
        found = verify.verify_sweeps(registry, other.settings)
    assert not found.problems and not found.notes, str(found)
    assert found.checked["MLflow runs"] == 5


def test_a_sweep_whose_files_are_lost_is_not_exported(home: Home) -> None:
    path = home.path / "checkpoints" / home.id / "0.0" / "1" / "last.safetensors"
    path.write_bytes(b"other weights")
    with pytest.raises(Failure, match="last.safetensors is not what was stored"):
        home.export()
    path.unlink()
    with pytest.raises(Failure, match="last.safetensors is gone"):
        home.export()
    assert not (home.path.parent / "points.tar").exists()


# ---- files that nobody should trust


def _named(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive, "r:") as tar:
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar.getmembers()}


def _written(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for facts, content in members:
            facts.size = len(content)
            tar.addfile(facts, io.BytesIO(content))
    return path


def forged(archive: Path, path: Path, **texts: Callable[[Any], Any]) -> Path:
    """The archive with other JSON, and a manifest that fits: what somebody would make who knows the format. Files are
    added or taken away by changing `files`.
    """
    named = _named(archive)
    for name in ("registry", "study"):
        value = json.loads(named[f"{name}.json"])
        value = texts[name](value) or value if name in texts else value
        named[f"{name}.json"] = json.dumps(value).encode()
    if "files" in texts:
        named = texts["files"](named) or named
    manifest = json.loads(named.pop("manifest.json"))
    manifest["files"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in named.items()
    }
    if "manifest" in texts:
        manifest = texts["manifest"](manifest) or manifest
    named = {"manifest.json": json.dumps(manifest).encode()} | named
    return _written(path, [(tarfile.TarInfo(name), content) for name, content in named.items()])


def _set(table: str, **values: Any) -> Callable[[Any], Any]:
    return lambda rows: rows[table][0].update(values)


def _without_columns(rows: Any) -> None:
    """As an older version would have written it."""
    for row in rows["attempt"]:
        for name in ("host", "boot", "pid", "heartbeat_at", "chain"):
            del row[name]


def test_a_forgery_without_harm_is_taken(archive: Path, other: Home, tmp_path: Path) -> None:
    """The forger's tool works, so that what follows is refused for its own reasons; and older rows are welcome."""
    other.take(forged(archive, tmp_path / "forged.tar", registry=_without_columns))
    assert other.counts()["run"] == 5


def _verdict(word: str) -> Callable[[Any], Any]:
    def change(rows: Any) -> None:
        next(row for row in rows["verdict"] if row["kind"] == "stability")["verdict"] = word

    return change


DAMAGE: dict[str, tuple[dict[str, Callable[[Any], Any]], str]] = {
    "format": (
        {"manifest": lambda m: m.update(format=3, aigc_lab="9.9")},
        "written by a newer aigc-lab .'9.9'.; upgrade",
    ),
    "schema": ({"manifest": lambda m: m.update(schema="9999")}, "written by a newer aigc-lab"),
    "no format": ({"manifest": lambda m: m.pop("format")}, "its manifest is damaged"),
    "sizes": ({"manifest": lambda m: m["files"]["study.json"].update(bytes="5")}, "its manifest is damaged"),
    "list": ({"manifest": lambda _: [1]}, "its manifest is damaged"),
    "hash": ({"manifest": lambda m: m["files"]["study.json"].update(sha256="0" * 64)}, "'study.json' in it is damaged"),
    "sweep": ({"manifest": lambda m: m.update(sweep="../up")}, "sweep '../up'"),
    "other sweep": (
        {"manifest": lambda m: m.update(sweep="points-00000000")},
        "its rows are not those of points-00000000",
    ),
    "missing": ({"manifest": lambda m: m["files"].update(x={"bytes": 1, "sha256": ""})}, "it lacks 'x'"),
    "unlisted": (
        {"manifest": lambda m: m["files"].pop("artifacts/0.0/samples.png") and None},
        "is not in its manifest",
    ),
    "lost file": (
        {"files": lambda n: n.pop("artifacts/0.0/samples.png") and None},
        "it lacks 'artifacts/0.0/samples.png'",
    ),
    "stray": ({"files": lambda n: n.update({"notes.txt": b""})}, "'notes.txt' is no file of run"),
    "elsewhere": ({"files": lambda n: n.update({"artifacts/mlflow/x": b""})}, "is no file of run"),
    "table": ({"registry": lambda r: r.update(promotion=[])}, "table 'promotion' is unknown; upgrade aigc-lab"),
    "column": ({"registry": _set("run", colour="red")}, "column 'colour' of table run is unknown; upgrade"),
    "kind": ({"registry": _set("run", seed="0")}, "run.seed cannot be '0'"),
    "huge": ({"registry": _set("run", seed=2**70)}, "run.seed cannot be"),
    "no verdict": ({"registry": _verdict("SPLENDID")}, "'SPLENDID' of points-.* is no verdict on stability"),
    "null": ({"registry": _set("run", role=None)}, "run.role cannot be None"),
    "nul": ({"registry": _set("run", reason="a\0b")}, "run.reason cannot be"),
    "moment": ({"registry": _set("run", created_at="yesterday")}, "run.created_at cannot be 'yesterday'"),
    "infinite": ({"registry": _set("run", seconds=10**400)}, "run.seconds cannot be 1000"),
    "half a character": ({"registry": _set("run", reason="\ud800")}, "run.reason cannot be"),
    "half in JSON": ({"registry": _set("trial", config={"a": ["\udfff"]})}, "trial.config cannot be"),
    "twice": ({"registry": lambda r: r["run"].append(r["run"][0])}, "do not fit together"),
    "no such trial": ({"registry": lambda r: r["trial"].pop() and None}, "do not fit together"),
    "deep": ({"files": lambda n: n.update({"artifacts/0.0/curves.json": b"[" * 10**5})}, "nested too deep|recursion"),
    "state": ({"registry": _set("run", state="ALIVE")}, "run.state cannot be 'ALIVE'"),
    "rows": ({"registry": lambda _: {"run": [1]}}, "a row of table run is not a mapping"),
    "no tables": ({"registry": lambda _: [1]}, "its rows are not tables"),
    "no sweep": ({"registry": lambda r: r.update(sweep=[])}, "its rows are not those of points-"),
    "digest": ({"registry": _set("sweep", digest="0" * 64)}, "its rows are not those of points-"),
    "run id": ({"registry": _set("run", id="points-00000000.0.0")}, "is no run of points-"),
    "foreign run": (
        {"registry": _set("score", run_id="other-00000000.0.0")},
        "a row of table score belongs to another",
    ),
    "foreign sweep": (
        {"registry": _set("trial", sweep_id="other-00000000")},
        "a row of table trial belongs to another",
    ),
    "path": ({"registry": _set("checkpoint", path="../../x")}, "'../../x' is no file of run 0.0"),
    "absolute": ({"registry": _set("artifact", path="/etc/passwd")}, "'/etc/passwd' is no file of run 0.0"),
    "other run": ({"registry": _set("artifact", path="artifacts/1.0/samples.png")}, "is no file of run 0.0"),
    "no file": ({"registry": _set("artifact", path="artifacts/0.0/none.png")}, "it lacks 'artifacts/0.0/none.png'"),
    "score": ({"registry": _set("score", name="<b>")}, "metric name 'score/<b>_"),
    "study": ({"study": lambda _: {"trials": []}}, "its study is not Optuna's .'direction'"),
    "trial": ({"study": lambda s: s["trials"][0].update(state="ALIVE")}, "its study is not Optuna's .'ALIVE'"),
    "params": ({"study": lambda s: s["trials"][0].update(params={"lr": 99.0})}, "its study is not Optuna's"),
    "distribution": (
        {"study": lambda s: s["trials"][0]["distributions"].update({"system.lr": {"name": "os.system"}})},
        "its study is not Optuna's",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_refused(archive: Path, other: Home, tmp_path: Path, what: str) -> None:
    changes, said = DAMAGE[what]
    _refused(other, forged(archive, tmp_path / "forged.tar", **changes), said)


def _refused(other: Home, file: Path, said: str) -> None:
    before = _everything(other.path)
    with pytest.raises(UsageError, match=said) as error:
        other.take(file)
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)
    assert str(error.value).endswith("nothing was stored") and len(str(error.value)) < 500
    assert _everything(other.path) == before


def _everything(folder: Path) -> dict[str, str]:
    """Every file below a folder, databases too, with its content; and every folder."""
    return {path.relative_to(folder).as_posix(): (path.is_file() and sha256(path)) or "" for path in folder.rglob("*")}


NAMES = [
    "../x",
    "/etc/x",
    "a/../../x",
    "artifacts/0.0/../../../x",
    "artifacts/0.0/",
    "artifacts/0.0//x",
    "artifacts/0.0/-rf",
    "artifacts/0.0/.",
    "artifacts/0.0/..",
    "artifacts/0.0/.hidden",
    "artifacts/0.0/a\\b",
    "artifacts/0.0/a\nb",
    "artifacts/-1.0/x",
    "artifacts/٠.٠/x",
    "checkpoints/x",
    ".",
    "-rf",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leads_out_of_the_home(archive: Path, other: Home, tmp_path: Path, name: str) -> None:
    file = forged(archive, tmp_path / "forged.tar", files=lambda named: named.update({name: b"x"}))
    _refused(other, file, "is no file of run|: file ")


KINDS = [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]


@pytest.mark.parametrize("kind", [*KINDS, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XGLTYPE, b"Z"])
@pytest.mark.parametrize("first", [True, False])
def test_only_plain_files_are_taken(archive: Path, other: Home, tmp_path: Path, kind: bytes, first: bool) -> None:
    facts = tarfile.TarInfo("artifacts/0.0/odd")
    facts.type, facts.linkname = kind, "/etc/passwd"
    members = [(tarfile.TarInfo(name), content) for name, content in _named(archive).items()]
    members.insert(0 if first else len(members), (facts, b""))
    _refused(other, _written(tmp_path / "odd.tar", members), "in it is not a plain file")


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_extended_headers_are_refused(archive: Path, other: Home, tmp_path: Path, form: int) -> None:
    members = [(tarfile.TarInfo(name), content) for name, content in _named(archive).items()]
    members.append((tarfile.TarInfo("artifacts/0.0/" + "x" * 300), b""))
    _refused(other, _written(tmp_path / "long.tar", members, form), "in it is not a plain file")


def test_other_files_and_halves_are_refused(archive: Path, other: Home, tmp_path: Path) -> None:
    file, whole = tmp_path / "some.tar", archive.read_bytes()
    for content, said in (
        (b"", "it was cut short"),
        (b"\0" * 1024, "it is not an exported sweep"),
        (b"not a tar" * 100, "not a tar file"),
        (b"\x1f\x8b" + os.urandom(2000), "not a tar file"),
        (whole[:700], "cut short"),
        (whole[: len(whole) // 2], "cut short"),
        (whole[: len(whole) // 2 // 512 * 512], "cut short"),
        (whole.rstrip(b"\0"), "cut short|damaged"),
        # The last block of what is stored; behind the end of the archive nothing is read.
        (whole[: len(whole.rstrip(b"\0")) // 512 * 512] + b"\1" * 512, "not a tar file|cut short|damaged"),
    ):
        file.write_bytes(content)
        _refused(other, file, said)
    with pytest.raises(UsageError, match="cannot be read"):
        other.take(tmp_path / "none.tar")


def test_every_flipped_bit_is_noticed(archive: Path, other: Home, tmp_path: Path) -> None:
    """In headers and contents alike; what lies between, and after the end, means nothing."""
    whole, file = archive.read_bytes(), tmp_path / "flipped.tar"
    with tarfile.open(archive, "r:") as tar:
        spans = [(member.offset_data, member.size) for member in tar.getmembers() if member.size]
    for start, size in spans[::5]:
        spoilt = bytearray(whole)
        spoilt[start + size // 2] ^= 1
        file.write_bytes(spoilt)
        _refused(other, file, "damaged|not JSON|manifest")


def test_a_file_that_stands_there_twice_is_refused(archive: Path, other: Home, tmp_path: Path) -> None:
    members = [(tarfile.TarInfo(name), content) for name, content in _named(archive).items()]
    twice = tarfile.TarInfo("artifacts/0.0/samples.png")
    _refused(other, _written(tmp_path / "twice.tar", [*members, (twice, b"")]), "stands in it twice")


def test_a_file_larger_than_the_disk_is_refused(archive: Path, other: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil._ntuple_diskusage(10**6, 10**6 - 10, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UsageError, match="has 0 MB free, and the files need"):
        other.take(archive)
    assert other.counts()["sweep"] == 0 and not any(name.startswith("artifacts") for name in other.files())


def test_a_hole_is_refused_before_it_fills_memory(archive: Path, other: Home, tmp_path: Path) -> None:
    """Three gigabytes that take no room on the disk, in the place of what is read whole."""
    for name in ("manifest.json", "registry.json", "artifacts/0.0/curves.json"):
        file, size = tmp_path / "sparse.tar", 3 << 30
        named = _named(archive)
        manifest = json.loads(named["manifest.json"])
        if name != "manifest.json":
            manifest["files"][name]["bytes"] = size
            named["manifest.json"] = json.dumps(manifest).encode()
        with file.open("wb") as output:
            for each, content in named.items():
                facts = tarfile.TarInfo(each)
                facts.size = size if each == name else len(content)
                output.write(facts.tobuf())
                if each == name:
                    break
                output.write(content + bytes(-len(content) % 512))
            output.truncate(output.tell() + size + 1024)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _refused(other, file, "control characters|too large|lacks")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
        assert file.stat().st_blocks < 200_000


def test_what_grows_when_it_is_read_is_refused(
    archive: Path, other: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = struct.pack(">8sI4sII", b"\x89PNG\r\n\x1a\n", 13, b"IHDR", 30_000, 30_000)
    picture = forged(archive, tmp_path / "1.tar", files=lambda n: n.update({"artifacts/0.0/samples.png": large}))
    _refused(other, picture, "samples.png' is too large .30,000×30,000 pixels")
    monkeypatch.setattr(bounds, "free_memory", lambda: 300 << 20)
    lists = b"[" + b"[]," * 2_000_000 + b"[]]"
    many = forged(archive, tmp_path / "2.tar", files=lambda n: n.update({"artifacts/0.0/curves.json": lists}))
    _refused(other, many, "curves.json' .6,000,004 bytes. needs more memory than there is .314.5 MB")


LATE: dict[str, Any] = {
    "changed": (import_, "_write_files"),
    "study": (optuna_study, "restore"),
    "spool": (mlflow_replay, "spool"),
    "rows": (contents, "store"),
}


@pytest.mark.parametrize("at", LATE)
def test_what_is_refused_late_leaves_nothing(
    archive: Path, other: Home, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Each step is done, and then something has changed since it was looked at."""
    owner, name = LATE[at]
    other.settings.prepare()
    original = getattr(owner, name)

    def refuse(*given: Any) -> None:
        if at != "rows":
            original(*given)
        raise UsageError("it changed")

    monkeypatch.setattr(owner, name, refuse)
    with pytest.raises(UsageError, match="it changed; nothing was stored"):
        other.take(archive)
    assert other.files() == set() and set(other.counts().values()) == {0}
    assert [path for folder in other.path.iterdir() for path in folder.rglob("*")] == []
    assert optuna_study.dump(other.settings.optuna_url, archive.stem) is None
    assert other.client.search_experiments(filter_string="name LIKE 'points-%'") == []


# ---- code that travels


def _poisoned(archive: Path, path: Path, marker: Path) -> Path:
    """The sweep as somebody else made it, whose code says that it has been run."""
    code = f"{MINE}\nopen({str(marker)!r}, 'a').write('run')\n".encode()
    digest = hashlib.sha256(code).hexdigest()

    def exchange(named: dict[str, bytes]) -> None:
        for name in [name for name in named if name.startswith("checkpoints/")]:
            if name.endswith(".py"):
                named[name] = code
            elif name.endswith(".json"):
                told = json.loads(named[name])
                told["source"]["sha256"] = digest
                named[name] = json.dumps(told).encode()

    return forged(archive, path, files=exchange)


def test_code_that_travels_is_named_and_is_run_only_when_it_is_trusted(
    archive: Path, other: Home, tmp_path: Path, trained: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(confined.VARIABLE, "0")  # or it would be tried in a process of its own, too
    marker = tmp_path / "it was run"
    file = _poisoned(archive, tmp_path / "received.tar", marker)
    sweep = other.take(file)
    code = other.path / "checkpoints" / sweep / "0.0" / "1" / "mine.py"
    assert other.said[1:] == [
        f"it brings code: mine.py, sha256 {sha256(code)}, {code}",
        "code is run only where it is trusted: read it, and then import this file again with --trust-code",
    ]
    weights = code.with_name("last.safetensors")
    received = tmp_path / "received"
    received.mkdir()
    for part in (weights, weights.with_suffix(".json"), code):
        shutil.copy(part, received)
    commands_: list[Callable[[], object]] = [
        lambda: load(f"{sweep}.0.0", home=other.path),
        lambda: load(sweep, home=other.path),
        lambda: load(str(weights), home=other.path),
        lambda: load(str(received / weights.name), home=other.path),
        lambda: promote("points", other.settings, name=None, alias="champion", reason="a test"),
        lambda: evaluate.scores(f"{sweep}.0.0", None, home=other.path, device="cpu"),
        lambda: rejudge_sweep(sweep, other.settings, "cpu"),
        lambda: resume_sweep(sweep, device="cpu", home=other.path),
    ]
    # Where the experiment was, there is a file of its name: here it is another's.
    shutil.copy(code, tmp_path / "mine.py")
    monkeypatch.chdir(tmp_path)
    with other.registry() as registry, registry.write() as connection:
        connection.execute(update(Sweep).values(source=str(tmp_path / "points.yaml")))
    for command in commands_:
        with pytest.raises(UsageError, match=f"nobody has trusted it.*sha256 {sha256(code)}.*--trust-code") as error:
            command()
        assert ".py: " in str(error.value) and not marker.exists()
    with other.registry() as registry:
        render_report(registry, sweep, detailed=2)
        verify.verify_sweeps(registry, other.settings)
    assert not marker.exists() and not trust.trust_file(other.path).exists()

    with other.registry() as registry, registry.write() as connection:  # as it came
        connection.execute(update(Sweep).values(source=other.experiment.as_posix()))
    other.take(file, trust_code=True)
    assert other.said[-1] == "this code is trusted in this home"
    assert trust.trust_file(other.path).stat().st_mode & 0o777 == 0o600
    for what in (f"{sweep}.0.0", str(received / weights.name)):  # by content, wherever it lies
        assert load(what, home=other.path).sample(3).shape == (3, 2)
    assert marker.read_text() == "run"
    promote("points", other.settings, name=None, alias="champion", reason="a test")

    # In another home it is not trusted, and neither is a file that has changed.
    told = received / "last.json"
    (received / "mine.py").write_bytes(code.read_bytes() + b"# changed\n")
    told.write_text(told.read_text().replace(sha256(code), sha256(received / "mine.py")))
    for what, home in ((str(weights), trained.path), (str(received / weights.name), other.path)):
        with pytest.raises(UsageError, match="nobody has trusted it"):
            load(what, home=home)
    assert load(str(received / weights.name), home=other.path, trust_code=True).sample(1).shape == (1, 2)
    assert load(str(received / weights.name), home=other.path).sample(1).shape == (1, 2)


def test_code_that_its_user_named_is_trusted_by_that(home: Home) -> None:
    """The sweep of this home named its own file: no command asks."""
    sweep = home.id
    assert trust.trusted(home.path) == {sha256(home.experiment.with_name("mine.py"))}
    assert load(f"{sweep}.0.0", home=home.path).sample(2).shape == (2, 2)
    resume_sweep(sweep, device="cpu", home=home.path)
    assert all(row["verdict"] for row in rejudge_sweep(sweep, home.settings, "cpu"))


def test_trust_that_others_could_have_written_says_nothing(tmp_path: Path) -> None:
    trust.remember(tmp_path, {"a" * 64: "one.py"})
    trust.remember(tmp_path, {"b" * 64: "two.py"})
    path = trust.trust_file(tmp_path)
    assert trust.trusted(tmp_path) == {"a" * 64, "b" * 64} and path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o622)
    assert trust.trusted(tmp_path) == set()
    path.chmod(0o600)
    for content in ("", "[]", '{"sha256": 3}', "\0"):
        path.write_text(content)
        assert trust.trusted(tmp_path) == set()


def _described(**changes: Any) -> dict[str, Callable[[Any], Any]]:
    def change(named: dict[str, bytes]) -> None:
        told = json.loads(named["checkpoints/0.0/1/last.json"])
        named["checkpoints/0.0/1/last.json"] = json.dumps(told | changes).encode()

    return {"files": change}


def _names(**section: Any) -> dict[str, Callable[[Any], Any]]:
    return {"registry": lambda rows: rows["sweep"][0]["experiment"].update(section)}


OUTSIDE: dict[str, tuple[dict[str, Callable[[Any], Any]], str]] = {
    "system": (_described(system="/any/path.py"), "\"system\" is '/any/path.py', and must be a name"),
    "no system": (_described(system=None), '"system" is None, and must be a name'),
    "source": (_described(source="mine.py"), '"source.file" is None'),
    "absolute": (_described(source={"file": "/any/path.py", "sha256": ""}), "\"source.file\" is '/any/path.py'"),
    "up": (_described(source={"file": "../1/mine.py", "sha256": ""}), "\"source.file\" is '../1/mine.py'"),
    "absent": (_described(source={"file": "other.py", "sha256": ""}), "\"source.file\" is 'other.py'"),
    "no code": (_described(source={"file": "last.json", "sha256": ""}), "\"source.file\" is 'last.json'"),
    "digest": (_described(source={"file": "mine.py", "sha256": "0"}), '"source.sha256" is not that of'),
    "data": (_names(data={"name": "/any/path.py"}), "data.name is '/any/path.py'"),
    "home": (_names(data={"name": "~/path.py"}), "data.name is '~/path.py'"),
    "hole": (_names(system={"choice": [{"name": "../a.py"}]}), r"system.choice\[0\].name is '../a.py'"),
    "metric": (_names(evaluation={"name": "points", "metrics": [{"/m.py": {}}]}), "is '/m.py'"),
    "features": (_names(evaluation={"metrics": [{"fd": {"features": "/net.pt2"}}]}), "features is '/net.pt2'"),
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_no_path_of_code_leads_out_of_the_archive(archive: Path, other: Home, tmp_path: Path, what: str) -> None:
    changes, said = OUTSIDE[what]
    _refused(other, forged(archive, tmp_path / "forged.tar", **changes), said)


def test_a_sweep_of_ones_own_that_named_its_code_by_its_path_comes_back(
    archive: Path, other: Home, tmp_path: Path
) -> None:
    file = forged(archive, tmp_path / "own.tar", **_names(system={"name": "/own/mine.py"}))
    with pytest.raises(UsageError, match="take the sweep in with --trust-code"):
        other.take(file)
    assert load(f"{other.take(file, trust_code=True)}.0.0", home=other.path).sample(2).shape == (2, 2)


def test_a_description_that_names_a_file_runs_nothing(home: Home, tmp_path: Path) -> None:
    """Of weights that were not imported, but copied by hand."""
    marker, evil = tmp_path / "it was run", tmp_path / "evil.py"
    evil.write_text(f"open({str(marker)!r}, 'w')")
    weights = home.path / "checkpoints" / home.id / "0.0" / "1" / "last.safetensors"
    told = json.loads(weights.with_suffix(".json").read_text())
    del told["source"]
    weights.with_suffix(".json").write_text(json.dumps(told | {"system": str(evil)}))
    for trust_code in (False, True):
        with pytest.raises(UsageError, match=f"last.json: \"system\" is '{evil}', a file, and must be a name"):
            load(str(weights), home=home.path, trust_code=trust_code)
    assert not marker.exists()


# ---- delete


def test_nothing_is_left_of_a_deleted_sweep_and_it_can_be_run_again(home: Home) -> None:
    sweep, files = home.id, home.files()
    experiment = home.experiment_id()
    assert any(name.startswith(f"artifacts/mlflow/{sweep}") for name in files)
    said = home.delete()
    assert said.startswith(f"{sweep}: 5 runs, ") and said.endswith(f"deleted {sweep}") and " MB" in said
    assert set((home.counts() | {"home": 0}).values()) == {0}  # where the home lies stays recorded
    assert {name for name in home.files() if sweep in name} == set()
    assert optuna_study.dump(home.settings.optuna_url, sweep) is None
    assert home.client.get_experiment(experiment).lifecycle_stage == "deleted"
    assert home.client.search_runs([experiment]) == []
    with pytest.raises(UsageError, match="unknown sweep"):
        home.delete()
    home.sweep()
    assert home.id == sweep and len(home.shown()) == 5
    assert home.experiment_id() != experiment
    home.delete()
    deleted = home.client.search_experiments(ViewType.DELETED_ONLY)
    assert len({each.name for each in deleted}) == 2


def test_an_experiment_that_was_deleted_in_mlflow_frees_its_name(home: Home) -> None:
    sweep = home.id
    home.client.delete_experiment(home.experiment_id())
    home.delete()
    assert home.client.get_experiment_by_name(sweep) is None


def test_a_deleted_run_goes_alone_and_the_same_command_does_it_again(home: Home) -> None:
    sweep = home.id
    run, kept = f"{sweep}.1.0", home.files()
    said = home.delete("points.1.0")
    assert f"{run}: 1 run" in said and "does this run again" in said
    assert home.counts()["run"] == 4 and home.counts()["trial"] == 2
    gone = kept - home.files()
    (folder,) = {name.split("/")[3] for name in gone if name.startswith("artifacts/mlflow")}
    assert gone == {name for name in kept if f"/{sweep}/1.0/" in name or folder in name}
    assert run + ".1" not in home.shown() and len(home.shown()) == 4
    home.sweep()
    assert home.counts()["run"] == 5 and len(home.shown()) == 5


def test_what_is_promoted_stays(home: Home) -> None:
    sweep = home.id
    with home.registry() as registry:
        for version in (1, 2):
            registry.promote(
                StoredPromotion(
                    model="toy",
                    version=version,
                    run_id=f"{sweep}.0.{version - 1}",
                    checkpoint="last",
                    digest=str(version),
                    sha256="",
                    path="models/x",
                    mlflow_uri="",
                    mlflow_model_id="",
                )
            )
    before, files = home.counts(), home.files()
    for wanted, said in (("points", r"toy 1 \(run .*0.0\), toy 2"), ("points.0.0", "toy 1"), ("points.0.1", "toy 2")):
        for dry_run in (True, False):
            with pytest.raises(UsageError, match=f"is not deleted: it is promoted as {said}"):
                home.delete(wanted, dry_run=dry_run)
    assert home.counts() == before and home.files() == files
    home.delete("points.1.0")


def test_a_promotion_in_the_last_moment_is_seen(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the question and the answer somebody promoted it."""
    sweep, looks = home.id, iter([False, True])
    original = deletion._refuse_promoted

    def refuse(registry: Registry, doomed: Doomed) -> None:
        if next(looks):
            raise UsageError("it is promoted")
        original(registry, doomed)

    monkeypatch.setattr(deletion, "_refuse_promoted", refuse)
    with pytest.raises(UsageError, match="it is promoted"):
        home.delete()
    assert home.counts()["run"] == 5 and not list((home.path / "deleting").glob("*"))
    assert (home.path / "checkpoints" / sweep / "0.0" / "1" / "last.safetensors").is_file()


def test_nothing_goes_without_a_yes(home: Home) -> None:
    before, files = home.counts(), home.files()
    with pytest.raises(UsageError, match="nothing was deleted: there is nobody to ask; say --yes"):
        home.delete(sure=None)
    assert "nothing was deleted" in home.delete(sure=False)
    assert home.id in home.delete(sure=None, dry_run=True)
    assert home.counts() == before and home.files() - files <= {f"locks/{home.id}.lock"}


def test_a_typo_gets_the_nearest_name(home: Home) -> None:
    for wanted, said in (
        ("pionts", "did you mean points"),
        ("points.7.7", "unknown run"),
        ("../points", "unknown sweep"),
    ):
        with pytest.raises(UsageError, match=said):
            home.delete(wanted)


STEPS: dict[str, Any] = {
    "write_atomically": deletion,
    "delete_rows": contents,
    "remove_experiment": deletion,
    "remove": optuna_study,
    "_remove": deletion,
}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", STEPS)
def test_a_killed_deletion_is_finished_by_the_same_command(
    home: Home, monkeypatch: pytest.MonkeyPatch, archive: Path, at: str, after: bool
) -> None:
    sweep, original = home.id, getattr(STEPS[at], at)

    def die(*given: Any) -> None:
        if after:
            original(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(STEPS[at], at, die)
        with pytest.raises(KeyboardInterrupt):
            home.delete()
    # No row points at a file that is gone.
    with home.registry() as registry, registry.read() as connection:
        left = connection.execute(select(Sweep)).all()
        paths = [row["path"] for row in contents.with_path(contents.rows(registry, sweep))]
    assert all((home.path / contents.place(path, sweep)).is_file() for path in paths) and bool(paths) == bool(left)
    if at != "write_atomically" or after:
        with pytest.raises(UsageError, match=f"the deletion of {sweep} was interrupted; finish it: aigc-lab delete"):
            home.take(archive)
    home.delete()
    assert set((home.counts() | {"home": 0}).values()) == {0}  # where the home lies stays recorded
    assert {name for name in home.files() if sweep in name} == set()
    assert home.client.get_experiment_by_name(sweep) is None
    assert optuna_study.dump(home.settings.optuna_url, sweep) is None


@pytest.mark.parametrize("by", ["name", "id"])
def test_a_killed_deletion_is_not_taken_for_one_of_the_sweep_before(
    home: Home, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """The name meant the newest sweep, whose rows are gone: now the one before is the newest."""
    newest = home.id
    with home.registry() as registry:
        older = registry.sweep("points", "0123456789abcdef", {}, "rkl", "lower")
        with registry.write() as connection:
            connection.execute(
                update(Sweep).where(Sweep.c.id == older).values(created_at=datetime(2020, 1, 1, tzinfo=UTC))
            )
    assert home.id == newest
    with monkeypatch.context() as patch:
        patch.setattr(deletion, "remove_experiment", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            home.delete()
    assert home.id == older and list((home.path / "deleting").iterdir())
    assert home.delete("points" if by == "name" else newest).endswith(f"deleted {newest}")
    assert home.id == older and home.client.get_experiment_by_name(newest) is None
    assert {name for name in home.files() if newest in name} == set()
    assert home.delete().endswith(f"deleted {older}")


def test_a_link_is_deleted_and_not_what_it_points_at(home: Home, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    shutil.move(home.path / "checkpoints" / home.id, precious)
    (home.path / "checkpoints" / home.id).symlink_to(precious)
    home.delete()
    assert (precious / "0.0" / "1" / "last.safetensors").is_file()
    assert not (home.path / "checkpoints").is_symlink() and list((home.path / "checkpoints").iterdir()) == []


def test_mlflow_that_does_not_answer_is_told_before_anything_goes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: str) -> None:
        raise UsageError("MLflow cannot be reached")

    monkeypatch.setattr(address, "check_address", refuse)
    with pytest.raises(UsageError, match="cannot be reached"):
        home.delete()
    assert home.counts()["run"] == 5


# ---- what a home holds


def test_no_file_of_a_home_is_a_pickle(home: Home) -> None:
    """After a sweep, a promotion and an export: databases, weights, MLflow's models and artifacts, caches, the tar."""
    promote("points", home.settings, name=None, alias="champion", reason="a test")
    home.export("home/points.tar")
    scanned = {path.suffix for path in home.path.rglob("*") if path.is_file()}
    assert {".db", ".safetensors", ".png", ".json", ".py", ".tar", ".yaml"} <= scanned and len(home.files()) > 50
    assert pickles(home.path) == [] == list(home.path.rglob("uv.lock"))
    (home.path / "models" / "planted.json").write_bytes(pickle.dumps({"a": 1}))
    assert pickles(home.path) == ["models/planted.json"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_modes(tmp_path: Path, trained: Home, archive: Path, mask: int) -> None:
    """A home is its owner's alone, and no file in it is more open than the umask lets it be; nor is one closed to whom
    the umask admits, so that a home that is opened is open.
    """
    new = Home(tmp_path / "new" / "home", trained.experiment)
    before = os.umask(mask)
    try:
        new.take(archive)
        new.sweep()
        promote("points", new.settings, name=None, alias="champion", reason="a test")
        out = new.export()
    finally:
        os.umask(before)
    assert new.path.stat().st_mode & 0o777 == 0o700
    assert out.stat().st_mode & 0o777 == 0o600
    modes = {path.relative_to(new.path).as_posix(): path.stat().st_mode & 0o777 for path in new.path.rglob("*")}
    assert {name: oct(mode) for name, mode in modes.items() if mode & mask or mode & 0o002} == {}
    ours = ("registry.db", "optuna.db", "artifacts/", "checkpoints/", "locks/", "models/")
    closed = {
        name: oct(mode)
        for name, mode in modes.items()
        if name.startswith(ours) and mode & 0o444 != 0o444 & ~mask  # a file under two names is written by nobody
    }
    assert closed == {} and len(modes) > 50
