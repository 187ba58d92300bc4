"""`samples.json`, the note that `aigc-lab sample` writes into a folder of samples: their origin, and which files are
samples and which are overviews of them.
"""

import json
from pathlib import Path
from typing import Any

NAME = "samples.json"


def read_note(file: Path) -> dict[str, Any]:
    """Content of the note; empty if there is none that can be read."""
    try:
        note = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def overviews(folder: Path) -> frozenset[str]:
    """Names of the files in `folder` that `sample` wrote beside the samples, such as `grid.png`. Empty for a folder
    that it did not write; a `samples.json` of other origin names nothing.
    """
    written = read_note(folder / NAME)
    named = written.get("files")
    if not isinstance(written.get("note"), dict) or not isinstance(named, list):
        return frozenset()
    return frozenset(name for name in named if isinstance(name, str))
