"""`aigc-lab ui`: MLflow's pages are served on this home, and nothing survives who asked for them."""

import base64
import configparser
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgi import ask
from sqlalchemy.engine import make_url

from aigc_lab.commands import ui
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host.settings import Settings
from aigc_lab.registry.store import Registry
from aigc_lab.tracking import address, pages
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.tracking.view import keep_view

# Answers as MLflow's does when it is ready, without its seconds of imports; and starts a process of its own.
APPLICATION = """
import subprocess
subprocess.Popen(["sleep", "61.5"])
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"OK"})
"""
SERVE = (
    "from aigc_lab.commands import ui; ui.APPLICATION = {app!r};"
    " ui.serve_pages(host={host!r}, port={port}, browse={browse}, home=None, writable={writable}, auth={auth})"
)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("AIGC_LAB_", "MLFLOW_", "SSH_")) or name in ("DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stand_in.py").write_text(APPLICATION)


def members(group: int) -> list[str]:
    """The processes of a process group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            found.append(path.parent.name)
    return found


def group_of_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return os.getpgid(int(child))


def require_gone(group: int) -> None:
    until = time.monotonic() + 20
    while members(group) and time.monotonic() < until:
        time.sleep(0.05)
    assert members(group) == []


@contextmanager
def serving(
    app: str,
    host: str = "127.0.0.1",
    port: int = 0,
    browse: bool = False,
    writable: bool = False,
    auth: bool = False,
) -> Iterator["subprocess.Popen[str]"]:
    """A process that serves, once it has said so; its standard output is in `.said`."""
    script = SERVE.format(app=app, host=host, port=port, browse=browse, writable=writable, auth=auth)
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: "subprocess.Popen[str]") -> dict[str, str]:
    """The lines on standard output until it serves, by their first word."""
    assert process.stdout is not None
    lines = {}
    for line in process.stdout:
        first, _, rest = line.partition(" ")
        lines[first.rstrip(":")] = rest.strip()
        if first == "Ctrl-C":
            return lines
    raise AssertionError(f"it ended before it served: {process.communicate()}")


def empty_store(home: Path) -> None:
    home.mkdir(exist_ok=True)
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        revision = address._revisions()[1]
        database.execute("CREATE TABLE alembic_version (version_num)")
        database.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        for table in ("experiments", "runs", "latest_metrics"):
            database.execute(f"CREATE TABLE {table} (artifact_location)")


def test_the_real_pages(tmp_path: Path) -> None:
    home = tmp_path / ".aigc-lab"
    tracker = MlflowTracker(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts")
    identity = tracker.experiment("ring-01234567")
    with Registry.open(f"sqlite:///{home / 'registry.db'}", home=home) as registry:
        sweep = registry.sweep("ring", "01234567", {}, "rkl", "lower")
        registry.set_mlflow_experiment(sweep, identity)
        keep_view(tracker, registry, sweep, identity)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with serving(ui.APPLICATION, port=port) as process:
            lines = said(process)
            base, _, page = lines["Runs"].partition("/#")
            assert page == f"/experiments/{identity}/runs?workflowType=machine_learning&viewStateShareKey=aigc-lab"
            assert lines["Compared"] == f"{lines['Runs']}&compareRunsMode=CHART"
            assert base.startswith("http://127.0.0.1:") and not base.endswith(f":{port}")
            # MLflow was handed this store, through variables that it does not document.
            with urllib.request.urlopen(f"{base}/api/2.0/mlflow/experiments/get?experiment_id={identity}") as answer:
                assert json.load(answer)["experiment"]["name"] == "ring-01234567"
            with urllib.request.urlopen(base) as answer:
                whole = answer.read()
                assert b"<title>MLflow</title>" in whole and b"<head><script>try{localStorage" in whole
            # The table of runs is asked for by POST; a change is refused.
            assert status(f"{base}/ajax-api/2.0/mlflow/runs/search", {"experiment_ids": [identity]}) == 200
            assert status(f"{base}/graphql", {"query": "{__typename}"}) == 200
            tag = {"experiment_id": identity, "key": "k", "value": "v"}
            assert status(f"{base}/ajax-api/2.0/mlflow/experiments/set-experiment-tag", tag) == 403
            group = group_of_child(process.pid)
            assert len(members(group)) >= 2
            process.kill()
            require_gone(group)
            process.wait()
            assert process.stderr is not None
            errors = process.stderr.read()
            assert f"port {port} is in use: taking " in errors
            assert "every user of this machine can read these runs without a login; --auth asks for a login" in errors


def test_a_registry_that_cannot_be_read_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "registry.db").write_bytes(b"x" * 5000)
    assert ui._newest(Settings.load(tmp_path)) is None
    assert "the newest sweep is not known, so all experiments are shown: " in capfd.readouterr().err


def status(url: str, body: dict[str, Any], password: str | None = None) -> int:
    """What HTTP says to a POST."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_login_is_asked_for_and_may_change_what_is_writable(tmp_path: Path) -> None:
    home = tmp_path / ".aigc-lab"
    identity = MlflowTracker(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts").experiment("ring-01234567")
    with serving(ui.APPLICATION, writable=True, auth=True) as process:
        base = said(process)["Experiments"].partition("/#")[0]
        password = home / "login" / "password"
        assert [path.stat().st_mode & 0o777 for path in (password, password.parent)] == [0o600, 0o700]
        tag = {"experiment_id": identity, "key": "k", "value": "v"}
        url = f"{base}/ajax-api/2.0/mlflow/experiments/set-experiment-tag"
        secret = password.read_text().strip()
        assert len(secret) >= 20
        assert [status(url, tag), status(url, tag, "wrong"), status(url, tag, secret)] == [401, 401, 200]
        process.terminate()
        assert f"login: user admin, password in {password}\n" in process.communicate(timeout=20)[1]
        assert secret not in (home / "logs" / "ui.log").read_text()


def test_a_password_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    login = ui._Login(tmp_path / "50%2F mine?")
    login.prepare()
    first = login.environment["MLFLOW_AUTH_ADMIN_PASSWORD"]
    login.prepare()
    assert login.environment["MLFLOW_AUTH_ADMIN_PASSWORD"] == first == login.password.read_text().strip()
    parser = configparser.ConfigParser()
    parser.read(login.environment["MLFLOW_AUTH_CONFIG_PATH"])
    assert make_url(parser["mlflow"]["database_uri"]).database == str(login.users)
    login.users.touch()
    login.password.unlink()
    with pytest.raises(UsageError, match="password is gone, and .*users.db knows users; restore it, or remove"):
        login.prepare()


def test_everything_that_mlflow_can_do_but_to_read_is_refused() -> None:
    from mlflow.server import app as flask
    from mlflow.server.fastapi_app import app as fast

    asked = {(method, rule.rule) for rule in flask.url_map.iter_rules() for method in rule.methods or ()}
    for router in fast.routes:
        inner = getattr(getattr(router, "original_router", None), "routes", [router])
        asked |= {(method, route.path) for route in inner for method in getattr(route, "methods", None) or ()}
    served = {path for method, path in asked if method not in ("GET", "HEAD", "OPTIONS") and pages.reads(method, path)}
    assert {path.rpartition("mlflow/")[2] for path in served} == {
        "/graphql",
        "artifacts/presigned-download-url",
        "datasets/search",
        "experiments/search",
        "experiments/search-datasets",
        "issues/search",
        "logged-models/search",
        "prompt-optimization/jobs/search",
        "registered-models/get-latest-versions",
        "runs/search",
        "traces/batchGetInfos",
        "traces/calculate-filter-correlation",
        "traces/metrics",
        "traces/search",
    }
    assert {path for method, path in asked if "assistant" in path} != set()
    assert not any(pages.reads(method, path) for method, path in asked if "/assistant" in path)
    assert not pages.reads("GET", "/gateway/any/mlflow/invocations")
    assert not pages.reads("POST", "/ajax-api/2.0/mlflow/runs/search/../delete")
    assert pages.reads("GET", "/ajax-api/2.0/mlflow-artifacts/artifacts/mlflow/gateway-proxy")


def test_what_graphql_calls_mutations_are_searches() -> None:
    from mlflow.server.graphql.graphql_schema_extensions import schema

    assert set(schema.graphql_schema.mutation_type.fields) == {
        "mlflowSearchDatasets",
        "mlflowSearchRuns",
        "testMutation",
    }


def test_a_change_is_refused_with_a_sentence() -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("the request reached the pages")

    answer = ask(pages.read_only(never), "DELETE", "/api/2.0/mlflow/registered-models/delete")
    assert answer.status == 403
    assert answer.json() == {"error_code": "PERMISSION_DENIED", "message": pages.REFUSAL}


def test_charts_learn_that_there_is_no_gateway_instead_of_showing_a_refusal() -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("the request reached the pages")

    answer = ask(pages.read_only(never), "GET", "/ajax-api/2.0/mlflow/gateway-proxy")
    assert answer.status == 200 and answer.json() == {"endpoints": []}
    assert ask(pages.read_only(never), "POST", "/ajax-api/2.0/mlflow/gateway-proxy").status == 403
    assert ask(pages.read_only(never), "GET", "/gateway/any/mlflow/invocations").status == 403


def page(*parts: bytes) -> Any:
    """Pages that answer everything with these parts of a page."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        length = str(sum(map(len, parts))).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        for number, part in enumerate(parts, 1):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})

    return app


def test_the_assistant_is_refused_and_its_panel_stays_shut() -> None:
    """Whoever may write, too: it runs commands on this machine, as the user who serves the pages."""
    served = pages.without_assistant(page(b"<html><he", b"ad></head></html>"))
    for path in ("/ajax-api/3.0/mlflow/assistant/config", "/api/3.0/mlflow/assistant"):
        assert ask(served, "GET", path).status == ask(served, "PUT", path).status == 403
    whole = ask(served, "GET", "/")
    assert whole.status == 200
    assert whole.body == b"<html><head>" + pages._SHUT + b"</head></html>"
    assert ask(served, "GET", "/static-files/a.js").body == b"<html><head></head></html>"


def test_a_sweep_without_a_stored_view_is_sorted_by_its_objective() -> None:
    for better, ascending in (("lower", "true"), ("higher", "false")):
        sweep = {"mlflow_experiment_id": "7", "objective": "fid", "better": better}
        opens = ui._opens("http://127.0.0.1:9", sweep, {})  # nobody answers there
        assert opens == f"orderByKey=metrics.%60score%2Ffid%60&orderByAsc={ascending}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_whole_group(tmp_path: Path, number: signal.Signals) -> None:
    empty_store(tmp_path / ".aigc-lab")
    with serving("stand_in:app", browse=True) as process:
        lines = said(process)
        assert lines["Experiments"].endswith("/#/experiments?workflowType=machine_learning")
        assert "ssh -L " in lines["From"]
        group = group_of_child(process.pid)
        assert len(members(group)) == 3  # the tether, the server, and what the server started
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert errors.endswith("ended\n")
        assert "no browser to open" in errors
        assert members(group) == []


def test_other_machines_are_warned_of_and_let_in(tmp_path: Path) -> None:
    empty_store(tmp_path / ".aigc-lab")
    with serving("stand_in:app", host="0.0.0.0") as process:
        lines = said(process)
        assert lines["Experiments"].startswith(f"http://{socket.gethostname()}:")
        assert "From" not in lines
        process.terminate()
        errors = process.communicate(timeout=20)[1]
        assert "warning: on 0.0.0.0, everyone who can reach this machine can read these runs without a login" in errors


def test_a_server_that_dies_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_store(tmp_path / ".aigc-lab")
    monkeypatch.setattr(ui, "APPLICATION", "no_such_module:app")
    with pytest.raises(Failure, match=r"logs/ui\.log ends: .*no_such_module"):
        ui.serve_pages(host="127.0.0.1", port=0, browse=False, home=None)


def test_no_store_no_server(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no MLflow store at .*; run a sweep first, or name the home with --home"):
        ui.serve_pages(host="127.0.0.1", port=0, browse=False, home=None)
    assert not (tmp_path / ".aigc-lab").exists()


def test_of_a_server_that_is_there_only_the_link_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@tracking.example:8080/")
    monkeypatch.setattr(address, "check_address", lambda uri: None)
    ui.serve_pages(host="127.0.0.1", port=0, browse=False, home=None)
    assert capsys.readouterr().out == (
        "Experiments: http://tracking.example:8080/#/experiments?workflowType=machine_learning\n"
    )


def test_options_for_a_server_that_is_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@tracking.example:8080/")
    monkeypatch.setattr(address, "check_address", lambda uri: None)
    for option in ({"auth": True}, {"writable": True}):
        with pytest.raises(
            UsageError, match=r"--(auth|writable): MLflow at http://me:\*\*\*@.* is a server of its own"
        ):
            ui.serve_pages(host="127.0.0.1", port=0, browse=False, home=None, **option)


@pytest.mark.parametrize("uri", ["databricks", "databricks://profile", "databricks-uc", "s3://bucket/x", "mine://x"])
def test_an_address_whose_pages_are_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UsageError, match=f"{uri}: .*MLFLOW_TRACKING_URI"):
        ui.serve_pages(host="127.0.0.1", port=0, browse=False, home=None)
    assert list(tmp_path.glob(".aigc-lab*")) == []


def test_a_home_that_is_read_only_is_said_so_and_served(tmp_path: Path) -> None:
    home = tmp_path / ".aigc-lab"
    empty_store(home)
    (home / "logs").touch()  # as little a folder that can be written as a read-only one, for root too
    with serving("stand_in:app") as process:
        said(process)
        process.terminate()
        errors = process.communicate(timeout=20)[1]
    assert f"{home / 'logs' / 'ui.log'} cannot be written" in errors and "can be looked at; the log is /" in errors


def test_an_address_that_cannot_be_had(tmp_path: Path) -> None:
    empty_store(tmp_path / ".aigc-lab")
    # TEST-NET-1 (RFC 5737) is nobody's.
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1:5000 .*--host and --port"):
        ui.serve_pages(host="192.0.2.1", port=5000, browse=False, home=None)
