"""What judges of a collapse keep on disk: the nulls of their real samples, and which of these are near each other."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
        with suppress(OSError, ValueError, TypeError):
            judge.nulls.update(json.loads(nulls.read_text("utf-8")))
        with suppress(OSError, ValueError, SafetensorError, KeyError):
            judge.listed = neighbours(lists, len(judge.pool))
    known = len(judge.nulls)
    yield judge
    if len(judge.nulls) > known:
        with suppress(OSError, SafetensorError):  # what is not kept is computed again
            nulls.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(nulls, json.dumps(judge.nulls).encode())
            if judge.listed is None:
                content = {"listed": judge.lists[1].int()}
                write_atomically(lists, save(content, {"sha256": _sha256(content["listed"])}))


def neighbours(path: Path, count: int | None = None) -> Tensor:
    """The places of the neighbours of so many vectors that `remembered` kept. Raises `ValueError`, `OSError`, or what
    safetensors does for anything else.
    """
    with safe_open(path, "pt") as file:
        listed: Tensor = file.get_tensor("listed")
        told = (file.metadata() or {}).get("sha256")
    if count not in (None, len(listed)) or told != _sha256(listed):
        raise ValueError(f"{path}: its bytes are not those that were written")
    return listed.long()


def _sha256(listed: Tensor) -> str:
    return hashlib.sha256(listed.numpy().tobytes()).hexdigest()
