"""`samples.json`, the note that `aigc-lab sample` writes into a folder of samples: their origin, and which files are
samples and which are overviews of them.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NAME = "samples.json"
# Name -> sha256 of each file of samples, and, while a call replaces those of an earlier one, of the files of that one.
SHA256, REPLACES = "files_sha256", "replaces_sha256"
# Names of the classes that samples were drawn of, in turn.
CLASSES = "classes"
CONTENT = frozenset({SHA256, REPLACES, CLASSES})
# What a note has said of the samples in every version; JSON of other origin does not say all of it.
_FACTS = frozenset({"n", "seed", "aigc_lab"})
# One file with all samples: points, sentences.
_WHOLE = (".npy", ".txt")


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


def is_folder_of_sample(folder: Path) -> bool:
    """Whether `sample` wrote the note in this folder."""
    return is_of_sample(read_note(folder / NAME).get("note"))


def is_of_sample(note: object) -> bool:
    """Whether `sample` wrote this note on the origin of samples."""
    return isinstance(note, Mapping) and note.keys() >= _FACTS


def classes_of(written: Mapping[str, Any], numbers: Iterable[int]) -> list[str] | None:
    """The name of the class that each sample of these numbers is of, as a note says that was written with them; None
    where it says of none, or is no note of `sample`.
    """
    turn = written.get(CLASSES)
    # In a folder what was asked for is a part of the note, beside an archive's arrays it is all of it.
    if not is_of_sample(written.get("note", written)) or not isinstance(turn, list) or not turn:
        return None
    return [str(turn[number % len(turn)]) for number in numbers]


def note_of_array(file: Path) -> dict[str, Any]:
    """The note of the folder in which `sample` wrote this array; empty for any other file."""
    return read_note(file.parent / NAME) if whole_file(file.parent) == file else {}


def whole_file(folder: Path) -> Path | None:
    """The one file with all samples of a folder that `sample` wrote, such as `points.npy` or `samples.txt`; None for
    images, which are a file each, and for any other folder.
    """
    written = read_note(folder / NAME)
    named = written.get("files")
    if not is_of_sample(written.get("note")) or not isinstance(named, list):
        return None
    paths = [folder / name for name in named if isinstance(name, str) and Path(name).name == name]
    return next((path for path in paths if path.suffix in _WHOLE and path.is_file()), None)
