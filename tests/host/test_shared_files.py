"""Files of homes in a store: whole or absent for every reader, whatever happens while they are published."""

import hashlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import outage, shared_files, store_url
from aigc_lab.host.outage import StoreAway
from aigc_lab.host.settings import Settings
from aigc_lab.host.shared_files import Outbox
from aigc_lab.host.store import Damaged, Store

A_FILE = "checkpoints/s/0.0/1/last.safetensors"


class Two:
    """Homes `a` and `b` with a store, as two machines have it."""

    def __init__(self, url: str, folder: Path, options: str | None = None) -> None:
        self.url = url
        self.homes = [folder / "a", folder / "b"]
        for home in self.homes:
            home.mkdir()
        self.a, self.b = (Store(url, options, home) for home in self.homes)

    def empty(self) -> None:
        """Forgets all, and goes on in another folder of the store."""
        for store in (self.a, self.b):
            store._root, store._identity = f"{store._root}/next", None
            store._published.clear()
        for home in self.homes:
            shutil.rmtree(home)
            home.mkdir()

    def write(self, content: bytes, name: str = A_FILE) -> Path:
        path = self.homes[0] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def read(self, name: str = A_FILE) -> bytes | None:
        """What home `b` sees under a name; None of nothing."""
        path = self.homes[1] / name
        path.unlink(missing_ok=True)
        return path.read_bytes() if self.b.fetch(path) else None


@pytest.fixture(params=["memory", "file"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Two]:
    name = secrets.token_hex(4)  # all stores in memory are one
    yield Two(f"memory://{name}/lab" if request.param == "memory" else (tmp_path / "store").as_uri(), tmp_path)
    outage._outages.clear()


def names(store: Store) -> set[str]:
    return {key for folder in ("checkpoints", "artifacts") for key in store._keys(store.home / folder)}


class Lost(Exception):
    """In the place of a kill: what was done before is done, and nothing after."""


def dies(monkeypatch: pytest.MonkeyPatch, method: str, *, before: bool = True) -> None:
    """The next call of a method of stores never returns; `before` it does anything, or after all of it."""
    does: Callable[..., object] = getattr(Store, method)

    def dying(store: Store, *words: object) -> None:
        monkeypatch.undo()
        if not before:
            does(store, *words)
        raise Lost

    monkeypatch.setattr(Store, method, dying)


# ---- publishing


def test_what_is_published_is_read_and_lies_under_its_hash(two: Two) -> None:
    content = os.urandom(100_000)
    two.a.publish(two.write(content))
    assert two.read() == content
    digest = hashlib.sha256(content).hexdigest()
    assert names(two.b) == {f"{A_FILE}.sha256", f"checkpoints/s/0.0/1/last.{digest[:16]}.safetensors"}
    entry = two.b.entry(two.homes[1] / A_FILE)
    assert entry is not None and (entry.sha256, entry.bytes) == (digest, 100_000)
    assert two.b.fetch(two.homes[1] / A_FILE, digest)
    assert two.read("checkpoints/s/0.0/1/selected.safetensors") is None


def test_a_file_that_changes_is_the_old_one_until_it_is_the_new_one(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    two.a.publish(two.write(b"old"))
    for method, before, seen in (
        ("_send", True, b"old"),
        ("_put", True, b"old"),  # the content is there, and nothing names it
        ("_put", False, b"new"),
        ("_drop", True, b"new"),
    ):
        dies(monkeypatch, method, before=before)
        with pytest.raises(Lost):
            two.a.publish(two.write(b"new"))
        assert two.read() == seen
        two.a._published.clear()  # the next process
        two.a.publish(two.write(b"new"))
        assert two.read() == b"new"
        two.a.publish(two.write(b"old"))
        assert two.read() == b"old"
    assert len(names(two.a)) == 2, "what nothing names is gone when the same is published again, or another"


def test_half_of_a_file_is_not_taken_for_it(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose puts are not whole or absent, and a process that dies in the middle of one."""
    content = os.urandom(10_000)

    def half(store: Store, path: Path, key: str) -> None:
        store._put(key, path.read_bytes()[:5_000])
        raise Lost

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_send", half)
        with pytest.raises(Lost):
            two.a.publish(two.write(content))
    assert two.read() is None
    two.a.publish(two.write(content))
    assert two.read() == content


def test_a_file_that_is_replaced_while_it_is_sent_is_sent_again(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    send, sent = Store._send, list[str]()

    def replaced(store: Store, path: Path, key: str) -> None:
        if not sent:
            path.with_suffix(".new").write_bytes(b"newer")
            path.with_suffix(".new").replace(path)
        sent.append(key)
        send(store, path, key)

    monkeypatch.setattr(Store, "_send", replaced)
    two.a.publish(two.write(b"first"))
    assert len(sent) == 2 and two.read() == b"newer" and len(names(two.a)) == 2


def test_what_is_there_is_not_sent_again_and_what_is_gone_is_left_out(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [two.write(b"%d" % number, f"artifacts/s/0.0/samples/{number}.png") for number in range(20)]
    two.a.publish(*paths)
    monkeypatch.setattr(Store, "_send", lambda *words: pytest.fail("it is there"))
    two.a.publish(*paths)
    two.a._published.clear()
    two.a.publish(*paths, two.homes[0] / "artifacts" / "gone.png")
    assert [two.read(f"artifacts/s/0.0/samples/{number}.png") for number in (0, 19)] == [b"0", b"19"]


def test_of_homes_that_publish_a_file_first_one_does(two: Two) -> None:
    """The classifier that judges: scores by two of them are never compared."""
    mine, others = two.write(b"mine"), two.homes[1] / A_FILE
    others.parent.mkdir(parents=True)
    others.write_bytes(b"theirs")
    entry = Store._entry

    def late(store: Store, key: str) -> object:
        if store is two.b and not two.a._published:
            two.a._published["raced"] = ""
            found = entry(store, key)
            two.a.publish_first(mine)  # after the other has looked
            return found
        return entry(store, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "_entry", late)
        two.b.publish_first(others)
    assert mine.read_bytes() == others.read_bytes() == b"mine"


# ---- reading


@pytest.mark.parametrize("damage", [b"", b"the wrong bytes", None], ids=["cut off", "other bytes", "gone"])
def test_damage_is_named_and_nothing_is_put_in_place(two: Two, damage: bytes | None) -> None:
    two.a.publish(two.write(b"the right bytes"))
    (key,) = names(two.a) - {f"{A_FILE}.sha256"}
    two.a._drop([key]) if damage is None else two.a._put(key, damage)
    said = f"{two.a.shown}/{A_FILE if damage is None else key}: "
    with pytest.raises(Damaged, match=said.replace(".", r"\.")):
        two.read()
    assert not list((two.homes[1] / A_FILE).parent.glob("*"))


def test_what_the_registry_recorded_is_asked_for(two: Two) -> None:
    two.a.publish(two.write(b"of another attempt"))
    recorded = hashlib.sha256(b"recorded").hexdigest()
    with pytest.raises(Damaged, match=f"{recorded[:12]}… was recorded"):
        two.b.fetch(two.homes[1] / A_FILE, recorded)


def test_a_file_is_read_while_it_is_replaced_again_and_again(two: Two) -> None:
    over, contents = threading.Event(), [b"%d" % number * 5_000 for number in range(7)]
    two.a.publish(two.write(contents[0]))

    def replace() -> None:
        for content in contents * 4:
            two.a.publish(two.write(content))
        over.set()

    thread = threading.Thread(target=replace)
    thread.start()
    seen = set()
    while not over.is_set():
        seen.add(two.read())
    thread.join()
    assert seen <= {*contents}


# ---- removing


def test_a_folder_is_listed_and_removed_in_whole_or_in_part(two: Two) -> None:
    two.a.publish(*(two.write(name.encode(), f"checkpoints/s/0.0/{name}") for name in ("1/a.json", "2/b.json", "2/c")))
    two.a.publish(two.write(b"", "checkpoints/s/0.01/1/a.json"))
    run = two.homes[1] / "checkpoints" / "s" / "0.0"
    assert two.b.paths(run) == [run / "1" / "a.json", run / "2" / "b.json", run / "2" / "c"]
    assert two.b.paths(run, "*.json") == [run / "1" / "a.json", run / "2" / "b.json"]
    assert {path.name: len(versions) for path, versions in two.b.versions(run).items()} == dict.fromkeys(
        ("a.json", "b.json", "c"), 1
    )
    two.b.withdraw(run / "2" / "b.json", run / "never.json")
    assert two.b.remove(run, lambda parts: parts[0] != "2") == 2
    assert two.a.paths(two.homes[0] / "checkpoints" / "s" / "0.0") == [two.homes[0] / "checkpoints/s/0.0/2/c"]
    assert two.a.remove(two.homes[0] / "checkpoints" / "s" / "0.0") == 2
    assert {key.split("/")[2] for key in names(two.a)} == {"0.01"}
    assert two.a.remove(two.homes[0] / "checkpoints" / "s" / "none") == 0


# ---- a store that is away, or refuses


@pytest.mark.parametrize("back", [True, False], ids=["for a while", "for good"])
def test_a_store_that_is_away_is_waited_for(two: Two, monkeypatch: pytest.MonkeyPatch, back: bool) -> None:
    monkeypatch.setenv("AIGC_LAB_STORE_PATIENCE", "10" if back else "0.2")
    monkeypatch.setattr(outage, "_FIRST", 0.01)
    two.a.publish(two.write(b"content"))
    tries, cat = iter(range(100)), two.b._driver.cat_file

    def away(place: str) -> object:
        if not back or next(tries) < 3:
            raise TimeoutError("no answer")
        return cat(place)

    monkeypatch.setattr(two.b._driver, "cat_file", away)
    said: list[str] = []
    with outage.reported_to(said.append):
        if back:
            assert two.read() == b"content"
            assert said == [
                f"the store {two.b.shown} is away (no answer); waiting up to 10 s",
                f"the store {two.b.shown} is back",
            ]
        else:
            with pytest.raises(StoreAway, match=r"is away \(no answer\), and was waited for 0.2 s"):
                two.read()


def test_an_outbox_keeps_what_could_not_be_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIGC_LAB_STORE_URL", (tmp_path / "store").as_uri())
    settings = Settings.load(tmp_path / "home")
    shared = shared_files.of(settings)
    assert shared is not None
    path, outbox = settings.artifacts / "s" / "picture.png", Outbox()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a picture")
    outbox.add(path, path, tmp_path / "of no home")

    def away(store: Store, *paths: Path) -> None:
        raise StoreAway("away")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", away)
        with pytest.raises(StoreAway):
            outbox.deliver()
    outbox.deliver()
    assert shared.entry(path) is not None
    monkeypatch.setattr(Store, "publish", lambda *words: pytest.fail("there is nothing left"))
    outbox.deliver()


def test_the_published_file_is_read_where_another_home_has_written_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home that ran a run before keeps its own file, which may be of the other's time; pages show the published."""
    monkeypatch.setenv("AIGC_LAB_STORE_URL", (tmp_path / "store").as_uri())
    monkeypatch.setattr(shared_files, "_listings", {})
    paths = []
    for home in ("a", "b"):
        settings = Settings.load(tmp_path / home)
        shared_files.of(settings)
        paths.append(settings.artifacts / "s" / "0.0" / "curves.json")
        paths[-1].parent.mkdir(parents=True)
    mine, others = paths
    mine.write_text("before")
    assert shared_files.newest(mine) == mine, "nothing is published"
    others.write_text("after")
    shared_files.publish(others)
    shared_files._listings.clear()
    assert shared_files.newest(mine).read_text() == "after" and mine.read_text() == "before"
    assert shared_files.newest(others) == others
    mine.unlink()
    assert shared_files.newest(mine) == mine and mine.read_text() == "after"


def test_without_a_store_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIGC_LAB_STORE_URL", raising=False)
    settings = Settings.load(tmp_path)
    assert shared_files.of(settings) is None and shared_files.of_path(settings.artifacts) is None
    path = settings.artifacts / "a.png"
    assert shared_files.at_hand(path) == shared_files.newest(path) == path
    assert list(shared_files.listed(settings.artifacts)) == []
    shared_files.publish(path)
    shared_files.withdraw(path)


def test_homes_of_a_store_have_one_identity(two: Two) -> None:
    assert two.a.identity() is None
    assert two.a.identify("one") == "one" and two.b.identify("two") == "one"
    two.b._identity = None  # another process
    assert two.b.identity() == "one"


def test_a_probe_leaves_nothing(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    two.a.probe()
    assert not [key for key in two.a._driver.find(two.a._root) if "probe" in str(key)]
    monkeypatch.setattr(two.b._driver, "cat_file", lambda place: b"something else")
    with pytest.raises(Failure, match="does not give back what it was given"):
        two.b.probe()


# ---- addresses


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("lab/results", "AIGC_LAB_STORE_URL=lab/results: give a URL, like s3://bucket/lab or file:///srv/lab"),
        ("/srv/lab", "give a URL"),
        ("simplecache::s3://b/lab", "give a URL"),
        ("s4://b/lab", "Protocol not known: s4; fsspec knows s3,"),
        ("memory://", "name a bucket or a folder"),
        ("sftp://anna:hush@host/lab?timeout=3", "sftp://anna:***@host/lab?timeout=***: what the driver is given goes"),
    ],
)
def test_an_address_that_means_no_store_is_refused(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        Store(url, None, tmp_path)
    assert says in str(refused.value) and "hush" not in str(refused.value)


def test_a_store_does_not_lie_in_the_home_nor_around_it(tmp_path: Path) -> None:
    for folder in (tmp_path / "home", tmp_path / "home" / "store", tmp_path):
        with pytest.raises(UsageError, match="must not lie in each other"):
            Store(folder.as_uri(), None, tmp_path / "home")


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(url: str, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(UsageError, match=r"the driver of s3 is not installed; pip install 'aigc-lab\[s3\]'"):
        Store("s3://bucket/lab", None, tmp_path)
    with pytest.raises(UsageError, match="the driver of gs is not installed; Install s3fs to"):
        Store("gs://bucket/lab", None, tmp_path)


def test_secrets_are_masked_in_every_form() -> None:
    options = json.dumps({"key": "AKID", "client_kwargs": {"aws_secret_access_key": "hush", "region_name": "eu"}})
    text = store_url.unsaid("hush and AKID in eu at sftp://anna:quiet@host/lab", "sftp://anna:quiet@host/lab", options)
    assert text == "*** and *** in eu at sftp://anna:***@host/lab"


def test_errors_of_drivers_are_told_apart() -> None:
    class EndpointConnectionError(Exception):
        """botocore's, by its name."""

    class NoCredentialsError(Exception): ...

    assert store_url.away(EndpointConnectionError("could not connect")) == "could not connect"
    assert store_url.away(OSError(5, "slow down")) is not None and store_url.away(ConnectionResetError()) is not None
    assert store_url.away(PermissionError("denied")) is None and store_url.away(ValueError("x")) is None
    assert "AWS_ACCESS_KEY_ID" in store_url.refusal(NoCredentialsError("none"))
    assert "AWS_ACCESS_KEY_ID" in store_url.refusal(PermissionError("Access Denied"))
    assert "make the bucket" in store_url.refusal(FileNotFoundError("The specified bucket does not exist"))
