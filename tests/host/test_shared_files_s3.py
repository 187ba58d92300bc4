"""A store behind S3's protocol: a real server on loopback (moto's), and s3fs as the driver."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import KEY, SECRET, S3Server
from test_shared_files import A_FILE, Two, names
from test_shared_files import test_a_file_is_read_while_it_is_replaced_again_and_again as read_while_replaced
from test_shared_files import test_a_folder_is_listed_and_removed_in_whole_or_in_part as listed_and_removed
from test_shared_files import test_damage_is_named_and_nothing_is_put_in_place as damage_is_named
from test_shared_files import test_homes_of_a_store_have_one_identity as one_identity
from test_shared_files import test_of_homes_that_publish_a_file_first_one_does as first_one_does
from test_shared_files import test_what_is_published_is_read_and_lies_under_its_hash as published_is_read

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import outage, shared_files
from aigc_lab.host.outage import StoreAway
from aigc_lab.host.settings import Settings

pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytest.importorskip("flask_cors")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No credentials of this machine's."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AIGC_LAB_STORE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    yield
    outage._outages.clear()


@pytest.fixture
def options(server: S3Server, plain: None) -> str:
    return json.dumps({"key": KEY, "secret": SECRET, "endpoint_url": server.address})


@pytest.fixture
def two(server: S3Server, options: str, tmp_path: Path) -> Two:
    return Two(f"s3://{server.bucket()}/results", tmp_path, options)


def test_it_does_what_stores_do(two: Two) -> None:
    for check in (published_is_read, first_one_does, listed_and_removed, read_while_replaced, one_identity):
        check(two)
        two.empty()  # to open one costs a second
    damage_is_named(two, b"the wrong bytes")


def test_credentials_are_taken_from_the_environment(
    server: S3Server, plain: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{server.bucket()}/results"
    two = Two(url, tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    with pytest.raises(Failure, match="there are no credentials for it; set AWS_ACCESS_KEY_ID"):
        two.a.probe()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AIGC_LAB_STORE_URL", url)
    settings = Settings.load(tmp_path / "c")
    shared_files.check(settings)
    monkeypatch.setenv("AIGC_LAB_STORE_URL", "s3://no-such-bucket/results")
    with pytest.raises(UsageError, match=r"the store s3://no-such-bucket/results: there is no such place .*bucket"):
        shared_files.check(Settings.load(tmp_path / "d"))


def test_wrong_credentials_are_refused_without_a_secret(two: Two) -> None:
    from moto.core import set_initial_no_auth_action_count

    with pytest.raises(Failure) as refused:
        set_initial_no_auth_action_count(0)(two.a.probe)()
    assert "it refuses" in str(refused.value) and "AWS_SECRET_ACCESS_KEY" in str(refused.value)
    assert SECRET not in str(refused.value) and KEY not in str(refused.value)


def test_a_server_that_goes_away_and_comes_back(server: S3Server, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    two.a.publish(two.write(b"before"))
    server.stop()
    said: list[str] = []
    with outage.reported_to(said.append):
        try:
            monkeypatch.setenv("AIGC_LAB_STORE_PATIENCE", "0")
            with pytest.raises(StoreAway, match="the store s3://lab-.*/results is away"):
                two.a.publish(two.write(b"after"))
        finally:
            server.start()
        assert (two.homes[0] / A_FILE).read_bytes() == b"after", "nothing is lost here"
        two.a.publish(two.homes[0] / A_FILE)
    assert two.read() == b"after" and len(names(two.a)) == 2
    assert "is away (" in said[0] and said[-1] == f"the store {two.a.shown} is back"
