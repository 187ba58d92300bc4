"""Overrides of an experiment file from the command line: `--set key=value`."""

from typing import Any

from aigc_lab.errors import UsageError
from aigc_lab.experiment import space
from aigc_lab.experiment.yaml_file import Document, KeyPath, dotted, unknown_key

# Keys of a plugin whose values are mappings: their keys can be set where the file names none.
_MAPPINGS = ("optimizer_options",)


def override(document: Document, key: str, value: Any, option: str, *, sections: list[str]) -> None:
    """Sets a dotted key; `sections` are the top-level keys that a file may have, made where they are missing.

    A part that names an option of a choice (`system.dcgan.lr`; of `./mine.py` by `system.mine.lr`, of one of two
    variants of a system by its number, `system.0.lr`) goes into this option; a choice that is set to the name
    of one of its options (`system=dcgan`) is decided, and the option keeps its own holes.
    """
    parts = key.split(".")
    if not all(parts):
        raise UsageError(f"{option}: a key looks like training.steps")
    node, path = document.data, ()  # type: tuple[Any, KeyPath]
    for part in parts[:-1]:
        node, path = _step_into(node, path, part, option, sections)
    last = parts[-1]
    if space.is_hole(node) and "choice" in node:
        if last == "name" and value in space.labels(node["choice"]):
            _decide(document, path, value)
            return
        node, path = _only_option(node, path, last, option)
    if not isinstance(node, dict):
        raise UsageError(f"{option}: {dotted(path)} is a value and has no keys")
    hole = node.get(last)
    if space.is_hole(hole) and isinstance(hole.get("choice"), list):
        labels = space.labels(hole["choice"])
        if value in labels and isinstance(hole["choice"][labels.index(value)], dict):
            _decide(document, (*path, last), value)
            return
    if path == () and last in ("system", "data") and isinstance(value, str):
        value = {"name": value}
    node[last] = value
    # Nothing inside the new value stands in the file.
    path = (*path, last)
    for places in (document.lines, document.overridden):
        for old in [old for old in places if old[: len(path)] == path]:
            del places[old]
    document.overridden[path] = option


def _step_into(node: Any, path: KeyPath, part: str, option: str, sections: list[str]) -> tuple[Any, KeyPath]:
    if space.is_hole(node) and "choice" in node:
        handles = space.handles(node["choice"])
        if part in handles:
            index = handles.index(part)
            return node["choice"][index], (*path, "choice", index)
        node, path = _only_option(node, path, part, option)
    if not isinstance(node, dict):
        raise UsageError(f"{option}: {dotted(path)} is a value and has no keys")
    if isinstance(node.get(part), str) and part == "evaluation":
        node[part] = {"name": node[part]}
    if node.get(part) is None and path == () and part in sections:
        node[part] = {}
    if part in _MAPPINGS:
        node.setdefault(part, {})
    if part not in node:
        raise UsageError(f"{option}: {part}: {unknown_key(part, list(node))}")
    return node[part], (*path, part)


def _only_option(node: dict[str, Any], path: KeyPath, part: str, option: str) -> tuple[Any, KeyPath]:
    labels = [str(name) for name in space.labels(node["choice"])]
    if len(labels) > 1:
        keys = " or ".join(f"{dotted(path)}.{name}.{part}" for name in space.handles(node["choice"]))
        raise UsageError(f"{option}: {dotted(path)} is a choice of {', '.join(labels)}; write {keys}")
    return node["choice"][0], (*path, "choice", 0)


def _decide(document: Document, path: KeyPath, value: Any) -> None:
    """Replaces a choice by its chosen option, and keeps the line numbers."""
    parent: Any = document.data
    for part in path[:-1]:
        parent = parent[part]
    options = parent[path[-1]]["choice"]
    index = space.labels(options).index(value)
    parent[path[-1]] = options[index]
    inside = (*path, "choice", index)
    for old, line in list(document.lines.items()):
        if old[: len(inside)] == inside:
            document.lines[(*path, *old[len(inside) :])] = line
    for old, text in list(document.overridden.items()):
        if old[: len(inside)] == inside:
            document.overridden[(*path, *old[len(inside) :])] = text
