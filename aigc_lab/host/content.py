"""The content folders: `experiments/`, `evaluation/` and `dashboards/`.

In a checkout they stand beside the package and are read from there, so that an edit counts at once; an installed wheel
carries them as `aigc_lab/content/`.

A user's own stand in the working directory: `digits` means `./experiments/digits.yaml` if it exists, and the package's
file otherwise. `aigc-lab init DIR` copies the package's files as a start. Confusing the two is harmless, since a sweep
is identified by the content of its file and not by the name.
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
    """Folder of the package: in the checkout when the package lies in one, else in the wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / name
    return (
        checkout if (package.parent / "pyproject.toml").is_file() and checkout.is_dir() else package / "content" / name
    )


def folders(name: Folder) -> list[Path]:
    """Folders in which a file is looked up, in order: the user's in the working directory, if there is one, and the
    package's.
    """
    own, ours = Path(name).absolute(), folder(name)
    return [own, ours] if own.is_dir() and own.resolve() != ours else [ours]


def names(name: Folder) -> list[str]:
    """Names of the YAML files of a content folder, the user's included, without suffix, sorted."""
    return sorted({path.stem for place in folders(name) for path in place.glob("*.yaml")})


def find_file(name: Folder, file_name: str) -> Path:
    """File of that name in the content folder, or the file at that path (with a YAML suffix or a `/`).

    Raises `UsageError` with the nearest names when there is no such file.
    """
    if file_name.endswith((".yaml", ".yml")) or "/" in file_name:
        path = Path(file_name)
        if is_file(path):
            return path
        raise UsageError(f"{file_name}: no such file")
    for place in folders(name):
        path = place / f"{file_name}.yaml"
        if is_file(path):
            return path
    raise UsageError(unknown_name(_NOUN[name], file_name, names(name)))


def origin(name: Folder, file_name: str) -> str:
    """Note on a file that is the user's and not the package's: `yours: experiments/digits.yaml, instead of ours`; else
    `""`.
    """
    path, ours = find_file(name, file_name), folder(name) / f"{file_name}.yaml"
    if path == ours:
        return ""
    text = f"yours: {name}/{path.name}"
    if not ours.is_file():
        return text
    return f"{text}, same as ours" if path.read_bytes() == ours.read_bytes() else f"{text}, instead of ours"


def unknown_name(noun: str, name: str, names: list[str]) -> str:
    """Sentence on a name that does not exist, with the nearest names, or with all when none is near."""
    alike = {
        candidate: SequenceMatcher(None, candidate, name).ratio()
        for candidate in get_close_matches(name, names, 3, 0.5)
    }
    alike |= {candidate: 1.0 for candidate in names if candidate.lower() == name.lower()}
    # Beside one that is plainly meant, others that share some letters would be noise.
    near = [candidate for candidate, ratio in alike.items() if ratio > max(alike.values()) - 0.15]
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(sorted(names)) or 'none'}"
    return f"unknown {noun} '{name}'; {hint}"


@dataclass(frozen=True)
class CopyReport:
    """Files that `copy` wrote and left unchanged, as paths relative to the target."""

    written: list[str]
    unchanged: list[str]


def copy(target: Path, *, force: bool) -> CopyReport:
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
        existing = {name: (target / name).read_bytes() for name in files if (target / name).exists()}
        differ = [name for name in existing if existing[name] != files[name]]
        if differ and not force:
            raise UsageError(
                f"{target} holds {', '.join(differ)} with other content; nothing was written; "
                "take another folder, or --force to replace them"
            )
        written = [name for name in files if existing.get(name) != files[name]]
        for name in written:
            write_atomically(target / name, files[name])
    except OSError as error:
        raise UsageError(f"{error.filename or target} cannot be written ({error.strerror})") from None
    return CopyReport(written, [name for name in files if name not in written])
