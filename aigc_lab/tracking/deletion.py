"""Taking a sweep, or a run, out of MLflow: MLflow's own deletion, which it can undo until its `mlflow gc`."""

import re
from urllib.parse import urlsplit

from aigc_lab.tracking.address import check_address, sqlite_file
from aigc_lab.tracking.base import KEY
from aigc_lab.tracking.mlflow import _failing, _open


def remove_experiment(tracking_uri: str, name: str) -> None:
    """Deletes the experiment of this name and its runs. It is renamed first: MLflow keeps the name of a deleted one
    taken, and the same sweep could never be run again. May be repeated after a kill at any point.
    """
    if not _exists(tracking_uri):
        return
    client = _open(tracking_uri)
    from mlflow.entities import ViewType

    with _failing(tracking_uri, f"experiment {name}"):
        for experiment in client.search_experiments(view_type=ViewType.ALL, filter_string=f"name LIKE '{name}%'"):
            identity, aside = experiment.experiment_id, f"{name} (deleted {experiment.experiment_id})"
            if experiment.name == name:
                if experiment.lifecycle_stage == "deleted":
                    client.restore_experiment(identity)
                client.rename_experiment(identity, aside)
            if experiment.name == name or (experiment.name == aside and experiment.lifecycle_stage == "active"):
                client.delete_experiment(identity)


def remove_run(tracking_uri: str, experiment: str, run: str) -> list[str]:
    """Deletes every attempt of a run of the registry from the experiment of this name, and returns MLflow's ids of all
    that are deleted now.
    """
    if not _exists(tracking_uri):
        return []
    client = _open(tracking_uri)
    from mlflow.entities import ViewType

    removed = []
    with _failing(tracking_uri, f"run {run}"):
        found = client.get_experiment_by_name(experiment)
        if found is None or found.lifecycle_stage == "deleted":
            return []
        # `_` stands for any letter in a LIKE, so the names are looked at again.
        pattern, like = re.compile(re.escape(run) + r"\.\d+"), f"tags.`{KEY}` LIKE '{run}.%'"
        for shown in client.search_runs([found.experiment_id], like, run_view_type=ViewType.ALL):
            if pattern.fullmatch(shown.data.tags[KEY]):
                if shown.info.lifecycle_stage == "active":
                    client.delete_run(shown.info.run_id)
                removed.append(str(shown.info.run_id))
    return removed


def _exists(tracking_uri: str) -> bool:
    """Whether there is a store to take something out of. Raises `UsageError` for an address that does not answer."""
    check_address(tracking_uri)
    return urlsplit(tracking_uri).scheme.partition("+")[0] != "sqlite" or sqlite_file(tracking_uri).exists()
