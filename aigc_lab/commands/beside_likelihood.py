"""What MLflow shows of text GANs beside maximum likelihood, once their sweep has ended: a tag of each run."""

from collections.abc import Callable

from aigc_lab.display.beside_likelihood import TAG, run_contests
from aigc_lab.errors import Failure
from aigc_lab.host.settings import Settings
from aigc_lab.registry.store import Registry


def tag_runs(registry: Registry, settings: Settings, sweep: str, say: Callable[[str], None]) -> None:
    """Sets the tag of each run of a text GAN to its sentence, and says so where MLflow does not take it."""
    tags = {
        each.runs[0].mlflow_run_id: each.sentence
        for each in run_contests(registry, sweep)
        if each.runs[0].mlflow_run_id is not None
    }
    if not tags:
        return
    from aigc_lab.tracking.mlflow import MlflowTracker

    tracker = MlflowTracker(settings.tracking_uri, settings.artifacts)
    try:
        for run, sentence in tags.items():
            if run is not None:
                tracker.amend(run, {TAG: sentence})
        tracker.settle()
    except Failure as error:
        say(f"MLflow lacks what text GANs are beside maximum likelihood: {error}; 'aigc-lab compare {sweep}' says it")
