"""What the shell offers when Tab is pressed. Reads and never raises: a message would land in the line being typed.

A name that would have to be escaped to be shown is left out: nobody could type it.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from aigc_lab import plugins
from aigc_lab.host import content, visible
from aigc_lab.host.settings import Settings, sqlite_path
from aigc_lab.serving import classes


def experiments(typed: str) -> list[str]:
    """Names of experiments, and YAML files where a path has been begun."""
    with suppress(OSError):
        return _offered(content.names("experiments"), typed) or _files(typed, ".yaml")
    return []


def executors(typed: str) -> list[str]:
    """Names of executors, and Python files where a path has been begun."""
    with suppress(OSError):
        return _offered(plugins.names("executors"), typed) or _files(typed, ".py")
    return []


def benchmarks(typed: str) -> list[str]:
    """Names of what `bench` measures."""
    return _offered(plugins.names("benchmarks"), typed)


def sweeps(typed: str) -> list[str]:
    """Ids and names of the sweeps of the home that the environment names."""
    rows = _read("SELECT id, name FROM sweep ORDER BY created_at DESC")
    names = [identity for identity, _ in rows] + sorted({name for _, name in rows})
    return _offered(names, typed)


def runs(typed: str) -> list[str]:
    """Ids of runs."""
    rows = _read("SELECT id FROM run ORDER BY created_at DESC, id")
    return _offered([identity for (identity,) in rows], typed)


def results(typed: str) -> list[str]:
    """Promoted models, then sweeps, then runs."""
    models = sorted({model for (model,) in _read("SELECT DISTINCT model FROM promotion")})
    return _offered(models, typed) + sweeps(typed) + runs(typed)


def labels(model: str, typed: str) -> list[str]:
    """Classes that a model, a run or a sweep draws on demand, behind those of a list that has been begun."""
    before, comma, begun = typed.rpartition(",")
    names = next((each for path in _weights(model) if (each := classes.stored(path))), ())
    return [f"{before}{comma}{name}" for name in _offered([name for name in names if "," not in name], begun)]


def _weights(model: str) -> list[Path]:
    if model.endswith(".safetensors"):
        return [Path(model).expanduser()]
    name = model.removeprefix("models:/").partition("@")[0].partition("/")[0]
    promoted = "SELECT path FROM promotion WHERE model = ? ORDER BY version DESC"
    trained = "SELECT path FROM checkpoint WHERE run_id = ? OR substr(run_id, 1, length(?) + 1) = ? || '.'"
    home = Settings.load().home
    return [home / path for (path,) in [*_read(promoted, name), *_read(trained, name, name, name)]]


def _files(typed: str, suffix: str) -> list[str]:
    """Folders, and files with a suffix, whose path begins with what was typed. Raises `OSError`."""
    folder, _, start = typed.rpartition("/")
    places = sorted(Path(folder or ("/" if typed.startswith("/") else ".")).iterdir())
    begun = [path for path in places if path.name.startswith(start) and not path.name.startswith(".")]
    paths = [path for path in begun if path.is_dir() or path.suffix == suffix]
    return _offered([f"{path}/" if path.is_dir() else str(path) for path in paths], "")


def _offered(names: Iterable[str], typed: str) -> list[str]:
    return [name for name in names if name.startswith(typed) and visible.line(name) == name]


def _read(query: str, *values: str) -> list[tuple[str, ...]]:
    # A key press does not wait for SQLAlchemy (0.4 s), nor for a server on another machine.
    file = sqlite_path(Settings.load().registry_url)
    if file is None:
        return []
    with suppress(sqlite3.Error, OSError, ValueError):
        address = f"{file.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=0.5)) as database:
            return database.execute(query, values).fetchall()
    return []
