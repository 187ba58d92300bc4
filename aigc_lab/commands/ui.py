"""MLflow's own pages on a home, by a server that starts and ends with this process.

uvicorn is started on MLflow's application as `mlflow server` starts it, without importing MLflow here first, which
would double the time until it answers. The variables that name the store are MLflow's private ones; a test asks a real
server whether they still work.
"""

import errno
import ipaddress
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode, urlsplit, urlunsplit

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host.files import replacing
from aigc_lab.host.settings import Settings, masked, sqlite_url
from aigc_lab.tracking import address, pages, relocation, view

Json = dict[str, Any]

APPLICATION = "aigc_lab.tracking.pages:app"
USER = "admin"
_PATIENCE = 120.0
_PORTS_TRIED = 50


def serve_pages(
    *, host: str, port: int, browse: bool, home: Path | None, writable: bool = False, auth: bool = False
) -> None:
    """Serves the pages until Ctrl-C or SIGTERM: read-only unless `writable`, behind a login with `auth`. Where the
    store is a server already, only its address is printed.

    Raises `UsageError` for a store that cannot be served, a home that was moved and an address that cannot be had;
    `Failure` with the end of its log when the server dies.
    """
    settings = Settings.load(home)
    address.check_address(settings.tracking_uri)
    scheme = urlsplit(settings.tracking_uri).scheme
    if scheme in ("http", "https"):
        if writable or auth:
            raise UsageError(
                f"{'--auth' if auth else '--writable'}: MLflow at {masked(settings.tracking_uri)} is a server of its"
                " own, and decides itself who may do what"
            )
        _tell(_bare(settings.tracking_uri), _newest(settings), browse, address.authorization(settings.tracking_uri))
        return
    if scheme.partition("+")[0] not in address.DATABASES:
        raise UsageError(
            f"{masked(settings.tracking_uri)}: its pages are not for this command to serve; unset MLFLOW_TRACKING_URI"
            " for those of the home, or set it to a database (sqlite:///…, postgresql://…)"
        )
    _require_store(settings)
    relocation.check_relocation(settings)
    free = _free_port(host, port)
    if port not in (0, free):
        print(f"port {port} is in use: taking {free}", file=sys.stderr)
    login = _login(settings) if auth else None
    print(_who_may(host, writable=writable, login=login), file=sys.stderr)
    print(f"starting MLflow's pages on {settings.home} …", file=sys.stderr, flush=True)
    base = f"http://{_reachable(host)}:{free}"
    environment = _environment(settings, host, free) | (login.environment if login else {})
    if writable:
        environment[pages.WRITABLE] = "true"
    with _until_told(), _server(settings, host, free, environment) as (process, log):
        newest = _newest(settings)  # imports SQLAlchemy, while the server imports MLflow
        _wait_until_ready(process, base, log)
        _tell(base, newest, browse, login.authorization if login else {})
        if _is_loopback(host) and ("SSH_CONNECTION" in os.environ or not _browser()):
            user = shlex.quote(os.environ.get("USER", "user"))
            print(f"From another machine: ssh -L {free}:{host}:{free} {user}@{socket.gethostname()}")
        print("Ctrl-C ends it.", flush=True)
        process.wait()
        raise _died(log)


# ---- what it says


def _tell(base: str, newest: Json | None, browse: bool, authorization: Mapping[str, str]) -> None:
    # Without the workflow in the address, MLflow opens its pages for conversations.
    workflow = "workflowType=machine_learning"
    if newest is None:
        runs = f"{base}/#/experiments?{workflow}"
        print(f"Experiments: {runs}", flush=True)
    else:
        experiment = newest["mlflow_experiment_id"]
        opens = _opens(base, newest, authorization)
        runs = f"{base}/#/experiments/{experiment}/runs?{workflow}&{opens}"
        print(f"Runs:        {runs}\nCompared:    {runs}&compareRunsMode=CHART", flush=True)
    if browse:
        browser = _browser()
        if browser is None:
            print("this machine has no browser to open; the link works in any that reaches it", file=sys.stderr)
        else:
            browser.open(runs)


def _opens(base: str, sweep: Json, authorization: Mapping[str, str]) -> str:
    """The part of a link that opens the runs with the objective and the verdicts as columns, the best run first. A
    sweep of an earlier version has no view stored in MLflow: its runs are sorted, with MLflow's own columns.
    """
    question = f"{base}/api/2.0/mlflow/experiments/get?experiment_id={sweep['mlflow_experiment_id']}"
    with suppress(OSError, ValueError, KeyError, TypeError):
        request = urllib.request.Request(question, headers=dict(authorization))
        with urllib.request.urlopen(request, timeout=5) as answer:
            tags = json.load(answer)["experiment"].get("tags", [])
        if any(tag["key"] == view.TAG for tag in tags):
            return f"viewStateShareKey={view.KEY}"
    order = view.ordering(sweep["objective"], sweep["better"])
    return urlencode(order | {"orderByAsc": str(order["orderByAsc"]).lower()})


def _browser() -> webbrowser.BaseBrowser | None:
    """A browser that shows pages in a window; None without a display, whatever text browsers are installed."""
    if sys.platform != "darwin" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        return None
    try:
        return webbrowser.get()
    except webbrowser.Error:
        return None


def _newest(settings: Settings) -> Json | None:
    """The newest sweep that MLflow has, as `list_sweeps` returns it; None where the registry knows of none, and with a
    word on standard error where it cannot be read.
    """
    from aigc_lab.registry.home import open_registry
    from aigc_lab.registry.sweeps import list_sweeps

    try:
        with open_registry(settings) as registry:
            return next((row for row in list_sweeps(registry) if row["mlflow_experiment_id"]), None)
    except (UsageError, Failure) as error:
        print(f"the newest sweep is not known, so all experiments are shown: {error}", file=sys.stderr, flush=True)
    return None


def _bare(uri: str) -> str:
    """The address without a password: links are shown and kept."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/")))


# ---- who may do what


def _who_may(host: str, *, writable: bool, login: "_Login | None") -> str:
    """One line on what other users of this machine can do with the pages, and on the option that changes it."""
    do = "read, change and delete these runs" if writable else "read these runs"
    if login is not None:
        also = "" if writable else ", and nothing can be changed (--writable)"
        return f"login: user {USER}, password in {login.password}{also}"
    if not _is_loopback(host):
        return (
            f"warning: on {host}, everyone who can reach this machine can {do} without a login; --auth asks for one,"
            " and --host 127.0.0.1 with ssh -L serves this machine alone"
        )
    rest = "--auth asks for a login" if writable else "--auth asks for a login, --writable allows changes"
    return f"{'warning: ' * writable}every user of this machine can {do} without a login; {rest}"


class _Login:
    """The folder with MLflow's users and the password of its one user, both readable by their owner alone."""

    def __init__(self, folder: Path) -> None:
        self.password = folder / "password"
        self.users = folder / "users.db"
        self._configuration = folder / "basic_auth.ini"

    def prepare(self) -> None:
        """Makes the password, once. Raises `OSError`, and `UsageError` if a password was made and its file is gone."""
        self.password.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.password.parent.chmod(0o700)
        if not self.password.is_file():
            if self.users.exists():
                raise UsageError(
                    f"{self.password} is gone, and {self.users} knows users; restore it, or remove {self.users} to"
                    " begin with a new one"
                )
            self._write(self.password, secrets.token_urlsafe(18) + "\n")
        self._write(
            self._configuration,
            # Who has an account may look; who may change something, the first of them decides.
            "[mlflow]\ndefault_permission = READ\n"
            f"database_uri = {sqlite_url(self.users)}\nadmin_username = {USER}\n".replace("%", "%%"),
        )

    def _write(self, path: Path, text: str) -> None:
        with replacing(path, 0o600) as temporary:
            temporary.write_text(text, "utf-8")

    @property
    def authorization(self) -> dict[str, str]:
        """Header with which this process asks the server."""
        return address.basic(USER, self.password.read_text("utf-8").strip())

    @property
    def environment(self) -> dict[str, str]:
        """Variables of MLflow's server, private to its process."""
        return {
            pages.LOGIN: "true",
            "MLFLOW_AUTH_CONFIG_PATH": str(self._configuration),
            "MLFLOW_AUTH_ADMIN_USERNAME": USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.password.read_text("utf-8").strip(),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
            "_MLFLOW_SGI_NAME": "uvicorn",
        }


def _login(settings: Settings) -> _Login:
    if find_spec("flask_wtf") is None:
        raise UsageError("--auth needs the package Flask-WTF; install it: pip install 'mlflow[auth]'")
    login = _Login(settings.home / "login")
    try:
        login.prepare()
    except OSError as error:
        raise UsageError(f"--auth: {login.password} cannot be written ({error.strerror})") from None
    return login


# ---- where it listens


def _require_store(settings: Settings) -> None:
    if not urlsplit(settings.tracking_uri).scheme.startswith("sqlite"):
        return
    store = address.sqlite_file(settings.tracking_uri)
    if not store.is_file() or not store.stat().st_size:
        raise UsageError(
            f"no MLflow store at {masked(settings.tracking_uri)}; run a sweep first, or name the home with --home"
        )


def _free_port(host: str, port: int) -> int:
    """The first free port from `port` on; any free port for 0."""
    for candidate in range(port, min(port + _PORTS_TRIED, 65536)):
        try:
            family = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, candidate))
                return int(probe.getsockname()[1])
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UsageError(
                    f"cannot listen on {host}:{candidate} ({error.strerror}); choose others with --host and --port"
                ) from None
    raise UsageError(f"ports {port} to {candidate} of {host} are all in use; choose another with --port")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reachable(host: str) -> str:
    """The host to write into a link: this machine's for an address that stands for all of them."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 -- compared, not bound
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


# ---- the server


@contextmanager
def _server(
    settings: Settings, host: str, port: int, environment: dict[str, str]
) -> Iterator[tuple["subprocess.Popen[bytes]", "_Log"]]:
    """The server in a process group of its own, which ends with this block, or with this process if it is killed."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "aigc_lab.host.child_process",
        sys.executable,
        "-P",
        "-m",
        "uvicorn",
        APPLICATION,
    ]
    command += ["--host", host, "--port", str(port), "--workers", "1", "--log-level", "warning"]
    log = _Log(settings.home / "logs" / "ui.log")
    with log.file as file:
        process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    assert process.stdin is not None
    try:
        yield process, log
    finally:
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):  # the process that would end it may have been killed itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(settings: Settings, host: str, port: int) -> dict[str, str]:
    """Variables that `mlflow server` would pass to its workers. Not arguments: every user can read a command line."""
    artifacts = (settings.artifacts / "mlflow").as_uri()
    variables = {
        "_MLFLOW_SERVER_FILE_STORE": settings.tracking_uri,
        "_MLFLOW_SERVER_REGISTRY_STORE": settings.tracking_uri,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": artifacts,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if not _is_loopback(host):
        # By default MLflow answers to localhost and private addresses, and takes questions from pages of localhost.
        names = {_reachable(host), socket.gethostname(), "localhost", "127.0.0.1"}
        variables["MLFLOW_SERVER_ALLOWED_HOSTS"] = ",".join(f"{name}:{port}" for name in sorted(names))
        variables["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(f"http://{name}:{port}" for name in sorted(names))
    return {name: value for name, value in variables.items() if name.startswith("_") or name not in os.environ}


class _Log:
    """The server's output, appended: a second server on this home may be writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file: BinaryIO = path.open("ab")
        except OSError as error:
            handle, name = tempfile.mkstemp(prefix="aigc-lab-ui-", suffix=".log")
            self.path, self.file = Path(name), os.fdopen(handle, "ab")
            print(
                f"{path} cannot be written ({error.strerror}): a home that is read-only can be looked at; the log is"
                f" {name}",
                file=sys.stderr,
            )
        self._begin = self.file.tell()

    def last(self) -> str:
        with self.path.open("rb") as file:
            file.seek(self._begin)
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
        return " | ".join(lines[-3:]) or "it said nothing"


def _wait_until_ready(process: "subprocess.Popen[bytes]", base: str, log: _Log) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if process.poll() is not None:
            raise _died(log)
        with suppress(OSError), urllib.request.urlopen(f"{base}/health", timeout=5):
            return
        time.sleep(0.1)
    raise Failure(f"MLflow's server does not answer after {_PATIENCE:.0f} s; {log.path} ends: {log.last()}")


def _died(log: _Log) -> Failure:
    return Failure(f"MLflow's server has ended by itself; {log.path} ends: {log.last()}")


@contextmanager
def _until_told() -> Iterator[None]:
    """Ends the block at Ctrl-C or SIGTERM, with a message and no error."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, before)
