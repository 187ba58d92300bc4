"""YAML 1.2 with line numbers: the plain data of a file, and where each of its keys stands.

PyYAML speaks YAML 1.1, in which `1e-4` is a string and `no` is false; here the scalars of the 1.2 core schema hold.
"""

import json
import os
import re
import stat
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


# What a person writes is far below these; what is above them was made to fill memory, or by mistake.
_BYTES = 1_000_000
_NODES = 10_000
_DEPTH = 100
_DIGITS = 100

# The tags of what the core schema has; they may stand before a value, and change nothing.
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
# What PyYAML, which resolves by YAML 1.1, takes plain words for.
_PLAIN = _TAGS | {f"tag:yaml.org,2002:{name}" for name in ("timestamp", "merge", "value", "yaml")}


@dataclass
class Document:
    """The data of a file; `lines` gives the line of every path in it, `overridden` the paths set from outside."""

    file: str
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overridden: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """`file:line` of the path or the nearest enclosing one; the option itself for a value set from outside."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.overridden:
                return self.overridden[path[:end]]
            if path[:end] in self.lines:
                return f"{self.file}:{self.lines[path[:end]]}"
        return self.file

    def fail(self, path: KeyPath, message: str) -> NoReturn:
        """Raises `UsageError` with the place, the key and the message."""
        key = dotted(path)
        raise UsageError(f"{self.where(path)}: {f'{key}: ' if key else ''}{message}")


def dotted(path: KeyPath) -> str:
    """The path as messages write it: `system.choice[0].lr`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def shown(value: Any) -> str:
    """A value as messages quote it: JSON on one line, shortened."""
    try:
        text = json.dumps(value, default=str)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 120 else f"{text[:100]}… ({len(text):,} characters)"


def unknown_key(key: str, keys: list[str]) -> str:
    """The message for a key that is not among `keys`."""
    near = get_close_matches(key, keys, n=2, cutoff=0.5)
    return f"unknown key; did you mean {' or '.join(near)}?" if near else f"unknown key; known are {', '.join(keys)}"


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


class _Builder:
    """Builds plain data of YAML's nodes. An alias is built anew each time, and a few lines of aliases of aliases exceed
    memory: the values that are built are counted.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        document, line = self._document, node.start_mark.line + 1
        document.lines.setdefault(path, line)
        self._nodes += 1
        if self._nodes > _NODES:
            # Where the alias is that was one too many: the value itself may stand far above.
            document.fail(path[:1], f"more than {_NODES:,} values, counting what aliases (*) stand for")
        if len(path) > _DEPTH:
            raise UsageError(f"{document.file}:{line}: nested too deeply: more than {_DEPTH} levels")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._check_tag(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                document.fail(path, "a key must be a plain word")
            key = key_node.value
            if key == "<<" and key_node.style is None:
                document.fail(path, "merge keys (<<) are not read here; write the keys out")
            document.lines[(*path, key)] = key_node.start_mark.line + 1
            if key in data:
                document.fail((*path, key), "this key stands here twice; keep one")
            data[key] = self.build(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        self._check_tag(node, path)
        text = str(node.value)
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            self._document.fail(path, "half of a surrogate pair is no character")
        if node.style is not None:
            return text
        if len(text) > _DIGITS and any(kind.fullmatch(text) for kind in (_INT, _OCTAL_OR_HEX)):
            self._document.fail(path, f"a number of {len(text):,} digits; {_DIGITS} are read at most")
        return scalar(text)

    def _check_tag(self, node: yaml.Node, path: KeyPath) -> None:
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        if node.tag not in (_PLAIN if plain else _TAGS):
            self._document.fail(path, f"the tag {node.tag} is not read here; write the value without it")


def parse(text: str, file: str) -> Any:
    """The plain data of a piece of YAML. Raises `UsageError` with line and column for a syntax error."""
    return _document(text, file)[0]


def _document(text: str, file: str) -> tuple[Any, Document]:
    document = Document(file, {})
    if len(text) > _BYTES:
        raise UsageError(f"{file}: {len(text):,} characters of YAML; {_BYTES:,} are read at most")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return (None if node is None else _Builder(document).build(node, ())), document
    except UsageError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise UsageError(f"{place}: YAML syntax: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:  # PyYAML has ValueError for an escape that is no character
        raise UsageError(f"{file}: YAML syntax: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UsageError(f"{file}: nested too deeply; does an alias (*) stand inside its own anchor (&)?") from None


def _read_text(path: Path) -> str:
    """The text of a file. Raises `UsageError` for a pipe or a device, and for too large a file."""
    try:
        # Opened without waiting: a pipe that nobody writes to would never open.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{path}: cannot be read (it is no file)")
            content = file.read(_BYTES + 1)
        if len(content) > _BYTES:
            raise UsageError(f"{path}: more than {_BYTES:,} bytes, too many for a file of keys and values")
        return content.decode("utf-8-sig")
    except UsageError:
        raise
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: cannot be read ({error}); save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise UsageError(f"{path}: cannot be read ({error})") from None


def read_yaml(path: Path) -> Document:
    """The document of a file. Raises `UsageError` if it cannot be read, or its top level is no mapping."""
    data, document = _document(_read_text(path), str(path))
    if not isinstance(data, dict):
        raise UsageError(f"{path}: the file must hold keys and values, and it holds {type(data).__name__}")
    document.data = data
    return document
