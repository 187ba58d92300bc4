"""MLflow as a tracker: a projection of the registry, written by runs and compared by `verify`.

The registry owns the truth, so a training neither waits for MLflow at each step nor dies with it: `scalars` only
appends to a list, `flush` writes the list in batches, and pieces that the store does not take stay in an outbox until
the next `flush`. Points carry the time of their recording, so that sending one twice stores it once.

MLflow takes seconds to import, so it is imported at first use, or in advance by `MlflowTracker.prewarm`.
"""

import json
import logging
import re
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from aigc_lab.errors import UsageError
from aigc_lab.host.files import sha256, share
from aigc_lab.host.names import checked
from aigc_lab.tracking import base
from aigc_lab.tracking.address import sqlite_file
from aigc_lab.tracking.base import KEY, DatasetInfo, shortened
from aigc_lab.tracking.mlflow_run import MlflowRun
from aigc_lab.tracking.mlflow_store import local_folder, open_client, store_errors

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_LOG = logging.getLogger(__name__)

# A request may hold 1 MB of JSON: 25 of the longest params, escaped, still fit.
_PARAMS = 25
_DIGEST_LENGTH = 36  # of a dataset, which MLflow limits


class MlflowTracker:
    """Tracker of an MLflow store: a database (`sqlite:///…`, `postgresql://…`) or a server (`http://…`).

    `artifacts` is the folder for files when the store is a database; a server has its own. Raises `Failure` for a store
    that fails.
    """

    def __init__(self, tracking_uri: str, artifacts: Path) -> None:
        self._uri = tracking_uri
        self._artifacts = artifacts
        self._lock = threading.Lock()
        self._cached_client: MlflowClient | None = None

    def prewarm(self) -> None:
        """Imports MLflow and opens the store in a thread; a method that needs them earlier waits for it.

        Saves two seconds and more while the main thread trains or waits. Call it after the main thread's own imports,
        since two threads that import at once slow each other.
        """
        threading.Thread(target=self._warm, name="mlflow-prewarm", daemon=True).start()

    def _warm(self) -> None:
        with suppress(Exception):  # the same error comes again, in the thread that can tell it to someone
            self._client()

    def _client(self) -> "MlflowClient":
        with self._lock:
            if self._cached_client is None:
                self._cached_client = open_client(self._uri)
            return self._cached_client

    def settle(self) -> None:
        """Merges SQLite's write-ahead log into the database file, unless another process uses it. The log would
        otherwise keep its largest size, a quarter of a small home.
        """
        if self._cached_client is not None and urlsplit(self._uri).scheme.partition("+")[0] == "sqlite":
            with suppress(sqlite3.Error), closing(sqlite3.connect(sqlite_file(self._uri), timeout=1)) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def experiment(self, name: str) -> str:
        client = self._client()
        with store_errors(self._uri, f"experiment {name}"):
            entity = client.get_experiment_by_name(name)
            if entity is None:
                local = urlsplit(self._uri).scheme not in ("http", "https")
                place = (self._artifacts / "mlflow" / re.sub(r"[^\w.-]+", "-", name)).absolute().as_uri()
                # The tag spares the UI from asking whether these are runs or conversations.
                tags = {"mlflow.experimentKind": "custom_model_development"}
                try:
                    return str(client.create_experiment(name, artifact_location=place if local else None, tags=tags))
                except Exception:
                    entity = client.get_experiment_by_name(name)  # another process was faster
                    if entity is None:
                        raise
            if entity.lifecycle_stage == "deleted":
                raise UsageError(
                    f"experiment {name} was deleted in MLflow;"
                    f" bring it back with: mlflow experiments restore --experiment-id {entity.experiment_id}"
                )
            return str(entity.experiment_id)

    def mark(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """Sets tags of an experiment, where they differ. Raises `Failure`."""
        client = self._client()
        with store_errors(self._uri, f"experiment {experiment_id}"):
            present = client.get_experiment(experiment_id).tags
            for name, value in tags.items():
                if present.get(name) != value:
                    client.set_experiment_tag(experiment_id, name, value)

    def amend(self, run_id: str, tags: Mapping[str, str], files: Iterable[Path] = ()) -> None:
        """Sets tags of a run that has ended, and replaces files at the top of its artifacts. Raises `Failure`."""
        client = self._client()
        with store_errors(self._uri, f"run {run_id}"):
            for name, value in base.clean_tags(tags).items():
                client.set_tag(run_id, name, value)
            root = self._own_folder(client.get_run(run_id).info.artifact_uri)
            for path in files:
                if root is None:
                    client.log_artifact(run_id, str(path))
                else:
                    share(path, root / path.name)

    def abandon(self, experiment_id: str, key: str) -> None:
        client = self._client()
        with store_errors(self._uri, f"run {key}"):
            for run in client.search_runs([experiment_id], f"tags.`{KEY}` = '{checked('run', key)}'"):
                if run.info.status == "RUNNING":
                    client.set_terminated(run.info.run_id, "KILLED")

    def start(
        self,
        experiment_id: str,
        name: str,
        key: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        dataset: DatasetInfo | None = None,
        *,
        at: int | None = None,
    ) -> "MlflowRun":
        client = self._client()
        texts = {
            checked("param", param): shortened(base.as_text(value), base.PARAM_LENGTH)
            for param, value in params.items()
        }
        marks = {KEY: checked("run", key)} | base.clean_tags(tags)
        with store_errors(self._uri, f"run {name}"):
            matches = client.search_runs([experiment_id], f"tags.`{KEY}` = '{key}'", max_results=1)
            if matches:
                run = matches[0]
                if run.info.status != "RUNNING":
                    client.update_run(run.info.run_id, status="RUNNING")
                for tag, value in marks.items():
                    client.set_tag(run.info.run_id, tag, value)
            else:
                run = client.create_run(experiment_id, start_time=at, tags=marks, run_name=name)
            # A process may have died between creating the run and this, so both paths come here.
            try:
                _log_params(client, run.info.run_id, texts, run.data.params)
                if dataset is not None:
                    _log_dataset(client, run.info.run_id, dataset)
            except BaseException:  # nobody holds the run yet, so nobody else can close it
                with suppress(Exception):
                    client.set_terminated(run.info.run_id, "KILLED")
                raise
        return MlflowRun(client, run.info.run_id, self._uri, self._own_folder(run.info.artifact_uri))

    def _own_folder(self, uri: str) -> Path | None:
        """Folder of a run's artifacts if it lies in this home, else None."""
        place = local_folder(uri)
        return place if place is not None and place.is_relative_to(self._artifacts.absolute()) else None

    def files(self, run: "RunSnapshot") -> "dict[str, MlflowFile]":
        """Artifacts of a run by their place. Raises `Failure`."""
        client, root = self._client(), local_folder(run.artifact_uri)
        with store_errors(self._uri, f"files of {run.run_id}"):
            if root is not None:
                paths = (path for path in sorted(root.rglob("*")) if path.is_file())
                return {path.relative_to(root).as_posix(): MlflowFile(path.stat().st_size, path) for path in paths}
            artifacts: dict[str, MlflowFile] = {}
            folders: list[str | None] = [None]
            while folders:
                for entry in client.list_artifacts(run.run_id, folders.pop()):
                    if entry.is_dir:
                        folders.append(entry.path)
                    else:
                        artifacts[entry.path] = MlflowFile(entry.file_size or 0, None)
            return artifacts

    def sha256(self, run: "RunSnapshot", name: str, file: "MlflowFile") -> str:
        """Hex digest of an artifact, which is downloaded unless it lies on this machine. Raises `Failure`."""
        with self.local(run, name, file) as path:
            return sha256(path)

    @contextmanager
    def local(self, run: "RunSnapshot", name: str, file: "MlflowFile") -> Iterator[Path]:
        """Context with an artifact on this machine: where it lies, or where it is downloaded to meanwhile. Raises
        `Failure`.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = file.path
            if path is None:
                with store_errors(self._uri, f"{name} of {run.run_id}"):
                    path = Path(self._client().download_artifacts(run.run_id, name, folder))
            yield path

    def steps(self, run: "RunSnapshot") -> dict[str, set[int]]:
        """Steps at which each metric of a run has a value. Raises `Failure`."""
        client = self._client()
        with store_errors(self._uri, f"curves of {run.run_id}"):
            return {name: {point.step for point in client.get_metric_history(run.run_id, name)} for name in run.metrics}

    def ends(self, run: "RunSnapshot", names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """(step, time in milliseconds) of the last value of each of these metrics. Raises `Failure`."""
        client = self._client()
        with store_errors(self._uri, f"curves of {run.run_id}"):
            histories = {name: client.get_metric_history(run.run_id, name) for name in names}
            return {
                name: max((point.step, point.timestamp) for point in points)
                for name, points in histories.items()
                if points
            }

    def restore(self, experiment: str) -> None:
        """Restores a deleted experiment, and those of its deleted runs whose key no other run has. Raises `Failure`."""
        client = self._client()  # first: the import of MLflow is one thread's, and here another's may be under way
        from mlflow.entities import ViewType

        with store_errors(self._uri, f"experiment {experiment}"):
            entity = client.get_experiment_by_name(experiment)
            if entity is None:
                return
            if entity.lifecycle_stage == "deleted":
                client.restore_experiment(entity.experiment_id)
            present = self.runs_by_key(experiment).keys()
            restored: set[str] = set()
            for run in client.search_runs([entity.experiment_id], "", ViewType.DELETED_ONLY, max_results=1000):
                key = run.data.tags.get(KEY, "")
                if key and key not in present | restored:
                    restored.add(key)
                    client.restore_run(run.info.run_id)

    def runs_by_key(self, experiment: str) -> "dict[str, list[RunSnapshot]]":
        """Runs of an experiment by key. More than one run of a key is a fault of the store. Raises `Failure`."""
        # None asks for the first page, and "" says that there is no further one.
        client, token = self._client(), None
        by_key: dict[str, list[RunSnapshot]] = {}
        with store_errors(self._uri, f"experiment {experiment}"):
            entity = client.get_experiment_by_name(experiment)
            while entity is not None and token != "":
                page = client.search_runs([entity.experiment_id], max_results=1000, page_token=token)
                for run in page:
                    facts = dict(run.data.metrics), dict(run.data.params), dict(run.data.tags)
                    snapshot = RunSnapshot(run.info.run_id, run.info.status, *facts, run.info.artifact_uri)
                    by_key.setdefault(run.data.tags.get(KEY, ""), []).append(snapshot)
                token = page.token or ""
        return by_key


class RunSnapshot(NamedTuple):
    """State of a run in MLflow at one moment. `metrics` are the last values."""

    run_id: str
    status: str
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]
    artifact_uri: str


class MlflowFile(NamedTuple):
    """Artifact in MLflow: its size in bytes, and its path if it lies on this machine."""

    size: int
    path: Path | None


def _log_params(client: "MlflowClient", run_id: str, params: dict[str, str], present: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    for name in params.keys() & present.keys():
        if params[name] != present[name]:
            _LOG.warning("run %s: param %s stays %s, not %s", run_id, name, present[name], params[name])
    missing = [Param(name, value) for name, value in params.items() if name not in present]
    for first in range(0, len(missing), _PARAMS):
        client.log_batch(run_id, params=missing[first : first + _PARAMS])


def _log_dataset(client: "MlflowClient", run_id: str, info: DatasetInfo) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    # MLflow knows the web, a few clouds, and code: what has no web address comes from code.
    web = info.url is not None and info.url.startswith(("http://", "https://"))
    source = {"url": info.url} if web else {"tags": {"mlflow.source.name": info.url or info.name}}
    entry = Dataset(
        name=info.name,
        digest=info.digest[:_DIGEST_LENGTH],
        source_type="http" if web else "code",
        source=json.dumps(source),
        profile=json.dumps({"shape": info.shape}),
    )
    client.log_inputs(run_id, datasets=[DatasetInput(entry, [InputTag("mlflow.data.context", info.context)])])
