"""Nothing that a sweep leaves behind is a pickle: loading one runs whatever code somebody wrote into it.

The scanner is told what is planted for it; `test_archive` shows it a whole home.
"""

import gzip
import io
import pickle
import pickletools
import random
import re
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save

# Calls of protocols 0 and 1, which have no header, inside something else.
_OLD = re.compile(
    rb"c(?:os|posix|nt|subprocess|sys|builtins|__builtin__|copy_?reg|collections|numpy|torch)[\w.]*\n\w+\n"
)
_HEADER = re.compile(rb"\x80[\x02-\x05]")
_ACTS = {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ", "FRAME"}


def pickles(folder: Path) -> list[str]:
    """Every pickle in the files below a folder, in archives too, by name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [found for path in files for found in _within(str(path.relative_to(folder)), path.read_bytes())]


def _within(name: str, content: bytes) -> Iterator[str]:
    """The pickles in the content of one file."""
    if content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from _within(f"{name}:{member}", archive.read(member))
    elif content[:2] == b"\x1f\x8b":
        yield from _within(f"{name}:gz", gzip.decompress(content))
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for each in tar:
                yield from _within(f"{name}:{each.name}", (tar.extractfile(each) or io.BytesIO()).read())
    elif content[:6] == b"\x93NUMPY":
        file = io.BytesIO(content)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        if read(file)[2].hasobject:
            yield name
    elif _is_pickle(content) or _holds_pickle(content):
        yield name


def _holds_pickle(content: bytes) -> bool:
    """Whether one that makes something stands anywhere in the file."""
    return bool(_OLD.search(content)) or any(_acts(content[found.start() :]) for found in _HEADER.finditer(content))


def _is_pickle(content: bytes) -> bool:
    """Whether the whole file is one, of any protocol."""
    try:
        pickletools.dis(content, io.StringIO())
    except Exception:  # noqa: BLE001 -- whatever it stumbles over, it is none
        return False
    return True


def _acts(content: bytes) -> bool:
    """Whether a pickle that makes something begins here. Random bytes hardly ever parse, and then make nothing."""
    opcodes = set()
    try:
        for opcode, _, _ in pickletools.genops(content):
            opcodes.add(opcode.name)
    except Exception:  # noqa: BLE001 -- whatever it stumbles over, it is none
        return False
    return bool(opcodes & _ACTS)


class Thing:
    """Of which a pickle says where its class is."""


def _torch(value: object, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def _npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _zip(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inner.npy", content)
    return file.getvalue()


OBJECTS = np.array([{"a": 1}], dtype=object)
PLANTED: dict[str, Callable[[], bytes]] = {
    **{f"protocol {n}": lambda n=n: pickle.dumps({"a": [1, 2.5, "x"]}, n) for n in range(6)},  # type: ignore[misc]
    **{f"object {n}": lambda n=n: pickle.dumps(OrderedDict(a=Thing()), n) for n in range(6)},  # type: ignore[misc]
    **{f"call {n} inside": lambda n=n: b"{}\n" * 99 + pickle.dumps(eval, n) + b"{}" for n in range(6)},  # type: ignore[misc]
    "plain number": lambda: pickle.dumps(1, 0),
    "torch": lambda: _torch({"w": torch.zeros(2)}),
    "old torch": lambda: _torch({"w": torch.zeros(2)}, _use_new_zipfile_serialization=False),
    "npy": lambda: _npy(OBJECTS),
    "npz": lambda: _zip(_npy(OBJECTS)),
    "gzip": lambda: gzip.compress(pickle.dumps({"a": 1})),
    "zip in zip": lambda: _zip(_zip(pickle.dumps([1]))),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_pickle_is_found(tmp_path: Path, what: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "innocent.txt").write_bytes(PLANTED[what]())
    assert len(pickles(tmp_path)) >= 1


def test_what_is_no_pickle_is_not_taken_for_one(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    (tmp_path / "random").write_bytes(random.Random(0).randbytes(1 << 20))
    (tmp_path / "a.safetensors").write_bytes(save({"w": torch.from_numpy(numbers)}))
    (tmp_path / "a.npz").write_bytes(_zip(_npy(numbers)))
    (tmp_path / "code.py").write_text("class\nfoo\nimport os\n")
    (tmp_path / "empty").touch()
    (tmp_path / "a.json").write_text('{"a": [1, 2.5, null]}')
    assert pickles(tmp_path) == []
