"""Plugins are files: the file's name is the registry, and there are no lists to update.

`find(System, "dcgan")` imports `aigc_lab/systems/dcgan.py` and returns the one subclass of `System` that it defines.
Names and descriptions are read without importing anything, so that listing them needs no torch.
"""

import ast
import importlib
from pathlib import Path
from typing import TypeVar

from aigc_lab.content import unknown
from aigc_lab.errors import UsageError

T = TypeVar("T")

# What a user calls the plugins of a folder.
_NOUN = {
    "systems": "system",
    "data": "dataset",
    "metrics": "metric",
    "extractors": "feature extractor",
    "executors": "executor",
}


def names(folder: str) -> list[str]:
    """The plugins of one folder of the package (`systems`, `data`, `metrics`), sorted."""
    files = (Path(__file__).parent / folder).glob("*.py")
    return sorted(path.stem for path in files if path.stem not in ("__init__", "base"))


def describe(folder: str) -> dict[str, str]:
    """Name -> first line of the file's docstring, without importing the files."""
    place = Path(__file__).parent / folder
    texts = {name: ast.get_docstring(ast.parse((place / f"{name}.py").read_text("utf-8"))) for name in names(folder)}
    return {name: (text or "").partition("\n")[0] for name, text in texts.items()}


def find(base: type[T], name: str) -> type[T]:
    """The class that the plugin file `name` defines for `base` (`System`, `Dataset`, `Metric`).

    Raises `UsageError` with the nearest names when there is no such file.
    """
    package = base.__module__.rpartition(".")[0]
    folder = package.rpartition(".")[2]
    if name not in names(folder):
        raise UsageError(unknown(_NOUN.get(folder, folder), name, names(folder)))
    module = importlib.import_module(f"{package}.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} must define exactly one {base.__name__}, it defines {len(found)}"
    return found[0]
