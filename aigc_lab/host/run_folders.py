"""Folders of runs and of their attempts, and the removal of superfluous files after a run's end."""

import shutil
from pathlib import Path

from aigc_lab.host import files
from aigc_lab.host.settings import Settings

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
    run's, unfinished pictures, and with `states` the training states.
    """
    checkpoints = folder(settings, sweep, trial, seed)
    for attempt in checkpoints.iterdir() if checkpoints.is_dir() else ():
        if attempt.name != str(keep) and attempt.is_dir():
            shutil.rmtree(attempt, ignore_errors=True)
    for pattern in STATES if states else ():
        for path in (checkpoints / str(keep)).glob(pattern):
            path.unlink(missing_ok=True)
    files.clear_unfinished(artifacts(settings, sweep, trial, seed))
