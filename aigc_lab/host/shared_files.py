"""Files of homes that share a store: at hand where they are read, published where they are written.

Every function does nothing where the home of a path has no store (`AIGC_LAB_STORE_URL`), and costs nothing. Those that
ask the store raise as `host.store.Store` does.
"""

import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host.files import sha256
from aigc_lab.host.outage import StoreAway
from aigc_lab.host.settings import Settings
from aigc_lab.host.store import Damaged, Store

# A path says which home it lies in: readers of files (pages, models, archives) need not be told of a store.
_stores: dict[Path, Store] = {}
_opened: dict[tuple[Path, str, str | None], Store] = {}
_lock = threading.Lock()


def of(settings: Settings) -> Store | None:
    """The store of a home, which the functions below use from now on; None where the home shares nothing. Raises
    `UsageError` for an address that means no store.
    """
    with _lock:
        if settings.store_url is None:
            _stores.pop(settings.home, None)
            return None
        key = (settings.home, settings.store_url, settings.store_options)
        if key not in _opened:
            _opened[key] = Store(settings.store_url, settings.store_options, settings.home)
        _stores[settings.home] = _opened[key]
        return _opened[key]


def check(settings: Settings) -> None:
    """Raises `UsageError` for a home whose store cannot be read and written, with the reason, and `StoreAway` for one
    that stays away. Changes nothing.
    """
    store = of(settings)
    if store is None:
        return
    try:
        store.probe()
    except StoreAway:
        raise
    except Failure as error:
        raise UsageError(str(error)) from None


def of_path(path: Path) -> Store | None:
    """The store of the home that a path lies in, if it has one."""
    return (
        next((store for home, store in list(_stores.items()) if path.is_relative_to(home)), None) if _stores else None
    )


def at_hand(path: Path, digest: str | None = None) -> Path:
    """Where a file of a home can be read: its place, to which it is fetched if it is not there, or with `digest` not
    this file; and the place itself where nobody has published it. Raises as `Store.fetch` does.
    """
    store = of_path(path)
    if store is None or (path.is_file() and (digest is None or sha256(path) == digest)):
        return path
    store.fetch(path, digest)
    return path


def cached(path: Path) -> Path:
    """As `at_hand`, of a file that can be made again, or is missed by who reads it: a damaged one counts as none."""
    with suppress(Damaged):
        return at_hand(path)
    return path


def newest(path: Path) -> Path:
    """As `at_hand`, of a file that another home may have written anew: the published one, if this home's is another,
    is fetched beside it into the cache.
    """
    store = of_path(path)
    if store is None or not path.is_file():
        return at_hand(path)
    published, mine = _versions(store, path).get(path), sha256(path)
    if published is None or mine[:16] in published:
        return path
    entry = store.entry(path)
    if entry is None or entry.sha256 == mine:
        return path
    copy = store.home / "cache" / "fetched" / f"{entry.sha256}{path.suffix}"
    if copy.is_file() and sha256(copy) == entry.sha256:
        return copy
    return copy if store.fetch(path, target=copy) else path


# Pages read many files of a sweep: it is listed once in so many seconds.
_LISTED_FOR = 10.0
_listings: dict[Path, tuple[float, dict[Path, set[str]]]] = {}


def _versions(store: Store, path: Path) -> dict[Path, set[str]]:
    """`Store.versions` of the folder of a file's sweep, as they were some seconds ago."""
    folder = store.home.joinpath(*path.relative_to(store.home).parts[:2])
    read_at, versions = _listings.get(folder, (-_LISTED_FOR, {}))
    if time.monotonic() - read_at > _LISTED_FOR:
        versions = store.versions(folder)
        _listings[folder] = time.monotonic(), versions
    return versions


def fetch_all(paths: Iterable[Path]) -> None:
    """Fetches those of the files that are not there, several at a time: pages read hundreds. A damaged one stays away,
    and is missed by who reads it.
    """
    absent = [path for path in dict.fromkeys(paths) if of_path(path) is not None and not path.is_file()]
    if absent:
        with ThreadPoolExecutor(8, "fetch") as pool:
            for _ in pool.map(cached, absent):
                pass


def publish(*paths: Path) -> None:
    """Publishes files of homes that have a store. Raises as `Store.publish` does."""
    by_store: dict[int, tuple[Store, list[Path]]] = {}
    for path in paths:
        store = of_path(path)
        if store is not None:
            by_store.setdefault(id(store), (store, []))[1].append(path)
    for store, files in by_store.values():
        store.publish(*dict.fromkeys(files))


def publish_first(path: Path) -> None:
    """Publishes a file of which all homes must have the same: see `Store.publish_first`."""
    store = of_path(path)
    if store is not None:
        store.publish_first(path)


def withdraw(*paths: Path) -> None:
    """Removes published files whose own ones are gone."""
    for path in paths:
        store = of_path(path)
        if store is not None:
            store.withdraw(path)


def remove(folder: Path) -> None:
    """Removes all published files at any depth of a home's folder."""
    store = of_path(folder)
    if store is not None:
        store.remove(folder)


def listed(folder: Path, pattern: str = "*") -> list[Path]:
    """Places of the published files at any depth of a home's folder whose names match; none without a store."""
    store = of_path(folder)
    return [] if store is None else store.paths(folder, pattern)


def files_below(folder: Path) -> Iterable[Path]:
    """Files of a home's folder at any depth that are to be published, and not being written."""
    return (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


class Outbox:
    """Files of a run that are written and not yet published. Any thread may add, and deliver."""

    def __init__(self) -> None:
        self._paths: dict[Path, None] = {}
        self._lock = threading.Lock()

    def add(self, *paths: Path) -> None:
        """Notes files for the next delivery; of a home without a store, nothing."""
        shared = [path for path in paths if of_path(path) is not None]
        with self._lock:
            self._paths |= dict.fromkeys(shared)

    def deliver(self) -> None:
        """Publishes what was added, and keeps what could not be. Raises as `Store.publish` does."""
        with self._lock:
            paths, self._paths = list(self._paths), {}
        try:
            publish(*paths)
        except BaseException:
            self.add(*paths)
            raise
