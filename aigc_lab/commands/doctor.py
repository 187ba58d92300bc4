"""`aigc-lab doctor`: checks of this machine, this home and its stores, each with a remedy for what is wrong.

No check creates, migrates or downloads anything.
"""

import os
import shutil
import sqlite3
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from aigc_lab.commands import machine, speed
from aigc_lab.commands.machine import Check as Check
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import outage, shared_files
from aigc_lab.host.settings import Settings, discreet, masked, sqlite_path
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.home import OpenedHome
from aigc_lab.tracking import address, relocation

if TYPE_CHECKING:
    from aigc_lab.registry.homes import StoredHome
    from aigc_lab.registry.store import Registry

_NO_HOME = "none yet: made by the first sweep"
# Runs and attempts are ordered by time.
_SKEW_SECONDS = 5.0
_LITTLE_DISK = 2 * 1024**3


def examine(
    home: Path | None = None, *, repair: bool = False, adopt: str | None = None, speeds: bool = False
) -> list[Check]:
    """All checks, in the order in which to read them; with `speeds` also what trains faster here, timed for seconds.
    With `repair`, the records of a moved or copied home are corrected first, and sweeps whose files lie here and not in
    the home that they belong to are taken over; `adopt` takes over a sweep of any other home.

    A check that raises becomes a problem, and the others are made all the same.
    """
    settings = Settings.load(home)
    with OpenedHome(settings) as opened:
        repaired = [*(_repaired(opened) if repair else []), *(_adopted(opened, adopt) if adopt else [])]
        checks: dict[str, Callable[[], Iterator[Check]]] = {
            "versions": machine.versions,
            "machine": machine.devices,
            **({"speed": speed.proposals} if speeds else {}),
            "home": lambda: _home(settings),
            "disk": lambda: _disk(settings),
            "store": lambda: _store(settings),
            "place": lambda: _place(opened),
            "registry": lambda: _registry(opened),
            "optuna": lambda: _optuna(settings),
            "mlflow": lambda: _mlflow(settings),
            "clock": lambda: _clock(settings),
            "data": lambda: _data(settings),
            "weights": lambda: _weights(settings),
        }
        return [*repaired, *(result for name, check in checks.items() for result in _safely(name, check))]


def _safely(name: str, check: Callable[[], Iterator[Check]]) -> list[Check]:
    """The results of a check; where it raises, a problem under its `name`."""
    done = list[Check]()
    try:
        done += check()
    except (UsageError, Failure) as error:
        problem, _, remedy = str(error).rpartition("; ")
        done.append(Check(name, "problem", problem or remedy, remedy if problem else ""))
    except Exception as error:  # noqa: BLE001 -- a doctor who faints helps nobody
        done.append(Check(name, "problem", f"cannot be examined ({type(error).__name__}: {error})"))
    return done


def _repaired(opened: OpenedHome) -> list[Check]:
    from aigc_lab.sweeps import ownership

    settings, done = opened.settings, list[str]()
    old = relocation.old_homes(settings)
    with suppress(UsageError):
        for place in old:  # rows of the time when it recorded absolute paths too
            opened.registry.relocate(place)
        done += ownership.repair(opened.registry, settings)
    if old:
        done.append(f"MLflow's records name this home now; as they were: {relocation.repair(settings)}")
    return [Check("repair", "ok", said) for said in done or ["nothing to correct"]]


def _adopted(opened: OpenedHome, name: str) -> list[Check]:
    from aigc_lab.sweeps import ownership

    sweep = find_sweep(opened.registry, name)
    ownership.adopt(opened.registry, opened.settings, [sweep])
    return [Check("adopt", "ok", f"{sweep} belongs to this home now; files that lie in another are missing here")]


# ---- the home


def _home(settings: Settings) -> Iterator[Check]:
    home, there = settings.home, _existing(settings.home)
    other = "name another with --home or AIGC_LAB_HOME"
    if not there.is_dir():
        yield Check("home", "problem", f"{there} is not a folder", other)
    elif not os.access(there, os.W_OK | os.X_OK):
        yield Check("home", "problem", f"{home}: {there} cannot be written", other)
    else:
        yield Check("home", "ok", str(home) if home.exists() else f"{home}: {_NO_HOME}")


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def _disk(settings: Settings) -> Iterator[Check]:
    there = _existing(settings.home)
    free = shutil.disk_usage(there).free
    used = sum(path.lstat().st_size for path in settings.home.rglob("*") if path.is_file())
    finding = f"{_size(free)} free on {there}; the home takes {_size(used)}"
    if free < used:
        yield Check("disk", "warning", finding, "make room, or name a home on another disk: less is free than it takes")
    elif free < _LITTLE_DISK:
        yield Check("disk", "warning", finding, f"make room: a sweep may need more than {_size(_LITTLE_DISK)}")
    else:
        yield Check("disk", "ok", finding)


def _store(settings: Settings) -> Iterator[Check]:
    """Yields nothing for a home that shares its files with no other."""
    shared = shared_files.of(settings)
    if shared is None:
        return
    with outage.tries_once():
        shared.probe()
    if shared.process_alone:
        finding = f"{shared.shown} is the memory of one process, and is gone with it"
        yield Check("store", "warning", finding, "AIGC_LAB_STORE_URL=s3://bucket/lab or file:///srv/lab is shared")
    else:
        whose = "as no home yet" if shared.identity() is None else "by homes that count as one"
        yield Check("store", "ok", f"{shared.shown}: can be read and written; used {whose}")


def _place(opened: OpenedHome) -> Iterator[Check]:
    """Yields nothing for a home that lies where it was made and shares its registry with no other."""
    from aigc_lab.registry.engine import inspect_schema
    from aigc_lab.registry.tables import SCHEMA
    from aigc_lab.sweeps import ownership

    settings = opened.settings
    relocation.check_relocation(settings)
    with suppress(UsageError):  # `_registry` has the words for one that cannot be read
        if inspect_schema(settings.registry_url)[0] != SCHEMA:
            return
    ownership.check_home(opened.registry, settings)
    for home, sweeps in ownership.others(opened.registry, settings).items():
        remedy = ownership.remedy(settings, sweeps) if ownership.lives_on(home) is False else ""
        yield _other(home, sweeps, remedy)


def _other(home: "StoredHome", sweeps: list[str], remedy: str) -> Check:
    """`remedy` is empty for a home that is there, or that cannot be seen."""
    names = ", ".join(sweeps[:3]) + (", …" if len(sweeps) > 3 else "")
    finding = f"{len(sweeps)} sweeps of home {home.path} on {home.host} are in this registry: {names}"
    if remedy:
        return Check("sweeps", "warning", f"{finding}; it is not there", remedy)
    return Check("sweeps", "ok", f"{finding}; this home reads them")


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


# ---- the stores


def _registry(opened: OpenedHome) -> Iterator[Check]:
    from aigc_lab.registry.engine import inspect_schema
    from aigc_lab.registry.tables import SCHEMA

    settings = opened.settings
    shown = masked(settings.registry_url)
    schema, now = inspect_schema(settings.registry_url)
    if schema is None:
        yield Check("registry", "ok", f"{shown}: {_NO_HOME}")
        return
    if schema < SCHEMA:
        remedy = "back it up; the next command that opens it migrates it"
        yield Check("registry", "warning", f"{shown}: schema {schema}, this version writes {SCHEMA}", remedy)
        return
    if schema > SCHEMA:
        finding = f"{shown}: schema {schema}, this version reads {SCHEMA}"
        yield Check("registry", "problem", finding, "upgrade aigc-lab, or name another home with --home")
        return
    yield Check("registry", "ok", f"{shown}: schema {schema}")
    if not settings.registry_url.startswith("sqlite"):
        yield _skew("registry's server", now)
    yield _abandoned(opened.registry)


def _abandoned(registry: "Registry") -> Check:
    """Runs that are recorded as RUNNING, of which the processes of some may be gone."""
    from aigc_lab.registry import liveness

    running = liveness.running(registry)
    gone = [row["run"] for row in running if not row["alive"]]
    if gone:
        names = ", ".join(gone[:3]) + (", …" if len(gone) > 3 else "")
        finding = f"{len(gone)} recorded as RUNNING whose process is gone: {names}"
        return Check(
            "runs", "warning", finding, "aigc-lab reconcile marks them; aigc-lab resume SWEEP goes on with them"
        )
    elsewhere = sum(row["process"] is None or row["process"].here is None for row in running)
    remote = f", {elsewhere} of them on other machines" if elsewhere else ""
    return Check("runs", "ok", f"{len(running)} going on{remote}")


def _optuna(settings: Settings) -> Iterator[Check]:
    url, shown = settings.optuna_url, masked(settings.optuna_url)
    remedy = "see AIGC_LAB_OPTUNA_URL"
    try:
        store = sqlite_path(url)
        if store is not None:
            if not store.exists():
                yield Check("optuna", "ok", f"{shown}: {_NO_HOME}")
                return
            with closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
                studies = database.execute("SELECT count(*) FROM studies").fetchone()[0]
        else:
            from sqlalchemy import create_engine, inspect, text

            engine = create_engine(url, connect_args={"connect_timeout": 4})
            with engine.connect() as connection:
                if not inspect(connection).get_table_names():
                    yield Check("optuna", "ok", f"{shown}: {_NO_HOME}")
                    return
                studies = connection.scalar(text("SELECT count(*) FROM studies"))
    except Exception as error:  # noqa: BLE001 -- SQLAlchemy's and the drivers' errors share no base
        reason = discreet(str(error).partition("\n")[0], url)
        yield Check("optuna", "problem", f"{shown} cannot be read ({reason})", remedy)
    else:
        yield Check("optuna", "ok", f"{shown}: {studies} studies")


def _mlflow(settings: Settings) -> Iterator[Check]:
    uri, shown = settings.tracking_uri, masked(settings.tracking_uri)
    address.check_address(uri)
    if uri.startswith("sqlite") and not address.sqlite_file(uri).exists():
        yield Check("mlflow", "ok", f"{shown}: {_NO_HOME}")
        return
    yield Check("mlflow", "ok", f"{shown}: reachable")
    if urlsplit(uri).scheme in ("http", "https"):
        parts = urlsplit(uri)
        bare = urlunsplit(
            parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/") + "/health")
        )
        with urllib.request.urlopen(bare, timeout=4) as answer:
            date = answer.headers.get("Date")
        if date:
            yield _skew("MLflow server", parsedate_to_datetime(date).astimezone(UTC).timestamp())


# ---- the clock


def _clock(settings: Settings) -> Iterator[Check]:
    home = settings.home
    if not home.is_dir() or not os.access(home, os.W_OK):
        yield Check("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S %Z"))
        return
    with tempfile.TemporaryFile(dir=home) as probe:  # has no name and leaves no trace
        probe.write(b"now")
        probe.flush()
        stamped = os.fstat(probe.fileno()).st_mtime
    yield _skew("home's file system", stamped)


def _skew(whose: str, there: float) -> Check:
    seconds = there - time.time()
    if abs(seconds) <= _SKEW_SECONDS:
        return Check("clock", "ok", f"the {whose} and this machine agree")
    finding = f"the {whose} is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} this machine"
    return Check("clock", "warning", finding, "set both by NTP: runs are ordered by time")


# ---- data and weights


def _data(settings: Settings) -> Iterator[Check]:
    folder = settings.data_dir
    if not folder.is_dir():
        yield Check("data", "ok", f"{folder}: not there yet; ring and digits need no files, others download theirs")
        return
    if not os.access(folder, os.R_OK | os.X_OK):
        yield Check("data", "problem", f"{folder} cannot be read", "name another in AIGC_LAB_DATA_DIR")
        return
    held = [f"{path.name} ({sum(file.is_file() for file in path.rglob('*'))} files)" for path in _subfolders(folder)]
    yield Check("data", "ok", f"{folder}: {', '.join(held) or 'empty'}")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _weights(settings: Settings) -> Iterator[Check]:
    yield _lite0(settings)
    yield _inception(settings)


def _lite0(settings: Settings) -> Check:
    """Whether the weights are there that judge pictures without a classifier of their own."""
    from aigc_lab.extractors.lite0 import Lite0

    try:
        path = Lite0.published.found(settings.weights)
        Lite0.published.verified(path, settings.weights)
    except UsageError as error:
        finding, _, remedy = str(error).rpartition("; ")
        return Check("lite0", "problem", finding, remedy)
    return Check("lite0", "ok", f"{path}: intact")


def _inception(settings: Settings) -> Check:
    from aigc_lab.extractors.shared.pretrained import InceptionFeatures

    published = InceptionFeatures.published
    path = published.found(settings.weights)
    if path is None:
        remedy = f"only protocols with Inception's features need it; they download {published.address}"
        return Check("weights", "ok", "Inception's weights are not on this machine", remedy)
    try:
        published.verified(path, settings.weights)
    except UsageError:
        return Check("weights", "problem", f"{path} is damaged", f"replace it by {published.address}")
    return Check("weights", "ok", f"{path}: intact")
