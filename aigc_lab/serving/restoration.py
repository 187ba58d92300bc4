"""Restoration of promoted models: finds versions that MLflow has lost, and creates them again from their own files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import update

from aigc_lab.errors import UsageError
from aigc_lab.host import trust
from aigc_lab.host.settings import Settings
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Promotion
from aigc_lab.serving import lookup
from aigc_lab.serving.about import about
from aigc_lab.serving.package import mlflow_package
from aigc_lab.serving.promotion import rollback_on_error
from aigc_lab.serving.refusals import recorded_address


def is_whole(row: dict[str, Any]) -> bool:
    """Whether a version, as `list_models` returns it, has its own complete files."""
    return lookup.is_whole_copy(Path(row["path"]), row["sha256"], row["digest"])


def missing_versions(rows: list[dict[str, Any]], settings: Settings) -> Iterator[tuple[dict[str, Any], str]]:
    """Versions, oldest first, that this MLflow lacks in whole or in part, each with the missing part. A version that
    was deleted there while newer ones stayed is not missed. Raises `Failure`.
    """
    from aigc_lab.tracking.model_registry import MlflowModels

    mlflow, address = MlflowModels(settings.tracking_uri), recorded_address(settings)
    for row in sorted(rows, key=lambda row: (row["model"], row["version"])):
        if row["mlflow_uri"] != address:
            continue
        versions, aliases = mlflow.versions_and_aliases(row["model"])
        if versions.get(row["version"]) == row["digest"]:
            aliases_elsewhere = [alias for alias in row["aliases"] if aliases.get(alias) != row["version"]]
            if aliases_elsewhere:
                yield row, f"its alias {aliases_elsewhere[0]}"
        elif row["version"] > max(versions, default=0):
            yield row, "it"


def describe(rows: list[dict[str, Any]], settings: Settings, *, dry_run: bool) -> Iterator[dict[str, Any]]:
    """Versions of which MLflow says something else than is known here, and of an earlier version of this package
    nothing; each is described anew, unless with `dry_run`. A number that stands for another model there is left alone,
    and so is a description that someone else wrote. Raises `Failure`.
    """
    from aigc_lab.tracking.model_registry import MlflowModels

    mlflow, address = MlflowModels(settings.tracking_uri), recorded_address(settings)
    here = [row for row in rows if row["mlflow_uri"] == address]
    for model in sorted({row["model"] for row in here}):
        by_number = {row["version"]: row for row in here if row["model"] == model}
        wanted = {(number, row["digest"]): about(row) for number, row in by_number.items()}
        for number in mlflow.undescribed(model, wanted):
            row = by_number[number]
            if not dry_run:
                with rollback_on_error() as undo:
                    mlflow.describe(model, number, row["digest"], wanted[number, row["digest"]], undo)
            yield row


def restore(registry: Registry, row: dict[str, Any], settings: Settings) -> None:
    """Creates a version again that MLflow has lost, under its number, from its own files, and points its aliases at it.

    Raises `UsageError` for files that are not complete and for code that is not trusted, and `Failure` where MLflow
    cannot give the number again.
    """
    from aigc_lab.serving.model import Model
    from aigc_lab.tracking.model_registry import MlflowModels

    if not is_whole(row):
        raise UsageError(f"{row['model']} {row['version']}: its files are not whole: {row['path']}")
    loaded = Model.of_file(Path(row["path"]), allowed=trust.gate(settings.home))
    mlflow = MlflowModels(settings.tracking_uri)
    run = show_run(registry, row["run"])
    with rollback_on_error() as undo:
        version = mlflow.publish(
            row["model"],
            row["digest"],
            mlflow_package(Path(row["path"]).parent, loaded.sample(1), loaded.system),
            experiment=mlflow.experiment(row["sweep"]),
            run=run["mlflow_run_id"],
            about=about(row),
            undo=undo,
            number=row["version"],
        )
        for alias in row["aliases"]:
            mlflow.point(row["model"], alias, row["version"], undo)
        with registry.write() as connection:
            this = (Promotion.c.model == row["model"], Promotion.c.version == row["version"])
            connection.execute(update(Promotion).where(*this).values(mlflow_model_id=version.model_id))
