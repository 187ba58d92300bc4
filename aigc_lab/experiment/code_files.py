"""The files of code that an experiment names: plugins, knobs that are plugins, and features."""

from typing import Any

from aigc_lab import plugins


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
