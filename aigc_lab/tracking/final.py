"""Final weights of a run as artifacts in MLflow: equal weights are one artifact."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from aigc_lab.training.model_code import code_of

KINDS = ("last", "selected")
FOLDER = "model"  # of a run's artifacts


def weights(checkpoints: Iterable[tuple[str, Path, str]]) -> dict[str, Path]:
    """File of the final weights by kind (`last`, `selected`), from checkpoints as (kind, file, sha256). Equal weights
    share the first file.
    """
    files: dict[str, Path] = {}
    by_kind: dict[str, Path] = {}
    for kind, path, digest in sorted(checkpoints):
        if kind in KINDS:
            by_kind[kind] = files.setdefault(digest, path)
    return by_kind


def files(weights: Mapping[str, Path]) -> list[Path]:
    """Files of the weights, their descriptions, and the code that these name; each once."""
    return list(dict.fromkeys(part for path in weights.values() for part in _parts(path)))


def tags(weights: Mapping[str, Path]) -> dict[str, str]:
    """MLflow tags with the place of each kind of weights."""
    return {f"weights.{kind}": f"{FOLDER}/{path.name}" for kind, path in weights.items()}


def _parts(weights: Path) -> list[Path]:
    description = weights.with_suffix(".json")
    try:
        code = code_of(json.loads(description.read_bytes()))
        return [weights, description, *(weights.with_name(Path(source.file).name) for source in code)]
    except (OSError, ValueError, AttributeError, TypeError, KeyError):  # gone or damaged: whoever reads it says so
        return [weights, description]
