"""`aigc-lab export`: a sweep in one tar file, the same bytes for the same sweep, from whichever home.

| member | what it is |
|---|---|
| `manifest.json` | the format, the sweep, and sha256 and size of every other member |
| `registry.json` | table -> rows; files are named as they are in the archive |
| `study.json` | Optuna's study, or null |
| `artifacts/<trial>.<seed>/…` | curves and pictures of a run |
| `checkpoints/<trial>.<seed>/…` | its final weights, their description, and the code of a system from a user's file |
| `checkpoints/code/…` | every file of code that the experiment names: pruners, metrics, datasets, systems |

What belongs to a home stays there: promotions, MLflow's ids, and the states that an interrupted run would go on from.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aigc_lab import __version__
from aigc_lab.archive import contents, optuna_study, tar
from aigc_lab.archive.contents import Rows
from aigc_lab.errors import Failure, UsageError
from aigc_lab.experiment import code_files
from aigc_lab.host import shared_files
from aigc_lab.host.files import replacing, sha256
from aigc_lab.host.settings import Settings
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.tables import SCHEMA
from aigc_lab.sweeps import ownership, unfinished_deletion
from aigc_lab.training.model_code import code_of

# Format 2 has code beside that of weights; without any, an archive is of format 1, which older versions read.
FORMAT = 2
#: how the names of the copies of code begin that belong to the sweep, and to none of its runs
CODE = f"checkpoints/{code_files.FOLDER}/"
MANIFEST, REGISTRY, STUDY = "manifest.json", "registry.json", "study.json"
# Results are their owner's until they are shared, as a home is.
_MODE = 0o600


@dataclass(frozen=True)
class Packed:
    """What was written, and where."""

    sweep: str
    path: Path
    runs: int
    files: int
    bytes: int


def export(sweep_name: str, settings: Settings, target: Path | None, *, force: bool) -> Packed:
    """Packs a sweep that nobody runs into `target` (`<sweep>.tar` here unless given), which is whole or absent.

    Raises `UsageError` for a sweep that is being run, and for a file that is there unless `force` replaces it;
    `Failure` for a sweep whose files are missing or damaged.
    """
    with open_registry(settings) as registry:
        sweep = find_sweep(registry, sweep_name)
        path = target or Path(f"{sweep}.tar")
        _check(path, force)
        ownership.refuse_foreign(registry, settings, sweep)
        unfinished_deletion.refuse_unfinished(settings, sweep)
        with contents.exclusive(settings, sweep, registry):
            rows = contents.rows(registry, sweep)
            files = _files(rows, settings.home, sweep) | _code(settings, sweep)
            texts = {REGISTRY: _json(rows), STUDY: _json(optuna_study.dump(settings.optuna_url, sweep))}
            _pack(path, sweep, texts, files)
    return Packed(sweep, path, len(rows["run"]), len(files), path.stat().st_size)


def _check(path: Path, force: bool) -> None:
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # too long a name, a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{str(path)!r:.80} cannot be written ({reason}); name another file with -o") from None
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it")
    if path.exists() and not (force and path.is_file()):
        raise UsageError(f"{path} exists; name another with -o, or replace it with --force")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; create it or name another file with -o")


def _pack(path: Path, sweep: str, texts: dict[str, bytes], files: dict[str, Path]) -> None:
    facts = {name: {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()} for name, text in texts.items()}
    facts |= {name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for name, file in files.items()}
    number = FORMAT if any(name.startswith(CODE) for name in files) else 1
    manifest = {"format": number, "aigc_lab": __version__, "schema": SCHEMA, "sweep": sweep, "files": facts}
    try:
        with replacing(path, _MODE) as draft, draft.open("wb") as output, tar.writer(output) as archive:
            for name, text in {MANIFEST: _json(manifest), **texts}.items():
                tar.add(archive, name, text)
            for name in sorted(files):
                tar.add(archive, name, files[name])
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); name another file with -o") from None


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False).encode() + b"\n"


# ---- files


def check_name(name: str, run: str) -> None:
    """Raises `UsageError` for a name in an archive that no file of this run (`<trial>.<seed>`) has; or, of `code`, no
    copy of the sweep's code.
    """
    first, *rest = name.split("/")
    if first not in ("artifacts", "checkpoints") or len(rest) < 2 or rest[0] != run:
        raise UsageError(f"{name!r:.100} is no file of run {run}")
    for part in rest:
        contents.component(part, f"{name!r:.100}: file")


def _files(rows: Rows, home: Path, sweep: str) -> dict[str, Path]:
    """Name in the archive -> file of the home, of every file that the rows point at.

    Raises `Failure` for a file that is gone or is not what was stored.
    """
    files: dict[str, Path] = {}
    for row in contents.with_path(rows):
        check_name(row["path"], row["run_id"].removeprefix(f"{sweep}."))
        path = home / contents.place(row["path"], sweep)
        files[row["path"]] = _whole(path, row)
        if path.suffix == ".safetensors":
            files |= _described(path, row)
    return files


def _code(settings: Settings, sweep: str) -> dict[str, Path]:
    """The same of the files of code that the sweep's experiment names. Raises `Failure` for one that is no file."""
    copies = code_files.folder(settings, sweep)
    shared_files.fetch_all(shared_files.listed(copies, "*.py"))
    files = {}
    for path in sorted(copies.rglob("*.py")):
        name = f"{CODE}{path.relative_to(copies).as_posix()}"
        check_name(name, code_files.FOLDER)
        if path.is_symlink() or not path.is_file():
            raise Failure(f"{path} is no file of code; remove it")
        files[name] = path
    return files


def _whole(path: Path, row: dict[str, Any]) -> Path:
    path = shared_files.newest(path)
    if path.is_symlink() or not path.is_file():
        raise Failure(f"run {row['run_id']}: {path} is gone; restore it, or delete the run")
    if "sha256" in row and sha256(path) != row["sha256"]:
        raise Failure(f"run {row['run_id']}: {path} is not what was stored; restore it, or delete the run")
    return path


def _described(weights: Path, row: dict[str, Any]) -> dict[str, Path]:
    """The description beside weights, and the code that it names."""
    folder = row["path"].rpartition("/")[0]
    description = _whole(weights.with_suffix(".json"), {"run_id": row["run_id"]})
    files = {f"{folder}/{description.name}": description}
    for source in code_of(json.loads(description.read_bytes())):
        code = weights.with_name(contents.component(source.file, "code file"))
        files[f"{folder}/{code.name}"] = _whole(code, {"run_id": row["run_id"], "sha256": source.sha256})
    return files
