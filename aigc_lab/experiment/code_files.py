"""Files of code that an experiment names, and the copies of them that travel with an exported sweep.

The copies lie in `<home>/checkpoints/<sweep>/code/` by the paths that they have beside the experiment.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from aigc_lab import plugins
from aigc_lab.host.files import write_atomically
from aigc_lab.host.settings import Settings

#: the folder's name, in the place where those of runs stand
FOLDER = "code"


def plugin_files(node: Any) -> set[str]:
    """The names of plugin files (.py) in an experiment: of plugins, and of their knobs that are plugins (`penalty`).
    The options of a choice count too.
    """
    if isinstance(node, dict):
        names = [node.get("name"), *(option for key in plugins.KEYS for option in _options(node.get(key)))]
        files = {name for name in names if isinstance(name, str) and plugins.is_file(name)}
        return files.union(*map(plugin_files, node.values()))
    return set().union(*map(plugin_files, node)) if isinstance(node, list) else set()


def _options(value: Any) -> list[Any]:
    """The options of a choice; a value that is no choice is the only option."""
    options = value.get("choice") if isinstance(value, dict) else None
    return options if isinstance(options, list) else [value]


def feature_files(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs of a key and a file of features (.py or .pt2), from a metric's configuration."""
    return [(key, name) for key, name in config.items() if isinstance(name, str) and name.endswith((".py", ".pt2"))]


# ---- copies


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
    place({name: path.read_bytes() for name, path in named.items()}, copies)


def place(sources: Mapping[str, bytes], copies: Path) -> None:
    """Writes the sources (name in the experiment -> content) into the folder, where they are not there already."""
    for name, source in sources.items():
        target = copies / copy_of(name)
        if not target.is_file() or target.read_bytes() != source:
            write_atomically(target, source)


def needed(names: Iterable[str], near: Path, copies: Path) -> bool:
    """Whether the copies stand in for the experiment's folder: a file is where they are, and not where it was."""
    return any(
        not leads_out(name) and (copies / copy_of(name)).is_file() and not (near / name).is_file() for name in names
    )
