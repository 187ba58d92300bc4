"""Samples as files, written block by block: never more in memory than a block, and what is shown of them."""

import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    Array = numpy.typing.NDArray[Any]

# Samples in the picture of many: no more than a screen can tell apart, and bytes of them that memory should hold.
_SHOWN = 10_000
_SHOWN_BYTES = 32_000_000


def sample_file(number: int, of_class: str = "") -> str:
    """The name of the file of an image, by its number and the name of its class.

    >>> sample_file(0), sample_file(7, "polar bear")
    ('00000.png', '00007-polar_bear.png')
    """
    name = re.sub(r"[^\w.-]+", "_", of_class)[:40]
    return f"{number:05d}-{name}.png" if name else f"{number:05d}.png"


def most_shown(each: int) -> int:
    """How many samples of so many bytes one picture shows: the first thousand, or up to ten thousand of small ones."""
    return max(1, min(_SHOWN, _SHOWN_BYTES // each))


def stacked(samples: "list[Array]") -> "Array":
    """Samples as one array [n, …]."""
    import numpy

    return numpy.stack(samples)


def write_array(file: IO[bytes], blocks: "Iterable[Array]", first: "Array", n: int) -> None:
    """Writes what `numpy.save` would of `n` samples in blocks, the `first` of which tells their size and dtype."""
    from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0

    write_array_header_1_0(file, header_data_from_array_1_0(first) | {"shape": (n, *first.shape[1:])})
    for block in blocks:
        file.write(block.tobytes())


def write_archive(path: Path, blocks: "Iterable[Array]", first: "Array", n: int, note: dict[str, Any]) -> None:
    """Writes what `numpy.savez_compressed(samples=…, note=…)` would, without the whole array in memory."""
    import numpy

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("samples.npy", "w", force_zip64=True) as file:
            write_array(file, blocks, first, n)
        with archive.open("note.npy", "w") as file:
            numpy.save(file, numpy.array(json.dumps(note)), allow_pickle=False)


def write_shown(path: Path, blocks: "Iterable[Array]", n: int) -> "Array":
    """Writes `n` samples as a `.npy` file, and returns the first of them, as many as a picture shows."""
    coming = iter(blocks)
    first = next(coming)
    most, shown = most_shown(first[0].nbytes), list["Array"]()

    def passed() -> "Iterator[Array]":
        for number, block in enumerate(chain([first], coming)):
            if number * len(first) < most:
                shown.append(block)
            yield block

    with path.open("wb") as file:
        write_array(file, passed(), first, n)
    return stacked([sample for block in shown for sample in block][:most])


def lines(block: "Array | Sequence[str]") -> bytes:
    """Strings [n] as UTF-8, each with the end of a line."""
    return "".join(f"{line}\n" for line in block).encode()


def write_lines(path: Path, blocks: "Iterable[Array]") -> None:
    """Writes strings, a line each."""
    with path.open("wb") as file:
        for block in blocks:
            file.write(lines(block))
