"""`aigc-lab import`: a sweep that another home exported becomes one of this home.

All of the file is read and checked before anything is stored. Then, so that a kill at any point leaves nothing half and
the same command finishes: the files, Optuna's study, what MLflow is to show (as a spool), and at last the rows, in one
transaction; from then on the sweep is here. MLflow gets its part from the spool, as it does from a run.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from aigc_lab import ownership, search
from aigc_lab.archive import belongings, deletion, projection, study, tape
from aigc_lab.archive.belongings import Rows
from aigc_lab.archive.packing import FORMAT, MANIFEST, REGISTRY, STUDY, check_name
from aigc_lab.archive.tape import Member
from aigc_lab.errors import Failure, UsageError
from aigc_lab.files import replacing, sha256
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import SCHEMA
from aigc_lab.settings import Settings
from aigc_lab.tracking import writer

# A manifest and rows of 100,000 runs are a hundredth of it.
_LARGEST_JSON = 4 << 30


@dataclass(frozen=True)
class Archive:
    """A checked file: what it holds, and where each file's bytes stand. `digests` are sha256."""

    sweep: str
    rows: Rows
    study: Any
    files: dict[str, Member]
    digests: dict[str, str]


def import_(path: Path, settings: Settings, say: Callable[[str], None]) -> str:
    """Takes in the sweep of an exported file and returns its id.

    Raises `UsageError`, and nothing is stored, for a file that is not whole or not what an export writes, and when
    another sweep of the same id is here.
    """
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise UsageError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    with file:
        try:
            archive = read(file)
        except UsageError as error:
            raise UsageError(f"{path}: {error}; nothing was stored") from None
        settings.prepare()
        search.check(settings.optuna_url, create=False)
        deletion.refuse_unfinished(settings, archive.sweep)
        with (
            Registry.open(settings.registry_url, home=settings.home) as registry,
            belongings.held(settings, archive.sweep, registry),
        ):
            ownership.refuse(registry, settings, archive.sweep)
            new = _is_new(registry, archive)
            if new:
                study.refuse_other(settings.optuna_url, archive.sweep, archive.study)
            _store(file, archive, registry, settings, new=new)
            ownership.claim(registry, settings, archive.sweep)
    runs = len(archive.rows["run"])
    say(
        f"{archive.sweep}: {runs} run{'s' * (runs != 1)}, " + (f"{len(archive.files)} files" if new else "already here")
    )
    _show(settings, archive.sweep, say)
    return archive.sweep


# ---- reading


def read(file: BinaryIO) -> Archive:
    """The checked content of an exported file. Raises `UsageError` for whatever an export would not have written."""
    found: dict[str, Member] = {}
    for member in tape.members(file):
        if not found and member.name != MANIFEST:
            raise UsageError("it is not an exported sweep")
        if member.name in found:
            raise UsageError(f"{member.name!r:.100} stands in it twice")
        found[member.name] = member
    if not found:
        raise UsageError("it is not an exported sweep")
    manifest = _manifest(_parsed(file, found.pop(MANIFEST)))
    _match(file, found, manifest["files"])
    sweep = manifest["sweep"]
    rows = belongings.checked(_parsed(file, found.pop(REGISTRY)))
    dumped = _parsed(file, found.pop(STUDY))
    if dumped is not None:
        study.trials(dumped)
    _check_rows(rows, sweep, found)
    digests = {name: manifest["files"][name]["sha256"] for name in found}
    return Archive(sweep, rows, dumped, found, digests)


def _parsed(file: BinaryIO, member: Member) -> Any:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number")

    try:
        return json.loads(tape.content(file, member, _LARGEST_JSON), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{member.name} is not JSON ({' '.join(str(error).split())[:100]})") from None


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
    belongings.component(sweep, "sweep")
    return dict(given)


def _match(file: BinaryIO, found: dict[str, Member], listed: dict[str, Any]) -> None:
    """The members are those of the manifest, to the bit, and their names stay inside a folder."""
    strange, missing = sorted(found.keys() - listed.keys()), sorted(listed.keys() - found.keys())
    if strange or missing:
        raise UsageError(f"{strange[0]!r:.100} is not in its manifest" if strange else f"it lacks {missing[0]!r:.100}")
    for name, member in found.items():
        if name not in (REGISTRY, STUDY):
            run = name.split("/")[1] if "/" in name else ""
            check_name(name, run if re.fullmatch(r"\d+\.\d+", run, re.ASCII) else "of this archive")
        if member.size != listed[name]["bytes"] or _digest(file, member) != listed[name]["sha256"]:
            raise UsageError(f"{name!r:.100} in it is damaged")


def _digest(file: BinaryIO, member: Member) -> str:
    digest = hashlib.sha256()
    for piece in tape.pieces(file, member):
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
    for row in belongings.with_path(rows):
        check_name(row["path"], row["run_id"].removeprefix(f"{sweep}."))
        if row["path"] not in files:
            raise UsageError(f"it lacks {row['path']!r:.100}")
    projection.check(rows)


# ---- storing


def _is_new(registry: Registry, archive: Archive) -> bool:
    """Whether the sweep is not here yet. Raises `UsageError` when one of the same id with other rows is."""
    here = belongings.rows(registry, archive.sweep)
    if here["sweep"] and here != archive.rows:
        raise UsageError(
            f"sweep {archive.sweep} is already here with other content; nothing was stored;"
            f" delete it first (aigc-lab delete {archive.sweep}), or import into another home with --home"
        )
    return not here["sweep"]


def _store(file: BinaryIO, archive: Archive, registry: Registry, settings: Settings, *, new: bool) -> None:
    """Every step may be repeated; the rows come last. Of a sweep that is here, what is missing or damaged is mended."""
    try:
        _write_files(file, archive, settings)
        if new or study.dump(settings.optuna_url, archive.sweep) is None:
            study.restore(settings.optuna_url, archive.sweep, archive.study)
        if new:
            projection.spool(settings, archive.sweep, archive.rows)
            belongings.store(registry, archive.rows, archive.sweep)
    except OSError as error:
        where = error.filename or settings.home
        raise Failure(f"{where}: {error.strerror}; the sweep is not here yet, the same command goes on") from None


def _write_files(file: BinaryIO, archive: Archive, settings: Settings) -> None:
    missing = {}
    for name, member in archive.files.items():
        target = settings.home / belongings.place(name, archive.sweep)
        if not target.is_file() or sha256(target) != archive.digests[name]:
            missing[target] = name, member
    wanted, free = sum(member.size for _, member in missing.values()), shutil.disk_usage(settings.home).free
    if wanted > free:
        raise UsageError(f"{settings.home} has {free / 1e6:.0f} MB free, and the files need {wanted / 1e6:.0f} MB")
    for target, (name, member) in missing.items():
        digest = hashlib.sha256()
        with replacing(target) as draft:
            with draft.open("wb") as output:
                for piece in tape.pieces(file, member):
                    digest.update(piece)
                    output.write(piece)
            if digest.hexdigest() != archive.digests[name]:
                raise UsageError(f"{name} changed while it was read; the sweep is not here")


def _show(settings: Settings, sweep: str, say: Callable[[str], None]) -> None:
    """Delivers what MLflow is to show; says what it did not take."""
    shipping = writer.Writer(settings, sweep)
    shipping.start()
    told = shipping.finish()
    if told:
        say(told)
