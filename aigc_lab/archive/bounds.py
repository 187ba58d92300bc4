"""What may be read of an archive that anybody may have made: how much at once, and what code it brings.

A tar file is not compressed, so that its members are no larger than itself; but JSON and pictures grow when they are
read, and a file may be made of holes. What they will take is estimated from their bytes, piece by piece, before they
are read whole.
"""

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from aigc_lab.archive import tar
from aigc_lab.archive.tar import Member
from aigc_lab.errors import UsageError
from aigc_lab.experiment.code_files import leads_out
from aigc_lab.host.capacity import format_bytes, free_memory

Members = dict[str, Member]

# Weights are read tensor by tensor; everything else is read whole, and none of it comes near this.
_LARGEST = 256 << 20
# A Python object and its place in a list or a dictionary.
_OBJECT = 100
# Text is decoded to at most four bytes a character, as a whole and in parts; and then there are the bytes themselves.
_BYTE = 9
_LARGEST_PICTURE = 64_000_000  # pixels
_SLACK = 64 << 20


@dataclass(frozen=True)
class Code:
    """A file of code that travels: its name, sha256, and the members that are it."""

    name: str
    sha256: str
    members: tuple[str, ...]


def parsed(file: BinaryIO, member: Member) -> Any:
    """The JSON of a member. Raises `UsageError` for what is not JSON, and for more than memory has room for."""
    free, needed = free_memory(), 0
    for piece in tar.pieces(file, member):
        if _CONTROLS.search(piece):
            raise UsageError(f"{member.name!r:.100} is not JSON (it holds control characters)")
        needed += _BYTE * len(piece) + _OBJECT * sum(map(piece.count, (b",", b"[", b"{")))
        if needed > max(free // 2, _SLACK):
            raise UsageError(
                f"{member.name!r:.100} ({member.size:,} bytes) needs more memory than there is ({format_bytes(free)})"
            )
    try:
        return json.loads(tar.content(file, member), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{member.name!r:.100} is not JSON ({' '.join(str(error).split())[:100]})") from None


# JSON knows of white space only; a hole in a file is NULs.
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text:.20} is no number")
    return value


def check_size(file: BinaryIO, member: Member) -> None:
    """Raises `UsageError` for a member that whoever reads it could not hold in memory."""
    if member.name.endswith(".safetensors"):
        return
    if member.size > _LARGEST:
        raise UsageError(f"{member.name!r:.100} is too large ({member.size:,} bytes)")
    if member.name.endswith(".json"):
        parsed(file, member)
    if member.name.endswith(".png"):
        head = next(tar.pieces(file, member), b"")[:24]
        width, height = struct.unpack(">II", head[16:]) if len(head) == 24 else (0, 0)
        if width * height > _LARGEST_PICTURE:
            raise UsageError(f"{member.name!r:.100} is too large ({width:,}×{height:,} pixels)")


# ---- code


def code(file: BinaryIO, members: Members, digests: dict[str, str]) -> list[Code]:
    """The files of code that travel. Raises `UsageError` for a description of weights that names any other."""
    files: dict[tuple[str, str], list[str]] = {}
    for name, member in members.items():
        if name.endswith(".py"):
            files.setdefault((name.rpartition("/")[2], digests[name]), []).append(name)
        elif name.startswith("checkpoints/") and name.endswith(".json"):
            _check_description(name, parsed(file, member), digests)
    return [Code(name, digest, tuple(of)) for (name, digest), of in sorted(files.items())]


def _check_description(name: str, description: Any, digests: dict[str, str]) -> None:
    """Weights are described by a system's name; its code, if it travels, lies beside them."""
    system = description.get("system") if isinstance(description, dict) else None
    if not isinstance(system, str) or system.endswith(".py"):
        raise UsageError(f'{name!r:.100}: "system" is {system!r:.100}, and must be a name and no file')
    sources = {"source": description["source"]} if "source" in description else {}
    keyed = description.get("config_sources", {})
    if not isinstance(keyed, dict):
        raise UsageError(f'{name!r:.100}: "config_sources" is {keyed!r:.100}, and must hold keys and files')
    sources |= {f"config_sources.{key}": each for key, each in keyed.items()}
    for key, given in sources.items():
        source = given if isinstance(given, dict) else {}
        beside, digest = source.get("file"), source.get("sha256")
        place = f"{name.rpartition('/')[0]}/{beside}"
        if not isinstance(beside, str) or "/" in beside or not beside.endswith(".py") or place not in digests:
            raise UsageError(f'{name!r:.100}: "{key}.file" is {beside!r:.100}, and must be a file of code beside it')
        if digests[place] != digest:
            raise UsageError(f'{name!r:.100}: "{key}.sha256" is not that of {place!r:.100}')


def check_names(experiment: Any) -> None:
    """Raises `UsageError` for a file of code outside of the folder of an experiment, which says where on its user's
    disk code is to be found and run.
    """
    for key, name in _strings(experiment):
        if name.endswith((".py", ".pt2")) and leads_out(name):
            raise UsageError(
                f"its experiment names a file of code by a path out of its folder: {key} is {name!r:.100}; name it "
                "like ./mine.py, or take the sweep in with --trust-code if you trust who made it"
            )


def _strings(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a document, names of keys too, with the key that it stands under."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, dict):
        for name, value in node.items():
            below = f"{key}.{name}" if key else str(name)
            yield below, str(name)
            yield from _strings(value, below)
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from _strings(value, f"{key}[{place}]")


# ---- text


def check_text(node: Any, what: str) -> None:
    """Raises `UsageError` for strings that no database stores: halves of characters."""
    for key, text in _strings(node):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{what}: {key!r:.100} is not text") from None
