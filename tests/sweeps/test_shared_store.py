"""Homes that share a registry and a store of files: a run that is killed in one goes on in another with the same bits,
and what one has finished, the others promote, sample and report.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import WriterHere
from shell import Told, command

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import outage, shared_files
from aigc_lab.host.settings import Settings
from aigc_lab.host.store import Store
from aigc_lab.registry import homes
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.sweeps import ownership
from aigc_lab.tracking import writer

TEXT = """\
data: {name: ring, points: 500}
system: {name: point_gan, hidden: 16}
training: {steps: 40, batch_size: 16, log_every: 5, evaluate_every: 20, threads: 1, checkpoint_seconds: 0.001}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
"""


class NoWriter:
    """A sweep's writer that delivers nothing: what MLflow would be told waits in the home."""

    def __init__(self, settings: Settings, sweep: str) -> None: ...

    def start(self) -> None: ...

    def finish(self, patience: float | None = None) -> str | None: ...


class Homes:
    """A folder with homes that share registry, Optuna, MLflow and a store; and one that shares nothing."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        self.store = folder / "store"
        (folder / "mine.yaml").write_text(TEXT)

    def share(self) -> None:
        for name, file in (("AIGC_LAB_REGISTRY_URL", "registry"), ("AIGC_LAB_OPTUNA_URL", "optuna")):
            self._patch.setenv(name, f"sqlite:///{self.folder / file}.db")
        self._patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{self.folder / 'mlflow.db'}")
        self._patch.setenv("AIGC_LAB_STORE_URL", self.store.as_uri())

    def __getitem__(self, name: str) -> Settings:
        settings = Settings.load(self.folder / name)
        shared_files.of(settings)
        return settings

    def lab(self, home: str, *words: str) -> Told:
        return command(*words, "--home", str(self.folder / home))

    def registry(self, home: str) -> Registry:
        return Registry.open(self[home].registry_url, home=self.folder / home)

    def run(self, home: str) -> dict[str, Any]:
        """All that is recorded of the only run."""
        with self.registry(home) as registry:
            (row,) = list_runs(registry)
            return show_run(registry, row["run"])

    def published(self) -> set[str]:
        """Files in the store, as paths in a home."""
        return {str(path.relative_to(self.store)).removesuffix(".sha256") for path in self.store.rglob("*.sha256")}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Homes]:
    for name in list(os.environ):
        if name.startswith(("AIGC_LAB_", "MLFLOW_")) and name != "AIGC_LAB_PLUGIN_SECONDS":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(writer, "Writer", NoWriter)
    yield Homes(tmp_path, monkeypatch)
    outage._outages.clear()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """What the run comes to in a home that shares nothing and that nobody disturbs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AIGC_LAB_", "MLFLOW_")) and name != "AIGC_LAB_PLUGIN_SECONDS":
                patch.delenv(name)
        patch.setattr(writer, "Writer", NoWriter)
        alone = Homes(tmp_path_factory.mktemp("alone"), patch)
        patch.chdir(alone.folder)
        assert alone.lab("alone", "train", "mine.yaml", "--device", "cpu").code == 0
        return result(alone.run("alone"))


def result(row: dict[str, Any]) -> tuple[object, ...]:
    """The bits that a run came to: its weights by their sha256, its scores, and its verdicts."""
    return (
        [(file["kind"], file["step"], file["sha256"]) for file in row["checkpoints"]],
        [(score["name"], score["value"], score["low"], score["high"]) for score in row["scores"] + row["progress"]],
        [(verdict["kind"], verdict["step"], verdict["verdict"]) for verdict in row["verdicts"]],
    )


def killed(lab: Homes, home: str, *, at: str, after: int) -> None:
    """A training in a process of its own that is killed −9 just before it writes the `.sha256` of a file whose name
    begins so, after so many.
    """
    child = os.fork()
    if not child:
        put, count = Store._put, 0

        def dying(store: Store, key: str, content: bytes) -> None:
            nonlocal count
            count += key.rpartition("/")[2].startswith(at)
            if count > after:
                os.kill(os.getpid(), signal.SIGKILL)
            put(store, key, content)

        setattr(Store, "_put", dying)  # noqa: B010 -- there is nobody to put it back for
        try:
            lab.lab(home, "train", "mine.yaml", "--device", "cpu")
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "it was to die, and has not"


@pytest.mark.skipif(sys.platform != "linux", reason="a process that has threads is forked")
@pytest.mark.parametrize(
    ("at", "after", "resumes"),
    [("state-", 4, True), ("last.safetensors", 0, True)],
    ids=["between two states", "before its result"],
)
def test_a_run_killed_in_one_home_goes_on_in_another_with_the_same_bits(
    lab: Homes, undisturbed: tuple[object, ...], at: str, after: int, resumes: bool
) -> None:
    lab.share()
    killed(lab, "a", at=at, after=after)
    assert lab.run("a")["state"] == RunState.RUNNING
    told = lab.lab("b", "resume", "mine", "--device", "cpu")
    assert told.code == 0, told.errors
    run = lab.run("b")
    assert run["state"] == RunState.FINISHED and len(run["attempts"]) == 2
    assert bool(run["attempts"][1]["from_step"]) is resumes
    assert result(run) == undisturbed
    files = {str(Path(file["path"]).relative_to(lab.folder / "b")) for file in run["checkpoints"] + run["artifacts"]}
    assert files <= lab.published()
    assert not [name for name in lab.published() if "state-" in name], "training states of a finished run are removed"
    assert {name.split("/")[3] for name in lab.published() if name.startswith("checkpoints/")} == {"2"}


def test_what_one_home_has_finished_others_promote_sample_and_report(
    lab: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "Writer", WriterHere)
    lab.share()
    assert lab.lab("a", "train", "mine.yaml", "--device", "cpu").code == 0
    sweep, run = lab.run("a")["sweep"], lab.run("a")["run"]
    with lab.registry("b") as registry:
        ownership.refuse(registry, lab["b"], sweep)  # it is this home's as well
        (home,) = homes.homes(registry)
    assert home.path == lab.store.as_uri() and home.id == (lab.store / "home-id").read_text("ascii").strip()

    told = lab.lab("b", "report", sweep, "-o", "report.html")
    assert told.code == 0 and "5 pictures" not in told.errors
    page = Path("report.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") >= 3 and "No such file" not in page
    told = lab.lab("b", "promote", run, "--name", "mine", "--force", "--reason", "untrained", "--json")
    assert told.code == 0, told.errors
    samples = [lab.lab(name, "sample", "mine", "-n", "5", "-o", f"{name}.npz").code for name in ("a", "b", "c")]
    assert samples == [0, 0, 0]
    assert Path("a.npz").read_bytes() == Path("c.npz").read_bytes()
    told = lab.lab("c", "verify", sweep)
    assert told.code == 0 and "all agree" in told.output + told.errors

    for weights in (lab.folder / "c").glob("checkpoints/*/*/*/last.safetensors"):
        weights.write_bytes(b"damaged")
    assert lab.lab("c", "sample", run, "-n", "5", "-o", "again.npz").code == 0, "the store's is whole"
    (content,) = lab.store.glob("checkpoints/*/*/*/last.????????????????.safetensors")
    content.write_bytes(b"half of i")
    told = lab.lab("d", "verify", sweep)
    assert told.code == 1 and "is damaged in the store" in told.output + told.errors
    assert str(content) in (told.output + told.errors).replace("file://", "")

    assert lab.lab("b", "delete", sweep, "--yes").code == 2, "it is promoted"


def test_a_deleted_sweep_is_gone_from_the_store(lab: Homes) -> None:
    lab.share()
    assert lab.lab("a", "train", "mine.yaml", "--device", "cpu").code == 0
    sweep = lab.run("a")["sweep"]
    assert lab.published() and lab.lab("b", "delete", sweep, "--yes").code == 0
    assert {name.partition("/")[0] for name in lab.published()} == {"cache"}
    assert lab.lab("b", "cache", "clear").code == 0 and lab.published() == set()


def test_a_sweep_from_before_the_store_is_published_when_it_is_adopted(lab: Homes) -> None:
    lab.share()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AIGC_LAB_STORE_URL")
        assert lab.lab("a", "train", "mine.yaml", "--device", "cpu").code == 0
        sweep = lab.run("a")["sweep"]
    told = lab.lab("a", "export", sweep)
    assert told.code == 2 and f"and not in {lab.store.as_uri()}; publish it there: aigc-lab doctor" in told.why
    with lab.registry("a") as registry:
        ownership.adopt(registry, lab["a"], [sweep])
    assert lab.lab("b", "export", sweep).code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AIGC_LAB_STORE_URL")
        told = lab.lab("a", "export", sweep, "--force")
        assert told.code == 2 and told.why.endswith(f"{lab.store.as_uri()}; set AIGC_LAB_STORE_URL to that")


def test_a_store_that_stays_away_ends_the_sweep_and_loses_nothing(
    lab: Homes, undisturbed: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on where it was, in the home that it was in; here, to the bit."""
    lab.share()
    monkeypatch.setenv("AIGC_LAB_STORE_PATIENCE", "0.2")
    with pytest.MonkeyPatch.context() as patch:
        send = Store._send

        def lost(store: Store, path: Path, key: str) -> None:
            if "last" in key:
                store._ask(refuse)
            send(store, path, key)

        def refuse() -> None:
            raise ConnectionError("connection reset")

        patch.setattr(Store, "_send", lost)
        told = lab.lab("a", "train", "mine.yaml", "--device", "cpu")
    assert told.code == 1
    assert f"the store {lab.store.as_uri()} is away (connection reset), and was waited for 0.2 s" in told.errors
    run = lab.run("a")
    assert run["state"] == RunState.KILLED, "no result is recorded that others could not read"
    assert list((lab.folder / "a").glob("checkpoints/*/*/1/last.safetensors"))
    outage._outages.clear()
    assert lab.lab("a", "resume", run["sweep"], "--device", "cpu").code == 0
    assert result(lab.run("a")) == undisturbed


def test_a_store_that_cannot_be_used_is_said_before_anything_is_made(
    lab: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.share()
    monkeypatch.setenv("AIGC_LAB_STORE_URL", "sftp://anna:hush@lab/results")
    monkeypatch.setenv("AIGC_LAB_STORE_OPTIONS", json.dumps({"token": "silent"}))

    def refuse(store: Store) -> None:
        raise store._refused(PermissionError("hush, silent: access denied"))

    class Driver:
        protocol = ("sftp", "ssh")

    monkeypatch.setattr("aigc_lab.host.store_url.opened", lambda *of: (Driver(), "results"))
    monkeypatch.setattr(Store, "probe", refuse)
    told = lab.lab("a", "sweep", "mine.yaml", "--device", "cpu")
    assert told.code == 2 and "the store sftp://anna:***@lab/results: it refuses (***, ***: access denied)" in told.why
    assert "hush" not in told.errors + told.output and "silent" not in told.errors + told.output
    assert not (lab.folder / "registry.db").exists()
    told = lab.lab("a", "doctor")
    assert "sftp://anna:***@lab/results" in told.output and "hush" not in told.errors + told.output


def test_a_command_says_what_is_wrong_with_the_address(lab: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, says in (
        ("lab/results", "give a URL"),
        ("s4://lab", "Protocol not known"),
        ("s3://b?key=hush", "key=***"),
    ):
        monkeypatch.setenv("AIGC_LAB_STORE_URL", url)
        told = lab.lab("a", "sweep", "mine.yaml", "--device", "cpu")
        assert told.code == 2 and says in told.why and "hush" not in told.errors
    monkeypatch.setenv("AIGC_LAB_STORE_OPTIONS", "key=hush")
    told = lab.lab("a", "doctor")
    assert told.code == 2 and "AIGC_LAB_STORE_OPTIONS is no JSON object" in told.why and "hush" not in told.errors


def test_errors_of_a_store_are_failures_and_no_faults_of_runs() -> None:
    assert issubclass(outage.StoreAway, Failure) and not issubclass(outage.StoreAway, UsageError)
