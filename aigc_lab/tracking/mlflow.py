"""Curves, samples and artifacts in MLflow, written and never read back.

MLflow is a projection. The registry owns the truth, so a training neither waits for MLflow at each step nor dies with
it: `scalars` only appends to a list, `flush` writes the list in batches, and what the store cannot take for the moment
stays in an outbox until the next `flush`. Points carry the time of their recording, so that sending one twice stores
it once.

MLflow takes seconds to import, so it is imported at first use, or meanwhile by `MlflowTracker.prewarm`.
"""

import json
import logging
import os
import re
import shutil
import sqlite3
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit
from uuid import NAMESPACE_OID, uuid5

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host.files import beside, locked, sha256, share
from aigc_lab.host.names import checked
from aigc_lab.host.settings import discreet, masked, sqlite_url
from aigc_lab.tracking import base
from aigc_lab.tracking.address import check_address, sqlite_file
from aigc_lab.tracking.base import KEY, NONFINITE, DatasetInfo, Status, shortened

if TYPE_CHECKING:
    import numpy
    import numpy.typing
    from mlflow.tracking import MlflowClient

_LOG = logging.getLogger(__name__)

# A request may hold 1 MB of JSON: 25 of the longest params, escaped, still fit.
_POINTS, _PARAMS, _DIGEST_LENGTH = 1000, 25, 36
# The longer side of the small picture that MLflow's grid of images loads, in pixels.
_THUMBNAIL = 256

# One request, no retry: `flush` is the retry. Hence a dead server holds a training up for 5 s at most.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}


class MlflowTracker:
    """Runs in an MLflow store: a database (`sqlite:///…`, `postgresql://…`) or a server (`http://…`).

    `artifacts` is where files go when the store is a database; a server decides that itself.
    """

    def __init__(self, tracking_uri: str, artifacts: Path) -> None:
        self._uri = tracking_uri
        self._artifacts = artifacts
        self._lock = threading.Lock()
        self._opened: MlflowClient | None = None

    def prewarm(self) -> None:
        """Imports MLflow and opens the store in a thread; whatever needs them earlier waits for it.

        Gains two seconds and more when the main thread trains or waits. Call it after the main thread's own imports:
        two threads that import at once only slow each other.
        """
        threading.Thread(target=self._warm, name="mlflow-prewarm", daemon=True).start()

    def _warm(self) -> None:
        with suppress(Exception):  # the same error comes again, in the thread that can tell it to someone
            self._client()

    def _client(self) -> "MlflowClient":
        with self._lock:
            if self._opened is None:
                self._opened = _open(self._uri)
            return self._opened

    def settle(self) -> None:
        """Takes the log of writes that lies beside an SQLite store into it, unless others are at it: the log would stay
        at its largest, which is a quarter of a small home.
        """
        if self._opened is not None and urlsplit(self._uri).scheme.partition("+")[0] == "sqlite":
            with suppress(sqlite3.Error), closing(sqlite3.connect(sqlite_file(self._uri), timeout=1)) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def experiment(self, name: str) -> str:
        client = self._client()
        with _failing(self._uri, f"experiment {name}"):
            found = client.get_experiment_by_name(name)
            if found is None:
                local = urlsplit(self._uri).scheme not in ("http", "https")
                place = (self._artifacts / "mlflow" / re.sub(r"[^\w.-]+", "-", name)).absolute().as_uri()
                # The tag spares the UI from asking whether these are runs or conversations.
                tags = {"mlflow.experimentKind": "custom_model_development"}
                try:
                    return str(client.create_experiment(name, artifact_location=place if local else None, tags=tags))
                except Exception:
                    found = client.get_experiment_by_name(name)  # another process was faster
                    if found is None:
                        raise
            if found.lifecycle_stage == "deleted":
                raise UsageError(
                    f"experiment {name} was deleted in MLflow;"
                    f" bring it back with: mlflow experiments restore --experiment-id {found.experiment_id}"
                )
            return str(found.experiment_id)

    def amend(self, run_id: str, tags: Mapping[str, str], files: Iterable[Path] = ()) -> None:
        """Sets tags of a run that has ended, and replaces files at the top of its artifacts. Raises `Failure`."""
        client = self._client()
        with _failing(self._uri, f"run {run_id}"):
            for name, value in base.clean_tags(tags).items():
                client.set_tag(run_id, name, value)
            root = self._own(client.get_run(run_id).info.artifact_uri)
            for path in files:
                if root is None:
                    client.log_artifact(run_id, str(path))
                else:
                    share(path, root / path.name)

    def abandon(self, experiment_id: str, key: str) -> None:
        client = self._client()
        with _failing(self._uri, f"run {key}"):
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
        with _failing(self._uri, f"run {name}"):
            found = client.search_runs([experiment_id], f"tags.`{KEY}` = '{key}'", max_results=1)
            if found:
                run = found[0]
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
        return MlflowRun(client, run.info.run_id, self._uri, self._own(run.info.artifact_uri))

    def _own(self, uri: str) -> Path | None:
        """The folder of a run's artifacts, if it lies among those of this home."""
        place = local(uri)
        return place if place is not None and place.is_relative_to(self._artifacts.absolute()) else None

    def files(self, run: "Shown") -> "dict[str, HeldFile]":
        """Place -> file, of all artifacts of a run. Raises `Failure`."""
        client, root = self._client(), local(run.artifact_uri)
        with _failing(self._uri, f"files of {run.run_id}"):
            if root is not None:
                paths = (path for path in sorted(root.rglob("*")) if path.is_file())
                return {path.relative_to(root).as_posix(): HeldFile(path.stat().st_size, path) for path in paths}
            found: dict[str, HeldFile] = {}
            folders: list[str | None] = [None]
            while folders:
                for each in client.list_artifacts(run.run_id, folders.pop()):
                    if each.is_dir:
                        folders.append(each.path)
                    else:
                        found[each.path] = HeldFile(each.file_size or 0, None)
            return found

    def sha256(self, run: "Shown", name: str, file: "HeldFile") -> str:
        """The digest of an artifact, which is fetched when it lies elsewhere. Raises `Failure`."""
        with _failing(self._uri, f"{name} of {run.run_id}"), tempfile.TemporaryDirectory() as folder:
            path = file.path or Path(self._client().download_artifacts(run.run_id, name, folder))
            return sha256(path)

    def steps(self, run: "Shown") -> dict[str, set[int]]:
        """Metric -> the steps of which there is a value. Raises `Failure`."""
        client = self._client()
        with _failing(self._uri, f"curves of {run.run_id}"):
            return {name: {point.step for point in client.get_metric_history(run.run_id, name)} for name in run.metrics}

    def ends(self, run: "Shown", names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Metric -> the step of its last value, and its time. Raises `Failure`."""
        client = self._client()
        with _failing(self._uri, f"curves of {run.run_id}"):
            histories = {name: client.get_metric_history(run.run_id, name) for name in names}
            return {name: max((each.step, each.timestamp) for each in all_) for name, all_ in histories.items() if all_}

    def restore(self, experiment: str) -> None:
        """Brings back an experiment that was deleted, and its runs of which there is no other with the same key. Raises
        `Failure`.
        """
        client = self._client()  # first: the import of MLflow is one thread's, and here another's may be under way
        from mlflow.entities import ViewType

        with _failing(self._uri, f"experiment {experiment}"):
            there = client.get_experiment_by_name(experiment)
            if there is None:
                return
            if there.lifecycle_stage == "deleted":
                client.restore_experiment(there.experiment_id)
            present = self.shown(experiment).keys()
            restored: set[str] = set()
            for run in client.search_runs([there.experiment_id], "", ViewType.DELETED_ONLY, max_results=1000):
                key = run.data.tags.get(KEY, "")
                if key and key not in present | restored:
                    restored.add(key)
                    client.restore_run(run.info.run_id)

    def shown(self, experiment: str) -> "dict[str, list[Shown]]":
        """Key -> the runs of an experiment that have it; more than one would be a mistake. Raises `Failure`."""
        client, token = self._client(), None
        found: dict[str, list[Shown]] = {}
        with _failing(self._uri, f"experiment {experiment}"):
            there = client.get_experiment_by_name(experiment)
            while there is not None and token != "":
                page = client.search_runs([there.experiment_id], max_results=1000, page_token=token)
                for run in page:
                    facts = dict(run.data.metrics), dict(run.data.params), dict(run.data.tags)
                    told = Shown(run.info.run_id, run.info.status, *facts, run.info.artifact_uri)
                    found.setdefault(run.data.tags.get(KEY, ""), []).append(told)
                token = page.token or ""
        return found


class Shown(NamedTuple):
    """A run as MLflow has it. `metrics` are the last values."""

    run_id: str
    status: str
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]
    artifact_uri: str


class HeldFile(NamedTuple):
    """An artifact: its bytes, and where it lies if that is on this machine."""

    size: int
    path: Path | None


class Gone(Exception):
    """A file that was to be sent is nowhere any more."""


class MlflowRun(base.Recorder):
    """One MLflow run. Files go out at once while the store works; once it fails, all waits for the next `flush`.

    `root` is the folder of its artifacts if that is this home's: a file is then linked there instead of copied.
    """

    def __init__(self, client: "MlflowClient", run_id: str, uri: str, root: Path | None = None) -> None:
        super().__init__(run_id)
        self._root = root
        self._client = client
        self._uri = uri
        self._outbox: deque[tuple[str, Callable[[], object]]] = deque()
        self._noted = ""
        self._down = self._warned = False  # since the last flush; since it last worked
        self._lost = 0

    def image(
        self,
        key: str,
        pixels: "numpy.typing.NDArray[numpy.uint8]",
        step: int,
        *,
        at: int | None = None,
        png: Path | None = None,
    ) -> None:
        self._check_image(key, pixels)
        send = partial(self._send_image, pixels.copy(), key, step, at or base.now(), png)
        self._deliver(f"image {key} of step {step}", send)

    def text(self, name: str, text: str) -> None:
        checked("artifact", name)
        self._deliver(f"text {name}", lambda: self._client.log_text(self.run_id, text, name))

    def artifact(self, path: Path, folder: str, name: str = "") -> None:
        if not path.is_file():
            raise ValueError(f"artifact {path}: no such file")
        place, name = checked("artifact", folder) if folder else "", name or path.name
        self._deliver(f"artifact {name}", lambda: self._send(path, place, name))

    def _send(self, path: Path, place: str, name: str) -> None:
        if not path.is_file():
            raise Gone(f"{path} is gone")
        if self._root is not None:
            share(path, self._root / place / name)
            return
        with tempfile.TemporaryDirectory() as folder:
            named = Path(folder, name)
            named.symlink_to(path.absolute())
            self._client.log_artifact(self.run_id, str(named), place or None)

    def _send_image(
        self, pixels: "numpy.typing.NDArray[numpy.uint8]", key: str, step: int, at: int, png: Path | None
    ) -> None:
        """What `client.log_image` stores, under a name that is the same every time: a picture sent twice is there once.

        Its own names hold a random number. And it is asynchronous unless told otherwise, which loses images on a kill.
        """
        from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES
        from PIL import Image

        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)
        scale = _THUMBNAIL / max(image.size)
        small = image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
        unique = uuid5(NAMESPACE_OID, f"{self.run_id}/{key}/{step}")
        name = f"{key.replace('/', '~')}+step+{step}+timestamp+{at}+{unique}"
        with tempfile.TemporaryDirectory() as folder:
            whole, reduced = Path(folder, f"{name}.png"), Path(folder, f"{name}+compressed.webp")
            if png is not None and png.is_file():
                shutil.copyfile(png, whole)
            else:
                image.save(whole)
            small.save(reduced)
            if self._root is not None:
                share(png if png is not None and png.is_file() else whole, self._root / "images" / whole.name)
                share(reduced, self._root / "images" / reduced.name)
            else:
                self._client.log_artifacts(self.run_id, folder, "images")
        self._client.set_tag(self.run_id, MLFLOW_LOGGED_IMAGES, "True")

    def tags(self, tags: Mapping[str, str]) -> None:
        for name, value in base.clean_tags(tags).items():
            self._deliver(f"tag {name}", partial(self._client.set_tag, self.run_id, name, value))

    def flush(self) -> int:
        from mlflow.entities import Metric

        self._down = False
        while self._points and not self._down:
            batch = self._points[:_POINTS]
            send = partial(self._client.log_batch, self.run_id, metrics=[Metric(*point) for point in batch])
            if self._attempt(f"{len(batch)} points", send, pieces=len(batch)):
                del self._points[:_POINTS]
        note = self._nonfinite_tag()
        if note != self._noted and not self._down:
            self._noted = note
            self.tags({NONFINITE: note})
        while self._outbox and not self._down and self._attempt(*self._outbox[0]):
            self._outbox.popleft()
        if self._warned and not self._down:
            self._warned = False
            _LOG.warning("%s: delivering again", masked(self._uri))
        return len(self._points) + len(self._outbox)

    def end(self, status: Status, tags: Mapping[str, str], *, at: int | None = None) -> int:
        if self._ended:
            return 0
        try:
            self.flush()
            self.tags(tags)
        finally:  # a full artifact disk, or a tag that is refused, must not leave the run RUNNING
            self._ended = True
            closed = self._attempt(f"status {status}", lambda: self._client.set_terminated(self.run_id, status, at))
        lost = self._lost + len(self._points) + len(self._outbox) + (not closed)
        if lost:
            _LOG.warning("%s: run %s ended %s with %d pieces lost", masked(self._uri), self.run_id, status, lost)
        return lost - self._lost

    def _deliver(self, what: str, send: Callable[[], object]) -> None:
        assert not self._ended, f"run {self.run_id} has ended"
        if self._down or not self._attempt(what, send):
            self._outbox.append((what, send))

    def _attempt(self, what: str, send: Callable[[], object], pieces: int = 1) -> bool:
        """Whether there is nothing left to do: it was delivered, or refused for good."""
        try:
            send()
        except Exception as error:  # noqa: BLE001 - a database, a server, a bucket: their errors share no base class
            reason = _reason(self._uri, error)
            if _refused(error):
                self._lost += pieces
                _LOG.warning("%s: %s refused and dropped: %s", masked(self._uri), what, reason)
                return True
            if not self._warned:
                _LOG.warning("%s: %s not delivered, kept for the next flush: %s", masked(self._uri), what, reason)
            self._down = self._warned = True
            self.reason = reason
            return False
        return True


def _open(uri: str) -> "MlflowClient":
    """A client of a store that is there, with its tables; the first call of a process imports MLflow."""
    check_address(uri)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    with _failing(uri, "store"):
        if urlsplit(uri).scheme.partition("+")[0] == "sqlite":
            _create_sqlite(sqlite_file(uri))
        return MlflowClient(tracking_uri=uri)


def exists(uri: str) -> bool:
    """Whether there is a store: to look into a database file must not make one."""
    if urlsplit(uri).scheme.partition("+")[0] != "sqlite":
        return True
    file = sqlite_file(uri)
    return file.is_file() and file.stat().st_size > 0


def _create_sqlite(path: Path) -> None:
    """Makes the database, once and whole: processes that make the same tables at once would die of each other.

    It is built aside and moved into place, so that a kill half-way leaves nothing that looks like a database.
    """
    from mlflow.tracking import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(beside(path)):
        if path.exists() and path.stat().st_size:
            return
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it reports every table it creates
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            draft, whole = Path(folder, "draft.db"), Path(folder, "whole.db")
            MlflowClient(tracking_uri=sqlite_url(draft.absolute()))
            # MLflow keeps the draft open; a copy is nobody's.
            with closing(sqlite3.connect(draft)) as source, closing(sqlite3.connect(whole)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode = WAL")  # stays in the file: readers never wait for a writer
            whole.replace(path)


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


@contextmanager
def _failing(uri: str, what: str) -> Iterator[None]:
    """Turns whatever a store raises into a `Failure` of one line without a password."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - see MlflowRun._attempt
        raise Failure(f"MLflow at {masked(uri)}: {what}: {_reason(uri, error)}") from None


def _reason(uri: str, error: Exception) -> str:
    """The first line of an error. MLflow quotes the address it called, password included."""
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    return discreet(text, uri)


def _refused(error: Exception) -> bool:
    """Whether trying again is pointless: the run is gone, the piece is invalid, the file to send is gone.

    Never what an operating system says: a disk that is full or closed, or a folder of the store that is missing, takes
    the piece another time.
    """
    code: Any = getattr(error, "error_code", None)
    return isinstance(error, Gone) or code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def local(uri: str) -> Path | None:
    """The folder that an address of artifacts means, if it lies on this machine."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") and not parts.netloc else None
