"""What a run shows while it lives: curves, samples, artifacts, written to MLflow and never read back.

MLflow is a projection. The registry owns the truth, so a training neither waits for MLflow at each step nor dies with
it: `scalars` only appends to a list, `flush` writes the list in batches, and what the store cannot take for the moment
stays in an outbox until the next `flush`. Points carry the time of their recording, so that sending one twice stores it once.

MLflow takes seconds to import, so it is imported at first use, or meanwhile by `MlflowTracker.prewarm`.
"""

import base64
import fcntl
import json
import logging
import math
import os
import posixpath
import re
import socket
import sqlite3
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from aigc_lab.errors import Failure, UsageError
from aigc_lab.settings import masked

if TYPE_CHECKING:
    import numpy
    import numpy.typing
    from mlflow.tracking import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]

KEY = "aigc_lab.key"
NONFINITE = "aigc_lab.nonfinite"

_LOG = logging.getLogger(__name__)

# MLflow's limits. A request may hold 1 MB of JSON: 25 of the longest params, escaped, still fit.
_POINTS, _PARAMS, _PARAM_LENGTH, _TAG_LENGTH, _NAME_LENGTH, _DIGEST_LENGTH = 1000, 25, 6000, 8000, 250, 36

# One request, no retry: `flush` is the retry. Hence a dead server holds a training up for 5 s at most.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}


@dataclass(frozen=True)
class DatasetInfo:
    """What MLflow shows of the data of a run. `shape` is for readers: `uint8 [1, 28, 28], 60000 samples`."""

    name: str
    digest: str
    url: str | None
    shape: str
    context: str = "training"


class RunTracker(Protocol):
    """One run. Only `flush` and `end` must reach the store; none raises for a store that fails."""

    run_id: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Records values at a step, without any I/O. Values that are not finite are left out and named in a tag."""

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """The same for scores, by their bare names: `fid` becomes `score/fid`."""

    def image(self, key: str, pixels: "numpy.typing.NDArray[numpy.uint8]", step: int) -> None:
        """Shows pixels [H, W] or [H, W, C] under `key`, which has a slider over the steps."""

    def text(self, name: str, text: str) -> None:
        """Stores a text as the artifact `name`, such as `samples/000250.txt`."""

    def artifact(self, path: Path, folder: str) -> None:
        """Stores a copy of a file in a folder of the run's artifacts (`""`: at their top)."""

    def tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags, the only part of a run that may change."""

    def flush(self) -> int:
        """Delivers what waits and returns how many pieces (points, images, …) still wait, 0 when the store works."""

    def end(self, status: Status, tags: Mapping[str, str]) -> int:
        """Delivers, sets the tags, closes the run (once). Returns the pieces lost, which it also logs."""


class Tracker(Protocol):
    """Opens runs. Raises `UsageError` for an address that cannot work and `Failure` for a store that fails."""

    def experiment(self, name: str) -> str:
        """The id of the experiment of that name, created when there is none."""

    def start(
        self,
        experiment_id: str,
        name: str,
        key: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        dataset: DatasetInfo | None = None,
    ) -> RunTracker:
        """Opens the run of `key` (registry's run id and attempt): a new one, or the one that was started before.

        A run whose process died is closed by the same call: `start(…, {}, {}).end("KILLED", {})`.
        """


class _Point(NamedTuple):
    name: str
    value: float
    timestamp: int
    step: int


class _Recorder:
    """What every tracker's run does alike: it checks names, drops what is not finite, and holds the points."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._points: list[_Point] = []
        self._names: set[str] = set()
        self._nonfinite: dict[str, tuple[int, int]] = {}  # name -> (how many, at which step first)
        self._ended = False

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        assert not self._ended, f"run {self.run_id} has ended"
        now = time.time_ns() // 1_000_000
        for name, value in values.items():
            if name not in self._names:
                self._names.add(_checked("metric", name))
            number = float(value)
            if math.isfinite(number):
                self._points.append(_Point(name, number, now, step))
            else:  # MLflow would show an infinity as 1.8e308
                count, first = self._nonfinite.get(name, (0, step))
                self._nonfinite[name] = (count + 1, first)

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        self.scalars(step, {f"score/{name}": value for name, value in values.items()})

    def _nonfinite_tag(self) -> str:
        parts = (f"{name}: {count} from step {first}" for name, (count, first) in self._nonfinite.items())
        return _shortened("; ".join(parts), _TAG_LENGTH)

    def _check_image(self, key: str, pixels: "numpy.typing.NDArray[numpy.uint8]") -> None:
        assert not self._ended, f"run {self.run_id} has ended"
        _checked("image", key)
        shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
        if str(pixels.dtype) != "uint8" or not shaped:
            raise ValueError(f"image {key}: needs uint8 [H, W] or [H, W, C], not {pixels.dtype} {list(pixels.shape)}")


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

    def start(
        self,
        experiment_id: str,
        name: str,
        key: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        dataset: DatasetInfo | None = None,
    ) -> "MlflowRun":
        client = self._client()
        texts = {_checked("param", param): _shortened(_text(value), _PARAM_LENGTH) for param, value in params.items()}
        marks = {KEY: _checked("run", key)} | _tags(tags)
        with _failing(self._uri, f"run {name}"):
            found = client.search_runs([experiment_id], f"tags.`{KEY}` = '{key}'", max_results=1)
            if found:
                run = found[0]
                if run.info.status != "RUNNING":
                    client.update_run(run.info.run_id, status="RUNNING")
                for tag, value in marks.items():
                    client.set_tag(run.info.run_id, tag, value)
            else:
                run = client.create_run(experiment_id, tags=marks, run_name=name)
            # A process may have died between creating the run and this, so both paths come here.
            _log_params(client, run.info.run_id, texts, run.data.params)
            if dataset is not None:
                _log_dataset(client, run.info.run_id, dataset)
        return MlflowRun(client, run.info.run_id, self._uri)


class MlflowRun(_Recorder):
    """One MLflow run. Files go out at once while the store works; once it fails, all waits for the next `flush`."""

    def __init__(self, client: "MlflowClient", run_id: str, uri: str) -> None:
        super().__init__(run_id)
        self._client = client
        self._uri = uri
        self._outbox: deque[tuple[str, Callable[[], object]]] = deque()
        self._noted = ""
        self._down = self._warned = False  # since the last flush; since it last worked
        self._lost = 0

    def image(self, key: str, pixels: "numpy.typing.NDArray[numpy.uint8]", step: int) -> None:
        self._check_image(key, pixels)
        kept, now = pixels.copy(), time.time_ns() // 1_000_000

        def send() -> None:
            # Asynchronous is the default, which loses images on a kill and may hang the interpreter's exit.
            self._client.log_image(self.run_id, kept, key=key, step=step, timestamp=now, synchronous=True)

        self._deliver(f"image {key} of step {step}", send)

    def text(self, name: str, text: str) -> None:
        _checked("artifact", name)
        self._deliver(f"text {name}", lambda: self._client.log_text(self.run_id, text, name))

    def artifact(self, path: Path, folder: str) -> None:
        if not path.is_file():
            raise ValueError(f"artifact {path}: no such file")
        place = _checked("artifact", folder) if folder else None
        self._deliver(f"artifact {path.name}", lambda: self._client.log_artifact(self.run_id, str(path), place))

    def tags(self, tags: Mapping[str, str]) -> None:
        for name, value in _tags(tags).items():
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

    def end(self, status: Status, tags: Mapping[str, str]) -> int:
        if self._ended:
            return 0
        try:
            self.flush()
            self.tags(tags)
        finally:  # a full artifact disk, or a tag that is refused, must not leave the run RUNNING
            self._ended = True
            closed = self._attempt(f"status {status}", lambda: self._client.set_terminated(self.run_id, status))
        lost = self._lost + len(self._points) + len(self._outbox) + (not closed)
        if lost:
            _LOG.warning("%s: run %s ended %s with %d pieces lost", masked(self._uri), self.run_id, status, lost)
        return lost

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
            return False
        return True


@dataclass
class MemoryTracker:
    """Keeps everything in lists, for tests; obeys the same contract."""

    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, "MemoryRun"] = field(default_factory=dict)

    def experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, str(len(self.experiments) + 1))

    def start(
        self,
        experiment_id: str,
        name: str,
        key: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        dataset: DatasetInfo | None = None,
    ) -> "MemoryRun":
        assert experiment_id in self.experiments.values(), f"no experiment {experiment_id}"
        run = self.runs.setdefault(_checked("run", key), MemoryRun(f"memory-{len(self.runs) + 1}", experiment_id, name))
        run.reopen(
            {_checked("param", param): _shortened(_text(value), _PARAM_LENGTH) for param, value in params.items()},
            {KEY: key} | _tags(tags),
            dataset,
        )
        return run


class MemoryRun(_Recorder):
    """What one run recorded. `metrics` holds what was flushed, as (step, value)."""

    def __init__(self, run_id: str, experiment_id: str, name: str) -> None:
        super().__init__(run_id)
        self.experiment_id = experiment_id
        self.name = name
        self.status: Literal["RUNNING"] | Status = "RUNNING"
        self.params: dict[str, str] = {}
        self.tag: dict[str, str] = {}
        self.dataset: DatasetInfo | None = None
        self.metrics: dict[str, list[tuple[int, float]]] = {}
        self.images: list[tuple[str, int, numpy.typing.NDArray[numpy.uint8]]] = []
        self.texts: dict[str, str] = {}
        self.artifacts: dict[str, bytes] = {}

    def reopen(self, params: dict[str, str], tags: dict[str, str], dataset: DatasetInfo | None) -> None:
        self.status, self._ended = "RUNNING", False
        self.params = params | self.params
        self.tag |= tags
        self.dataset = dataset or self.dataset

    def image(self, key: str, pixels: "numpy.typing.NDArray[numpy.uint8]", step: int) -> None:
        self._check_image(key, pixels)
        self.images.append((key, step, pixels.copy()))

    def text(self, name: str, text: str) -> None:
        assert not self._ended, f"run {self.run_id} has ended"
        self.texts[_checked("artifact", name)] = text

    def artifact(self, path: Path, folder: str) -> None:
        assert not self._ended, f"run {self.run_id} has ended"
        if not path.is_file():
            raise ValueError(f"artifact {path}: no such file")
        self.artifacts[f"{_checked('artifact', folder)}/{path.name}" if folder else path.name] = path.read_bytes()

    def tags(self, tags: Mapping[str, str]) -> None:
        assert not self._ended, f"run {self.run_id} has ended"
        self.tag |= _tags(tags)

    def flush(self) -> int:
        for point in self._points:
            self.metrics.setdefault(point.name, []).append((point.step, point.value))
        self._points.clear()
        if self._nonfinite:
            self.tag[NONFINITE] = self._nonfinite_tag()
        return 0

    def end(self, status: Status, tags: Mapping[str, str]) -> int:
        if not self._ended:
            try:
                self.flush()
                self.tags(tags)
            finally:
                self.status, self._ended = status, True
        return 0


def check(tracking_uri: str) -> None:
    """Raises `UsageError` for a tracking address that cannot work, within 5 seconds, importing and changing nothing."""
    parts = _split(tracking_uri)
    scheme = parts.scheme.partition("+")[0]
    unset = "unset MLFLOW_TRACKING_URI to use a local file"
    start = f"start one with: mlflow server --port {parts.port or 5000} --workers 1" if "http" in scheme else "start it"
    try:
        if scheme in ("", "file"):
            file = f"{unquote(parts.path).rstrip('/')}/mlflow.db"
            raise UsageError(f"{tracking_uri}: MLflow no longer writes to folders; use sqlite:///{file}, or {unset}")
        if scheme in ("http", "https"):
            _within(4.5, lambda: _check_server(tracking_uri))
        elif scheme == "sqlite":
            _check_sqlite(tracking_uri)
        elif scheme in _PORTS and parts.hostname:  # MLflow itself would try for minutes
            address = (parts.hostname, parts.port or _PORTS[scheme])
            _within(4.5, lambda: socket.create_connection(address, timeout=4).close())
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise UsageError(
            f"MLflow at {masked(tracking_uri)} cannot be reached ({reason}); {start}, or {unset}"
        ) from None


_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def _split(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
        _ = parts.port, parts.hostname
    except ValueError as error:
        raise UsageError(f"MLFLOW_TRACKING_URI is not an address ({error})") from None
    return parts


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Runs `call` with a limit on the whole: socket timeouts bound neither the look-up of a name nor a slow drip."""
    errors: list[BaseException] = [TimeoutError("no answer in time")]

    def work() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            errors[0] = error
        else:
            errors.clear()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]


def _check_server(uri: str) -> None:
    parts = urlsplit(uri)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/") + "/version"))
    request = urllib.request.Request(bare, headers=_authorization(parts))
    try:
        with urllib.request.urlopen(request, timeout=4) as answer:
            body = answer.read(200).decode("utf-8", "replace").strip()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            raise UsageError(f"MLflow at {masked(uri)} refuses the credentials or the host ({error.code})") from None
        body = ""
    except HTTPException:  # what answers does not speak HTTP
        body = ""
    if not re.match(r"\d+\.\d+", body):
        other = "set MLFLOW_TRACKING_URI to one, or unset it"
        raise UsageError(f"what answers at {masked(uri)} is not an MLflow server; {other}")


def _authorization(parts: SplitResult) -> dict[str, str]:
    """The header MLflow's own client would send: from the address, else from its environment variables."""
    user = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if user or password:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    return {"Authorization": f"Bearer {token}"} if token else {}


def _sqlite_file(uri: str) -> Path:
    name = uri.partition("://")[2].partition("?")[0].removeprefix("/")
    if name in ("", ":memory:"):
        raise UsageError(f"{uri}: no other process could read a store in memory; use sqlite:///mlflow.db")
    return Path(name)


def _check_sqlite(uri: str) -> None:
    path = _sqlite_file(uri)
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return
    other = "name another file in MLFLOW_TRACKING_URI, or unset it"
    if not path.is_file():
        raise UsageError(f"{uri}: {path} is not a file; {other}")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as database:
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                return
            if not {"alembic_version", "experiments", "runs", "latest_metrics"} <= tables:
                raise UsageError(f"{uri}: {path} is the database of something other than MLflow; {other}")
            found = {row[0] for row in database.execute("SELECT version_num FROM alembic_version")}
    except sqlite3.Error as error:
        raise UsageError(f"{uri}: {path} cannot be read as a database ({error}); {other}") from None
    known, head = _revisions()
    if head is None or found == {head}:
        return
    if found <= known:
        raise UsageError(f"{uri}: written by an older MLflow; back it up, then run: mlflow db upgrade {uri}")
    raise UsageError(f"{uri}: written by a newer MLflow than the one installed; upgrade mlflow, or {other}")


def _revisions() -> tuple[set[str], str | None]:
    """The database revisions that the installed MLflow knows and the newest of them, read without importing it."""
    spec = find_spec("mlflow")
    folder = Path(spec.origin or "").parent / "store" / "db_migrations" / "versions" if spec else Path()
    known: set[str] = set()
    replaced: set[str] = set()
    for file in folder.glob("*.py") if spec else ():
        text = file.read_text("utf-8")
        known.update(re.findall(r"^revision\b[^=\n]*=\s*[\"'](\w+)", text, re.MULTILINE))
        for line in re.findall(r"^down_revision\b[^=\n]*=(.*)$", text, re.MULTILINE):
            replaced.update(re.findall(r"\w{6,}", line))
    heads = known - replaced
    return known, heads.pop() if len(heads) == 1 else None


def _open(uri: str) -> "MlflowClient":
    """A client of a store that is there, with its tables; the first call of a process imports MLflow."""
    check(uri)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    with _failing(uri, "store"):
        if urlsplit(uri).scheme.partition("+")[0] == "sqlite":
            _create_sqlite(_sqlite_file(uri))
        return MlflowClient(tracking_uri=uri)


def _create_sqlite(path: Path) -> None:
    """Makes the database, once and whole: processes that make the same tables at once would die of each other.

    It is built aside and moved into place, so that a kill half-way leaves nothing that looks like a database.
    """
    from mlflow.tracking import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists() and path.stat().st_size:
            return
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it reports every table it creates
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            draft, whole = Path(folder, "draft.db"), Path(folder, "whole.db")
            MlflowClient(tracking_uri=f"sqlite:///{draft.absolute()}")
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
    password = urlsplit(uri).password
    return text.replace(f":{password}@", ":***@") if password else text


def _refused(error: Exception) -> bool:
    """Whether trying again is pointless: the run is gone, the piece is invalid, the file to send is gone."""
    code: Any = getattr(error, "error_code", None)
    return isinstance(error, FileNotFoundError) or code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {_checked("tag", name): _shortened(str(value), _TAG_LENGTH) for name, value in tags.items()}


def _checked(noun: str, name: str) -> str:
    """The name, if MLflow will take it: better refused where it is written than at the next flush with 999 others."""
    allowed = r"[\w./ -]+" if noun in ("image", "artifact") else r"[\w./: -]+"
    unsafe = name.startswith(("/", "..")) or posixpath.normpath(name) != name or name == "."
    if len(name) > _NAME_LENGTH or not re.fullmatch(allowed, name, re.ASCII) or unsafe:
        raise ValueError(f"{noun} name {name!r}: use letters, digits, and _-./ as in a relative path")
    return name


def _text(value: object) -> str:
    return json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else str(value)


def _shortened(text: str, limit: int) -> str:
    note = f"… ({len(text)} characters)"
    return text if len(text) <= limit else text[: limit - len(note)] + note
