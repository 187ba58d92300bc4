"""Samples as files: pictures and a grid, points and their scatter plot, or sentences; with a note of where they come
from.
"""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from aigc_lab import __version__, environment
from aigc_lab.errors import UsageError
from aigc_lab.files import umask, write_atomically
from aigc_lab.registry.queries import Final
from aigc_lab.serving.finding import find
from aigc_lab.settings import Settings

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    Array = numpy.typing.NDArray[Any]

_NOTE = "samples.json"
# Samples in one file: arrays, and of text a sentence a line, with the note beside it as `<name>.json`.
_FILES = (".npz", ".txt")


def sample(
    wanted: str,
    settings: Settings,
    *,
    n: int,
    seed: int,
    labels: str | None,
    place: Path | None,
    checkpoint: Final,
    device: str,
    force: bool,
    drawing: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[str, Path]:
    """What `aigc-lab sample` does: writes `n` samples, and returns what to say of them and what to look at."""
    classes = _labels(labels)
    weights = find(wanted, settings, checkpoint)
    place = place or Path(f"samples-{weights.name}")
    device = environment.device(device)
    note = {**weights.origin, "n": n, "seed": seed, "labels": classes, "device": device, "aigc_lab": __version__}
    note |= {key: value for key, value in drawing.items() if value is not None}
    check(place, note, force=force)
    model = weights.load(device)
    _refuse_kind(place, text=model.system.modality == "text")
    if classes == "all":
        classes = list(range(model.system.shape.classes or 1))
    shown = write(place, model.sample(n, seed, classes, **drawing), note)
    run = f", run {weights.origin['run']}" if weights.origin.get("run") not in (None, weights.name) else ""
    return f"{n} samples of {weights.name} ({model.name}{run}), seed {seed}", shown


def _labels(text: str | None) -> list[int] | Literal["all"] | None:
    if text is None or text == "all":
        return text  # type: ignore[return-value]  # mypy does not narrow a string to its literal
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--labels {text}: write class numbers like 3,7 or all") from None


def check(place: Path, note: dict[str, Any], *, force: bool) -> None:
    """Raises `UsageError` when something else is at `place`. The same samples may be written again."""
    if place.suffix in (".npy", ".png", ".jpg", ".zip"):
        raise UsageError(f"-o {place}: name a folder, or a file that ends in .npz or .txt")
    if not place.exists():
        return
    file = place.suffix in _FILES
    if place.is_dir() == file:
        raise UsageError(
            f"-o {place}: is {'no' if file else 'a'} file; name a folder, or a file that ends in .npz or .txt"
        )
    if not force and (file or any(place.iterdir())) and _note(place) != note:
        raise UsageError(f"-o {place}: holds something else; name another place, or replace samples with --force")


def write(place: Path, array: "Array", note: dict[str, Any]) -> Path:
    """Writes the samples and returns what to look at: `grid.png`, `scatter.png`, `samples.txt`, or the file itself.

    A folder gets one PNG an image (or `points.npy`) and `samples.json`, the note. What an earlier call wrote is
    replaced; other files are left alone.
    """
    if place.suffix == ".txt":
        with _writing(place):
            write_atomically(place, _sentences(array))
            write_atomically(place.with_suffix(".json"), json.dumps(note, indent=2).encode())
        return place
    if place.suffix == ".npz":
        import numpy

        buffer = io.BytesIO()
        numpy.savez_compressed(buffer, samples=array, note=json.dumps(note))
        with _writing(place):
            write_atomically(place, buffer.getvalue())
        return place
    made = _images if array.ndim == 4 else _points if array.ndim == 2 else _text
    files = made(array)
    files[_NOTE] = json.dumps({"note": note, "files": sorted(files)}, indent=2).encode()
    with _writing(place):
        _fill(place, files)
    return place / {4: "grid.png", 2: "scatter.png"}.get(array.ndim, "samples.txt")


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"-o {place}: cannot be written ({error.strerror})") from None


def _images(array: "Array") -> dict[str, bytes]:
    import torch

    from aigc_lab import pictures
    from aigc_lab.samples import Images

    grey = array.shape[3] == 1
    files = {f"{number:05d}.png": pictures.png(image[..., 0] if grey else image) for number, image in enumerate(array)}
    return files | {"grid.png": pictures.png(pictures.grid(Images(torch.from_numpy(array).permute(0, 3, 1, 2))))}


def _points(array: "Array") -> dict[str, bytes]:
    import numpy
    import torch

    from aigc_lab import pictures

    buffer = io.BytesIO()
    numpy.save(buffer, array, allow_pickle=False)
    return {
        "points.npy": buffer.getvalue(),
        "scatter.png": pictures.png(pictures.scatter(torch.from_numpy(array), None)),
    }


def _text(array: "Array") -> dict[str, bytes]:
    return {"samples.txt": _sentences(array)}


def _sentences(array: "Array") -> bytes:
    """A sentence a line."""
    return "".join(f"{line}\n" for line in array).encode()


def _refuse_kind(place: Path, *, text: bool) -> None:
    if text and place.suffix == ".npz":
        raise UsageError(f"-o {place}: is for arrays, and this model makes text; name a .txt file, or a folder")
    if not text and place.suffix == ".txt":
        raise UsageError(f"-o {place}: is for text, and this model makes none; name a folder, or a .npz file")


def _fill(place: Path, files: dict[str, bytes]) -> None:
    """A new folder appears whole; in one that is there, each file is replaced whole and the note comes last."""
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        for name, content in files.items():
            (draft / name).write_bytes(content)
        if not place.exists():
            draft.chmod(0o777 & ~umask())
            draft.rename(place)
            return
        for name in _written(place).get("files", []):
            if name not in files and Path(name).name == name:
                (place / name).unlink(missing_ok=True)
        for name in files:
            os.replace(draft / name, place / name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _note(place: Path) -> object:
    """The note of the samples at `place`; None where there are none."""
    if place.suffix == ".txt":
        return _read(place.with_suffix(".json"))
    if place.suffix != ".npz":
        return _written(place).get("note")
    import numpy

    try:
        with numpy.load(place, allow_pickle=False) as arrays:
            return json.loads(str(arrays["note"]))
    except (OSError, ValueError, KeyError):
        return None


def _written(folder: Path) -> dict[str, Any]:
    return _read(folder / _NOTE)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
