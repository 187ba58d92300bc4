"""What verdicts rest on, as it is kept on disk: the nulls of real samples, which of these are near each other, and the
scores of trivial samples. Each says by a digest whether it is what was written.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from aigc_lab.host import shared_files
from aigc_lab.host.files import write_atomically
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
            judge.nulls.update(known_nulls(shared_files.cached(nulls)))
        with suppress(OSError, ValueError, SafetensorError, KeyError):
            judge.listed = neighbours(shared_files.cached(lists), len(judge.pool))
    count = len(judge.nulls)
    yield judge
    with suppress(OSError, SafetensorError):  # what is not kept is computed again
        if len(judge.nulls) > count:
            _write(nulls, {"nulls": judge.nulls})
        if judge.listed is None:
            judge.listed = judge.lists[1]
            content = {"listed": judge.listed.int()}
            lists.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(lists, save(content, {"sha256": _sha256(content["listed"])}))
            shared_files.publish(lists)


def known_nulls(path: Path) -> dict[str, Any]:
    """The nulls that `remembered` kept. Raises `OSError`, or `ValueError` for anything else."""
    nulls: dict[str, Any] = _read(path, "nulls")
    return nulls


def known_baseline(path: Path) -> float | None:
    """What `write_baseline` kept. Raises `OSError`, or `ValueError` for anything else."""
    value: float | None = _read(path, "value")
    return value


def write_baseline(path: Path, value: float | None) -> None:
    """Keeps a trivial sampler's score; None where that tells nothing."""
    _write(path, {"value": value})


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content | {"sha256": _digest(content)}, allow_nan=False).encode())
    shared_files.publish(path)


def _read(path: Path, what: str) -> Any:
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict) or content.pop("sha256", None) != _digest(content) or what not in content:
        raise ValueError("its bytes are not those that were written")
    return content[what]


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def neighbours(path: Path, count: int | None = None) -> Tensor:
    """The places of the neighbours of so many vectors that `remembered` kept. Raises `ValueError`, `OSError`, or what
    safetensors does for anything else.
    """
    with safe_open(path, "pt") as file:
        listed: Tensor = file.get_tensor("listed")
        digest = (file.metadata() or {}).get("sha256")
    if count not in (None, len(listed)) or digest != _sha256(listed):
        raise ValueError("its bytes are not those that were written")
    return listed.long()


def _sha256(listed: Tensor) -> str:
    return hashlib.sha256(listed.numpy().tobytes()).hexdigest()
