"""The weights that a run ends with, as MLflow gets them: equal ones are one artifact."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from aigc_lab.training.model_code import code_of

KINDS = ("last", "selected")
FOLDER = "model"  # of a run's artifacts


def weights(kept: Iterable[tuple[str, Path, str]]) -> dict[str, Path]:
    """Kind -> the file of its weights, of a run's checkpoints as (kind, file, sha256). The first of equal ones stands
    for all; kinds that are kept on the way are left out.
    """
    files: dict[str, Path] = {}
    found: dict[str, Path] = {}
    for kind, path, digest in sorted(kept):
        if kind in KINDS:
            found[kind] = files.setdefault(digest, path)
    return found


def files(weights: Mapping[str, Path]) -> list[Path]:
    """The weights, the descriptions beside them, and the code that these name; each once."""
    return list(dict.fromkeys(part for path in weights.values() for part in _parts(path)))


def tags(weights: Mapping[str, Path]) -> dict[str, str]:
    """What says in MLflow where each kind of weights is."""
    return {f"weights.{kind}": f"{FOLDER}/{path.name}" for kind, path in weights.items()}


def _parts(weights: Path) -> list[Path]:
    description = weights.with_suffix(".json")
    try:
        code = code_of(json.loads(description.read_bytes()))
        return [weights, description, *(weights.with_name(Path(source.file).name) for source in code)]
    except (OSError, ValueError, AttributeError, TypeError, KeyError):  # gone or damaged: whoever reads it says so
        return [weights, description]
