"""`aigc-lab import`: a sweep that another home exported becomes one of this home.

All of the file is read and checked before anything is stored. Then, so that a kill at any point leaves nothing half and
the same command finishes: the files, Optuna's study, what MLflow is to show (as a spool), and at last the rows, in one
transaction; from then on the sweep is here. MLflow gets its part from the spool, as it does from a run.
"""

import hashlib
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from aigc_lab.archive import bounds, contents, mlflow_replay, optuna_study, tar
from aigc_lab.archive.bounds import Code
from aigc_lab.archive.contents import Rows
from aigc_lab.archive.export import CODE, FORMAT, MANIFEST, REGISTRY, STUDY, check_name
from aigc_lab.archive.tar import Member
from aigc_lab.display.beside_likelihood import run_tags
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import shared_files, trust
from aigc_lab.host.files import replacing, sha256
from aigc_lab.host.settings import Settings
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import SCHEMA
from aigc_lab.sweeps import ownership, unfinished_deletion
from aigc_lab.sweeps.optuna_storage import check_storage
from aigc_lab.tracking import writer
from aigc_lab.verdicts.stability import Stability

_LOG = logging.getLogger(__name__)

#: where a file of the home is to be -> its name in the archive
Missing = dict[Path, str]


@dataclass(frozen=True)
class Archive:
    """A checked file: what it holds, where each file's bytes stand, and the code among them. `digests` are sha256."""

    sweep: str
    rows: Rows
    study: Any
    files: dict[str, Member]
    digests: dict[str, str]
    code: list[Code]


def import_(path: Path, settings: Settings, say: Callable[[str], None], *, trust_code: bool = False) -> str:
    """Takes in the sweep of an exported file and returns its id. Code in it is named, and is not run: `trust_code` lets
    later commands run it.

    Raises `UsageError`, and nothing is stored, for a file that is not whole or not what an export writes, when another
    sweep of the same id is here, and when there is no room for it.
    """
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise UsageError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    with file:
        try:
            archive = read_archive(file, trust_code=trust_code)
            missing = _missing(archive, settings)
            _check_room(missing, archive, settings)
        except UsageError as error:
            raise UsageError(f"{path}: {error}; nothing was stored") from None
        except OSError as error:  # a folder, a disk that fails
            raise UsageError(f"{path} cannot be read ({error.strerror}); nothing was stored") from None
        check_storage(settings.optuna_url, create=False)
        with ExitStack() as stack:
            registry = _refuse_other(archive, settings, stack)
            unfinished_deletion.refuse_unfinished(settings, archive.sweep)
            settings.prepare()
            if registry is None:
                registry = stack.enter_context(open_registry(settings, create=True))
            stack.enter_context(contents.exclusive(settings, archive.sweep, registry))
            ownership.refuse(registry, settings, archive.sweep)
            new = _is_new(registry, archive)
            if new:
                optuna_study.refuse_other(settings.optuna_url, archive.sweep, archive.study)
            _store(file, archive, missing, registry, settings, new=new)
            ownership.claim(registry, settings, archive.sweep)
    if trust_code:
        trust.remember(settings.home, {code.sha256: code.name for code in archive.code})
    runs = len(archive.rows["run"])
    say(
        f"{archive.sweep}: {runs} run{'s' * (runs != 1)}, " + (f"{len(archive.files)} files" if new else "already here")
    )
    _tell_of_code(archive, settings, say)
    _show(settings, archive.sweep, say)
    return archive.sweep


def _tell_of_code(archive: Archive, settings: Settings, say: Callable[[str], None]) -> None:
    """Names the code that travelled, where it can be read, and whether it may be run."""
    trusted = trust.trusted(settings.home)
    for code in archive.code:
        place = settings.home / contents.place(code.members[0], archive.sweep)
        say(f"it brings code: {code.name}, sha256 {code.sha256}, {place}")
    if any(code.sha256 not in trusted for code in archive.code):
        say("code is run only where it is trusted: read it, and then import this file again with --trust-code")
    elif archive.code:
        say("this code is trusted in this home")


# ---- reading


def read_archive(file: BinaryIO, *, trust_code: bool = False) -> Archive:
    """The checked content of an exported file. Raises `UsageError` for whatever an export would not have written, and,
    unless `trust_code`, for an experiment that names code by a path of its maker's.
    """
    try:
        return _read(file, trust_code=trust_code)
    except RecursionError:
        raise UsageError("what is in it is nested too deeply") from None


def _read(file: BinaryIO, *, trust_code: bool) -> Archive:
    manifest, members = _members(file)
    _match(file, members, manifest["files"])
    sweep = manifest["sweep"]
    rows = contents.parse_rows(bounds.parsed(file, members.pop(REGISTRY)))
    dumped = bounds.parsed(file, members.pop(STUDY))
    if dumped is not None:
        optuna_study.parse_trials(dumped)
    _check_rows(rows, sweep, members)
    if not trust_code:
        bounds.check_names(rows["sweep"][0]["experiment"])
    contents.check_together(rows, sweep)
    for member in members.values():
        bounds.check_size(file, member)
    digests = {name: manifest["files"][name]["sha256"] for name in members}
    return Archive(sweep, rows, dumped, members, digests, bounds.code(file, members, digests))


def _members(file: BinaryIO) -> tuple[dict[str, Any], dict[str, Member]]:
    """The manifest, which comes first, and the other members, which are those that it lists."""
    manifest, members = dict[str, Any](), dict[str, Member]()
    for member in tar.members(file):
        if not manifest:
            if member.name != MANIFEST:
                raise UsageError("it is not an exported sweep")
            manifest = _manifest(bounds.parsed(file, member))
            continue
        if member.name in members or member.name == MANIFEST:
            raise UsageError(f"{member.name!r:.100} stands in it twice")
        if member.name not in manifest["files"]:
            raise UsageError(f"{member.name!r:.100} is not in its manifest")
        if member.size != manifest["files"][member.name]["bytes"]:
            raise UsageError(f"{member.name!r:.100} in it is damaged")
        members[member.name] = member
    if not manifest:
        raise UsageError("it is not an exported sweep")
    return manifest, members


def _manifest(given: Any) -> dict[str, Any]:
    try:
        number, schema, sweep, files = (given[key] for key in ("format", "schema", "sweep", "files"))
        whole = all(isinstance(facts["sha256"], str) and facts["bytes"] >= 0 for facts in files.values())
    except (TypeError, KeyError, AttributeError):
        raise UsageError("its manifest is damaged") from None
    if not isinstance(number, int) or number > FORMAT or not isinstance(schema, str) or schema > SCHEMA:
        raise UsageError(f"it was written by a newer aigc-lab ({given.get('aigc_lab')!r:.40}); upgrade aigc-lab")
    if not whole or not isinstance(sweep, str) or not {REGISTRY, STUDY} <= files.keys():
        raise UsageError("its manifest is damaged")
    contents.component(sweep, "sweep")
    return dict(given)


def _match(file: BinaryIO, members: dict[str, Member], listed: dict[str, Any]) -> None:
    """Nothing of the manifest is missing, all is as it says to the bit, and no name leads out of a folder."""
    if missing := sorted(listed.keys() - members.keys()):
        raise UsageError(f"it lacks {missing[0]!r:.100}")
    for name, member in members.items():
        if name not in (REGISTRY, STUDY):
            run = name.split("/")[1] if "/" in name else ""
            own_code = name.startswith(CODE) and name.endswith(".py")
            check_name(name, run if own_code or re.fullmatch(r"\d+\.\d+", run, re.ASCII) else "of this archive")
        if _digest(file, member) != listed[name]["sha256"]:
            raise UsageError(f"{name!r:.100} in it is damaged")


def _digest(file: BinaryIO, member: Member) -> str:
    digest = hashlib.sha256()
    for piece in tar.pieces(file, member):
        digest.update(piece)
    return digest.hexdigest()


def _check_rows(rows: Rows, sweep: str, files: dict[str, Member]) -> None:
    """The rows are those of one sweep, under the ids that the registry gives, and point at files of the archive."""
    if [(row["id"], f"{row['name']}-{row['digest'][:8]}") for row in rows["sweep"]] != [(sweep, sweep)]:
        raise UsageError(f"its rows are not those of {sweep}")
    for row in rows["run"]:
        if row["id"] != f"{sweep}.{row['trial']}.{row['seed']}" or row["sweep_id"] != sweep:
            raise UsageError(f"{row['id']!r:.100} is no run of {sweep}")
    runs = {row["id"] for row in rows["run"]}
    for table, of_table in rows.items():
        if any(row.get("sweep_id", sweep) != sweep or row.get("run_id") not in {None, *runs} for row in of_table):
            raise UsageError(f"a row of table {table} belongs to another sweep")
    for row in rows["verdict"]:
        if row["kind"] == "stability" and row["verdict"] not in [*Stability]:
            raise UsageError(f"{row['verdict']!r:.100} of {row['run_id']} is no verdict on stability")
    for row in contents.with_path(rows):
        check_name(row["path"], row["run_id"].removeprefix(f"{sweep}."))
        if row["path"] not in files:
            raise UsageError(f"it lacks {row['path']!r:.100}")
    mlflow_replay.check_rows(rows)


# ---- storing


def _refuse_other(archive: Archive, settings: Settings, stack: ExitStack) -> Registry | None:
    """Raises `UsageError` for another sweep, or another study, of the same id, before anything is made for this one.
    Returns the home's registry, which the stack closes, if there is one.
    """
    registry = None
    with suppress(UsageError):  # there is none yet; or none that can be used, which is said when it is opened
        registry = stack.enter_context(open_registry(settings))
    if registry is None or _is_new(registry, archive):
        optuna_study.refuse_other(settings.optuna_url, archive.sweep, archive.study)
    return registry


def _is_new(registry: Registry, archive: Archive) -> bool:
    """Whether the sweep is not here yet. Raises `UsageError` when one of the same id with other rows is."""
    here = contents.rows(registry, archive.sweep)
    if here["sweep"] and here != archive.rows:
        raise UsageError(
            f"sweep {archive.sweep} is already here with other content; nothing was stored;"
            f" delete it first (aigc-lab delete {archive.sweep}), or import into another home with --home"
        )
    return not here["sweep"]


def _store(
    file: BinaryIO, archive: Archive, missing: Missing, registry: Registry, settings: Settings, *, new: bool
) -> None:
    """Every step may be repeated; the rows come last. Of a sweep that is here, what is missing or damaged is mended.
    What is refused on the way, because something changed since it was looked at, leaves nothing of a new one.
    """
    try:
        with _undone(archive, missing, settings) if new else nullcontext():
            _write_files(file, archive, missing)
            shared_files.publish(*missing)
            if new or optuna_study.dump(settings.optuna_url, archive.sweep) is None:
                optuna_study.restore(settings.optuna_url, archive.sweep, archive.study)
            if new:
                mlflow_replay.spool(settings, archive.sweep, archive.rows, _tags(archive, settings))
                contents.store(registry, archive.rows, archive.sweep)
    except OSError as error:
        where = error.filename or settings.home
        raise Failure(f"{where}: {error.strerror}; the sweep is not here yet, the same command goes on") from None


def _tags(archive: Archive, settings: Settings) -> dict[str, dict[str, str]]:
    """MLflow's tags of runs that are told of once their sweep has ended, by run. The rows are not here yet, and are
    looked at in a registry of their own.
    """
    if all(row["name"] != "temperature" for row in archive.rows["artifact"]):
        return {}
    with (
        TemporaryDirectory(prefix="aigc-lab-") as folder,
        Registry.open(f"sqlite:///{folder}/registry.db", home=settings.home) as registry,
    ):
        contents.store(registry, archive.rows, archive.sweep)
        try:
            return run_tags(registry, archive.sweep)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # a file may hold anything
            _LOG.warning("%s: no text GAN of it is told of: its curves cannot be read: %s", archive.sweep, error)
            return {}


@contextmanager
def _undone(archive: Archive, missing: Missing, settings: Settings) -> Iterator[None]:
    """What is refused within leaves no file, no study and no spool."""
    before = optuna_study.dump(settings.optuna_url, archive.sweep)
    try:
        yield
    except UsageError as error:
        for target in missing:
            target.unlink(missing_ok=True)
        shared_files.withdraw(*missing)
        shutil.rmtree(writer.spool_folder(settings, archive.sweep), ignore_errors=True)
        for folder in contents.folders(settings, archive.sweep):
            for path in sorted(folder.rglob("*"), reverse=True):
                with suppress(OSError):  # what is not empty was here before
                    path.rmdir()
            with suppress(OSError):
                folder.rmdir()
        if before is None:
            optuna_study.remove(settings.optuna_url, archive.sweep)
        contents.lock_of(settings, archive.sweep).unlink(missing_ok=True)
        raise UsageError(f"{error}; nothing was stored") from None


def _missing(archive: Archive, settings: Settings) -> Missing:
    """The files that the home lacks, or has otherwise."""
    places = {settings.home / contents.place(name, archive.sweep): name for name in archive.files}
    return {
        target: name
        for target, name in places.items()
        if not target.is_file() or sha256(target) != archive.digests[name]
    }


def _check_room(missing: Missing, archive: Archive, settings: Settings) -> None:
    """Raises `UsageError` unless the disk has room for the files, and for MLflow's copies of them."""
    place = next(folder for folder in (settings.home, *settings.home.parents) if folder.is_dir())
    needed, free = 2 * sum(archive.files[name].size for name in missing.values()), shutil.disk_usage(place).free
    if needed > free:
        raise UsageError(f"{settings.home} has {free / 1e6:.0f} MB free, and the files need {needed / 1e6:.0f} MB")


def _write_files(file: BinaryIO, archive: Archive, missing: Missing) -> None:
    for target, name in missing.items():
        digest = hashlib.sha256()
        with replacing(target) as draft:
            with draft.open("wb") as output:
                for piece in tar.pieces(file, archive.files[name]):
                    digest.update(piece)
                    output.write(piece)
            if digest.hexdigest() != archive.digests[name]:
                raise UsageError(f"{name} changed while it was read")


def _show(settings: Settings, sweep: str, say: Callable[[str], None]) -> None:
    """Delivers what MLflow is to show; says what it did not take."""
    shipping = writer.Writer(settings, sweep)
    shipping.start()
    note = shipping.finish()
    if note:
        say(note)
