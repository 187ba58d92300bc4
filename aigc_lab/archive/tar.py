"""The plainest tar there is: files and nothing else, in POSIX's `ustar`, the same bytes for the same content.

It is read by hand, a header of 512 bytes at a time, so that nothing of what tar can hold besides files (links, devices,
sparse files, records that extend a header) needs to be thought of: it is refused.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from aigc_lab.errors import UsageError

_BLOCK = tarfile.BLOCKSIZE
_ENCODING = "utf-8"
_PIECE = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file in an archive: its bytes stand at `offset`."""

    name: str
    offset: int
    size: int


def writer(file: BinaryIO) -> tarfile.TarFile:
    """An archive to `add` to, which ends with its `with`."""
    return tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT, encoding=_ENCODING)


def add(archive: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    """Adds a file without its history: no times, no owner. Raises `UsageError` for what a tar cannot hold."""
    facts = tarfile.TarInfo(name)
    facts.mode = 0o644
    try:
        with BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
            facts.size = file.seek(0, os.SEEK_END)
            file.seek(0)
            archive.addfile(facts, file)
    except ValueError as error:  # a name of more than 100 letters, a file of more than 8 GB
        raise UsageError(f"{name}: a tar file cannot hold it ({error})") from None


def members(file: BinaryIO) -> Iterator[Member]:
    """The files of an archive, in their order. Raises `UsageError` for anything else in it, and for one cut short."""
    length = file.seek(0, os.SEEK_END)
    place = 0
    while True:
        file.seek(place)
        block = file.read(_BLOCK)
        if block == bytes(_BLOCK):
            return
        member, place = _member(block, place)
        if place > length:
            raise UsageError(f"it was cut short in {member.name!r:.100}")
        yield member


def _member(block: bytes, place: int) -> tuple[Member, int]:
    """The member whose header this is, and where the next header stands."""
    if not block:
        raise UsageError("it was cut short")
    try:
        facts = tarfile.TarInfo.frombuf(block, _ENCODING, "strict")
    except (tarfile.HeaderError, ValueError):
        raise UsageError("it is not a tar file, or it is damaged") from None
    if facts.type != tarfile.REGTYPE or facts.size < 0:
        raise UsageError(f"{facts.name!r:.100} in it is not a plain file")
    start = place + _BLOCK
    return Member(facts.name, start, facts.size), start + -(-facts.size // _BLOCK) * _BLOCK


def content(file: BinaryIO, member: Member) -> bytes:
    """The bytes of a member, for which there is room in memory."""
    file.seek(member.offset)
    return file.read(member.size)


def pieces(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """The bytes of a member, piece by piece."""
    file.seek(member.offset)
    left = member.size
    while left:
        piece = file.read(min(left, _PIECE))
        if not piece:
            raise UsageError(f"it was cut short in {member.name!r:.100}")
        yield piece
        left -= len(piece)
