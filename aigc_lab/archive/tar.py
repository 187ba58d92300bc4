"""Plain tar archives: files and nothing else, in POSIX's `ustar`, with the same bytes for the same content.

They are parsed by hand, a header of 512 bytes at a time, so that everything else that tar can hold (links, devices,
sparse files, records that extend a header) is refused.
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
    """File in an archive; its content begins at byte `offset`."""

    name: str
    offset: int
    size: int


def writer(file: BinaryIO) -> tarfile.TarFile:
    """Archive to `add` files to; a context that completes it."""
    return tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT, encoding=_ENCODING)


def add(archive: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    """Adds a file without times and owner. Raises `UsageError` for names and sizes that a tar cannot hold."""
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
    """Files of an archive in order. Raises `UsageError` for anything else in it, and for an archive
    that was cut short.
    """
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
    """Member of this header, and the offset of the next header."""
    if not block:
        raise UsageError("it was cut short")
    try:
        facts = tarfile.TarInfo.frombuf(block, _ENCODING, "strict")
    except (tarfile.HeaderError, ValueError):
        raise UsageError("it is not a tar file, or it is damaged") from None
    if facts.type != tarfile.REGTYPE or facts.size < 0:
        raise UsageError(f"{facts.name!r:.100} in it is not a plain file")
    start = place + _BLOCK
    # Contents are padded to whole blocks.
    return Member(facts.name, start, facts.size), start + -(-facts.size // _BLOCK) * _BLOCK


def content(file: BinaryIO, member: Member) -> bytes:
    """Bytes of a member, which must fit into memory."""
    file.seek(member.offset)
    return file.read(member.size)


def pieces(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """Bytes of a member, piece by piece. Raises `UsageError` for an archive that was cut short."""
    file.seek(member.offset)
    remaining = member.size
    while remaining:
        piece = file.read(min(remaining, _PIECE))
        if not piece:
            raise UsageError(f"it was cut short in {member.name!r:.100}")
        yield piece
        remaining -= len(piece)
