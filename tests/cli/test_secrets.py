"""A password in the address of a store is shown and stored nowhere."""

import contextlib
import os
import sys
from pathlib import Path

import pytest

from aigc_lab import cli
from aigc_lab.commands import doctor
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host.settings import Settings, discreet, masked
from aigc_lab.registry.engine import open_engine
from aigc_lab.registry.home import OpenedHome
from aigc_lab.registry.store import Registry
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.tracking.mlflow_store import error_line

SECRETS = ("s3cret", "s3%40cret", "s3@cret")
# Address -> what may be shown of it.
ADDRESSES = {
    "postgresql+psycopg://me:s3cret@127.0.0.1:1/x": "postgresql+psycopg://me:***@127.0.0.1:1/x",
    "postgresql+psycopg://me:s3%40cret@127.0.0.1:1/x": "postgresql+psycopg://me:***@127.0.0.1:1/x",
    "postgresql+psycopg://me:s3cret@127.0.0.1:port/x": "postgresql+psycopg://me:***@127.0.0.1:port/x",
    "postgresql+psycopg://me:s3cret@127.0.0.1:99999/x": "postgresql+psycopg://me:***@127.0.0.1:99999/x",
    "postgresql+psycopg://me:s3cret/x@127.0.0.1:1/x": "postgresql+psycopg://me:***@127.0.0.1:1/x",
    "postgresql+psycopg://me:5:s3cret@127.0.0.1:1/x": "postgresql+psycopg://me:***@127.0.0.1:1/x",
    "postgresql+psycopg://127.0.0.1:1/x?user=me&password=s3cret": "postgresql+psycopg://127.0.0.1:1/x?user=me&password=***",
    "mysql://me:s3cret@127.0.0.1:1/x": "mysql://me:***@127.0.0.1:1/x",
    "nonsense://me:s3cret@127.0.0.1/x": "nonsense://me:***@127.0.0.1/x",
    "me:s3cret@127.0.0.1": "***@127.0.0.1",
    "http://me:s3cret@127.0.0.1:1/": "http://me:***@127.0.0.1:1/",
    "http://s3cret@127.0.0.1:1/": "http://***@127.0.0.1:1/",
    "http://me:s3cret@[::1]:1/": "http://me:***@[::1]:1/",
    "http://me:s3cret@[::1/": "http://me:***@[::1/",
    "http://127.0.0.1:1/?access_token=s3cret#a": "http://127.0.0.1:1/?access_token=***#a",
    "file://me:s3cret@host/x": "file://me:***@host/x",
    "host=x password=s3cret": "host=x password=***",
}
PLAIN = [
    "sqlite:////home/me@work/x.db",
    "sqlite:///a:b@c/x.db",
    "http://host:5000/path@2x",
    "http://[::1]:5000/a@b?c=d",
    "postgresql://me@db/x",
    "http://",
    "",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_is_shown_of_an_address(address: str) -> None:
    assert masked(address) == ADDRESSES[address] == masked(ADDRESSES[address])


@pytest.mark.parametrize("address", PLAIN)
def test_an_address_without_a_secret_is_shown_as_it_is(address: str) -> None:
    assert masked(address) == address


SAID = [
    ("http://me:s3%40cret@host/", "http://me:s3%40cret@host/ refused", "http://me:***@host/ refused"),
    ("http://me:s3%40cret@host/", "GET http://me:s3%40cret@host/api: no", "GET http://me:***@host/api: no"),
    ("http://me:s3%40cret@host/", "the password s3@cret is wrong", "the password *** is wrong"),
    ("postgresql://me:s3/cret@host/x", "port 's3/cret' is none", "port '***' is none"),
    ("http://host/", "http://other:s3cret@proxy/ is down", "http://other:***@proxy/ is down"),
    ("postgresql://host/x?password=s3cret", "for user=me password=s3cret", "for user=me password=***"),
    ("sqlite:///x.db", "no such table: runs (at 12:30, a@b)", "no such table: runs (at 12:30, a@b)"),
]


@pytest.mark.parametrize(("address", "said", "shown"), SAID)
def test_what_a_driver_says_is_shown_without_it(address: str, said: str, shown: str) -> None:
    assert discreet(said, address) == shown


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a sweep, and one that was exported."""
    for name in list(os.environ):
        if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    settings = Settings.load(tmp_path / "home")
    settings.prepare()
    with Registry.open(settings.registry_url, home=settings.home) as registry:
        registry.sweep("digits", "0123456789", {}, "fd", "lower")
    return settings.home


COMMANDS = {
    "AIGC_LAB_REGISTRY_URL": [
        ["runs"],
        ["models"],
        ["delete", "digits", "--yes"],
        ["export", "digits"],
        ["sample", "a"],
    ],
    "AIGC_LAB_OPTUNA_URL": [["export", "digits"]],
    "MLFLOW_TRACKING_URI": [["ui", "--port", "0"], ["delete", "digits", "--dry-run"]],
}


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("variable", COMMANDS)
def test_no_command_shows_a_password(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], variable: str, address: str
) -> None:
    monkeypatch.setenv(variable, address)
    monkeypatch.setattr("aigc_lab.commands.ui._require_store", _stop)
    for command in COMMANDS[variable]:
        monkeypatch.setattr(sys, "argv", ["aigc-lab", *command, "--home", str(home)])
        with contextlib.suppress(SystemExit):
            cli.main()
        shown = "".join(capfd.readouterr())
        assert "Traceback" not in shown and not any(secret in shown for secret in SECRETS), (command, shown)
    for path in home.rglob("*"):
        assert not path.is_file() or not any(secret.encode() in path.read_bytes() for secret in SECRETS), path


def _stop(settings: Settings) -> None:
    raise SystemExit(0)


@pytest.mark.parametrize("variable", ["AIGC_LAB_REGISTRY_URL", "AIGC_LAB_OPTUNA_URL", "MLFLOW_TRACKING_URI"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_doctor_shows_no_password(home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, address: str) -> None:
    monkeypatch.setenv(variable, address)
    settings = Settings.load(home)
    for check in (doctor._registry(OpenedHome(settings)), doctor._optuna(settings), doctor._mlflow(settings)):
        try:
            said = str(list(check))
        except (UsageError, Failure) as error:  # which `doctor` shows as a problem
            said = str(error)
        assert not any(secret in said for secret in SECRETS), said


def test_what_the_log_of_the_writer_gets_is_masked(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """It logs warnings with the address and the reason; both go through the same two functions."""
    address = "http://me:s3%40cret@127.0.0.1:1/"
    for error in (
        ConnectionError(f"GET {address}api failed"),
        ConnectionError("s3@cret is wrong"),
        OSError(5, address),
    ):
        assert not any(secret in error_line(address, error) for secret in SECRETS)
    with pytest.raises(Exception, match="127.0.0.1") as caught:
        MlflowTracker(address, tmp_path).experiment("x")
    assert not any(secret in str(caught.value) + caplog.text for secret in SECRETS)


def test_a_registry_that_fails_later_is_told_without_it() -> None:
    with pytest.raises(ValueError, match=r"me:\*\*\*@") as caught:
        open_engine("postgresql+psycopg://me:s3cret@127.0.0.1:port/x", create=False)
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)
