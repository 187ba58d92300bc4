"""Folders of runs and of their attempts, and the removal of superfluous files after a run's end."""

import logging
import shutil
from fnmatch import fnmatchcase
from pathlib import Path

from aigc_lab.errors import Failure
from aigc_lab.host import files, outage, shared_files
from aigc_lab.host.settings import Settings

_LOG = logging.getLogger(__name__)

# Written by `training.checkpoint.Checkpointer`; what begins with a dot was being written when its process died.
STATES = ("state-*.json", "state-*.safetensors", ".state-*")


def folder(settings: Settings, sweep: str, trial: int, seed: int) -> Path:
    """Folder of a run's checkpoints, with a subfolder for each attempt, named by its number."""
    return settings.checkpoints / sweep / f"{trial}.{seed}"


def artifacts(settings: Settings, sweep: str, trial: int, seed: int) -> Path:
    """Folder of a run's pictures and curves, which all its attempts share."""
    return settings.artifacts / sweep / f"{trial}.{seed}"


def collect(settings: Settings, sweep: str, trial: int, seed: int, *, keep: int, states: bool = True) -> None:
    """Removes superfluous files of a run that has ended: the folders of all attempts but `keep`, whose weights are the
    run's, unfinished pictures, and with `states` the training states; from the store too, if the home has one.
    """
    checkpoints = folder(settings, sweep, trial, seed)
    for attempt in checkpoints.iterdir() if checkpoints.is_dir() else ():
        if attempt.name != str(keep) and attempt.is_dir():
            shutil.rmtree(attempt, ignore_errors=True)
    for pattern in STATES if states else ():
        for path in (checkpoints / str(keep)).glob(pattern):
            path.unlink(missing_ok=True)
    files.clear_unfinished(artifacts(settings, sweep, trial, seed))
    _collect_shared(settings, checkpoints, str(keep), states=states)


def fetch_results(settings: Settings, sweep: str) -> None:
    """Fetches all files of a sweep that its homes have published and that are not here, but training states. One that
    is damaged stays away, and is missed by who reads it.
    """
    shared = shared_files.of(settings)
    if shared is None:
        return
    places = [*shared.paths(settings.checkpoints / sweep), *shared.paths(settings.artifacts / sweep)]
    shared_files.fetch_all(path for path in places if not any(fnmatchcase(path.name, each) for each in STATES))


def _collect_shared(settings: Settings, checkpoints: Path, keep: str, *, states: bool) -> None:
    def superfluous(parts: tuple[str, ...]) -> bool:
        return parts[0] != keep or (states and any(fnmatchcase(parts[-1], f"{each}*") for each in STATES))

    shared = shared_files.of(settings)
    if shared is None:
        return
    try:
        with outage.tries_once():
            shared.remove(checkpoints, superfluous)
    except Failure as error:  # the run has ended, and what it came to is published
        _LOG.warning("superfluous states of %s stay in the store: %s", checkpoints.name, error)
