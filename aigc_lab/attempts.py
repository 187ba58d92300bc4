"""Where the attempts of a run keep their checkpoints, and what of that is removed when it has ended."""

import shutil
from pathlib import Path

from aigc_lab.settings import Settings

# Written by `checkpoint.Checkpointer`; what begins with a dot was being written when its process died.
STATES = ("state-*.json", "state-*.safetensors", ".state-*")


def folder(settings: Settings, sweep: str, trial: int, seed: int) -> Path:
    """Of a run: it holds a folder for each attempt, named by its number."""
    return settings.checkpoints / sweep / f"{trial}.{seed}"


def collect(folder: Path, keep: int) -> None:
    """Removes what the attempts of a run left behind, once it has ended: all states, and the folders of all attempts
    but `keep`, whose weights are the run's.
    """
    for attempt in folder.iterdir() if folder.is_dir() else ():
        if attempt.name != str(keep) and attempt.is_dir():
            shutil.rmtree(attempt, ignore_errors=True)
    for pattern in STATES:
        for path in (folder / str(keep)).glob(pattern):
            path.unlink(missing_ok=True)
