"""YAML 1.2 with line numbers: the plain data of a file, and where each of its keys stands.

PyYAML speaks YAML 1.1, in which `1e-4` is a string and `no` is false; here the scalars of the 1.2 core schema hold.
"""

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml

from aigc_lab.errors import UsageError

KeyPath = tuple[str | int, ...]

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}


@dataclass
class Document:
    """The data of a file; `lines` gives the line of every path in it, `overridden` the paths set from outside."""

    file: str
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overridden: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """`file:line`, of the path or of the nearest enclosing one; the option itself for what was set from outside."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.overridden:
                return self.overridden[path[:end]]
            if path[:end] in self.lines:
                return f"{self.file}:{self.lines[path[:end]]}"
        return self.file

    def fail(self, path: KeyPath, message: str) -> NoReturn:
        """Raises `UsageError` that names the place, the key and what to do."""
        key = dotted(path)
        raise UsageError(f"{self.where(path)}: {f'{key}: ' if key else ''}{message}")


def dotted(path: KeyPath) -> str:
    """`system.choice[0].lr`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def unknown_key(key: str, known: list[str]) -> str:
    """What to say of a key that is not known here."""
    near = get_close_matches(key, known, n=2, cutoff=0.5)
    return f"unknown key; did you mean {' or '.join(near)}?" if near else f"unknown key; known are {', '.join(known)}"


def scalar(text: str) -> Any:
    """The value of a plain (unquoted) scalar."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL_OR_HEX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return _SPECIAL.get(text.lower(), text)


def _build(node: yaml.Node, path: KeyPath, document: Document) -> Any:
    document.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return scalar(node.value) if node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, index), document) for index, item in enumerate(node.value)]
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            document.fail(path, "a key must be a plain word")
        key = key_node.value
        document.lines[(*path, key)] = key_node.start_mark.line + 1
        if key in data:
            document.fail((*path, key), "this key stands here twice; keep one")
        data[key] = _build(value_node, (*path, key), document)
    return data


def parse(text: str, file: str) -> Any:
    """The plain data of a piece of YAML. Raises `UsageError` with line and column for a syntax error."""
    return _document(text, file)[0]


def _document(text: str, file: str) -> tuple[Any, Document]:
    document = Document(file, {})
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return (None if node is None else _build(node, (), document)), document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise UsageError(f"{place}: YAML syntax: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{file}: YAML syntax: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UsageError(f"{file}: nested too deeply; does an alias (*) stand inside its own anchor (&)?") from None


def read(path: Path) -> Document:
    """The document of a file whose top level is a mapping. Raises `UsageError` when it cannot be read or is not."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None
    data, document = _document(text, str(path))
    if not isinstance(data, dict):
        raise UsageError(f"{path}: the file must hold keys and values, and it holds {type(data).__name__}")
    document.data = data
    return document
