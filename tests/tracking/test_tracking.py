"""The real MLflow on a SQLite file, and the same contract over the tracker in memory."""

import errno
import http.server
import json
import logging
import math
import multiprocessing
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import files
from aigc_lab.tracking import address, base
from aigc_lab.tracking.address import Unreachable, check_address
from aigc_lab.tracking.base import DatasetInfo, Tracker
from aigc_lab.tracking.in_memory import MemoryRun, MemoryTracker
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.tracking.mlflow_run import MlflowRun

DATA = DatasetInfo("digits", "0123456789abcdef" * 4, "https://example.org/digits.zip", "uint8 [8, 8, 1], 1797 samples")
GRID = np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"


@pytest.fixture(scope="module")
def mlflow_tracker(home: Path, uri: str) -> MlflowTracker:
    return MlflowTracker(uri, home / "artifacts")


@pytest.fixture
def mlflow_run(mlflow_tracker: MlflowTracker, request: pytest.FixtureRequest) -> MlflowRun:
    name = str(request.node.name)
    return mlflow_tracker.start(mlflow_tracker.experiment("single"), name, name, {}, {})


def client(tracker: Tracker) -> Any:
    assert isinstance(tracker, MlflowTracker)
    return tracker._client()


class View:
    """What a reader of the store sees of a run, in the same shape for every tracker."""

    def __init__(self, tracker: Tracker, run: Any) -> None:
        self.tracker, self.run = tracker, run
        self.entity = client(tracker).get_run(run.run_id) if isinstance(tracker, MlflowTracker) else None

    @property
    def status(self) -> str:
        return str(self.entity.info.status if self.entity else self.run.status)

    @property
    def name(self) -> str:
        return str(self.entity.info.run_name if self.entity else self.run.name)

    @property
    def params(self) -> dict[str, str]:
        return dict(self.entity.data.params if self.entity else self.run.params)

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.entity.data.tags if self.entity else self.run.tag)

    @property
    def dataset(self) -> str | None:
        if self.entity is None:
            return self.run.dataset.name if self.run.dataset else None
        inputs = self.entity.inputs.dataset_inputs
        assert len(inputs) <= 1
        return str(inputs[0].dataset.name) if inputs else None

    def metric(self, name: str) -> list[tuple[int, float]]:
        if self.entity is None:
            return list(self.run.metrics.get(name, []))
        return [(m.step, m.value) for m in client(self.tracker).get_metric_history(self.run.run_id, name)]

    def images(self) -> list[tuple[str, int, tuple[int, ...]]]:
        if self.entity is None:
            return sorted((key, step, pixels.shape) for key, step, pixels in self.run.images)
        found = []
        for file in self.files("images"):
            key, _, step, _, _, _ = file.stem.split("+") if file.suffix == ".png" else [""] * 6
            if key:
                from PIL import Image

                found.append((key.replace("~", "/"), int(step), np.asarray(Image.open(file)).shape))
        return sorted(found)

    def files(self, folder: str) -> list[Path]:
        assert self.entity is not None
        root = Path(self.entity.info.artifact_uri.removeprefix("file://"))
        return sorted(path for path in (root / folder).rglob("*") if path.is_file())

    def content(self, name: str) -> bytes:
        if self.entity is None:
            return bytes(self.run.artifacts[name] if name in self.run.artifacts else self.run.texts[name].encode())
        folder, _, file = name.rpartition("/")
        (path,) = [path for path in self.files(folder) if path.name == file]
        return path.read_bytes()


@pytest.fixture(params=["memory", "mlflow"])
def tracker(request: pytest.FixtureRequest) -> Tracker:
    if request.param == "memory":
        return MemoryTracker()
    chosen: MlflowTracker = request.getfixturevalue("mlflow_tracker")
    return chosen


@pytest.fixture
def experiment(tracker: Tracker) -> str:
    return tracker.experiment("contract")


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return f"{request.node.originalname}:1"


def _killed_within_a_write(root: Path) -> None:
    with files.replacing(root / "model" / "weights.bin"):
        os.kill(os.getpid(), signal.SIGKILL)


class TestContract:
    def test_experiments_are_found_again(self, tracker: Tracker, experiment: str) -> None:
        assert tracker.experiment("contract") == experiment
        assert tracker.experiment("another one") != experiment

    def test_a_run_keeps_everything(self, tracker: Tracker, experiment: str, key: str, tmp_path: Path) -> None:
        run = tracker.start(experiment, "dcgan", key, {"lr": 1e-4, "loss": "hinge"}, {"system": "dcgan"}, DATA)
        for step in range(3):
            run.scalars(step, {"loss/critic/total": step / 2, "loss/generator/total": -step})
        run.scores(2, {"fd_clf": 12.5})
        run.image("samples/grid", GRID, 0)
        run.image("samples/grid", GRID[:, :, 0], 2)
        run.text("samples/2.txt", "größer\n")
        (tmp_path / "weights.bin").write_bytes(b"\0weights")
        run.artifact(tmp_path / "weights.bin", "checkpoints/last")
        run.tags({"collapse": "NONE"})
        assert run.end("FINISHED", {"stability": "STABLE"}) == 0

        view = View(tracker, run)
        assert (view.status, view.name, view.dataset) == ("FINISHED", "dcgan", "digits")
        assert view.params == {"lr": "0.0001", "loss": "hinge"}
        expected = {"system": "dcgan", "collapse": "NONE", "stability": "STABLE", base.KEY: key}
        assert expected.items() <= view.tags.items()
        assert view.metric("loss/critic/total") == [(0, 0.0), (1, 0.5), (2, 1.0)]
        assert view.metric("loss/generator/total") == [(0, 0.0), (1, -1.0), (2, -2.0)]
        assert view.metric("score/fd_clf") == [(2, 12.5)]
        assert view.images() == [("samples/grid", 0, (40, 30, 3)), ("samples/grid", 2, (40, 30))]
        assert view.content("samples/2.txt").decode() == "größer\n"
        assert view.content("checkpoints/last/weights.bin") == b"\0weights"

    def test_scalars_wait_for_flush(self, tracker: Tracker, experiment: str, key: str) -> None:
        run = tracker.start(experiment, "r", key, {}, {})
        run.scalars(1, {"loss/a": 1.0})
        assert View(tracker, run).metric("loss/a") == []
        assert run.flush() == 0
        assert View(tracker, run).metric("loss/a") == [(1, 1.0)]
        assert run.flush() == 0
        run.end("FINISHED", {})
        assert View(tracker, run).metric("loss/a") == [(1, 1.0)]

    def test_the_same_key_continues_the_run(self, tracker: Tracker, experiment: str, key: str) -> None:
        first = tracker.start(experiment, "r", key, {"lr": 0.1}, {"host": "a"}, DATA)
        first.scalars(1, {"loss/a": 1.0})
        first.flush()  # … and the process dies
        again = tracker.start(experiment, "r", key, {"lr": 0.1, "added": 2}, {"host": "b"}, DATA)
        assert again.run_id == first.run_id
        again.scalars(2, {"loss/a": 2.0})
        again.end("FINISHED", {})
        other = tracker.start(experiment, "r", f"{key}0", {}, {})  # a key that begins like the first
        assert other.run_id != first.run_id
        other.end("KILLED", {})
        view = View(tracker, again)
        assert view.metric("loss/a") == [(1, 1.0), (2, 2.0)]
        assert view.params == {"lr": "0.1", "added": "2"}
        assert (view.status, view.tags["host"], view.dataset) == ("FINISHED", "b", "digits")

    def test_a_finished_run_is_running_when_continued(self, tracker: Tracker, experiment: str, key: str) -> None:
        tracker.start(experiment, "r", key, {}, {}).end("FAILED", {})
        run = tracker.start(experiment, "r", key, {}, {})
        assert View(tracker, run).status == "RUNNING"
        run.scalars(1, {"loss/a": 1.0})
        run.end("KILLED", {})
        assert View(tracker, run).status == "KILLED"

    @pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
    def test_end_delivers_what_waits(self, tracker: Tracker, experiment: str, key: str, status: Any) -> None:
        run = tracker.start(experiment, "r", f"{key}-{status}", {}, {})
        run.scalars(7, {"loss/a": 0.25})
        assert run.end(status, {"why": "because"}) == 0
        run.end("FAILED", {"why": "later"})  # a `finally` after an `end`
        view = View(tracker, run)
        assert (view.status, view.tags["why"], view.metric("loss/a")) == (status, "because", [(7, 0.25)])

    def test_an_invalid_last_tag_leaves_nothing_running(self, tracker: Tracker, experiment: str, key: str) -> None:
        run = tracker.start(experiment, "r", key, {}, {})
        run.scalars(1, {"loss/a": 1.0})
        with pytest.raises(ValueError, match=r"tag name 'a\?b'"):
            run.end("FAILED", {"a?b": ""})
        assert View(tracker, run).status == "FAILED"

    def test_after_the_end_nothing_is_taken(self, tracker: Tracker, experiment: str, key: str) -> None:
        run = tracker.start(experiment, "r", key, {}, {})
        run.end("FINISHED", {})
        late_calls: list[Callable[[], object]] = [
            lambda: run.scalars(1, {"a": 1.0}),
            lambda: run.image("a", GRID, 1),
            lambda: run.text("a", "a"),
            lambda: run.tags({"a": "a"}),
        ]
        for late in late_calls:
            with pytest.raises(AssertionError, match="has ended"):
                late()

    def test_what_is_not_finite_is_named_not_stored(self, tracker: Tracker, experiment: str, key: str) -> None:
        run = tracker.start(experiment, "r", key, {}, {})
        run.scalars(1, {"loss/a": 1.0, "loss/b": math.inf})
        run.flush()
        run.scalars(2, {"loss/a": math.nan, "loss/b": -math.inf})
        run.end("FINISHED", {})
        view = View(tracker, run)
        assert view.metric("loss/a") == [(1, 1.0)]
        assert view.metric("loss/b") == []
        assert view.tags[base.NONFINITE] == "loss/b: 2 from step 1; loss/a: 1 from step 2"

    def test_many_and_long_params(self, tracker: Tracker, experiment: str, key: str) -> None:
        params: dict[str, object] = {f"group.p{i}": i for i in range(230)}
        params |= {"long": "ä" * 7000, "list": [1, {"a": 2}], "none": None, "yes": True}
        run = tracker.start(experiment, "r", key, params, {"long": "x" * 9000})
        run.end("FINISHED", {})
        view = View(tracker, run)
        assert {name for name in params} == set(view.params)
        assert view.params["group.p229"] == "229"
        assert len(view.params["long"]) == 6000
        assert view.params["long"].endswith("… (7000 characters)")
        assert (view.params["list"], view.params["none"], view.params["yes"]) == ('[1, {"a": 2}]', "None", "True")
        assert len(view.tags["long"]) == 8000

    @pytest.mark.parametrize("name", ["a?b", "../a", "/a", "a//b", "a/", "", "x" * 251])
    def test_names_are_refused_where_they_are_given(
        self, tracker: Tracker, experiment: str, key: str, name: str
    ) -> None:
        run = tracker.start(experiment, "r", key, {}, {})
        for call in (
            lambda: run.scalars(1, {name: 1.0}),
            lambda: run.image(name, GRID, 1),
            lambda: run.text(name, ""),
            lambda: run.tags({name: ""}),
            lambda: tracker.start(experiment, "r", key, {name: 1}, {}),
        ):
            with pytest.raises(ValueError, match="name"):
                call()
        assert run.end("FINISHED", {}) == 0

    @pytest.mark.parametrize("pixels", [GRID.astype(np.float32), GRID[:, :, :2], GRID[0, 0]])
    def test_pixels_are_checked(self, tracker: Tracker, experiment: str, key: str, pixels: Any) -> None:
        run = tracker.start(experiment, "r", key, {}, {})
        with pytest.raises(ValueError, match="needs uint8"):
            run.image("a", pixels, 1)
        with pytest.raises(ValueError, match="no such file"):
            run.artifact(Path("missing"), "")
        run.end("FINISHED", {})

    def test_a_dead_attempt_can_be_closed(self, tracker: Tracker, experiment: str, key: str) -> None:
        dead = tracker.start(experiment, "r", key, {"lr": 1}, {}, DATA)
        tracker.start(experiment, "r", key, {}, {}).end("KILLED", {})
        view = View(tracker, dead)
        assert (view.status, view.params, view.dataset) == ("KILLED", {"lr": "1"}, "digits")


class TestMlflow:
    def test_thousands_of_points(self, mlflow_tracker: MlflowTracker, mlflow_run: MlflowRun) -> None:
        before = time.time_ns() // 1_000_000
        for step in range(250):
            mlflow_run.scalars(step, {f"m{i}": step * i for i in range(10)})
        recorded = time.time_ns() // 1_000_000
        time.sleep(0.05)
        assert mlflow_run.end("FINISHED", {}) == 0
        history = client(mlflow_tracker).get_metric_history(mlflow_run.run_id, "m9")
        assert [(m.step, m.value) for m in history] == [(step, step * 9) for step in range(250)]
        assert all(before <= m.timestamp <= recorded for m in history), "a point carries the time of its recording"

    def test_the_dataset_is_an_input(self, mlflow_tracker: MlflowTracker) -> None:
        import mlflow.data

        experiment = mlflow_tracker.experiment("data")
        made = DatasetInfo("ring", "abc", None, "float32 [2]", "evaluation")
        for info, kind, place in (
            (DATA, "http", {"url": DATA.url}),
            (made, "code", {"tags": {"mlflow.source.name": "ring"}}),
        ):
            run = mlflow_tracker.start(experiment, "r", info.name, {}, {}, info)
            run.end("FINISHED", {})
            (entry,) = client(mlflow_tracker).get_run(run.run_id).inputs.dataset_inputs
            assert (entry.dataset.name, entry.dataset.digest) == (info.name, info.digest[:36])
            assert (entry.dataset.source_type, json.loads(entry.dataset.source)) == (kind, place)
            assert json.loads(entry.dataset.profile) == {"shape": info.shape}
            assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", info.context)]
            assert mlflow.data.get_source(entry.dataset).to_dict() == place

    def test_artifacts_lie_in_the_home(self, home: Path, mlflow_tracker: MlflowTracker) -> None:
        id = mlflow_tracker.experiment("a name/with ümlaut")
        experiment = client(mlflow_tracker).get_experiment(id)
        assert experiment.name == "a name/with ümlaut"
        assert experiment.artifact_location.startswith((home / "artifacts" / "mlflow").as_uri())
        assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"

    def test_a_deleted_experiment_is_reported(self, mlflow_tracker: MlflowTracker) -> None:
        id = mlflow_tracker.experiment("gone")
        client(mlflow_tracker).delete_experiment(id)
        with pytest.raises(UsageError, match=f"restore --experiment-id {id}"):
            mlflow_tracker.experiment("gone")

    def test_a_lost_race_for_an_experiment(
        self, mlflow_tracker: MlflowTracker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        id = mlflow_tracker.experiment("raced")
        real = client(mlflow_tracker).get_experiment_by_name
        # Not there when asked, there when created.
        monkeypatch.setattr(client(mlflow_tracker), "get_experiment_by_name", _first(None, then=real))
        assert mlflow_tracker.experiment("raced") == id

    def test_a_changed_param_keeps_its_value(
        self, mlflow_tracker: MlflowTracker, caplog: pytest.LogCaptureFixture
    ) -> None:
        experiment = mlflow_tracker.experiment("data")
        mlflow_tracker.start(experiment, "r", "changed", {"lr": 1}, {}).end("FAILED", {})
        mlflow_tracker.start(experiment, "r", "changed", {"lr": 2}, {}).end("FINISHED", {})
        assert "param lr stays 1, not 2" in caplog.text

    def test_an_image_is_stored_when_the_call_returns(self, mlflow_run: MlflowRun) -> None:
        before = set(threading.enumerate())
        mlflow_run.image("samples/grid", GRID, 1)
        assert set(threading.enumerate()) <= before, "MLflow's own asynchronous queue loses images on a kill"
        mlflow_run.end("FINISHED", {})

    def test_an_image_that_is_sent_twice_is_there_once(
        self, mlflow_tracker: MlflowTracker, mlflow_run: MlflowRun
    ) -> None:
        for _ in range(2):
            mlflow_run.image("samples/grid", GRID, 1, at=1234567890123)
        mlflow_run.image("samples/grid", GRID[:, :1], 2, at=1234567890123)
        assert View(mlflow_tracker, mlflow_run).images() == [
            ("samples/grid", 1, GRID.shape),
            ("samples/grid", 2, (40, 1, 3)),
        ]
        mlflow_run.end("FINISHED", {})

    def test_a_run_is_tagged_once_as_one_with_images(
        self, mlflow_run: MlflowRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A tag is a transaction, and takes as long as the picture."""
        tagged, set_tag = list[str](), mlflow_run._client.set_tag

        def counted(run: str, name: str, value: str) -> None:
            tagged.append(name)
            set_tag(run, name, value)

        monkeypatch.setattr(mlflow_run._client, "set_tag", counted)
        for step in range(3):
            mlflow_run.image("samples/grid", GRID, step)
        assert tagged.count("mlflow.loggedImages") == 1
        mlflow_run.end("FINISHED", {})

    def test_images_are_stored_as_mlflow_stores_its_own(
        self, mlflow_tracker: MlflowTracker, mlflow_run: MlflowRun
    ) -> None:
        from PIL import Image

        other = mlflow_tracker.start(mlflow_tracker.experiment("single"), "theirs", "theirs", {}, {})
        mlflow_run.image("samples/grid", GRID, 7, at=1234567890123)
        client(mlflow_tracker).log_image(
            other.run_id, GRID, key="samples/grid", step=7, timestamp=1234567890123, synchronous=True
        )
        ours, theirs = View(mlflow_tracker, mlflow_run), View(mlflow_tracker, other)
        assert ours.tags["mlflow.loggedImages"] == theirs.tags["mlflow.loggedImages"]
        uuid = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
        shapes = [
            [(re.sub(uuid, "UUID", file.name), np.asarray(Image.open(file)).tolist()) for file in view.files("images")]
            for view in (ours, theirs)
        ]
        assert len(shapes[0]) == 2
        assert shapes[0] == shapes[1]
        other.end("FINISHED", {})
        mlflow_run.end("FINISHED", {})

    @pytest.mark.skipif(shutil.which("node") is None, reason="MLflow's pages are JavaScript, and there is no node")
    def test_mlflows_pages_read_the_names_of_images(self, mlflow_tracker: MlflowTracker, mlflow_run: MlflowRun) -> None:
        import mlflow

        mlflow_run.image("samples/grid", GRID, 7, at=1234567890123)
        names = [f.name for f in View(mlflow_tracker, mlflow_run).files("images")]
        scripts = Path(mlflow.__file__).parent.glob("server/js/build/static/js/main.*.js")
        # The page's own function from a file's name to its parts: the one that complains of names it cannot read.
        pattern = r'=\((e=>\{const t=e\.split\("\."\)\.pop\(\);.{0,900}?isCompressed:\w\}\})\)\('
        (parser,) = [found.group(1) for script in scripts for found in re.finditer(pattern, script.read_text())]
        code = f"const x=['+','%'],w=Error;console.log(JSON.stringify({json.dumps(names)}.map({parser})))"
        read = json.loads(subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True).stdout)
        assert sorted((r["imageKey"], r["step"], r["timestamp"], r["extension"], r["isCompressed"]) for r in read) == [
            ("samples/grid", 7, 1234567890123, "png", False),
            ("samples/grid", 7, 1234567890123, "webp", True),
        ]
        assert len({r["fileKey"] for r in read}) == 1, "the small picture is found by the name of the large one"
        mlflow_run.end("FINISHED", {})

    def test_the_database_is_in_wal_mode(self, home: Path, mlflow_run: MlflowRun) -> None:
        mlflow_run.end("FINISHED", {})
        with closing(sqlite3.connect(home / "mlflow.db")) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert not list(home.glob(".mlflow.db-*"))

    def test_a_store_that_is_left_has_no_log_beside_it(
        self, home: Path, mlflow_tracker: MlflowTracker, mlflow_run: MlflowRun
    ) -> None:
        mlflow_run.scalars(1, {f"m{i}": 1.0 for i in range(50)})
        mlflow_run.end("FINISHED", {})
        log = home / "mlflow.db-wal"
        assert log.stat().st_size > 0
        mlflow_tracker.settle()
        assert not log.exists() or log.stat().st_size == 0
        assert client(mlflow_tracker).get_run(mlflow_run.run_id).info.status == "FINISHED"


def _first(value: Any, then: Any) -> Any:
    answers = [value]
    return lambda *args: answers.pop() if answers else then(*args)


class Broken:
    """A client whose calls fail while `down`, as those to a dead server do."""

    def __init__(self, real: Any) -> None:
        self.real, self.down, self.calls = real, True, 0

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.down:
                raise ConnectionError("http://lab:secret@store: connection refused")
            return getattr(self.real, name)(*args, **kwargs)

        return call


class TestFailingStore:
    @pytest.fixture
    def broken(self, mlflow_tracker: MlflowTracker, mlflow_run: MlflowRun) -> Iterator[Broken]:
        client = mlflow_run._client = Broken(mlflow_run._client)  # type: ignore[assignment]
        yield client
        client.down = False
        mlflow_run.end("FINISHED", {})

    def test_nothing_is_lost_while_it_is_down(
        self,
        mlflow_tracker: MlflowTracker,
        mlflow_run: MlflowRun,
        broken: Broken,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        mlflow_run._uri = "http://lab:secret@store"
        (tmp_path / "a.txt").write_text("a")
        for step in range(1500):
            mlflow_run.scalars(step, {"loss/a": step, "loss/b": math.nan})
        pixels = GRID.copy()
        mlflow_run.image("samples/grid", pixels, 3)
        pixels[:] = 0  # the caller's buffer is its own
        mlflow_run.text("t.txt", "text")
        mlflow_run.artifact(tmp_path / "a.txt", "")
        mlflow_run.tags({"late": "yes"})
        assert mlflow_run.flush() == 1504
        assert mlflow_run.flush() == 1504
        assert broken.calls == 3, "one call is enough to see that the store is down: the first, then one each flush"
        assert len([r for r in caplog.records if "kept for the next flush" in r.message]) == 1, "warned once"
        assert "secret" not in caplog.text

        broken.down = False
        assert mlflow_run.flush() == 0
        assert mlflow_run.end("FINISHED", {}) == 0
        view = View(mlflow_tracker, mlflow_run)
        assert view.metric("loss/a") == [(step, step) for step in range(1500)]
        assert (view.status, view.tags["late"]) == ("FINISHED", "yes")
        assert view.tags[base.NONFINITE] == "loss/b: 1500 from step 0"
        assert view.images() == [("samples/grid", 3, GRID.shape)]
        from PIL import Image

        (png,) = [file for file in view.files("images") if file.suffix == ".png"]
        assert (np.asarray(Image.open(png)) == GRID).all()
        assert (view.content("t.txt"), view.content("a.txt")) == (b"text", b"a")

    def test_a_failure_between_two_batches_doubles_nothing(
        self, mlflow_tracker: MlflowTracker, mlflow_run: MlflowRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, sent = mlflow_run._client.log_batch, []

        def answer_lost(*args: Any, **kwargs: Any) -> None:
            real(*args, **kwargs)
            sent.append(len(kwargs["metrics"]))
            if len(sent) == 2:
                raise TimeoutError("stored, but the answer was lost")

        monkeypatch.setattr(mlflow_run._client, "log_batch", answer_lost)
        mlflow_run.scalars(0, {f"m{i}": i for i in range(2500)})
        assert mlflow_run.flush() == 1500
        assert mlflow_run.end("FINISHED", {}) == 0
        assert sent == [1000, 1000, 1000, 500]
        assert View(mlflow_tracker, mlflow_run).metric("m1500") == [(0, 1500)]

    def test_end_says_what_is_lost(
        self, mlflow_run: MlflowRun, broken: Broken, caplog: pytest.LogCaptureFixture
    ) -> None:
        mlflow_run.scalars(1, {"loss/a": 1.0, "loss/b": 1.0})
        assert mlflow_run.end("FINISHED", {"collapse": "NONE"}) == 4  # two points, a tag, the status
        assert "ended FINISHED with 4 pieces lost" in caplog.text
        broken.down = False
        mlflow_run._ended = False  # for the fixture, which closes the run

    def test_what_is_refused_blocks_nothing(
        self, mlflow_tracker: MlflowTracker, mlflow_run: MlflowRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        broken = mlflow_run._client = Broken(mlflow_run._client)  # type: ignore[assignment]
        mlflow_run._root = None  # files go through the client, as to a server
        file = tmp_path / "temporary.txt"
        file.write_text("a")
        mlflow_run.artifact(file, "")
        mlflow_run.text("b.txt", "b")
        file.unlink()
        broken.down = False
        assert mlflow_run.flush() == 0
        assert "temporary.txt refused and dropped" in caplog.text
        assert View(mlflow_tracker, mlflow_run).content("b.txt") == b"b"
        assert mlflow_run.end("FINISHED", {}) == 0  # nothing that could be sent again
        assert "ended FINISHED with 1 pieces lost" in caplog.text

    def test_a_disk_that_takes_nothing_gets_the_file_later(
        self, mlflow_tracker: MlflowTracker, mlflow_run: MlflowRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own, file = mlflow_run._root, tmp_path / "weights.bin"
        file.write_bytes(b"weights")
        for number, error in enumerate((FileNotFoundError(), PermissionError(), OSError(errno.ENOSPC, "full"))):
            for mlflow_run._root in (own, None):
                place = f"model/{number}/{mlflow_run._root is own}"
                with monkeypatch.context() as patch:
                    for sends in ("aigc_lab.tracking.mlflow_run.share", "mlflow.tracking.MlflowClient.log_artifact"):
                        patch.setattr(sends, mock.Mock(side_effect=error))
                    mlflow_run.artifact(file, place, "last.bin")
                    assert mlflow_run.flush() == 1, place
                assert mlflow_run.flush() == 0
                assert View(mlflow_tracker, mlflow_run).content(f"{place}/last.bin") == b"weights"
        assert mlflow_run.end("FINISHED", {}) == 0

    def test_what_a_kill_left_half_written_is_gone_when_the_run_has_ended(
        self, mlflow_tracker: MlflowTracker, mlflow_run: MlflowRun, tmp_path: Path
    ) -> None:
        """A process that is killed runs no clean-up: MLflow would list its temporary file among the artifacts."""
        file = tmp_path / "weights.bin"
        file.write_bytes(b"weights")
        child = multiprocessing.get_context("fork").Process(target=_killed_within_a_write, args=(mlflow_run._root,))
        child.start()
        child.join()
        mlflow_run.artifact(file, "model")
        view = View(mlflow_tracker, mlflow_run)
        assert len(view.files("model")) == 2, "the kill came in time"
        mlflow_run.end("FINISHED", {})
        assert [path.name for path in view.files("model")] == ["weights.bin"]

    def test_a_file_of_this_home_is_stored_once_and_a_new_one_leaves_mlflows(
        self, mlflow_tracker: MlflowTracker, mlflow_run: MlflowRun, tmp_path: Path
    ) -> None:
        file, picture = tmp_path / "weights.bin", tmp_path / "grid.png"
        file.write_bytes(b"weights")
        from PIL import Image

        Image.fromarray(GRID).save(picture)
        for _ in range(2):  # as after a kill
            mlflow_run.artifact(file, "model")
            mlflow_run.image("samples/grid", GRID, 1, at=5, png=picture)
        mlflow_run.end("FINISHED", {})
        view = View(mlflow_tracker, mlflow_run)
        (held,) = view.files("model")
        (png,) = [path for path in view.files("images") if path.suffix == ".png"]
        assert held.samefile(file) and png.samefile(picture)
        files.write_atomically(file, b"others")
        assert held.read_bytes() == b"weights"

    def test_a_deleted_run_does_not_stop_a_training(
        self, mlflow_tracker: MlflowTracker, mlflow_run: MlflowRun, caplog: pytest.LogCaptureFixture
    ) -> None:
        with closing(sqlite3.connect(mlflow_tracker._uri.removeprefix("sqlite:///"))) as database, database:
            database.execute("DELETE FROM tags WHERE run_uuid = ?", (mlflow_run.run_id,))
            database.execute("DELETE FROM runs WHERE run_uuid = ?", (mlflow_run.run_id,))
        mlflow_run.scalars(1, {"a": 1.0})
        assert mlflow_run.flush() == 0
        assert mlflow_run.end("FINISHED", {}) == 0
        assert "ended FINISHED with 2 pieces lost" in caplog.text

    def test_start_fails_in_one_line_without_the_password(
        self, mlflow_tracker: MlflowTracker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = MlflowTracker("http://lab:secret@store", Path())
        monkeypatch.setattr(other, "_cached_client", Broken(None))
        with pytest.raises(Failure, match=r"http://lab:\*\*\*@store: run r: .*connection refused") as caught:
            other.start("1", "r", "k", {}, {})
        assert "secret" not in str(caught.value)
        with pytest.raises(Failure, match="experiment e"):
            other.experiment("e")


class Answer(http.server.BaseHTTPRequestHandler):
    """`/version` of an MLflow server that wants a user, something else below `/other`, and errors below their code."""

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") == "Basic bGFiOnBAc3M="  # lab:p@ss
        known = self.path == "/version"
        codes = {"/version": 200 if allowed else 401, "/other/version": 200, "/502/version": 502, "/503/version": 503}
        self.send_response(codes.get(self.path, 404))
        self.end_headers()
        self.wfile.write(b"3.17.2" if known else b"<html>hello")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield int(served.server_address[1])
        served.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TestCheck:
    def test_a_server_with_a_password(self, server: int, monkeypatch: pytest.MonkeyPatch) -> None:
        check_address(f"http://lab:p%40ss@127.0.0.1:{server}")
        check_address(f"http://lab:p%40ss@127.0.0.1:{server}/")
        with pytest.raises(UsageError, match=r"lab:\*\*\*@.*refuses the credentials") as caught:
            check_address(f"http://lab:wrong@127.0.0.1:{server}")
        assert "wrong" not in str(caught.value)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "lab")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "p@ss")
        check_address(f"http://127.0.0.1:{server}")

    @pytest.mark.parametrize("path", ["/other", "/missing"])
    def test_another_server(self, server: int, path: str) -> None:
        with pytest.raises(UsageError, match="is not an MLflow server"):
            check_address(f"http://127.0.0.1:{server}{path}")

    @pytest.mark.parametrize("scheme", ["http", "postgresql", "postgresql+psycopg"])
    def test_nobody_listens(self, scheme: str) -> None:
        port = _free_port()
        with pytest.raises(
            UsageError, match=rf"{scheme.replace('+', '.')}://lab:\*\*\*@127.0.0.1:{port}.*refused.*unset"
        ):
            check_address(f"{scheme}://lab:secret@127.0.0.1:{port}/x")

    @pytest.mark.parametrize("status", [502, 503])
    def test_a_proxy_whose_server_is_down(self, server: int, status: int) -> None:
        with pytest.raises(Unreachable, match=f"cannot be reached .{status} .*start one with"):
            check_address(f"http://127.0.0.1:{server}/{status}")

    def test_a_server_that_never_answers(self) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            start = time.monotonic()
            with pytest.raises(UsageError, match="cannot be reached"):
                check_address(f"http://127.0.0.1:{silent.getsockname()[1]}")
            assert time.monotonic() - start < 5

    def test_a_port_that_speaks_something_else(self) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()

            def greet() -> None:
                connection, _ = listening.accept()
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-hello\r\n")
                connection.close()

            threading.Thread(target=greet, daemon=True).start()
            with pytest.raises(UsageError, match="is not an MLflow server"):
                check_address(f"http://127.0.0.1:{listening.getsockname()[1]}")

    @pytest.mark.parametrize("uri", ["mlruns", "/data/mlruns", "file:///data/mlruns"])
    def test_folders(self, uri: str) -> None:
        with pytest.raises(UsageError, match="sqlite:///.*mlruns/mlflow.db"):
            check_address(uri)

    @pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:"])
    def test_memory(self, uri: str) -> None:
        with pytest.raises(UsageError, match="no other process"):
            check_address(uri)

    def test_a_typo(self) -> None:
        with pytest.raises(UsageError, match="not an address"):
            check_address("http://127.0.0.1:50O0")

    def test_files_that_are_not_mlflows(self, tmp_path: Path) -> None:
        junk, registry, empty = tmp_path / "junk.db", tmp_path / "registry.db", tmp_path / "empty.db"
        junk.write_bytes(b"not a database, though long enough to be mistaken for one" * 30)
        with closing(sqlite3.connect(registry)) as database, database:
            database.execute("CREATE TABLE alembic_version (version_num TEXT)")
            database.execute("CREATE TABLE runs (id INTEGER)")
        empty.touch()
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        for path, message in ((junk, "cannot be read as a database"), (registry, "other than MLflow")):
            with pytest.raises(UsageError, match=message):
                check_address(f"sqlite:///{path}")
            with pytest.raises(UsageError, match=message):
                MlflowTracker(f"sqlite:///{path}", tmp_path).experiment("e")
        with pytest.raises(UsageError, match="not a file"):
            check_address(f"sqlite:///{tmp_path}")
        check_address(f"sqlite:///{empty}")
        check_address(f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_other_versions(self, home: Path, uri: str, mlflow_tracker: MlflowTracker, tmp_path: Path) -> None:
        mlflow_tracker.experiment("contract")
        check_address(uri)
        known, head = address._revisions()
        assert head is not None
        assert len(known) > 40
        with closing(sqlite3.connect(home / "mlflow.db")) as source:
            assert source.execute("SELECT version_num FROM alembic_version").fetchall() == [(head,)]
            for revision, message in (("ffffffffffff", "newer MLflow"), (min(known - {head}), "mlflow db upgrade")):
                path = tmp_path / f"{revision}.db"
                with closing(sqlite3.connect(path)) as target:
                    source.backup(target)
                    target.execute("UPDATE alembic_version SET version_num = ?", (revision,))
                    target.commit()
                before = path.read_bytes()
                with pytest.raises(UsageError, match=message):
                    check_address(f"sqlite:///{path}")
                assert path.read_bytes() == before


def _python(code: str, *args: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def _finished(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


class TestProcesses:
    def test_importing_costs_nothing(self) -> None:
        check = "aigc_lab.tracking.address as address; address.check_address('sqlite:////nowhere/x.db')"
        code = f"import sys, {check}; print(*sys.modules)"
        loaded = set(_finished(_python(code)).split())
        assert not loaded & {"mlflow", "numpy", "torch", "sqlalchemy", "pandas"}

    @pytest.mark.slow
    def test_two_processes_make_one_store(self, tmp_path: Path) -> None:
        code = """if True:
            import sys, time
            from pathlib import Path
            from aigc_lab.tracking.mlflow import MlflowTracker
            home = Path(sys.argv[1])
            tracker = MlflowTracker(f"sqlite:///{home}/deep/mlflow.db", home)
            tracker.prewarm()
            (home / sys.argv[2]).touch()
            while len(list(home.glob("ready-*"))) < 2: time.sleep(.01)
            run = tracker.start(tracker.experiment("e"), "r", sys.argv[2], {}, {})
            run.scalars(1, {"a": 1.0})
            assert run.end("FINISHED", {}) == 0
            """
        racing = [_python(code, str(tmp_path), f"ready-{i}") for i in range(2)]
        for process in racing:
            _finished(process)
        with closing(sqlite3.connect(tmp_path / "deep" / "mlflow.db")) as database:
            assert database.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall() == [("FINISHED", 2)]
            assert database.execute("SELECT count(*) FROM experiments WHERE name = 'e'").fetchone() == (1,)

    @pytest.mark.slow
    def test_a_server_that_dies_while_a_run_trains(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        port, db = _free_port(), f"sqlite:///{tmp_path / 'server.db'}"
        MlflowTracker(db, tmp_path).experiment("made before the server starts, which is faster")
        monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
        command += ["--backend-store-uri", db, "--artifacts-destination", str(tmp_path / "served")]
        with open(tmp_path / "log", "w") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 60
            while True:
                try:
                    check_address(address)
                    break
                except UsageError:
                    assert time.monotonic() < deadline and server.poll() is None, (tmp_path / "log").read_text()
                    time.sleep(0.1)
            tracker = MlflowTracker(address, tmp_path / "unused")
            experiment = tracker.experiment("e")
            run = tracker.start(experiment, "r", "k", {f"p{i}": "ä" * 6000 for i in range(30)}, {}, DATA)
            run.scalars(1, {f"m{i}": 1.0 for i in range(1200)})
            for _ in range(2):
                run.image("samples/grid", GRID, 1, at=1234567890123)
            assert run.flush() == 0
            assert tracker.start(experiment, "r", "k", {}, {}).run_id == run.run_id
            names = [path.name for path in (tmp_path / "served").rglob("samples~grid+step+1+*.png")]
            assert len(names) == 1
            assert not (tmp_path / "unused").exists()
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        caplog.set_level(logging.WARNING)
        run.scalars(2, {"m0": 2.0})
        start = time.monotonic()
        assert run.flush() == 1
        assert run.end("FINISHED", {}) == 2
        assert time.monotonic() - start < 15
        assert "not delivered, kept for the next flush" in caplog.text
        stored = View(MlflowTracker(db, tmp_path), run)
        assert (stored.status, stored.dataset, len(stored.params)) == ("RUNNING", "digits", 30)
        again = MlflowTracker(db, tmp_path)
        again.start(experiment, "r", "k", {}, {}).end("KILLED", {})  # what a replay from the registry does
        assert View(again, run).status == "KILLED"


def test_memory_runs_are_found_by_key() -> None:
    tracker = MemoryTracker()
    run = tracker.start(tracker.experiment("e"), "r", "a:1", {}, {})
    assert tracker.runs["a:1"] is run
    assert isinstance(run, MemoryRun)
