"""Promotion: weights of a run become a version of a named model, here and in MLflow, and an alias points at it.

Each step may be repeated: killed anywhere, the same command ends with exactly one version. The files are copied first.
Then MLflow creates the version, with the model's digest as a tag by which a repetition recognises it, and points its
own alias at it. The registry records both at last. A step that fails reverses the steps before it.

An alias that is moved to a version that exists goes the same way: MLflow first, the registry at last. Killed between
the two, the same command goes on, and `reconcile --mlflow` moves MLflow's alias back to where the registry has it.
"""

import getpass
import logging
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, select, update

from aigc_lab.errors import UsageError
from aigc_lab.host.files import locked
from aigc_lab.host.settings import Settings, masked
from aigc_lab.registry.columns import FinalCheckpoint
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.models import candidate, list_models
from aigc_lab.registry.records import StoredPromotion
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import AliasEvent, Promotion
from aigc_lab.registry.verdicts import collapse_doubt
from aigc_lab.serving import lookup
from aigc_lab.serving.about import about
from aigc_lab.serving.lookup import Weights
from aigc_lab.serving.package import mlflow_package, own_copy
from aigc_lab.serving.replacement import Replacement, compare, refuse
from aigc_lab.sweeps import ownership
from aigc_lab.tracking import backlog, spool_log, writer

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from aigc_lab.tracking.model_registry import MlflowModels, Version

    Array = numpy.typing.NDArray[Any]

_LOG = logging.getLogger(__name__)

_LONGEST = 200  # MLflow takes 255 characters


@dataclass(frozen=True)
class PromotionResult:
    """Result of a promotion: the version's `row` as in `list_models`, whether it was `created`, why this run was
    `chosen`, the version at which the alias pointed `before` (None: at none), and what it `replaced` there.
    """

    row: dict[str, Any]
    created: bool
    alias: str | None
    before: int | None
    chosen: str
    replaced: Replacement | None = None

    def as_json(self) -> dict[str, Any]:
        fields = {key: value for key, value in vars(self).items() if key not in ("row", "replaced")}
        return {**self.row, **fields, "replaced": self.replaced and self.replaced.as_json()}


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
    already, and points `alias` at it. A `reference` to a version (`NAME@1`, `models:/NAME/1`) only moves the alias.

    Raises `UsageError` for a run that did not finish and for impossible names. Without a `reason`, which is stored with
    the version, also for weights whose samples are UNMEASURABLE or whose collapse is SEVERE or TOTAL, and for weights
    that are worse than those at which the alias points.
    """
    if alias is not None:
        check_alias(alias)
    if name is not None:
        check_name(name)
    with open_registry(settings) as registry:
        version = lookup.promoted_version(registry, reference)
        if version is not None:
            _check_move(reference, version, name, alias, checkpoint)
            promotion = _Promotion(registry, settings, version["model"], alias, reason)
            return promotion.of_version(version)
        run = lookup.find_run(registry, reference, checkpoint)
        row = show_run(registry, run)
        model = check_name(name if name is not None else row["sweep"].rpartition("-")[0])
        promotion = _Promotion(registry, settings, model, alias, reason)
        return promotion.of_run(row, checkpoint, chosen=run != reference)


class _Promotion:
    """One promotion under way, in an open registry, to a `model` and an `alias` of it."""

    def __init__(
        self, registry: Registry, settings: Settings, model: str, alias: str | None, reason: str | None
    ) -> None:
        self._registry, self._settings = registry, settings
        self._model, self._alias, self._reason = model, alias, reason

    def of_run(self, row: dict[str, Any], checkpoint: FinalCheckpoint, *, chosen: bool) -> PromotionResult:
        """Makes the weights of a run a version, and points the alias at it."""
        registry, run = self._registry, row["run"]
        ownership.claim(registry, self._settings, row["sweep"])
        _refuse_undelivered(row, self._settings)
        weights = lookup.weights_of_run(registry, run, checkpoint)
        weighed = candidate(registry, run, checkpoint)
        _refuse_other_store(registry, self._model, self._settings)
        with self._alone() as undo:
            # Under the lock: another promotion may have moved the alias a moment ago.
            replaced = self._replaced(self._known(weights.origin["sha256"]) or weighed)
            self._refuse_doubtful(weighed, f"run {run}", replaced)
            stored, created, before = _register(
                registry, self._model, weights, row, self._alias, self._settings, undo, self._reason
            )
        result = self._row(stored.version)
        return PromotionResult(result, created, self._alias, before, _chosen(result) if chosen else "", replaced)

    def of_version(self, row: dict[str, Any]) -> PromotionResult:
        """Points the alias at a version that exists: a model is rolled back, or gets another alias."""
        from aigc_lab.tracking.model_registry import MlflowModels

        assert self._alias is not None
        registry, version, name = self._registry, row["version"], f"{self._model} version {row['version']}"
        ownership.claim(registry, self._settings, row["sweep"])
        _refuse_other_store(registry, self._model, self._settings)
        with self._alone() as undo:
            replaced = self._replaced(row)
            self._refuse_doubtful(row, name, replaced)
            mlflow = MlflowModels(self._settings.tracking_uri)
            if mlflow.versions_and_aliases(self._model)[0].get(version) != row["digest"]:
                raise UsageError(
                    f"MLflow at {masked(self._settings.tracking_uri)} has no {name}; make it again:"
                    f" aigc-lab reconcile --mlflow {row['sweep']}"
                )
            said = about(row | {"reason": self._reason or row["reason"]})
            mlflow.describe(self._model, version, row["digest"], said, undo)
            mlflow.point(self._model, self._alias, version, undo)
            undo.callback(_forget, registry, self._model, version, list_models(registry, self._model))
            if self._reason is not None:
                registry.force(self._model, version, self._reason)
            before = registry.point(self._model, self._alias, version, _who())
        return PromotionResult(self._row(version), False, self._alias, before, "", replaced)

    @contextmanager
    def _alone(self) -> Iterator[ExitStack]:
        """Context of this home's only promotion: two that look for a version at once would both make it."""
        lock = self._settings.home / "locks" / "promote.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock), rollback_on_error() as undo:
            yield undo

    def _replaced(self, new: dict[str, Any]) -> Replacement | None:
        """What the alias points at now, compared with a version or with weights that may become one."""
        pointed = (row for row in list_models(self._registry, self._model) if self._alias in row["aliases"])
        return next((compare(new, row) for row in pointed), None)

    def _refuse_doubtful(self, weighed: dict[str, Any], name: str, replaced: Replacement | None) -> None:
        if self._reason is None:
            doubt = collapse_doubt(self._registry, weighed["run"], weighed["checkpoint"])
            refuse({**weighed, "doubt": doubt}, name, replaced)

    def _known(self, sha256: str) -> dict[str, Any] | None:
        """The version that has these weights already."""
        return next((row for row in list_models(self._registry, self._model) if row["sha256"] == sha256), None)

    def _row(self, version: int) -> dict[str, Any]:
        return next(row for row in list_models(self._registry, self._model) if row["version"] == version)


def _check_move(
    reference: str, version: dict[str, Any], name: str | None, alias: str | None, checkpoint: FinalCheckpoint
) -> None:
    """Raises `UsageError` for options that mean nothing when an alias is moved to an existing version."""
    if name not in (None, version["model"]):
        raise UsageError(f"--name {name}: {reference} is a version of {version['model']}; promote its run instead")
    if alias is None:
        raise UsageError(f"--no-alias: {reference} is a version already, and only an alias can be moved to it")
    if checkpoint not in ("last", version["checkpoint"]):
        raise UsageError(f"--checkpoint {checkpoint}: {reference} has the {version['checkpoint']} weights of its run")


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
    path = own_copy(weights, folder, digest)
    # The registry keeps the first run of a version. One that was deleted in MLflow comes back as another version.
    there = mlflow.versions_and_aliases(model)[0]
    versions = (known for known in list_models(registry, model) if known["digest"] == digest)
    same = next((known for known in versions if there.get(known["version"]) == digest), None)
    kept = reason if reason is not None or same is None else same["reason"]
    version = mlflow.publish(
        model,
        digest,
        mlflow_package(path.parent, sample, loaded.system),
        experiment=experiment,
        run=row["mlflow_run_id"],
        about=about({**(same or candidate(registry, row["run"], weights.origin["checkpoint"])), "reason": kept}),
        undo=undo,
    )
    promotion = _promotion(model, version, row["run"], weights, digest, path, settings, reason)
    if alias is not None:
        mlflow.point(model, alias, promotion.version, undo)
    undo.callback(_forget, registry, model, promotion.version, list_models(registry, model))
    created = registry.promote(promotion)
    if alias is None:
        return promotion, created, None
    return promotion, created, registry.point(model, alias, promotion.version, _who())


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


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


def _forget(registry: Registry, model: str, number: int, versions_before: list[dict[str, Any]]) -> None:
    """Removes the version and its aliases from the registry, unless they were there before: then it gets its reason of
    before.
    """
    event, version = AliasEvent.c, Promotion.c
    existing = [row for row in versions_before if row["version"] == number]
    with registry.write() as connection:
        pointed = connection.execute(
            select(event.alias, func.count()).where(event.model == model, event.version == number).group_by(event.alias)
        ).all()
        for alias, count in pointed:
            was = sum(entry["alias"] == alias for row in existing for entry in row["alias_history"])
            newest = select(func.max(event.number)).where(event.model == model, event.alias == alias)
            if count > was:
                last = connection.scalar(newest)
                connection.execute(
                    delete(AliasEvent).where(event.model == model, event.alias == alias).where(event.number == last)
                )
        this = (version.model == model, version.version == number)
        if existing:
            connection.execute(update(Promotion).where(*this).values(reason=existing[0]["reason"]))
        else:
            connection.execute(delete(Promotion).where(*this))


def _chosen(row: dict[str, Any]) -> str:
    return f"the best by {row['objective']} on the reference split, of the trial that ranks first in {row['sweep']}"
