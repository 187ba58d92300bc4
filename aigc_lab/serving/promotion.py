"""Promotion: weights of a run become a version of a named model, here and in MLflow, and an alias points at it.

Each step may be repeated: killed anywhere, the same command ends with exactly one version. The files are copied first;
then MLflow makes the version, which carries the model's digest as a tag and is found by it the next time, and points
its alias, a copy of ours, at it; the registry records both at last. What fails takes back what it has made.
"""

import getpass
import json
import logging
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import delete, func, select, update

from aigc_lab import __version__
from aigc_lab.errors import UsageError
from aigc_lab.host import trust
from aigc_lab.host.files import locked, umask
from aigc_lab.host.settings import Settings, masked
from aigc_lab.registry import queries
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.queries import Final
from aigc_lab.registry.records import StoredPromotion
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import AliasEvent, Promotion
from aigc_lab.serving import lookup
from aigc_lab.serving.answering import columns
from aigc_lab.serving.lookup import Weights
from aigc_lab.sweeps import ownership
from aigc_lab.tracking import backlog, spool, writer
from aigc_lab.training.model_code import code_of

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from aigc_lab.systems.base import System
    from aigc_lab.tracking.model_registry import Package

    Array = numpy.typing.NDArray[Any]

_LOG = logging.getLogger(__name__)

_LONGEST = 200  # MLflow takes 255 characters


@dataclass(frozen=True)
class Promoted:
    """What a promotion came to. `row` is the version as `queries.models` returns it, `created` says whether it is new,
    `chosen` why this run was taken, and `before` where the alias pointed (None: nowhere).
    """

    row: dict[str, Any]
    created: bool
    alias: str | None
    before: int | None
    chosen: str

    def as_json(self) -> dict[str, Any]:
        fields = asdict(self)
        return {**fields.pop("row"), **fields}


def promote(
    wanted: str,
    settings: Settings,
    *,
    name: str | None,
    alias: str | None,
    checkpoint: Final = "last",
    reason: str | None = None,
) -> Promoted:
    """Registers the weights of a run (of a sweep: its best run) as a version of the model `name`, unless they are one
    already, and points `alias` at it. Raises `UsageError` for a run that did not finish, for impossible names, and for
    weights whose samples are UNMEASURABLE or whose collapse is SEVERE or TOTAL, unless a `reason` is given, which is
    kept with the version.
    """
    if alias is not None:
        check_alias(alias)
    if name is not None:
        check_name(name)
    with open_registry(settings) as registry:
        run = lookup.find_run(registry, wanted, checkpoint)
        row = queries.show(registry, run)
        ownership.claim(registry, settings, row["sweep"])
        model = check_name(name if name is not None else row["sweep"].rpartition("-")[0])
        _refuse_undelivered(row, settings)
        weights = lookup.of_run(registry, run, checkpoint)
        if reason is None:
            _refuse_doubtful(registry, run, checkpoint)
        _refuse_other_store(registry, model, settings)
        # Two that look for a version at once would both make it.
        lock = settings.home / "locks" / "promote.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock), _undone() as undo:
            stored, created, before = _register(registry, model, weights, row, alias, settings, undo, reason)
        (found,) = [version for version in queries.models(registry, model) if version["version"] == stored.version]
    return Promoted(found, created, alias, before, "" if run == wanted else _chosen(found))


def check_name(name: str) -> str:
    """The name, if it can be a model's: MLflow refuses `/` and `:`, and `@` would begin an alias."""
    if len(name) > _LONGEST or not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"--name {name!r}: use up to {_LONGEST} letters, digits and _ . -, the first no . or -")
    return name


def check_alias(alias: str) -> None:
    """Raises `UsageError` for an alias that MLflow would refuse, or would read as a version."""
    if not re.fullmatch(r"[\w-]{1,200}", alias):
        raise UsageError(f"--alias {alias!r}: use letters, digits, _ and -, like champion")
    if alias.lower() == "latest" or re.fullmatch(r"[vV]?\d+", alias):
        raise UsageError(f"--alias {alias}: MLflow keeps this word for versions; use another, like champion")


def _refuse_doubtful(registry: Registry, run: str, checkpoint: Final) -> None:
    """A score says little of samples that are like nothing real, or lack most of it: an exploded generator may rank
    first by some.
    """
    doubt = queries.doubt(registry, run, checkpoint)
    if doubt is not None:
        raise UsageError(
            f"run {run}: its samples are {doubt}; promote another run, or this one all the same: --force --reason WHY"
        )


def _refuse_other_store(registry: Registry, model: str, settings: Settings) -> None:
    """A model's versions are numbered by one MLflow: another would begin again at 1."""
    here = _store(settings)
    for row in queries.models(registry, model):
        if row["mlflow_uri"] != here:
            raise UsageError(
                f"model {model} lives in MLflow at {row['mlflow_uri']}, and not at {here};"
                " set MLFLOW_TRACKING_URI to the first, or promote under another --name"
            )


def _refuse_undelivered(row: dict[str, Any], settings: Settings) -> None:
    """What MLflow has not got of a run cannot be a model there."""
    folder = writer.spool_folder(settings, row["sweep"])
    spooled = [each for each in spool.runs(folder) if each.name.rpartition(".")[0] == row["run"]]
    waits = sum(backlog.of_run(each).records for each in spooled)
    if not waits:
        return
    told = f"MLflow has not got all of run {row['run']} yet: {waits} records wait here"
    if backlog.has_writer(folder):
        raise UsageError(
            f"{told}, and are being delivered; wait for that ('aigc-lab spool' shows it), and promote then"
        )
    error = backlog.Status.of(folder).error
    why = f" ({error})" if error else ""
    raise UsageError(f"{told}{why}; deliver them first: aigc-lab spool {row['sweep']} --flush")


@contextmanager
def _undone() -> Iterator[ExitStack]:
    """Does what the stack has gathered when something fails: a promotion leaves all behind, or nothing. After an
    interruption the same command goes on.
    """
    undo = ExitStack()
    try:
        yield undo
    except Exception:
        try:
            undo.close()  # all of them, whichever fail
        except Exception as error:  # noqa: BLE001 -- a store that fails; the error that is being handled says more
            _LOG.warning("what this promotion had made is not all taken back (%s); the same command goes on", error)
        raise


def _store(settings: Settings) -> str:
    """The address of MLflow as it is recorded: without a password, and the same after the home was moved."""
    return settings.mlflow_address.replace(str(settings.home), "HOME")


def _register(
    registry: Registry,
    model: str,
    weights: Weights,
    row: dict[str, Any],
    alias: str | None,
    settings: Settings,
    undo: ExitStack,
    reason: str | None,
) -> tuple[StoredPromotion, bool, int | None]:
    """The version, whether it is new, and where the alias pointed before."""
    from aigc_lab.tracking.model_registry import MlflowModels

    # It is loaded and asked for a sample before anything is written: what cannot be sampled is not promoted.
    loaded = weights.load("cpu")
    sample = loaded.sample(1)
    digest = lookup.identity(weights.path, weights.origin["sha256"])
    mlflow = MlflowModels(settings.tracking_uri)
    experiment = mlflow.experiment(row["sweep"])
    if not mlflow.knows(model) and queries.models(registry, model):
        raise UsageError(
            f"model {model} was deleted in MLflow at {masked(settings.tracking_uri)}, where its versions would be"
            " numbered from 1 again; promote under another --name"
        )
    folder = settings.models / digest[:16]
    if not folder.exists():
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
    path = _own_copy(weights, folder, digest)
    version = mlflow.publish(
        model,
        digest,
        _package(path.parent, sample, loaded.system),
        experiment=experiment,
        run=row["mlflow_run_id"],
        tags=_tags({**row, "checkpoint": weights.origin["checkpoint"], "reason": reason}),
        undo=undo,
    )
    stored = StoredPromotion(
        model=model,
        version=version.number,
        run_id=row["run"],
        checkpoint=weights.origin["checkpoint"],
        digest=digest,
        sha256=weights.origin["sha256"],
        path=str(path),
        mlflow_uri=_store(settings),
        mlflow_model_id=version.model_id,
        reason=reason,
    )
    if alias is not None:
        mlflow.point(model, alias, stored.version, undo)
    undo.callback(_forget, registry, stored, queries.models(registry, model))
    created = registry.promote(stored)
    if alias is None:
        return stored, created, None
    before = registry.point(model, alias, stored.version, f"{getpass.getuser()}@{socket.gethostname()}")
    return stored, created, before


def _forget(registry: Registry, stored: StoredPromotion, before: list[dict[str, Any]]) -> None:
    """Takes the version, and what points at it, out of the registry, unless they were there before."""
    event, version = AliasEvent.c, Promotion.c
    known = [row for row in before if row["version"] == stored.version]
    with registry.write() as connection:
        pointed = connection.execute(
            select(event.alias, func.count())
            .where(event.model == stored.model, event.version == stored.version)
            .group_by(event.alias)
        ).all()
        for alias, count in pointed:
            was = sum(entry["alias"] == alias for row in known for entry in row["alias_history"])
            newest = select(func.max(event.number)).where(event.model == stored.model, event.alias == alias)
            if count > was:
                number = connection.scalar(newest)
                connection.execute(
                    delete(AliasEvent)
                    .where(event.model == stored.model, event.alias == alias)
                    .where(event.number == number)
                )
        if not known:
            connection.execute(
                delete(Promotion).where(version.model == stored.model, version.version == stored.version)
            )


# ---- versions that MLflow has lost


def is_whole(row: dict[str, Any]) -> bool:
    """Whether a version, as `queries.models` returns it, has its own files."""
    return lookup.whole(Path(row["path"]), row["sha256"], row["digest"])


def compared(rows: list[dict[str, Any]], settings: Settings) -> Iterator[tuple[dict[str, Any], str]]:
    """Versions, oldest first, of which this MLflow lacks something, and what that is. One that was deleted there while
    newer ones stayed is not missed. Raises `Failure`.
    """
    from aigc_lab.tracking.model_registry import MlflowModels

    mlflow, here = MlflowModels(settings.tracking_uri), _store(settings)
    for row in sorted(rows, key=lambda row: (row["model"], row["version"])):
        if row["mlflow_uri"] != here:
            continue
        versions, aliases = mlflow.held(row["model"])
        if versions.get(row["version"]) == row["digest"]:
            lacking = [alias for alias in row["aliases"] if aliases.get(alias) != row["version"]]
            if lacking:
                yield row, f"its alias {lacking[0]}"
        elif row["version"] > max(versions, default=0):
            yield row, "it"


def restore(registry: Registry, row: dict[str, Any], settings: Settings) -> None:
    """Makes a version again that MLflow has lost, under its number, from its own files, and points its aliases at it.
    Raises `UsageError` for files that are not whole and for code that is not trusted, and `Failure` where the number
    cannot be had again.
    """
    from aigc_lab.serving.model import Model
    from aigc_lab.tracking.model_registry import MlflowModels

    if not is_whole(row):
        raise UsageError(f"{row['model']} {row['version']}: its files are not whole: {row['path']}")
    loaded = Model.of_file(Path(row["path"]), allowed=trust.gate(settings.home))
    mlflow = MlflowModels(settings.tracking_uri)
    run = queries.show(registry, row["run"])
    with _undone() as undo:
        version = mlflow.publish(
            row["model"],
            row["digest"],
            _package(Path(row["path"]).parent, loaded.sample(1), loaded.system),
            experiment=mlflow.experiment(row["sweep"]),
            run=run["mlflow_run_id"],
            tags=_tags(row),
            undo=undo,
            number=row["version"],
        )
        for alias in row["aliases"]:
            mlflow.point(row["model"], alias, row["version"], undo)
        with registry.write() as connection:
            this = (Promotion.c.model == row["model"], Promotion.c.version == row["version"])
            connection.execute(update(Promotion).where(*this).values(mlflow_model_id=version.model_id))


def _own_copy(weights: Weights, folder: Path, digest: str) -> Path:
    """The files of the model of this digest in a folder of its own, whole or not at all. Checkpoints come and go, and
    a run that is done again overwrites its own.
    """
    copy = folder / "model.safetensors"
    if lookup.whole(copy, weights.origin["sha256"], digest):
        return copy
    description = weights.path.with_suffix(".json")
    code = code_of(json.loads(description.read_text("utf-8")))
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        shutil.copyfile(weights.path, draft / copy.name)
        shutil.copyfile(description, draft / "model.json")
        for source in code:
            shutil.copyfile(weights.path.with_name(source.file), draft / source.file)
        draft.chmod(0o777 & ~umask())
        shutil.rmtree(folder, ignore_errors=True)  # a damaged copy
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return copy


def _tags(row: dict[str, Any]) -> dict[str, str]:
    """What MLflow's version says of itself."""
    return {key: row[key] for key in ("run", "checkpoint", "system", "reason") if row[key] is not None}


def _package(folder: Path, sample: "Array", system: "System") -> "Package":
    """The model as MLflow gets it."""
    from aigc_lab.modalities.base import modality_of
    from aigc_lab.tracking.model_registry import Package

    kinds: dict[str, Literal["uint8", "float32", "string"]] = {"u": "uint8", "f": "float32", "U": "string"}
    return Package(
        folder=folder,
        code=Path(__file__).with_name("pyfunc.py"),
        columns=columns(conditional=system.conditional, options=modality_of(system).options),
        dtype=kinds[sample.dtype.kind],
        shape=sample.shape[1:],
        # Given, for MLflow would import everything to find them out. A local build (+cu128) cannot be asked for.
        requirements=[f"aigc-lab=={__version__}", f"torch=={installed('torch').partition('+')[0]}"],
        parameters={"format": "array"},
    )


def _chosen(row: dict[str, Any]) -> str:
    return f"the best by {row['objective']} on the reference split, of the trial that ranks first in {row['sweep']}"
