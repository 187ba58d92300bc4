"""`samples.json`, the note that `aigc-lab sample` writes beside the samples of a folder: where they come from, and
which of the files are samples and which show or hold all of them.
"""

import json
from pathlib import Path
from typing import Any

NAME = "samples.json"


def read_note(file: Path) -> dict[str, Any]:
    """The note; empty where there is none, or none that can be read."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def overviews(folder: Path) -> frozenset[str]:
    """The names of the files in `folder` that `sample` wrote beside samples and that are none: `grid.png`. Empty for a
    folder that it did not write; a `samples.json` of somebody else names nothing.
    """
    written = read_note(folder / NAME)
    named = written.get("files")
    if not isinstance(written.get("note"), dict) or not isinstance(named, list):
        return frozenset()
    return frozenset(name for name in named if isinstance(name, str))
