"""The content folders: `experiments/`, `evaluation/` and `dashboards/`.

In a checkout they stand beside the package and are read from there, so that an edit counts at once; an installed
wheel carries them as `aigc_lab/content/`.

A user's own stand in the working directory: `digits` means `./experiments/digits.yaml` where there is one, and ours
otherwise. `aigc-lab init DIR` copies ours into a folder to begin from. Taking one for the other costs nothing but
surprise: the content of a file, and not its name, says which sweep it is.
"""

from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Literal, get_args

from aigc_lab.errors import UsageError
from aigc_lab.host.files import is_file, write_atomically

Folder = Literal["experiments", "evaluation", "dashboards"]

_NOUN = {"experiments": "experiment", "evaluation": "protocol", "dashboards": "page"}
# What a user edits. Pictures in the content folders illustrate them.
_EDITABLE = (".yaml", ".yml", ".html", ".css", ".js", ".md", ".txt")


def folder(name: Folder) -> Path:
    """The package's folder: of the checkout when the package lies in one, else of the wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / name
    return (
        checkout if (package.parent / "pyproject.toml").is_file() and checkout.is_dir() else package / "content" / name
    )


def folders(name: Folder) -> list[Path]:
    """Where a file is looked for, in this order: the user's folder, if there is one here, and the package's."""
    own, ours = Path(name).absolute(), folder(name)
    return [own, ours] if own.is_dir() and own.resolve() != ours else [ours]


def names(name: Folder) -> list[str]:
    """The YAML files of a content folder, the user's included, without their suffix, sorted."""
    return sorted({path.stem for place in folders(name) for path in place.glob("*.yaml")})


def find_file(name: Folder, wanted: str) -> Path:
    """The file that `wanted` means: a path to a YAML file, or the name of one in the content folder.

    Raises `UsageError` with the nearest names when there is no such file.
    """
    if wanted.endswith((".yaml", ".yml")) or "/" in wanted:
        path = Path(wanted)
        if is_file(path):
            return path
        raise UsageError(f"{wanted}: no such file")
    for place in folders(name):
        path = place / f"{wanted}.yaml"
        if is_file(path):
            return path
    raise UsageError(unknown(_NOUN[name], wanted, names(name)))


def origin(name: Folder, wanted: str) -> str:
    """Whose file a name means, where that is not the package's: `yours: experiments/digits.yaml, instead of ours`."""
    path, ours = find_file(name, wanted), folder(name) / f"{wanted}.yaml"
    if path == ours:
        return ""
    shown = f"yours: {name}/{path.name}"
    if not ours.is_file():
        return shown
    return f"{shown}, same as ours" if path.read_bytes() == ours.read_bytes() else f"{shown}, instead of ours"


def unknown(noun: str, wanted: str, known: list[str]) -> str:
    """The sentence for a name that does not exist: the nearest ones, or all when none is near."""
    alike = {name: SequenceMatcher(None, name, wanted).ratio() for name in get_close_matches(wanted, known, 3, 0.5)}
    alike |= {name: 1.0 for name in known if name.lower() == wanted.lower()}
    # Beside one that is plainly meant, others that share some letters would be noise.
    near = [name for name, ratio in alike.items() if ratio > max(alike.values()) - 0.15]
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(sorted(known)) or 'none'}"
    return f"unknown {noun} '{wanted}'; {hint}"


@dataclass(frozen=True)
class Copied:
    """What `copy` did: paths relative to the target."""

    written: list[str]
    unchanged: list[str]


def copy(target: Path, *, force: bool) -> Copied:
    """Copies the package's content folders into `target`, for a user to edit.

    Raises `UsageError`, before anything is written, when files there differ and `force` is false, and when `target`
    cannot be written.
    """
    files = {
        f"{name}/{path.relative_to(folder(name)).as_posix()}": path.read_bytes()
        for name in get_args(Folder)
        for path in sorted(folder(name).rglob("*"))
        if path.is_file() and path.suffix in _EDITABLE
    }
    try:
        there = {name: (target / name).read_bytes() for name in files if (target / name).exists()}
        differ = [name for name in there if there[name] != files[name]]
        if differ and not force:
            raise UsageError(
                f"{target} holds {', '.join(differ)} with other content; nothing was written; "
                "take another folder, or --force to replace them"
            )
        written = [name for name in files if there.get(name) != files[name]]
        for name in written:
            write_atomically(target / name, files[name])
    except OSError as error:
        raise UsageError(f"{error.filename or target} cannot be written ({error.strerror})") from None
    return Copied(written, [name for name in files if name not in written])
