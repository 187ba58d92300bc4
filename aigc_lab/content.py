"""The content folders: `experiments/`, `evaluation/` and `dashboards/`.

In a checkout they stand beside the package and are read from there, so that an edit counts at once; an installed
wheel carries them as `aigc_lab/content/`.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from aigc_lab.errors import UsageError

Folder = Literal["experiments", "evaluation", "dashboards"]

_NOUN = {"experiments": "experiment", "evaluation": "protocol", "dashboards": "page"}


def folder(name: Folder) -> Path:
    """The folder to read: of the checkout when the package lies in one, else of the wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / name
    return (
        checkout if (package.parent / "pyproject.toml").is_file() and checkout.is_dir() else package / "content" / name
    )


def names(name: Folder) -> list[str]:
    """The YAML files of a content folder, without their suffix, sorted."""
    return sorted(path.stem for path in folder(name).glob("*.yaml"))


def find(name: Folder, wanted: str) -> Path:
    """The file that `wanted` means: a path to a YAML file, or the name of one in the content folder.

    Raises `UsageError` with the nearest names when there is no such file.
    """
    if wanted.endswith((".yaml", ".yml")) or "/" in wanted:
        path = Path(wanted)
        if path.is_file():
            return path
        raise UsageError(f"{wanted}: no such file")
    path = folder(name) / f"{wanted}.yaml"
    if path.is_file():
        return path
    raise UsageError(unknown(_NOUN[name], wanted, names(name)))


def unknown(noun: str, wanted: str, known: list[str]) -> str:
    """The sentence for a name that does not exist: the nearest ones, or all when none is near."""
    near = get_close_matches(wanted, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(sorted(known)) or 'none'}"
    return f"unknown {noun} '{wanted}'; {hint}"
