"""Files of a home that other homes see: published to a store under the same relative path, and fetched from there.

`AIGC_LAB_STORE_URL` names the store, any address that fsspec knows: `s3://bucket/lab`, `file:///srv/lab`. With it a
home's folders are a cache of the store: what is written is published, and what is read and not there is fetched
(`host.shared_files`).

| object | what it is |
|---|---|
| `<path>.sha256` | JSON: sha256 and size of a published file, written last; without it there is no such file |
| `<stem>.<16 hex><suffix>` | its content, named by its sha256, so that a file that changes never lies half there |
| `home-id` | the identity of all homes that share the store (`sweeps.ownership`) |

A reader takes the content that the `.sha256` names and compares hash and size. A store that does not answer is waited
for like a database (`host.outage`).
"""

import fnmatch
import json
import os
import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from aigc_lab.errors import Failure
from aigc_lab.host import outage, store_url
from aigc_lab.host.files import replacing, sha256, write_atomically

T = TypeVar("T")

_MANIFEST = ".sha256"
_IDENTITY = "home-id"
# What is being written in stores whose puts are not whole or absent.
_UNFINISHED = ".unfinished"
# Stores whose puts are: an object is there when all of it is.
_WHOLE_PUTS = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "memory"))
# A file may be replaced while it is read; it is not replaced so often.
_TRIES = 4
# Files that are published at the same time: a request takes long, and costs little.
_AT_ONCE = 8


class Damaged(Failure):
    """What lies in the store is not what was published, or not what the registry recorded."""


@dataclass(frozen=True)
class Entry:
    """A published file: hex sha256 and size in bytes."""

    sha256: str
    bytes: int


class Store:
    """The store of a home. Every method raises `outage.StoreAway` for a store that stays away, and `Failure` for one
    that refuses; messages hold no secrets.
    """

    def __init__(self, url: str, options: str | None, home: Path) -> None:
        """Asks nothing of the store. Raises `UsageError` as `store_url.opened` does."""
        self.home = home
        self.shown = store_url.shown(url)
        self._url, self._options = url, options
        self._driver, self._root = store_url.opened(url, options, home)
        self._local = store_url.is_local(self._driver)
        protocol = self._driver.protocol
        names = {protocol} if isinstance(protocol, str) else set(protocol)
        self._whole_puts = bool(names & _WHOLE_PUTS)
        self.process_alone = "memory" in names  # nobody else sees it
        self._identity: str | None = None
        self._published: dict[str, str] = {}  # what this process has published or found there

    # ---- publishing

    def publish(self, *paths: Path) -> None:
        """Publishes files of the home, each whole or not at all; what is there already is not sent again. A file that
        is gone meanwhile is left out.
        """
        if len(paths) < 2:
            for path in paths:
                self._publish(path)
            return
        with ThreadPoolExecutor(min(_AT_ONCE, len(paths)), "publish") as pool:
            for _ in pool.map(self._publish, paths):
                pass

    def _publish(self, path: Path) -> None:
        key = self._key(path)
        for _ in range(_TRIES):
            try:
                before = path.stat()
                digest = sha256(path)
            except FileNotFoundError:
                return
            if self._published.get(key) == digest:
                return
            older = self._entry(key)
            if older is not None and older.sha256 == digest:
                self._published[key] = digest
                return
            content = _content_key(key, digest)
            self._send(path, content)
            now = path.stat() if path.exists() else None
            if now is None or _version(now) != _version(before):
                self._drop([content])
                continue  # it was replaced while it was sent
            self._put(f"{key}{_MANIFEST}", json.dumps({"sha256": digest, "bytes": before.st_size}).encode())
            self._published[key] = digest
            if older is not None:
                self._drop([_content_key(key, older.sha256)])
            return

    def publish_first(self, path: Path) -> None:
        """Publishes a file unless one is published under its path: that one is then fetched into its place. Of homes
        that do so at once, all have the same file afterwards.
        """
        key, digest = self._key(path), sha256(path)
        if self._entry(key) is None:
            self._send(path, _content_key(key, digest))
            with suppress(FileExistsError):
                self._create(f"{key}{_MANIFEST}", json.dumps({"sha256": digest, "bytes": path.stat().st_size}).encode())
                return
        if self._entry(key) != Entry(digest, path.stat().st_size):
            self.fetch(path)

    def _create(self, key: str, content: bytes) -> None:
        """Writes an object that is not there. Raises `FileExistsError`."""
        place = f"{self._root}/{key}"
        if not self._local:
            self._settle(partial(self._driver.pipe_file, place, content, mode="create"))
            return
        draft = Path(f"{place}.{secrets.token_hex(4)}{_UNFINISHED}")
        self._ask(partial(write_atomically, draft, content))
        try:
            self._ask(partial(os.link, draft, place))
        finally:
            draft.unlink(missing_ok=True)

    def _send(self, path: Path, key: str) -> None:
        place = f"{self._root}/{key}"
        if self._local:
            with replacing(Path(place)) as draft:
                self._ask(partial(shutil.copyfile, path, draft))
        elif self._whole_puts:
            self._ask(lambda: self._driver.put_file(str(path), place))
        else:
            self._by_draft(place, lambda draft: self._driver.put_file(str(path), draft))

    def _put(self, key: str, content: bytes) -> None:
        place = f"{self._root}/{key}"
        if self._local:
            self._ask(partial(write_atomically, Path(place), content))
        elif self._whole_puts:
            self._ask(lambda: self._driver.pipe_file(place, content))
        else:
            self._by_draft(place, lambda draft: self._driver.pipe_file(draft, content))

    def _by_draft(self, place: str, write: Callable[[str], object]) -> None:
        draft = f"{place}.{secrets.token_hex(4)}{_UNFINISHED}"
        self._ask(lambda: self._driver.makedirs(place.rpartition("/")[0], exist_ok=True))
        self._ask(lambda: write(draft))
        self._ask(lambda: self._driver.mv(draft, place))

    # ---- reading

    def entry(self, path: Path) -> Entry | None:
        """What is published under a path of the home; None for nothing."""
        return self._entry(self._key(path))

    def _entry(self, key: str) -> Entry | None:
        try:
            content = self._ask(lambda: self._driver.cat_file(f"{self._root}/{key}{_MANIFEST}"))
        except FileNotFoundError:
            return None
        try:
            told = json.loads(content)
            return Entry(str(told["sha256"]), int(told["bytes"]))
        except (ValueError, TypeError, KeyError):
            raise Damaged(f"{self.shown}/{key}{_MANIFEST}: not what was published") from None

    def fetch(self, path: Path, digest: str | None = None, target: Path | None = None) -> bool:
        """Puts a published file into its place in the home, or at `target`, whole or not at all. False where nothing is
        published. Raises `Damaged` unless the content has the published hash, which is `digest` if that is given.
        """
        key = self._key(path)
        for _ in range(_TRIES):
            entry = self._entry(key)
            if entry is None:
                return False
            if digest is not None and entry.sha256 != digest:
                raise Damaged(f"{self.shown}/{key}: sha256 {entry.sha256[:12]}…, and {digest[:12]}… was recorded")
            content = f"{self._root}/{_content_key(key, entry.sha256)}"
            with suppress(FileNotFoundError), replacing(target or path) as draft:
                self._ask(partial(self._driver.get_file, content, str(draft)))
                if draft.stat().st_size == entry.bytes and sha256(draft) == entry.sha256:
                    if target is None:
                        self._published[key] = entry.sha256
                    return True
                raise Damaged(f"{self.shown}/{_content_key(key, entry.sha256)}: its bytes are not those of its sha256")
        raise Damaged(f"{self.shown}/{key}: its content is gone")

    def paths(self, folder: Path, pattern: str = "*") -> list[Path]:
        """Places in the home of all published files at any depth of a folder whose names match, sorted."""
        keys = (key.removesuffix(_MANIFEST) for key in self._keys(folder) if key.endswith(_MANIFEST))
        return sorted(self.home / key for key in keys if fnmatch.fnmatchcase(key.rpartition("/")[2], pattern))

    def versions(self, folder: Path) -> dict[Path, set[str]]:
        """Place in the home -> the first 16 hex digits of the sha256 of its content, of all files below a folder. There
        may be a second content, of a file that is being replaced.
        """
        versions: dict[Path, set[str]] = defaultdict(set)
        for key in self._keys(folder):
            named = _CONTENT.fullmatch(key)
            if named is not None:
                versions[self.home / f"{named['stem']}{named['suffix'] or ''}"].add(named["digest"])
        return versions

    def _keys(self, folder: Path) -> list[str]:
        """Keys of all objects below a folder, at any depth."""
        try:
            found = self._ask(lambda: self._driver.find(f"{self._root}/{self._key(folder)}"))
        except FileNotFoundError:
            return []
        start = f"{self._root.lstrip('/')}/"
        return [str(place).lstrip("/").removeprefix(start) for place in found]

    # ---- removing

    def remove(self, folder: Path, superfluous: Callable[[tuple[str, ...]], bool] = lambda parts: True) -> int:
        """Removes published files below a folder, all, or those whose parts of the path in it are `superfluous`, and
        returns the number of objects. What was being written goes too.
        """
        assert folder != self.home
        start = f"{self._key(folder)}/"
        keys = [key for key in self._keys(folder) if superfluous(tuple(key.removeprefix(start).split("/")))]
        # The `.sha256` first: without it, the content is nobody's.
        self._drop(sorted(keys, key=lambda key: not key.endswith(_MANIFEST)))
        for key in keys:
            self._published.pop(key.removesuffix(_MANIFEST), None)
        if self._local and not self._keys(folder):
            shutil.rmtree(f"{self._root}/{self._key(folder)}", ignore_errors=True)  # empty folders
        return len(keys)

    def withdraw(self, *paths: Path) -> None:
        """Removes single files."""
        for key in map(self._key, paths):
            entry = self._entry(key)
            self._published.pop(key, None)
            if entry is not None:
                self._drop([f"{key}{_MANIFEST}", _content_key(key, entry.sha256)])

    def _drop(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), 500):
            part = [f"{self._root}/{key}" for key in keys[start : start + 500]]
            if self._local or self.process_alone:
                for place in part:
                    with suppress(FileNotFoundError):
                        self._ask(partial(self._driver.rm_file, place))
            elif part:
                with suppress(FileNotFoundError):
                    self._ask(partial(self._driver.rm, part))

    # ---- the identity of the homes that share it, and whether it can be used

    def identity(self) -> str | None:
        """The id that is stored; None in an empty store. It is asked for once: it stays."""
        if self._identity is None:
            with suppress(FileNotFoundError, UnicodeDecodeError):
                content: bytes = self._ask(lambda: self._driver.cat_file(f"{self._root}/{_IDENTITY}"))
                self._identity = content.decode("ascii").strip() or None
        return self._identity

    def identify(self, identity: str) -> str:
        """Stores an id where there is none; returns the one that is stored: another home may be first."""
        content = f"{identity}\n".encode()
        with suppress(FileExistsError):
            self._create(_IDENTITY, content)
        return self.identity() or identity

    def probe(self) -> None:
        """Writes, reads and removes a small object. Raises `Failure` where one of that is refused."""
        key, content = f".probe-{secrets.token_hex(8)}", b"aigc-lab"
        self._settle(lambda: self._put(key, content))
        if self._settle(lambda: self._driver.cat_file(f"{self._root}/{key}")) != content:
            raise Failure(f"the store {self.shown} does not give back what it was given")
        self._drop([key])

    # ---- requests

    def _key(self, path: Path) -> str:
        return path.relative_to(self.home).as_posix()

    def _settle(self, work: Callable[[], T]) -> T:
        """As `_ask`, where a place that is not there is an error."""
        try:
            return self._ask(work)
        except FileNotFoundError as error:
            raise self._refused(error) from error

    def _ask(self, work: Callable[[], T]) -> T:
        """The result of a request, repeated while the store is away. Raises `FileNotFoundError` and `FileExistsError`
        as the driver does.
        """
        try:
            return outage.ask(f"the store {self.shown}", work, self._away)
        except (FileNotFoundError, FileExistsError, Failure):
            raise
        except Exception as error:  # drivers' errors share no base
            raise self._refused(error) from error

    def _away(self, error: Exception) -> str | None:
        reason = None if isinstance(error, Failure) else store_url.away(error)
        return reason and store_url.unsaid(reason, self._url, self._options)

    def _refused(self, error: Exception) -> Failure:
        said = store_url.unsaid(store_url.refusal(error), self._url, self._options)
        return Failure(f"the store {self.shown}: {said}")


_CONTENT = re.compile(r"(?P<stem>.+)\.(?P<digest>[0-9a-f]{16})(?P<suffix>\.[^./]*)?")


def _version(file: os.stat_result) -> tuple[int, int, int]:
    return file.st_ino, file.st_mtime_ns, file.st_size


def _content_key(key: str, digest: str) -> str:
    folder, slash, name = key.rpartition("/")
    stem, suffix = os.path.splitext(name)
    return f"{folder}{slash}{stem}.{digest[:16]}{suffix}"
