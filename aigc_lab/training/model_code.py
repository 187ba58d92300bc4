"""Files of code that the description of a model names: they lie beside its weights, and travel with them.

`source` is the system's own file, `config_sources` are those that keys of its configuration name (`penalty`); each is
`{"file": …, "sha256": …}`.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from aigc_lab.host import shared_files
from aigc_lab.host.files import sha256


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


def fetch(weights: Path, digest: str | None = None) -> None:
    """Fetches a model that is not here, weights, description and code, from the store that its home shares with others;
    without one, nothing happens. Raises `Damaged` for weights that are not those with the sha256 `digest`.
    """
    if shared_files.of_path(weights) is None:
        return
    description = weights.with_suffix(".json")
    if description.is_file() and weights.is_file() and (digest is None or sha256(weights) == digest):
        return
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):  # whoever loads it says what is wrong
        code = code_of(json.loads(shared_files.at_hand(description).read_text("utf-8")))
        shared_files.fetch_all(weights.with_name(each.file) for each in code)
    shared_files.at_hand(weights, digest)  # the last: a model that is here is whole
