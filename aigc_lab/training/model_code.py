"""Files of code that the description of a model names: they lie beside its weights, and travel with them.

`source` is the system's own file, `config_sources` are those that keys of its configuration name (`penalty`); each is
`{"file": …, "sha256": …}`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Code(NamedTuple):
    """File of code by its name beside the weights, and the sha256 of its content when the weights were stored."""

    file: str
    sha256: str


def code_of(description: Mapping[str, Any]) -> list[Code]:
    """Files of code of a model, the system's first; none for a shipped system. Raises `TypeError` or `KeyError` for a
    description of another form.

    >>> code_of({"system": "mine", "source": {"file": "mine.py", "sha256": "ab"}})
    [Code(file='mine.py', sha256='ab')]
    """
    system = description.get("source")
    sources = [] if system is None else [system]
    sources += dict(description.get("config_sources") or {}).values()
    return [Code(each["file"], each["sha256"]) for each in sources]
