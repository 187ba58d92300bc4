"""What a promotion refuses before it writes anything: impossible names, another MLflow, records still on their way."""

import re
from typing import TYPE_CHECKING, Any

from aigc_lab.errors import UsageError
from aigc_lab.host.settings import Settings, masked
from aigc_lab.registry.columns import FinalCheckpoint
from aigc_lab.registry.models import list_models
from aigc_lab.registry.store import Registry
from aigc_lab.tracking import backlog, spool_log, writer

if TYPE_CHECKING:
    from aigc_lab.tracking.model_registry import MlflowModels

_LONGEST = 200  # MLflow takes 255 characters


def recorded_address(settings: Settings) -> str:
    """MLflow's address as it is recorded: without a password, and the same after the home was moved."""
    return settings.mlflow_address.replace(str(settings.home), "HOME")


def check_move(
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


def refuse_other_store(registry: Registry, model: str, settings: Settings) -> None:
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


def refuse_undelivered(row: dict[str, Any], settings: Settings) -> None:
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


def refuse_deleted_model(registry: Registry, mlflow: "MlflowModels", model: str, settings: Settings) -> None:
    """Raises `UsageError` for a model that has versions here and was deleted in MLflow."""
    if not mlflow.knows(model) and list_models(registry, model):
        raise UsageError(
            f"model {model} was deleted in MLflow at {masked(settings.tracking_uri)}, where its versions would be"
            " numbered from 1 again; promote under another --name"
        )
