"""Reading the stores of a home that cannot be written: SQLite, as MLflow and Optuna open it, writes beside its file."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from aigc_lab.host.settings import Settings, sqlite_url
from aigc_lab.registry.engine import sqlite_file


@contextmanager
def readable(settings: Settings) -> Iterator[Settings]:
    """The settings, with copies of those SQLite stores of MLflow and Optuna whose folder cannot be written. What is
    recorded under MLflow's address stays under it: `mlflow_address`.
    """
    with tempfile.TemporaryDirectory(prefix="aigc-lab-") as folder:
        tracking = _copied(settings.tracking_uri, Path(folder))
        yield replace(
            settings,
            optuna_url=_copied(settings.optuna_url, Path(folder)),
            tracking_uri=tracking,
            copied_tracking_uri=settings.tracking_uri if tracking != settings.tracking_uri else None,
        )


def _copied(url: str, folder: Path) -> str:
    """The address of a copy; the address itself where none is needed."""
    file = sqlite_file(url)
    if file is None or not file.is_file() or os.access(file.parent, os.W_OK):
        return url
    for end in ("", "-wal"):  # the log holds what the database does not have yet
        if Path(f"{file}{end}").is_file():
            shutil.copyfile(f"{file}{end}", folder / f"{file.name}{end}")
    return sqlite_url(folder / file.name)
