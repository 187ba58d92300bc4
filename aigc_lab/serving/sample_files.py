"""Samples of a model as files, whole or not at all, with a note of where they come from.

How the samples of a modality are laid out in a folder (images and their grid, points and their scatter plot, a line for
each sentence) its object in `aigc_lab.modalities` says.
"""

import inspect
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from aigc_lab import __version__
from aigc_lab.data.shared import sample_note
from aigc_lab.errors import UsageError
from aigc_lab.host import environment
from aigc_lab.host.capacity import format_bytes, free_disk, free_files
from aigc_lab.host.files import replacing, sha256, umask
from aigc_lab.host.settings import Settings
from aigc_lab.modalities.base import ModalityKind, modality_of
from aigc_lab.modalities.shared import blocks as stored
from aigc_lab.registry.columns import FinalCheckpoint
from aigc_lab.serving import class_samples, classes
from aigc_lab.serving.lookup import find_weights
from aigc_lab.serving.request import Request

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from aigc_lab.pictures.drawing import Pixels

    Array = numpy.typing.NDArray[Any]

# Samples in one file: arrays, and of text a sentence a line, with the note beside it as `<name>.json`.
_FILES = (".npz", ".txt")
# From so many samples on, it is said what they will take: they are minutes of work.
_MANY = 1_000_000


def sample(
    source: str,
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
    """Writes `n` samples of the model, run or file that is `source`. Returns what to say about them, of a sweep with a
    line on each run that was passed over, and the file to look at. Raises `UsageError` for what cannot be sampled, and
    for a `place` that cannot be written. `labels` are classes by name or number, or `all`.
    """
    asked = None if labels is None else classes.typed(labels)
    weights = find_weights(source, settings, checkpoint)
    place = place or Path(f"samples-{weights.name}")
    device = environment.device(device)
    note = {**weights.origin, "n": n, "seed": seed, "labels": class_samples.noted(asked)}
    note |= {"device": device, "aigc_lab": __version__}
    note |= {key: value for key, value in drawing.items() if value is not None}
    check_place(place, note, force=force)
    before = _replaced(_note(place), note)
    model = weights.load(device)
    kind = modality_of(model.system)
    _refuse_suffix(place, kind)
    turn = class_samples.turn(model, asked, n)
    blocks = model.blocks([Request(n, seed, turn, drawing)])
    names = [] if model.class_names is None else [model.class_names[number] for number in turn or ()]
    overview = None if place.suffix in _FILES else class_samples.by_class(model, kind, Request(n, seed, turn, drawing))
    shown = write(place, kind, blocks, n, note, force=force, turn=names, overview=overview)
    run = f", run {weights.origin['run']}" if weights.origin.get("run") not in (None, weights.name) else ""
    of = class_samples.told(names, asked, model)
    said = f"{n} samples of {weights.name} ({model.name}{run}){of}, seed {seed}{before}"
    return "\n".join([said, *weights.notes]), shown


def _replaced(there: object, note: Mapping[str, Any]) -> str:
    """Words on the other samples whose place is taken; "" where there are none."""
    if there == note or not isinstance(there, Mapping) or not sample_note.is_of_sample(there):
        return ""
    return f", in the place of {there['n']} with seed {there['seed']}"


def check_place(place: Path, note: dict[str, Any], *, force: bool) -> None:
    """Raises `UsageError` where `place` holds anything but samples that `sample` wrote and nobody has changed since,
    unless with `force`. Samples of the same `note` are written again in any case.
    """
    if place.suffix in (".npy", ".png", ".jpg", ".zip", ".tsv", ".csv", ".json", ".jsonl"):
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
    there = _note(place)
    if force or there == note or not (file or any(place.iterdir())):
        return
    if not sample_note.is_of_sample(there):
        raise UsageError(f"-o {place}: holds something else; name another place, or replace it with --force")
    changed = _changed(place)
    if changed is not None:
        raise UsageError(
            f"-o {place}: {changed} was changed after it was sampled; name another place, or replace it with --force"
        )


def _changed(place: Path) -> str | None:
    """The name of a file whose content is not what its note says that it was sampled as; None where there is none.

    Notes of earlier versions hold no sha256: there it is a file that is newer than the note, which they wrote last.
    """
    if place.suffix == ".npz":
        return None  # the note lies in it
    written = _written(place)
    if place.suffix == ".txt":
        # Under whatever name: the lines may have been renamed with their note.
        folder, sampled = place.parent, {place.name: set[str]().union(*_sampled(written).values())}
    else:
        digests = _sampled(written)
        folder, sampled = place, {name: digests.get(name, set()) for name in _earlier(written)}
    files = [folder / name for name in sampled if (folder / name).is_file()]
    if sample_note.SHA256 in written:
        return next((path.name for path in files if sha256(path) not in sampled[path.name]), None)
    noted = _note_file(place).stat().st_mtime_ns
    return next((path.name for path in files if path.stat().st_mtime_ns > noted), None)


def _sampled(written: Mapping[str, Any]) -> dict[str, set[str]]:
    """Name -> each sha256 that a file may have as it was sampled: two while one call replaces the files of another."""
    every: dict[str, set[str]] = {}
    for key in (sample_note.SHA256, sample_note.REPLACES):
        listed = written.get(key)
        for name, digest in listed.items() if isinstance(listed, dict) else ():
            every.setdefault(name, set()).add(str(digest))
    return every


def write(
    place: Path,
    kind: ModalityKind,
    blocks: "Iterable[Array]",
    n: int,
    note: dict[str, Any],
    *,
    force: bool = False,
    turn: Sequence[str] = (),
    overview: "Pixels | None" = None,
) -> Path:
    """Writes `n` samples of a kind, block by block, and returns the file to look at (`grid.png`, `scatter.png`,
    `samples.txt`, or the one file that holds all). Raises `UsageError` once the first block shows that the disk will
    not hold them.

    A folder gets what the kind writes, with the `overview` or a picture of the first samples, and the note as
    `samples.json`. `turn` names the classes that a conditional system's samples are of, in turn. What an
    earlier call wrote is replaced; other files are left alone, and one of a name that is needed is refused, unless with
    `force`. A call that is interrupted leaves nothing behind, or, while it replaces files, a note that knows both.
    """
    coming = iter(blocks)
    first = next(coming)
    classes_of = {sample_note.CLASSES: list(turn)} if turn else {}
    needed = _check_room(place, kind, first, n)
    if n >= _MANY:
        print(f"about {format_bytes(needed)} will be written to {place}; Ctrl-C leaves nothing of it", file=sys.stderr)
    every = chain([first], coming)
    with _writing(place):
        if place.suffix == ".txt":
            with replacing(place) as lines:
                stored.write_lines(lines, every)
                facts = note | classes_of | {sample_note.SHA256: {place.name: sha256(lines)}}
                _mark(place, facts, [place])
            _put_note(place, facts)
            return place
        if place.suffix == ".npz":
            with replacing(place) as archive:
                stored.write_archive(archive, every, first, n, note | classes_of)
            return place
        with _folder(place, force=force) as draft:
            # A kind of a user's own may write no class.
            told = {"classes": turn} if turn and "classes" in inspect.signature(kind.write).parameters else {}
            facts = {"note": note, **classes_of, **kind.write(draft, every, n, **told)}
            if overview is not None:
                from aigc_lab.pictures import drawing

                (draft / kind.overview).write_bytes(drawing.png(overview))
            facts[sample_note.SHA256] = {path.name: sha256(path) for path in sorted(draft.iterdir())}
            _put_note(draft, facts)
    return place / kind.overview


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"-o {place}: cannot be written ({error.strerror})") from None


def _check_room(place: Path, kind: ModalityKind, first: "Array", n: int) -> int:
    """An estimate of the bytes that `n` samples like those of the first block take. Raises `UsageError` when the disk
    has no room for them.
    """
    in_one_file = place.suffix in _FILES
    needed = kind.size_on_disk(first, in_one_file=in_one_file) * n // len(first)
    with _writing(place):
        free, files = free_disk(place), free_files(place) if kind.is_image and not in_one_file else None
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


def _refuse_suffix(place: Path, kind: ModalityKind) -> None:
    if place.suffix not in _FILES or place.suffix == kind.suffix:
        return
    if place.suffix == ".npz":
        raise UsageError(f"-o {place}: is for arrays, and this model makes text; name a .txt file, or a folder")
    raise UsageError(f"-o {place}: is for text, and this model makes none; name a folder, or a .npz file")


@contextmanager
def _folder(place: Path, *, force: bool) -> Iterator[Path]:
    """A temporary folder, whose files come to `place` at the end: a new folder appears whole; in one that is there,
    each file is replaced whole, between a note that knows the old files and the new ones and the note of the new ones.
    Raises `UsageError` for a file there that is not an earlier call's.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name[:100]}.", dir=place.parent))
    try:
        yield draft
        if not place.exists():
            draft.chmod(0o777 & ~umask())
            draft.rename(place)
            return
        earlier = sorted(_earlier(_written(place)))
        others = sorted({each.name for each in place.iterdir()} - {*earlier, sample_note.NAME})
        other = next((name for name in others if (draft / name).exists()), None)
        if other is not None and not force:
            raise UsageError(
                f"-o {place}: {other} is no sample of an earlier call; name another place, or replace it with --force"
            )
        _mark(place, _written(draft), [place / name for name in earlier])
        for name in earlier:
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
    """The names of the files that the note of an earlier call lists; those that lead elsewhere are left out."""
    count, named = written.get("images"), written.get("files")
    images = [stored.sample_file(number) for number in range(count if isinstance(count, int) else 0)]
    listed = dict.fromkeys([*images, *(map(str, named) if isinstance(named, list) else ()), *_sampled(written)])
    yield from (name for name in listed if Path(name).name == name)


def _mark(place: Path, facts: dict[str, Any], old: Iterable[Path]) -> None:
    """Puts the note of new samples before they come, with the `old` files that they will replace: a call that is killed
    in between leaves some of each, and the next one has to know both.
    """
    there = {path.name: sha256(path) for path in old if path.is_file()}
    _put_note(place, facts | {sample_note.REPLACES: there})


def _note_file(place: Path) -> Path:
    return place.with_suffix(".json") if place.suffix == ".txt" else place / sample_note.NAME


def _put_note(place: Path, facts: Mapping[str, Any]) -> None:
    with replacing(_note_file(place)) as file:
        file.write_text(json.dumps(facts, indent=2), "utf-8")


def _note(place: Path) -> object:
    """The note of the samples at `place`; None where there are none."""
    if place.suffix == ".txt":
        return _without_content(_written(place)) or None
    if place.suffix != ".npz":
        return _written(place).get("note")
    import numpy

    try:
        with numpy.load(place, allow_pickle=False) as arrays:
            return _without_content(json.loads(str(arrays["note"])))
    except (OSError, ValueError, KeyError):
        return None


def _without_content(written: object) -> object:
    """What was asked for, of a note that says in the same mapping what came of it."""
    if not isinstance(written, dict):
        return written
    return {key: value for key, value in written.items() if key not in sample_note.CONTENT}


def _written(place: Path) -> dict[str, Any]:
    return sample_note.read_note(_note_file(place))
