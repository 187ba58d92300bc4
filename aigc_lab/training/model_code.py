"""The files of code that the description of a model names: they lie beside its weights, and travel with them.

`source` is the system's own file, `config_sources` are those that keys of its configuration name (`penalty`); each is
`{"file": …, "sha256": …}`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Code(NamedTuple):
    """A file of code by its name beside the weights, and the sha256 of what it held when they were stored."""

    file: str
    sha256: str


def code_of(description: Mapping[str, Any]) -> list[Code]:
    """The files of code of a model, the system's first; none for one that is made of what ships. Raises `TypeError` or
    `KeyError` for a description that nothing here has written.

    >>> code_of({"system": "mine", "source": {"file": "mine.py", "sha256": "ab"}})
    [Code(file='mine.py', sha256='ab')]
    """
    system = description.get("source")
    found = [] if system is None else [system]
    found += dict(description.get("config_sources") or {}).values()
    return [Code(each["file"], each["sha256"]) for each in found]
