"""What judges of a collapse keep on disk: the nulls of their real samples, and which of these are near each other."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from aigc_lab.files import write_atomically
from aigc_lab.verdicts.collapse import Judge

FOLDER = "nulls"


@contextmanager
def remembered(judge: Judge, cache: Path | None) -> Iterator[Judge]:
    """A judge that knows the nulls and the neighbours that were computed of exactly its vectors and bins; what it adds
    is kept.
    """
    if cache is None:
        yield judge
        return
    nulls, lists = (cache / FOLDER / f"{judge.digest}{suffix}" for suffix in (".json", ".safetensors"))
    if not judge.nulls:
        with suppress(OSError, ValueError):
            judge.nulls.update(known_nulls(nulls))
        with suppress(OSError, ValueError, SafetensorError, KeyError):
            judge.listed = neighbours(lists, len(judge.pool))
    known = len(judge.nulls)
    yield judge
    if len(judge.nulls) > known:
        with suppress(OSError, SafetensorError):  # what is not kept is computed again
            nulls.parent.mkdir(parents=True, exist_ok=True)
            told = {"nulls": judge.nulls, "sha256": _digest(judge.nulls)}
            write_atomically(nulls, json.dumps(told, allow_nan=False).encode())
            if judge.listed is None:
                content = {"listed": judge.lists[1].int()}
                write_atomically(lists, save(content, {"sha256": _sha256(content["listed"])}))


def known_nulls(path: Path) -> dict[str, Any]:
    """The nulls that `remembered` kept. Raises `OSError`, or `ValueError` for anything else."""
    told = json.loads(path.read_text("utf-8"))
    found = told.get("nulls") if isinstance(told, dict) else None
    if not isinstance(found, dict) or told.get("sha256") != _digest(found):
        raise ValueError("its bytes are not those that were written")
    return found


def _digest(nulls: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(nulls, sort_keys=True, allow_nan=False).encode()).hexdigest()


def neighbours(path: Path, count: int | None = None) -> Tensor:
    """The places of the neighbours of so many vectors that `remembered` kept. Raises `ValueError`, `OSError`, or what
    safetensors does for anything else.
    """
    with safe_open(path, "pt") as file:
        listed: Tensor = file.get_tensor("listed")
        told = (file.metadata() or {}).get("sha256")
    if count not in (None, len(listed)) or told != _sha256(listed):
        raise ValueError("its bytes are not those that were written")
    return listed.long()


def _sha256(listed: Tensor) -> str:
    return hashlib.sha256(listed.numpy().tobytes()).hexdigest()
