"""Promotion: weights of a run become a version of a named model, here and in MLflow, and an alias points at it.

Each step may be repeated: killed anywhere, the same command ends with exactly one version. The files are copied first.
Then MLflow creates the version, with the model's digest as a tag by which a repetition recognises it, and points its
own alias at it. The registry records both at last. A step that fails reverses the steps before it.

Of a sweep the best run is meant, as `registry.best` finds it: verdicts may keep those that rank before it from being
promoted. What was passed over is recorded with the version.

An alias that is moved to a version that exists goes the same way: MLflow first, the registry at last. Killed between
the two, the same command goes on, and `reconcile --mlflow` moves MLflow's alias back to where the registry has it.
"""

import getpass
import logging
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, select, update

from aigc_lab.display.selection import none_passes
from aigc_lab.errors import UsageError
from aigc_lab.host import shared_files
from aigc_lab.host.files import locked
from aigc_lab.host.settings import Settings, masked
from aigc_lab.registry.best import Selection
from aigc_lab.registry.columns import FinalCheckpoint
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.models import candidate, list_models
from aigc_lab.registry.records import StoredPromotion
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import AliasEvent, Promotion
from aigc_lab.registry.verdicts import objections
from aigc_lab.serving import lookup
from aigc_lab.serving.about import about
from aigc_lab.serving.lookup import Weights
from aigc_lab.serving.package import mlflow_package, own_copy
from aigc_lab.serving.refusals import (
    check_alias,
    check_move,
    check_name,
    recorded_address,
    refuse_deleted_model,
    refuse_other_store,
    refuse_undelivered,
)
from aigc_lab.serving.replacement import Replacement, compare, refuse
from aigc_lab.sweeps import ownership

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from aigc_lab.tracking.model_registry import Version

    Array = numpy.typing.NDArray[Any]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromotionResult:
    """Result of a promotion: the version's `row` as in `list_models`, whether it was `created`, why this run was
    `chosen` and from what `selection` (None where it was named), the version at which the alias pointed `before` (None:
    at none), and what it `replaced` there. `objections` are verdicts that spoke against it, in spite of which it was
    forced.
    """

    row: dict[str, Any]
    created: bool
    alias: str | None
    before: int | None
    chosen: str
    replaced: Replacement | None = None
    selection: dict[str, Any] | None = None
    objections: Sequence[str] = ()

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
    the version, also for weights that a verdict speaks against (`registry.marks.UNSOUND`), for a sweep without others,
    and for weights that are worse than those at which the alias points. With a reason the best run of such a sweep is
    the first in the ranking.
    """
    if alias is not None:
        check_alias(alias)
    if name is not None:
        check_name(name)
    with open_registry(settings) as registry:
        version = lookup.promoted_version(registry, reference)
        if version is not None:
            check_move(reference, version, name, alias, checkpoint)
            promotion = _Promotion(registry, settings, version["model"], alias, reason)
            return promotion.of_version(reference, version, checkpoint)
        run, selection = lookup.selected_run(registry, reference, checkpoint)
        row = show_run(registry, run)
        if selection is not None and not selection.sound and reason is None:
            runs = [each.as_json() for each in selection.runs]
            raise UsageError(f"{none_passes(row['sweep'], runs)}; the first all the same: --force --reason WHY")
        model = check_name(name if name is not None else row["sweep"].rpartition("-")[0])
        promotion = _Promotion(registry, settings, model, alias, reason)
        return promotion.of_run(row, checkpoint, selection)


class _Promotion:
    """One promotion under way, in an open registry, to a `model` and an `alias` of it."""

    def __init__(
        self, registry: Registry, settings: Settings, model: str, alias: str | None, reason: str | None
    ) -> None:
        self._registry, self._settings = registry, settings
        self._model, self._alias, self._reason = model, alias, reason

    def of_run(self, row: dict[str, Any], checkpoint: FinalCheckpoint, selection: Selection | None) -> PromotionResult:
        """Makes the weights of a run, named or of a selection, a version, and points the alias at it."""
        registry, run = self._registry, row["run"]
        ownership.claim(registry, self._settings, row["sweep"])
        refuse_undelivered(row, self._settings)
        facts = None if selection is None else selection.as_json()
        weights = lookup.weights_of_run(registry, run, checkpoint)
        weighed = candidate(registry, run, checkpoint)
        refuse_other_store(registry, self._model, self._settings)
        with self._alone() as undo:
            # Under the lock: another promotion may have moved the alias a moment ago.
            replaced = self._replaced(self._known(weights.origin["sha256"]) or weighed)
            against = self._refuse_doubtful(weighed, f"run {run}", replaced)
            stored, created, before = _register(
                registry,
                self._model,
                weights,
                row,
                self._alias,
                self._settings,
                undo,
                {"reason": self._reason, "selection": facts},
            )
        result = self._row(stored.version)
        chosen = "" if selection is None else _chosen(result, selection)
        return PromotionResult(result, created, self._alias, before, chosen, replaced, facts, against)

    def of_version(self, reference: str, row: dict[str, Any], checkpoint: FinalCheckpoint) -> PromotionResult:
        """Points the alias at a version that exists: a model is rolled back, or gets another alias. `row` is what the
        reference meant a moment ago.
        """
        from aigc_lab.tracking.model_registry import MlflowModels

        assert self._alias is not None
        registry = self._registry
        ownership.claim(registry, self._settings, row["sweep"])
        refuse_other_store(registry, self._model, self._settings)
        with self._alone() as undo:
            # Under the lock: another promotion may have moved the alias that is the reference, or forced the version.
            row = lookup.promoted_version(registry, reference) or row
            check_move(reference, row, self._model, self._alias, checkpoint)
            version, name = row["version"], f"{self._model} version {row['version']}"
            replaced = self._replaced(row)
            against = self._refuse_doubtful(row, name, replaced)
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
        return PromotionResult(self._row(version), False, self._alias, before, "", replaced, objections=against)

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

    def _refuse_doubtful(self, weighed: dict[str, Any], name: str, replaced: Replacement | None) -> list[str]:
        """What speaks against the weights; raises `UsageError` for that without a reason."""
        against = objections(self._registry, weighed["run"], weighed["checkpoint"])
        if self._reason is None:
            refuse({**weighed, "objections": against}, name, replaced)
        return against

    def _known(self, sha256: str) -> dict[str, Any] | None:
        """The version that has these weights already."""
        return next((row for row in list_models(self._registry, self._model) if row["sha256"] == sha256), None)

    def _row(self, version: int) -> dict[str, Any]:
        return next(row for row in list_models(self._registry, self._model) if row["version"] == version)


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


def _register(
    registry: Registry,
    model: str,
    weights: Weights,
    row: dict[str, Any],
    alias: str | None,
    settings: Settings,
    undo: ExitStack,
    grounds: dict[str, Any],
) -> tuple[StoredPromotion, bool, int | None]:
    """The version, whether it is new, and where the alias pointed before. `grounds` are why it is promoted: the
    `reason` of a forced one, and the `selection` that it is of; None where there is none.
    """
    from aigc_lab.tracking.model_registry import MlflowModels

    # It is loaded and asked for a sample before anything is written: what cannot be sampled is not promoted.
    loaded = weights.load("cpu")
    sample = loaded.sample(1)
    digest = lookup.model_digest(weights.path, weights.origin["sha256"])
    mlflow = MlflowModels(settings.tracking_uri)
    experiment = mlflow.experiment(row["sweep"])
    refuse_deleted_model(registry, mlflow, model, settings)
    folder = settings.models / digest[:16]
    if not folder.exists():
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
    path = own_copy(weights, folder, digest)
    shared_files.publish(*shared_files.files_below(folder))
    # The registry keeps the first run of a version. One that was deleted in MLflow comes back as another version.
    there = mlflow.versions_and_aliases(model)[0]
    versions = (known for known in list_models(registry, model) if known["digest"] == digest)
    same = next((known for known in versions if there.get(known["version"]) == digest), None)
    kept = {key: value if value is not None or same is None else same[key] for key, value in grounds.items()}
    version = mlflow.publish(
        model,
        digest,
        mlflow_package(path.parent, sample, loaded.system),
        experiment=experiment,
        run=row["mlflow_run_id"],
        about=about({**(same or candidate(registry, row["run"], weights.origin["checkpoint"])), **kept, "path": path}),
        undo=undo,
    )
    promotion = _promotion(model, version, row["run"], weights, digest, path, settings, grounds)
    if alias is not None:
        mlflow.point(model, alias, promotion.version, undo)
    undo.callback(_forget, registry, model, promotion.version, list_models(registry, model))
    created = registry.promote(promotion)
    if alias is None:
        return promotion, created, None
    return promotion, created, registry.point(model, alias, promotion.version, _who())


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _promotion(
    model: str,
    version: "Version",
    run: str,
    weights: Weights,
    digest: str,
    path: Path,
    settings: Settings,
    grounds: dict[str, Any],
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
        **grounds,
    )


def _forget(registry: Registry, model: str, number: int, versions_before: list[dict[str, Any]]) -> None:
    """Removes the version and its aliases from the registry, unless they were there before: then it gets its reason and
    its selection of before.
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
            grounds = {key: existing[0][key] for key in ("reason", "selection")}
            connection.execute(update(Promotion).where(*this).values(grounds))
        else:
            connection.execute(delete(Promotion).where(*this))


def _chosen(row: dict[str, Any], selection: Selection) -> str:
    best = selection.best
    of = "the trial that ranks first" if best.rank == 1 else f"trial {best.trial[1]}, which ranks {best.rank},"
    passing = " of those that pass" if selection.passed_over else ""
    return f"the best by {row['objective']} on the reference split{passing}, of {of} in {row['sweep']}"
