"""The files of code that an experiment names: plugins, knobs that are plugins, and features."""

from typing import TYPE_CHECKING, Any

from aigc_lab import plugins

if TYPE_CHECKING:
    pass


def plugin_files(node: Any) -> set[str]:
    """The plugin files that an experiment names: the only names that end in .py, of plugins and of their knobs that
    are plugins (`penalty`), those among which a search chooses included.
    """
    if isinstance(node, dict):
        named = [node.get("name"), *(each for key in plugins.KEYS for each in _choices(node.get(key)))]
        own = {name for name in named if isinstance(name, str) and plugins.is_file(name)}
        return own.union(*map(plugin_files, node.values()))
    return set().union(*map(plugin_files, node)) if isinstance(node, list) else set()


def _choices(value: Any) -> list[Any]:
    """What a key's value may be: itself, or the options of a choice."""
    options = value.get("choice") if isinstance(value, dict) else None
    return options if isinstance(options, list) else [value]


def feature_files(config: dict[str, Any]) -> list[tuple[str, str]]:
    """The keys of a metric's configuration that name files of features, with the names."""
    return [(key, name) for key, name in config.items() if isinstance(name, str) and name.endswith((".py", ".pt2"))]
