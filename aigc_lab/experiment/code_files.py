"""Copies of the files of code that an experiment names: kept with its sweep, they travel with it when it is exported.

They lie in `<home>/checkpoints/<sweep>/code/` as the experiment's folder has them: `./own/mine.py` is `own/mine.py`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from aigc_lab.host.files import write_atomically
from aigc_lab.host.settings import Settings

#: the folder's name, in the place where those of runs stand
FOLDER = "code"


def folder(settings: Settings, sweep: str) -> Path:
    """Where the copies of a sweep lie, if it names any file."""
    return settings.checkpoints / sweep / FOLDER


def leads_out(name: str) -> bool:
    """Whether a path means a file outside of the folder from which it is looked for."""
    path = PurePosixPath(name)
    return path.is_absolute() or name.startswith("~") or ".." in path.parts


def copy_of(name: str) -> Path:
    """The place of a file's copy in the folder; one from outside of the experiment's folder lies under its bare name.

    >>> copy_of("./own/mine.py").as_posix(), copy_of("/any/mine.py").as_posix()
    ('own/mine.py', 'mine.py')
    """
    path = PurePosixPath(name)
    return Path(path.name if leads_out(name) else path)


def keep(named: Mapping[str, Path], copies: Path) -> None:
    """Writes the files (name in the experiment -> path) into the folder, where they are not there already."""
    for name, path in named.items():
        target, source = copies / copy_of(name), path.read_bytes()
        if not target.is_file() or target.read_bytes() != source:
            write_atomically(target, source)


def needed(names: Iterable[str], near: Path, copies: Path) -> bool:
    """Whether the copies stand in for the experiment's folder: a file is where they are, and not where it was."""
    return any(
        not leads_out(name) and (copies / copy_of(name)).is_file() and not (near / name).is_file() for name in names
    )
