"""Folders of image files as one array: the files, their conversion to pixels, and the decoded copy on disk.

Every conversion that loses information has a key that names it, and is counted.
"""

import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from aigc_lab.config import Strict
from aigc_lab.data.shared import sample_note
from aigc_lab.errors import UsageError
from aigc_lab.host import visible
from aigc_lab.host.files import write_atomically

Pixels = npt.NDArray[np.uint8]

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".tga"),
        *(".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
# Formats that Pillow reads where it was built with their library: the feature's name -> suffixes.
_OPTIONAL = {"avif": (".avif",), "jpg_2000": (".jp2", ".j2k", ".jpx")}
# An array beyond this many bytes stays on disk and is mapped into memory: the system reads the pages that are used.
MAPPED_FROM = 256 * 2**20
# Part of the key of every decoded copy: changes when the same files would give other pixels or another order.
_SCHEMA = "1"
_WORKERS = min(8, os.cpu_count() or 1)


class Reading(Strict):
    """Conversion of a file to uint8 [channels, size, size]. The EXIF orientation is always applied."""

    size: int = Field(32, ge=8, le=1024, description="pixels of a side; systems of this package take 16, 32 or 64")
    channels: Literal[1, 3] = Field(3, description="3: RGB, grey is repeated; 1: colours become their luma (BT.601)")
    resize: Literal["crop", "stretch", "pad"] = Field(
        "crop", description="crop: the middle square; stretch: sides out of proportion; pad: black bars"
    )
    alpha: Literal["white", "black", "refuse"] = Field("white", description="what shines through transparent pixels")
    deep: Literal["scale", "refuse"] = Field("scale", description="16 bits a channel: to 8, or refused")
    cmyk: Literal["convert", "refuse"] = Field("convert", description="to RGB without the file's colour profile")
    animated: Literal["first", "refuse"] = Field("first", description="the first frame of several")


# Remarks of `read_image` on a file that it converted -> the key of `Reading` that says how.
_DEEP = "16-bit"
_KEYS = {"transparent": "alpha", _DEEP: "deep", "CMYK": "cmyk", "animated": "animated"}
# Remarked of a 16-bit file besides: none of its values is above 4095, as 12 bits are written without being scaled.
_SHALLOW = "16-bit up to 4095"


class Broken(Exception):
    """File that cannot be decoded, with the reason."""


@dataclass(frozen=True)
class File:
    """Image file: `name` is the path below the root with forward slashes, `size` in bytes, `modified` in
    nanoseconds.
    """

    name: str
    size: int
    modified: int


@cache
def readable() -> frozenset[str]:
    """Suffixes of image files that this machine's Pillow reads."""
    from PIL import features

    with warnings.catch_warnings(action="ignore"):  # Pillow 11.0 does not know of AVIF
        return SUFFIXES.union(*(some for feature, some in _OPTIONAL.items() if features.check(feature)))


def find_images(root: Path) -> tuple[list[File], Counter[str]]:
    """Image files below `root` by their suffix (any case), sorted by name, and a count of the other files by suffix.

    An overview that `aigc-lab sample` drew (`grid.png`, named in `samples.json`) is no image of the set. It is counted
    among the others by its name, unless the note is one that `sample` wrote. Hidden files and folders, and what macOS
    and Windows leave behind, are skipped. Links are followed, and no folder is entered twice. Raises `UsageError` for a
    folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename}: cannot be read ({error.strerror}); give yourself the right to read it")

    files, others, entered = [], Counter[str](), {os.path.realpath(root)}
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        subfolders = []
        for each in sorted(folders):
            real = os.path.realpath(os.path.join(folder, each))
            if not _litter(each) and real not in entered:
                entered.add(real)
                subfolders.append(each)
        folders[:] = subfolders
        overviews = sample_note.overviews(Path(folder)) if sample_note.NAME in names else frozenset()
        for name in names:
            path = Path(folder, name)
            if _litter(name) or (overviews and name == sample_note.NAME):
                continue
            if name in overviews:
                others[name] += not sample_note.is_folder_of_sample(Path(folder))
                continue
            if path.suffix.lower() not in readable():
                others[path.suffix.lower() or "no suffix"] += 1
                continue
            try:
                facts = path.stat()
            except OSError:  # a link to nothing: it is named as broken when it is opened
                files.append(File(path.relative_to(root).as_posix(), 0, 0))
            else:
                files.append(File(path.relative_to(root).as_posix(), facts.st_size, facts.st_mtime_ns))
    return sorted(files, key=lambda file: file.name), +others  # without what counts 0


find = find_images  # its former name, which users' files import


def _litter(name: str) -> bool:
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini", "__MACOSX")


def read_image(path: Path, how: Reading, crop: int | None = None, *, as_is: bool = False) -> tuple[Pixels, list[str]]:
    """Pixels, uint8 [channels, size, size], and the conversions that were needed.

    `crop` takes the middle square of so many pixels first. With `as_is` the image keeps its own height and width.
    Raises `Broken` for a damaged file or one that is no image, and `UsageError` for a conversion that `how` refuses.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            remarks = _remarks(image, path, how)
            image.load()
            picture: Any = ImageOps.exif_transpose(image)
    except UsageError:
        raise
    # Pillow's decoders raise whatever their format's parser stumbles over.
    except Exception as error:  # noqa: BLE001
        raise Broken(_reason(error)) from None
    if _DEEP in remarks and _shallow(picture):
        remarks.append(_SHALLOW)
    picture = _plain(picture, how) if as_is else _square(_plain(picture, how), how, crop)
    pixels = np.asarray(picture, np.uint8)
    return pixels[None] if how.channels == 1 else pixels.transpose(2, 0, 1), remarks


class Look(NamedTuple):
    """Header of an image file: height and width in pixels after its orientation is applied, and whether it
    has colours.
    """

    height: int
    width: int
    colour: bool


def look(root: Path, names: Sequence[str]) -> list[Look | None]:
    """Headers of files, in their order; None for a file that is no image."""
    from PIL import Image

    def one(name: str) -> Look | None:
        try:
            with Image.open(root / name) as image:
                width, height = image.size
                turned = image.getexif().get(0x0112, 1) >= 5  # EXIF: orientation
                grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
                return Look(width, height, not grey) if turned else Look(height, width, not grey)
        except Exception:  # noqa: BLE001 -- Pillow's parsers raise anything; `read` has the words for it
            return None

    with ThreadPoolExecutor(_WORKERS) as pool:
        return list(pool.map(one, names))


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image of any known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _remarks(image: Any, path: Path, how: Reading) -> list[str]:
    """Conversions that a file needs, by their names. Raises `UsageError` for those that `how` refuses."""
    needs = {
        "transparent": image.has_transparency_data,
        _DEEP: image.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in image.tile),
        "CMYK": image.mode == "CMYK",
        "animated": getattr(image, "is_animated", False),
    }
    remarks = []
    for word, needed in needs.items():
        key = _KEYS[word]
        if needed and getattr(how, key) == "refuse":
            others = " or ".join(x for x in Reading.model_fields[key].annotation.__args__ if x != "refuse")  # type: ignore[union-attr]
            raise UsageError(f"{path}: a {word} image, and data.{key} is refuse; set it to {others}, or move the file")
        remarks += [word] * bool(needed)
    return remarks


def _shallow(image: Any) -> bool:
    """Whether no value of a 16-bit image is above 4095. For colours Pillow gives only the upper eight bits."""
    pixels = np.asarray(image)
    colours = pixels[..., :-1] if image.mode.endswith("A") else pixels
    return bool(colours.max() <= (4095 if image.mode.startswith("I;16") else 15))


def conversions(remarks: Counter[str], how: Reading) -> list[str]:
    """`key:value` of each conversion that occurred, from the remarks on all files of a set."""
    return [f"{key}:{getattr(how, key)}" for word, key in _KEYS.items() if remarks[word]]


def reading_notes(remarks: Counter[str], others: Counter[str], how: Reading, where: str = "") -> list[str]:
    """Sentences about conversions and about files that were not read; `where` goes before the names of keys."""
    notes = []
    if changes := conversions(remarks, how):
        counts = ", ".join(f"{remarks[word]:,} {word}" for word in sorted(_KEYS) if remarks[word])
        notes.append(f"converted images: {counts} ({where}{', '.join(changes).replace(':', '=')})")
    if remarks[_DEEP] and remarks[_SHALLOW] == remarks[_DEEP]:
        notes.append(
            "no 16-bit value is above 4095, so that the brightest becomes 16 of 255 at most: if the files hold 12 bits "
            "or fewer, write them scaled to 16, or as 8"
        )
    if others:
        notes.append(f"{others.total():,} other files not read ({most_common(others)})")
    return notes


def most_common(counts: Counter[str]) -> str:
    """Most frequent three, each with its count."""
    return abbreviated([f"{count:,} {name}" for name, count in counts.most_common()])


def abbreviated(names: Sequence[str], count: int = 3) -> str:
    """First `count` names, and how many more there are."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _plain(image: Any, how: Reading) -> Any:
    """Image in mode L or RGB."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        # 65535 becomes 255: v / 257, rounded.
        deep = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, how.alpha), image)
    elif image.mode not in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"):
        raise Broken(f"pixels of Pillow's mode {image.mode}, which has no fixed range")
    return image.convert("RGB").convert("L") if how.channels == 1 and image.mode != "L" else image.convert(_mode(how))


def _mode(how: Reading) -> str:
    return "L" if how.channels == 1 else "RGB"


def _square(image: Any, how: Reading, crop: int | None) -> Any:
    """Image of `size`×`size` by Pillow's bicubic filter, which averages when it shrinks."""
    from PIL import Image, ImageOps

    size = (how.size, how.size)
    if how.resize == "pad":
        return ImageOps.pad(image, size, Image.Resampling.BICUBIC)
    width, height = image.size
    if how.resize == "stretch":
        return image.resize(size, Image.Resampling.BICUBIC)
    side = min(width, height, crop or width)
    left, top = (width - side) // 2, (height - side) // 2
    # Cut first: the filter would reach for the pixels around the square.
    return image.crop((left, top, left + side, top + side)).resize(size, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Decoded:
    """Image of `decode`: its pixels, uint8 [channels, size, size], or None with the reason in `remarks`."""

    name: str
    pixels: Pixels | None
    remarks: Sequence[str]


def decode(
    root: Path, names: Sequence[str], how: Reading, crop: int | None = None, *, as_is: bool = False
) -> Iterator[Decoded]:
    """Decoded files in their order, read by a few threads (Pillow decodes outside the interpreter's lock), with a
    progress bar on a terminal. A broken file has no pixels, and its reason instead.
    """

    def one(name: str) -> Decoded:
        try:
            return Decoded(name, *read_image(root / name, how, crop, as_is=as_is))
        except Broken as error:
            return Decoded(name, None, [str(error)])

    with ThreadPoolExecutor(_WORKERS) as pool, _bar(len(names)) as advance:
        # In blocks: otherwise images would be decoded faster than they are written, and fill the memory.
        rest = iter(names)
        while block := list(islice(rest, 32 * _WORKERS)):
            for each in pool.map(one, block):
                advance()
                yield each


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    """Progress bar on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=visible.unguarded(sys.stderr), stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("decoding images", total=total)
        yield lambda: progress.advance(task)


class Store:
    """Decoded arrays in one folder, under a key of all they depend on: `<key>.npy`, and facts in `<key>.json`.

    The facts are written last, so an array with facts is whole.
    """

    def __init__(self, folder: Path, *key: object) -> None:
        digest = hashlib.sha256(json.dumps([_SCHEMA, *key], sort_keys=True, default=str).encode()).hexdigest()
        self.array, self.index = folder / f"{digest[:32]}.npy", folder / f"{digest[:32]}.json"

    def read(self) -> tuple[Tensor, dict[str, Any]] | None:
        """Array, uint8 [N, C, H, W], and its facts; None if there is none that can be used.

        Past `MAPPED_FROM` bytes the array is a private memory map of the file, whose pages are read when they are
        indexed.
        """
        try:
            facts = json.loads(self.index.read_text("utf-8"))
            mapped = self.array.stat().st_size > MAPPED_FROM
            # "c": a change would stay in this process; torch wants memory that it may write to.
            values = np.load(self.array, mmap_mode="c" if mapped else None)
            if not isinstance(facts, dict) or values.ndim != 4 or values.dtype != np.uint8:
                return None
        except (OSError, ValueError):
            return None
        return torch.from_numpy(values), facts

    @contextmanager
    def scratch(self, shape: tuple[int, ...]) -> Iterator[npt.NDArray[np.uint8]]:
        """Temporary array of this shape on disk beside the stored ones. Raises `UsageError` if the folder cannot be
        written.
        """
        try:
            self.array.parent.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=self.array.parent)  # noqa: SIM115 -- what fails inside `with` is not ours
        except OSError as error:
            raise UsageError(
                f"{self.array.parent}: decoded images cannot be written there ({error.strerror}); point "
                "AIGC_LAB_DATA_DIR at a folder that can be written"
            ) from None
        with file:
            yield np.memmap(file, np.uint8, "w+", shape=shape)

    def write(self, rows: npt.NDArray[np.uint8], order: Sequence[int], facts: dict[str, Any]) -> None:
        """Stores the rows in the given order, and then the facts."""
        handle, temporary = tempfile.mkstemp(dir=self.array.parent, prefix=f".{self.array.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(order), *rows.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
                for row in order:
                    file.write(rows[row].tobytes())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.array)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        write_atomically(self.index, json.dumps(facts).encode())
