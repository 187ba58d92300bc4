"""Samples as files: pictures and a grid, points and their scatter plot, or sentences; with a note of where they come
from.
"""

import json
import os
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Literal

from aigc_lab import __version__
from aigc_lab.data.shared import sample_note
from aigc_lab.errors import UsageError
from aigc_lab.host import environment
from aigc_lab.host.capacity import format_bytes, free_disk, free_files
from aigc_lab.host.files import replacing, umask
from aigc_lab.host.settings import Settings
from aigc_lab.registry.columns import FinalCheckpoint
from aigc_lab.serving.lookup import find_weights
from aigc_lab.serving.request import Request

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    Array = numpy.typing.NDArray[Any]

# Samples in one file: arrays, and of text a sentence a line, with the note beside it as `<name>.json`.
_FILES = (".npz", ".txt")
# What a picture of many samples shows: the first ones, and no more than a screen can tell apart or memory should hold.
_SHOWN = 10_000
_SHOWN_BYTES = 32_000_000
# From so many samples on, it is said what they will take: they are minutes of work.
_MANY = 1_000_000
_CLUSTER = 4096  # bytes: what a file takes of a disk comes in such pieces


def sample(
    wanted: str,
    settings: Settings,
    *,
    n: int,
    seed: int,
    labels: str | None,
    place: Path | None,
    checkpoint: FinalCheckpoint,
    device: str,
    force: bool,
    drawing: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[str, Path]:
    """What `aigc-lab sample` does: writes `n` samples, and returns what to say of them and what to look at."""
    classes = _labels(labels)
    weights = find_weights(wanted, settings, checkpoint)
    place = place or Path(f"samples-{weights.name}")
    device = environment.device(device)
    note = {**weights.origin, "n": n, "seed": seed, "labels": classes, "device": device, "aigc_lab": __version__}
    note |= {key: value for key, value in drawing.items() if value is not None}
    check_place(place, note, force=force)
    model = weights.load(device)
    _refuse_kind(place, text=model.system.modality == "text")
    if classes == "all":
        classes = list(range(model.system.shape.classes or 1))
    shown = write(place, model.blocks([Request(n, seed, classes, drawing)]), n, note)
    run = f", run {weights.origin['run']}" if weights.origin.get("run") not in (None, weights.name) else ""
    return f"{n} samples of {weights.name} ({model.name}{run}), seed {seed}", shown


def _labels(text: str | None) -> list[int] | Literal["all"] | None:
    if text is None or text == "all":
        return text  # type: ignore[return-value]  # mypy does not narrow a string to its literal
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--labels {text}: write class numbers like 3,7 or all") from None


def check_place(place: Path, note: dict[str, Any], *, force: bool) -> None:
    """Raises `UsageError` when something else is at `place`. The same samples may be written again."""
    if place.suffix in (".npy", ".png", ".jpg", ".zip"):
        raise UsageError(f"-o {place}: name a folder, or a file that ends in .npz or .txt")
    with _writing(place):
        if not os.path.lexists(place):
            place.exists()  # a name that no file can have is refused here
            return
    file = place.suffix in _FILES
    if place.is_dir() == file:
        raise UsageError(
            f"-o {place}: is {'no' if file else 'a'} file; name a folder, or a file that ends in .npz or .txt"
        )
    if not force and (file or any(place.iterdir())) and _note(place) != note:
        raise UsageError(f"-o {place}: holds something else; name another place, or replace samples with --force")


def write(place: Path, blocks: "Iterable[Array]", n: int, note: dict[str, Any]) -> Path:
    """Writes `n` samples, block by block, and returns what to look at: `grid.png`, `scatter.png`, `samples.txt`, or the
    file itself. Raises `UsageError` once the first block shows that the disk will not hold them.

    A folder gets one PNG an image (or `points.npy`) and `samples.json`, the note; its picture shows the first of many.
    What an earlier call wrote is replaced; other files are left alone. Whatever ends this half-way leaves nothing.
    """
    coming = iter(blocks)
    first = next(coming)
    needed = _check_room(place, first, n)
    if n >= _MANY:
        print(f"about {format_bytes(needed)} will be written to {place}; Ctrl-C leaves nothing of it", file=sys.stderr)
    every = chain([first], coming)
    with _writing(place):
        if place.suffix == ".txt":
            with replacing(place.with_suffix(".json")) as description, replacing(place) as lines:
                _write_lines(lines, every)
                description.write_text(json.dumps(note, indent=2), "utf-8")
            return place
        if place.suffix == ".npz":
            with replacing(place) as archive:
                _write_archive(archive, every, first, n, note)
            return place
        with _folder(place) as draft:
            made = {4: _write_images, 2: _write_points}.get(first.ndim, _write_text)(draft, every, n)
            told = {"note": note, **made}
            (draft / sample_note.NAME).write_text(json.dumps(told, indent=2), "utf-8")
    return place / {4: "grid.png", 2: "scatter.png"}.get(first.ndim, "samples.txt")


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"-o {place}: cannot be written ({error.strerror})") from None


def _check_room(place: Path, first: "Array", n: int) -> int:
    """About how many bytes of the disk `n` samples like those of the first block take. Raises `UsageError` when they
    are more than it has room for.
    """
    needed = _stored(place, first) * n // len(first)
    pictures = first.ndim == 4 and place.suffix not in _FILES
    with _writing(place):
        free, files = free_disk(place), free_files(place) if pictures else None
    if needed > free:
        raise UsageError(
            f"-n {n:,}: so many samples take about {format_bytes(needed)}, and {format_bytes(free)} are free where "
            f"{place} lies; ask for fewer, or name a place on another disk with -o"
        )
    if files is not None and n > files:
        raise UsageError(
            f"-n {n:,}: a file for each picture is more than the {files:,} that can be made where {place} lies; ask"
            " for fewer, or for one file with -o samples.npz"
        )
    return needed


def _stored(place: Path, block: "Array") -> int:
    """How many bytes of the disk these samples take."""
    if block.ndim == 1:
        return len(_sentences(block))
    if place.suffix == ".npz":
        return len(zlib.compress(block.tobytes()))
    if block.ndim == 2:
        return block.nbytes
    return sum(-(-len(content) // _CLUSTER) * _CLUSTER for content in map(_png, block))


def _write_lines(path: Path, blocks: "Iterable[Array]") -> None:
    with path.open("wb") as file:
        for block in blocks:
            file.write(_sentences(block))


def _write_archive(path: Path, blocks: "Iterable[Array]", first: "Array", n: int, note: dict[str, Any]) -> None:
    """What `numpy.savez_compressed(samples=…, note=…)` writes, without the whole array in memory."""
    import numpy

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("samples.npy", "w", force_zip64=True) as file:
            _write_array(file, blocks, first, n)
        with archive.open("note.npy", "w") as file:
            numpy.save(file, numpy.array(json.dumps(note)), allow_pickle=False)


def _write_array(file: IO[bytes], blocks: "Iterable[Array]", first: "Array", n: int) -> None:
    """What `numpy.save` writes of all the blocks, `n` samples, as one array."""
    from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0

    write_array_header_1_0(file, header_data_from_array_1_0(first) | {"shape": (n, *first.shape[1:])})
    for block in blocks:
        file.write(block.tobytes())


def _write_images(folder: Path, blocks: "Iterable[Array]", n: int) -> dict[str, Any]:
    from aigc_lab.pictures import drawing
    from aigc_lab.serving.answering import picture

    shown: list[Array] = []
    for number, image in enumerate(chain.from_iterable(blocks)):
        (folder / _name(number)).write_bytes(_png(image))
        if number < _most_shown(image.nbytes):
            shown.append(image)
    (folder / "grid.png").write_bytes(drawing.png(picture(_stacked(shown))))
    return {"files": ["grid.png"], "images": n}


def _write_points(folder: Path, blocks: "Iterable[Array]", n: int) -> dict[str, Any]:
    from aigc_lab.pictures import drawing
    from aigc_lab.serving.answering import picture

    coming = iter(blocks)
    first = next(coming)
    shown: list[Array] = []

    def seen() -> "Iterator[Array]":
        for number, block in enumerate(chain([first], coming)):
            if number * len(first) < _most_shown(first[0].nbytes):
                shown.append(block)
            yield block

    with (folder / "points.npy").open("wb") as file:
        _write_array(file, seen(), first, n)
    points = [point for block in shown for point in block][: _most_shown(first[0].nbytes)]
    (folder / "scatter.png").write_bytes(drawing.png(picture(_stacked(points))))
    return {"files": ["points.npy", "scatter.png"]}


def _write_text(folder: Path, blocks: "Iterable[Array]", n: int) -> dict[str, Any]:
    _write_lines(folder / "samples.txt", blocks)
    return {"files": ["samples.txt"]}


def _most_shown(each: int) -> int:
    """How many samples of so many bytes are shown in one picture: a thousand or more of small ones."""
    return max(1, min(_SHOWN, _SHOWN_BYTES // each))


def _stacked(samples: "list[Array]") -> "Array":
    import numpy

    return numpy.stack(samples)


def _png(image: "Array") -> bytes:
    from aigc_lab.pictures import drawing

    return drawing.png(image[..., 0] if image.shape[2] == 1 else image)


def _name(number: int) -> str:
    return f"{number:05d}.png"


def _sentences(array: "Array") -> bytes:
    """A sentence a line."""
    return "".join(f"{line}\n" for line in array).encode()


def _refuse_kind(place: Path, *, text: bool) -> None:
    if text and place.suffix == ".npz":
        raise UsageError(f"-o {place}: is for arrays, and this model makes text; name a .txt file, or a folder")
    if not text and place.suffix == ".txt":
        raise UsageError(f"-o {place}: is for text, and this model makes none; name a folder, or a .npz file")


@contextmanager
def _folder(place: Path) -> Iterator[Path]:
    """A draft to be filled within. A new folder then appears whole; in one that is there, each file is replaced whole
    and the note comes last.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name[:100]}.", dir=place.parent))
    try:
        yield draft
        if not place.exists():
            draft.chmod(0o777 & ~umask())
            draft.rename(place)
            return
        for name in _earlier(_written(place)):
            if not (draft / name).exists():
                (place / name).unlink(missing_ok=True)
        with os.scandir(draft) as entries:
            for entry in entries:
                if entry.name != sample_note.NAME:
                    os.replace(entry, place / entry.name)
        os.replace(draft / sample_note.NAME, place / sample_note.NAME)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _earlier(written: dict[str, Any]) -> Iterator[str]:
    """The files that an earlier call says it wrote, by names that are names and nothing else."""
    count = written.get("images")
    yield from (_name(number) for number in range(count if isinstance(count, int) else 0))
    named = written.get("files")
    yield from (name for name in (named if isinstance(named, list) else []) if Path(str(name)).name == name)


def _note(place: Path) -> object:
    """The note of the samples at `place`; None where there are none."""
    if place.suffix == ".txt":
        return sample_note.read_note(place.with_suffix(".json"))
    if place.suffix != ".npz":
        return _written(place).get("note")
    import numpy

    try:
        with numpy.load(place, allow_pickle=False) as arrays:
            return json.loads(str(arrays["note"]))
    except (OSError, ValueError, KeyError):
        return None


def _written(folder: Path) -> dict[str, Any]:
    return sample_note.read_note(folder / sample_note.NAME)
