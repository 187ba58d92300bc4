"""Promotion: weights of a run become a version of a named model, here and in MLflow, and an alias points at it.

Each step may be repeated: killed anywhere, the same command ends with exactly one version. The files are copied first.
Then MLflow creates the version, with the model's digest as a tag by which a repetition recognises it, and points its
own alias at it. The registry records both at last. A step that fails reverses the steps before it.
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

from sqlalchemy import delete, func, select

from aigc_lab import __version__
from aigc_lab.errors import UsageError
from aigc_lab.host.files import locked, umask
from aigc_lab.host.settings import Settings, masked
from aigc_lab.registry.columns import FinalCheckpoint
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.models import list_models
from aigc_lab.registry.records import StoredPromotion
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import AliasEvent, Promotion
from aigc_lab.registry.verdicts import collapse_doubt
from aigc_lab.serving import lookup
from aigc_lab.serving.answering import columns
from aigc_lab.serving.lookup import Weights
from aigc_lab.sweeps import ownership
from aigc_lab.tracking import backlog, spool_log, writer
from aigc_lab.training.model_code import code_of

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from aigc_lab.systems.base import System
    from aigc_lab.tracking.model_registry import MlflowModels, Package, Version

    Array = numpy.typing.NDArray[Any]

_LOG = logging.getLogger(__name__)

_LONGEST = 200  # MLflow takes 255 characters


@dataclass(frozen=True)
class PromotionResult:
    """Result of a promotion: the version's `row` as in `list_models`, whether it was `created`, why this run was
    `chosen`, and the version at which the alias pointed `before` (None: at none).
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
    reference: str,
    settings: Settings,
    *,
    name: str | None,
    alias: str | None,
    checkpoint: FinalCheckpoint = "last",
    reason: str | None = None,
) -> PromotionResult:
    """Registers the weights of a run (of a sweep: its best run) as a version of the model `name`, unless they are one
    already, and points `alias` at it.

    Raises `UsageError` for a run that did not finish and for impossible names. Without a `reason`, which is stored with
    the version, also for weights whose samples are UNMEASURABLE or whose collapse is SEVERE or TOTAL.
    """
    if alias is not None:
        check_alias(alias)
    if name is not None:
        check_name(name)
    with open_registry(settings) as registry:
        run = lookup.find_run(registry, reference, checkpoint)
        row = show_run(registry, run)
        ownership.claim(registry, settings, row["sweep"])
        model = check_name(name if name is not None else row["sweep"].rpartition("-")[0])
        _refuse_undelivered(row, settings)
        weights = lookup.weights_of_run(registry, run, checkpoint)
        if reason is None:
            _refuse_doubtful(registry, run, checkpoint)
        _refuse_other_store(registry, model, settings)
        # Two that look for a version at once would both make it.
        lock = settings.home / "locks" / "promote.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock), rollback_on_error() as undo:
            promotion, created, previous = _register(registry, model, weights, row, alias, settings, undo, reason)
        (version_row,) = [
            version for version in list_models(registry, model) if version["version"] == promotion.version
        ]
    return PromotionResult(version_row, created, alias, previous, "" if run == reference else _chosen(version_row))


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


def _refuse_doubtful(registry: Registry, run: str, checkpoint: FinalCheckpoint) -> None:
    """Raises `UsageError` for samples that are like nothing real, or lack most of it: an exploded generator may rank
    first by some score.
    """
    doubt = collapse_doubt(registry, run, checkpoint)
    if doubt is not None:
        raise UsageError(
            f"run {run}: its samples are {doubt}; promote another run, or this one all the same: --force --reason WHY"
        )


def _refuse_other_store(registry: Registry, model: str, settings: Settings) -> None:
    """Raises `UsageError` for a model of another MLflow: it numbers a model's versions, and another would begin again
    at 1.
    """
    address = recorded_address(settings)
    for row in list_models(registry, model):
        if row["mlflow_uri"] != address:
            raise UsageError(
                f"model {model} lives in MLflow at {row['mlflow_uri']}, and not at {address};"
                " set MLFLOW_TRACKING_URI to the first, or promote under another --name"
            )


def _refuse_undelivered(row: dict[str, Any], settings: Settings) -> None:
    """Raises `UsageError` for a run whose records MLflow does not have yet."""
    folder = writer.spool_folder(settings, row["sweep"])
    spooled = [
        folder_of_run
        for folder_of_run in spool_log.logged_runs(folder)
        if folder_of_run.name.rpartition(".")[0] == row["run"]
    ]
    waits = sum(backlog.run_backlog(folder_of_run).records for folder_of_run in spooled)
    if not waits:
        return
    message = f"MLflow has not got all of run {row['run']} yet: {waits} records wait here"
    if backlog.has_writer(folder):
        raise UsageError(
            f"{message}, and are being delivered; wait for that ('aigc-lab spool' shows it), and promote then"
        )
    error = backlog.DeliveryStatus.of(folder).error
    why = f" ({error})" if error else ""
    raise UsageError(f"{message}{why}; deliver them first: aigc-lab spool {row['sweep']} --flush")


@contextmanager
def rollback_on_error() -> Iterator[ExitStack]:
    """Context that runs the collected reversals when something fails: a promotion stores everything, or nothing. After
    an interruption nothing is reversed, and the same command continues.
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


def recorded_address(settings: Settings) -> str:
    """MLflow's address as it is recorded: without a password, and the same after the home was moved."""
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
    digest = lookup.model_digest(weights.path, weights.origin["sha256"])
    mlflow = MlflowModels(settings.tracking_uri)
    experiment = mlflow.experiment(row["sweep"])
    _refuse_deleted_model(registry, mlflow, model, settings)
    folder = settings.models / digest[:16]
    if not folder.exists():
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
    path = _own_copy(weights, folder, digest)
    version = mlflow.publish(
        model,
        digest,
        mlflow_package(path.parent, sample, loaded.system),
        experiment=experiment,
        run=row["mlflow_run_id"],
        tags=version_tags({**row, "checkpoint": weights.origin["checkpoint"], "reason": reason}),
        undo=undo,
    )
    promotion = _promotion(model, version, row["run"], weights, digest, path, settings, reason)
    if alias is not None:
        mlflow.point(model, alias, promotion.version, undo)
    undo.callback(_forget, registry, promotion, list_models(registry, model))
    created = registry.promote(promotion)
    if alias is None:
        return promotion, created, None
    previous = registry.point(model, alias, promotion.version, f"{getpass.getuser()}@{socket.gethostname()}")
    return promotion, created, previous


def _refuse_deleted_model(registry: Registry, mlflow: "MlflowModels", model: str, settings: Settings) -> None:
    """Raises `UsageError` for a model that has versions here and was deleted in MLflow."""
    if not mlflow.knows(model) and list_models(registry, model):
        raise UsageError(
            f"model {model} was deleted in MLflow at {masked(settings.tracking_uri)}, where its versions would be"
            " numbered from 1 again; promote under another --name"
        )


def _promotion(
    model: str,
    version: "Version",
    run: str,
    weights: Weights,
    digest: str,
    path: Path,
    settings: Settings,
    reason: str | None,
) -> StoredPromotion:
    """The registry's record of a version in MLflow."""
    return StoredPromotion(
        model=model,
        version=version.number,
        run_id=run,
        checkpoint=weights.origin["checkpoint"],
        digest=digest,
        sha256=weights.origin["sha256"],
        path=str(path),
        mlflow_uri=recorded_address(settings),
        mlflow_model_id=version.model_id,
        reason=reason,
    )


def _forget(registry: Registry, promotion: StoredPromotion, versions_before: list[dict[str, Any]]) -> None:
    """Removes the version and its aliases from the registry, unless they were there before."""
    event, version = AliasEvent.c, Promotion.c
    existing = [row for row in versions_before if row["version"] == promotion.version]
    with registry.write() as connection:
        pointed = connection.execute(
            select(event.alias, func.count())
            .where(event.model == promotion.model, event.version == promotion.version)
            .group_by(event.alias)
        ).all()
        for alias, count in pointed:
            was = sum(entry["alias"] == alias for row in existing for entry in row["alias_history"])
            newest = select(func.max(event.number)).where(event.model == promotion.model, event.alias == alias)
            if count > was:
                number = connection.scalar(newest)
                connection.execute(
                    delete(AliasEvent)
                    .where(event.model == promotion.model, event.alias == alias)
                    .where(event.number == number)
                )
        if not existing:
            connection.execute(
                delete(Promotion).where(version.model == promotion.model, version.version == promotion.version)
            )


def _own_copy(weights: Weights, folder: Path, digest: str) -> Path:
    """Copy of the model's files in a folder of its own, whole or not at all: checkpoints are removed, and a repeated
    run overwrites its own.
    """
    copy = folder / "model.safetensors"
    if lookup.is_whole_copy(copy, weights.origin["sha256"], digest):
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


def version_tags(row: dict[str, Any]) -> dict[str, str]:
    """Tags of the version in MLflow."""
    return {key: row[key] for key in ("run", "checkpoint", "system", "reason") if row[key] is not None}


def mlflow_package(folder: Path, sample: "Array", system: "System") -> "Package":
    """Content of the model for MLflow."""
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
