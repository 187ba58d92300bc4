"""Deletion of a sweep or a run in MLflow. MLflow can undo its deletions until `mlflow gc`."""

import re
from urllib.parse import urlsplit

from aigc_lab.tracking.address import check_address, sqlite_file
from aigc_lab.tracking.base import KEY
from aigc_lab.tracking.mlflow_store import open_client, store_errors


def remove_experiment(tracking_uri: str, name: str) -> None:
    """Deletes the experiment of this name and its runs. May be repeated after a kill at any point. Raises `UsageError`
    and `Failure`.

    The experiment is renamed first: MLflow keeps the name of a deleted one reserved, and the same sweep could never run
    again.
    """
    if not _exists(tracking_uri):
        return
    client = open_client(tracking_uri)
    from mlflow.entities import ViewType

    with store_errors(tracking_uri, f"experiment {name}"):
        for experiment in client.search_experiments(view_type=ViewType.ALL, filter_string=f"name LIKE '{name}%'"):
            identity, aside = experiment.experiment_id, f"{name} (deleted {experiment.experiment_id})"
            if experiment.name == name:
                if experiment.lifecycle_stage == "deleted":
                    client.restore_experiment(identity)
                client.rename_experiment(identity, aside)
            if experiment.name == name or (experiment.name == aside and experiment.lifecycle_stage == "active"):
                client.delete_experiment(identity)


def remove_run(tracking_uri: str, experiment: str, run: str) -> list[str]:
    """Deletes all attempts of a registry's run from the experiment of this name. Returns MLflow's ids of all its
    deleted runs. Raises `UsageError` and `Failure`.
    """
    if not _exists(tracking_uri):
        return []
    client = open_client(tracking_uri)
    from mlflow.entities import ViewType

    removed = []
    with store_errors(tracking_uri, f"run {run}"):
        entity = client.get_experiment_by_name(experiment)
        if entity is None or entity.lifecycle_stage == "deleted":
            return []
        # `_` stands for any letter in a LIKE, so the names are looked at again.
        pattern, like = re.compile(re.escape(run) + r"\.\d+"), f"tags.`{KEY}` LIKE '{run}.%'"
        for mlflow_run in client.search_runs([entity.experiment_id], like, run_view_type=ViewType.ALL):
            if pattern.fullmatch(mlflow_run.data.tags[KEY]):
                if mlflow_run.info.lifecycle_stage == "active":
                    client.delete_run(mlflow_run.info.run_id)
                removed.append(str(mlflow_run.info.run_id))
    return removed


def _exists(tracking_uri: str) -> bool:
    """Whether there is a store to delete from. Raises `UsageError` for an address that does not answer."""
    check_address(tracking_uri)
    return urlsplit(tracking_uri).scheme.partition("+")[0] != "sqlite" or sqlite_file(tracking_uri).exists()
