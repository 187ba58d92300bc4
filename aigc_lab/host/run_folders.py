"""Where a run and its attempts keep their files, and what of that is removed when it has ended."""

import shutil
from pathlib import Path

from aigc_lab.host import files
from aigc_lab.host.settings import Settings

# Written by `training.checkpoint.Checkpointer`; what begins with a dot was being written when its process died.
STATES = ("state-*.json", "state-*.safetensors", ".state-*")


def folder(settings: Settings, sweep: str, trial: int, seed: int) -> Path:
    """Of a run: it holds a folder for each attempt, named by its number."""
    return settings.checkpoints / sweep / f"{trial}.{seed}"


def artifacts(settings: Settings, sweep: str, trial: int, seed: int) -> Path:
    """Of a run: its pictures and curves, which all attempts share."""
    return settings.artifacts / sweep / f"{trial}.{seed}"


def collect(settings: Settings, sweep: str, trial: int, seed: int, *, keep: int, states: bool = True) -> None:
    """Removes what the attempts of a run left behind, once it has ended: all `states`, the folders of all attempts but
    `keep`, whose weights are the run's, and pictures that were being written when their process died.
    """
    checkpoints = folder(settings, sweep, trial, seed)
    for attempt in checkpoints.iterdir() if checkpoints.is_dir() else ():
        if attempt.name != str(keep) and attempt.is_dir():
            shutil.rmtree(attempt, ignore_errors=True)
    for pattern in STATES if states else ():
        for path in (checkpoints / str(keep)).glob(pattern):
            path.unlink(missing_ok=True)
    files.clear_unfinished(artifacts(settings, sweep, trial, seed))
