"""What every modality must do, whoever wrote it: on real samples of one of its datasets."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.contracts.base import Broken, Contracts
from aigc_lab.data.base import Dataset
from aigc_lab.data.shared import sample_note
from aigc_lab.errors import UsageError
from aigc_lab.extractors.shared.lookup import find_extractor
from aigc_lab.host.weights import PUBLISHED
from aigc_lab.metrics.base import Metric
from aigc_lab.modalities.base import ModalityKind
from aigc_lab.modality import Modality
from aigc_lab.samples import Samples
from aigc_lab.scoring.inputs import read_input

# Real samples that are looked at, and how many of them are drawn.
_MANY, _DRAWN = 300, (64, 3, 1, 0)
# What a user calls the samples in contracts about messages.
_NAME = "made.npy"


@dataclass(frozen=True)
class Case:
    """A modality, and a dataset of it."""

    kind: type[ModalityKind]
    dataset: Dataset

    @cached_property
    def object(self) -> ModalityKind:
        return self.kind()

    @cached_property
    def samples(self) -> Samples:
        """Real ones, as they are stored."""
        return self.dataset.load("train").take(slice(0, _MANY))

    @property
    def lines(self) -> bool:
        """Whether samples are shown, and written, as lines of text."""
        return self.kind.shown_as == "lines"


def _same(first: Samples, second: Samples) -> bool:
    a, b = first.canonical().values, second.canonical().values
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def _are_samples(case: Case, made: Any, what: str, count: int) -> None:
    """Raises `Broken` unless these are so many samples of the modality, as large as real ones."""
    kind = case.kind.samples
    if not isinstance(made, kind):
        raise Broken(f"{what} returns a {type(made).__name__}: return {kind.__name__}(values)")
    has, needed = list(made.values.shape), [count, *case.samples.values.shape[1:]]
    if has != needed:
        raise Broken(f"{what} returns {has}, and {needed} are asked for")
    try:
        made.canonical()
    except ValueError as error:
        raise Broken(f"{what} returns samples that cannot be scored: {error}") from None


MODALITY: Contracts[Case] = Contracts()


@MODALITY.add()
def it_says_what_its_samples_are(case: Case) -> None:
    """Every table, picture and file of such samples takes its words from here."""
    kind = case.kind
    if not (isinstance(getattr(kind, "samples", None), type) and issubclass(kind.samples, Samples)):
        raise Broken("samples is no subclass of aigc_lab.samples.Samples")
    if not isinstance(getattr(kind.samples, "modality", None), Modality):
        raise Broken(f'{kind.samples.__name__}.modality: write modality = Modality("name")')
    if not kind.noun.strip():
        raise Broken("noun is empty: say what several samples are called")
    for key, options in (("shown_as", ("picture", "lines")), ("suffix", (".npz", ".txt"))):
        if getattr(kind, key) not in options:
            raise Broken(f"{key} is {getattr(kind, key)!r}: it is {' or '.join(options)}")
    files = [kind.overview, *([] if case.lines or kind.is_image else [kind.array_file])]
    if any(Path(name).name != name for name in files) or len(set(files)) < len(files):
        raise Broken(f"the files of a folder of samples are {', '.join(files)}: give each a plain name of its own")
    _are_samples(case, case.samples, "load of its dataset", len(case.samples))
    if case.samples.values.dtype != case.object.stored_dtype:
        raise Broken(f"stored_dtype is {case.object.stored_dtype}, and datasets store {case.samples.values.dtype}")


@MODALITY.add(it_says_what_its_samples_are)
def samples_have_one_form(case: Case) -> None:
    """Metrics, digests and caches read the canonical form: where it is none, equal samples get unequal scores."""
    samples, before = case.samples, case.samples.values.clone()
    once = samples.canonical()
    if not _same(once, once.canonical()):
        raise Broken("canonical() of canonical samples changes them: what is in that form already must stay")
    if not torch.equal(samples.values, before):
        raise Broken("canonical() changes the samples in place")
    some = torch.tensor([5, 2, 2])
    if not torch.equal(samples.take(some).canonical().values, once.values[some]):
        raise Broken("the canonical form of a sample depends on the others: take rows by themselves")
    if (has := samples.shape().size) != case.dataset.shape.size and case.kind.samples.fixed_size:
        raise Broken(f"shape() says {has} of samples of {case.dataset.shape.size}")


@MODALITY.add(samples_have_one_form)
def samples_without_a_score_are_refused(case: Case) -> None:
    """One NaN among a thousand samples must not become a score, nor a cached feature."""
    generated = case.object.trivial(case.samples, 20)  # stored pictures are whole numbers, and hold no NaN
    for bad, what in case.object.unscorable(generated):
        try:
            bad.canonical()
        except ValueError:
            continue
        raise Broken(f"canonical() takes {what}: begin it with self.check()")


@MODALITY.add(samples_have_one_form)
def an_array_keeps_every_number(case: Case) -> None:
    """What is written and served must score as the samples themselves do."""
    kind, samples = case.object, case.samples
    array = kind.array(samples)
    if not isinstance(array, numpy.ndarray) or len(array) != len(samples):
        raise Broken(f"array() of {len(samples)} samples is {getattr(array, 'shape', type(array).__name__)}")
    if case.lines:
        if list(array) != kind.lines(samples):
            raise Broken("array() and lines() say different sentences")
        return
    made = kind.of_array(array)
    _are_samples(case, made, "of_array", len(samples))
    if not _same(made, samples):
        raise Broken("of_array(array(samples)) are other samples: keep dtype, range and order of the axes")


@MODALITY.add(an_array_keeps_every_number)
def what_is_written_can_be_read(case: Case) -> None:
    """`aigc-lab sample -o FOLDER` writes what `evaluate --generated FOLDER` scores."""
    kind, samples = case.object, case.samples.take(slice(0, 7))
    blocks = [kind.array(samples.take(part)) for part in (slice(0, 3), slice(3, 6), slice(6, 7))]
    with tempfile.TemporaryDirectory(prefix="aigc-lab-check-") as name:
        folder = Path(name) / "samples"
        folder.mkdir()
        facts = kind.write(folder, iter(blocks), len(samples))
        lacking = [file for file in facts.get("files", ()) if not (folder / file).is_file()]
        if lacking or "files" not in facts:
            raise Broken(f"write says {facts!r:.80}, and {lacking[0] if lacking else 'names no files'} is not there")
        note = {"note": {"n": len(samples), "seed": 0, "aigc_lab": "check"}, **facts}
        (folder / sample_note.NAME).write_text(json.dumps(note), "utf-8")
        if case.lines:
            lines = (folder / kind.overview).read_text("utf-8").splitlines()
            if lines != kind.lines(samples):
                raise Broken(f"{kind.overview} holds {len(lines)} lines, and not the {len(samples)} sentences in order")
            return
        if not (kind.reads_folders or kind.array_dimensions):
            return  # such samples are given to a metric as arrays, by `read_array`
        read = read_input(folder, data_dir=Path(name), like=str(case.kind.samples.modality))
        channels, sides = read.channels, None
        back = read.load(channels, sides)
    if not _same(back, samples):
        raise Broken(f"{len(samples)} samples are read back as {len(back)} others: number, order, range and dtype stay")


def _refusal(read: Callable[[], object], what: str) -> str:
    """The message of the `UsageError` for something bad. Raises `Broken` for another error, and for none."""
    try:
        read()
    except UsageError as error:
        return str(error)
    except Exception as error:
        raise Broken(f"{what}: raises {type(error).__name__}: {error!s:.80}: raise UsageError with the name") from error
    raise Broken(f"{what}: it is taken for samples: raise UsageError with the name")


@MODALITY.add(an_array_keeps_every_number)
def bad_files_are_refused_by_name(case: Case) -> None:
    """A user who gives the wrong file must be told which one, and what is wrong with it."""
    kind, size = case.object, case.samples.canonical().values.shape[1:]
    faults: dict[str, Tensor] = {}
    if not case.lines:
        values = torch.full((30, *size), 0.5)
        values.view(30, -1)[3, 0] = torch.nan
        faults = {"an array with one NaN": values, "numbers in a row": torch.full((30,), 0.5)}
    for what, values in faults.items():
        message = _refusal(lambda values=values: kind.read_array(values, _NAME, None), what)  # type: ignore[misc]
        if _NAME not in message:
            raise Broken(f"{what}: the message does not name {_NAME}: {message:.80}")
    if kind.reads_folders:
        with tempfile.TemporaryDirectory(prefix="aigc-lab-check-") as name:
            message = _refusal(lambda: kind.read_folder(Path(name), skip_broken=False), "an empty folder")
            if name not in message:
                raise Broken(f"an empty folder: the message does not name it: {message:.80}")


@MODALITY.add(samples_have_one_form)
def other_samples_are_not_compared(case: Case) -> None:
    """Scores of samples of two sizes, or of two vocabularies, would be numbers without a meaning."""
    kind, names = case.object, ("made", "real")
    if (fault := kind.mismatch(case.samples, case.samples, names)) is not None:
        raise Broken(f"mismatch() finds fault with equal sets: {fault:.80}")
    mine = case.dataset.shape
    shape = kind.example_shape() if mine.vocabulary is not None else None
    shape = shape or replace(mine, size=tuple(side + 1 for side in mine.size))
    fault = kind.mismatch(kind.blank(shape, 4, None), case.samples, names)
    if not fault or any(name not in fault for name in names):
        raise Broken(f"mismatch() says {fault!r:.80} of samples of {shape} and of {mine}: name both")


@MODALITY.add(samples_have_one_form)
def many_few_and_no_samples_are_shown(case: Case) -> None:
    """Runs, reports and served models show samples, be they sixty-four, one, or all the same."""
    kind, samples, modes = case.object, case.samples, case.dataset.modes
    shown = {f"{count} samples": samples.take(slice(0, count)) for count in _DRAWN}
    shown["one sample over and over"] = samples.take(torch.zeros(8, dtype=torch.int64))
    if kind.shown(modes) < 1:
        raise Broken(f"shown() is {kind.shown(modes)}: an evaluation shows one sample at least")
    for what, some in shown.items():
        if case.lines:
            lines = kind.lines(some)
            if lines is None or len(lines) != len(some) or any("\n" in line for line in lines):
                raise Broken(f"lines() of {what} are no line each")
            continue
        pictures = {"picture()": kind.picture(some, modes), "picture() without modes": kind.picture(some)}
        if kind.is_image:
            pictures["tiles()"] = kind.tiles(some, 3)
        for call, pixels in pictures.items():
            if not isinstance(pixels, numpy.ndarray) or pixels.dtype != numpy.uint8 or pixels.shape[2:] != (3,):
                has = f"{getattr(pixels, 'dtype', type(pixels).__name__)} {list(getattr(pixels, 'shape', []))}"
                raise Broken(f"{call} of {what} is {has}: return uint8 [H, W, 3]")


@MODALITY.add(samples_have_one_form)
def the_trivial_sampler_is_a_baseline(case: Case) -> None:
    """An objective is learned where it is better than of the simplest sampler: it may know no single real sample, and
    every machine must draw the same.
    """
    kind, count = case.object, 200
    made = kind.trivial(case.samples, count)
    _are_samples(case, made, "trivial", count)
    if not _same(made, kind.trivial(case.samples, count)):
        raise Broken("trivial() gives others when it is called again: draw with aigc_lab.noise")
    unique = torch.unique(made.canonical().values.flatten(1), dim=0)
    if len(unique) < count // 4:
        raise Broken(f"trivial() makes {len(unique)} different samples of {count}: they are to vary as real ones do")
    every = torch.cat([unique, torch.unique(case.samples.canonical().values.flatten(1), dim=0)])
    copies = len(every) - len(torch.unique(every, dim=0))
    if copies > count // 4:
        raise Broken(f"{copies} of {count} trivial samples are copies of real ones: draw them from moments")


@MODALITY.add(samples_have_one_form)
def noise_is_drawn_by_its_key(case: Case) -> None:
    """Contracts hold metrics and extractors against noise, and a score of it must be the same tomorrow."""
    kind, count = case.object, 50
    made = kind.noise(case.samples, count, "a")
    _are_samples(case, made, "noise", count)
    if not _same(made, kind.noise(case.samples, count, "a")):
        raise Broken("noise() of one key differs from call to call: draw with aigc_lab.noise")
    if _same(made, kind.noise(case.samples, count, "b")):
        raise Broken("noise() of two keys is the same: pass the key on")


@MODALITY.add(samples_have_one_form)
def its_scores_measure_it(case: Case) -> None:
    """`aigc-lab evaluate` without `--metrics` must find metrics that can score such samples."""
    kind = case.object
    features = [None, "random"] if kind.is_image else [None]
    for name in dict.fromkeys(name for each in features for name in kind.panel(each)):
        try:
            metric = plugins.find(Metric, name)  # type: ignore[type-abstract]
            config = {"features": "random"} if kind.is_image and "features" in metric.Config.model_fields else {}
            measure = metric(metric.Config.model_validate(config))
            measure.check(case.dataset, 10_000)
            if measure.extractor is not None:
                find_extractor(measure.extractor).check(case.dataset, PUBLISHED)
        except ValueError as error:
            raise Broken(f"panel() names {name}: {error}") from None
    extractor = kind.judge_extractor
    if extractor is not None and not kind.is_vector and extractor not in plugins.names("extractors"):
        raise Broken(f"judge_extractor is {extractor!r}, and there is none of this name")


@MODALITY.add(samples_have_one_form)
def samples_are_told_apart(case: Case) -> None:
    """The verdict on collapse counts copies and bins: equal samples must be equal to it, and each by itself."""
    kind, samples = case.object, case.samples
    some = torch.tensor([7, 0, 7])
    if not kind.is_vector:
        keys, every = kind.content(samples.take(some)), kind.content(samples)
        if keys != [every[row] for row in some.tolist()] or keys[0] == keys[1]:
            raise Broken("content() is no key of each sample by itself: hash its values, and nothing else")
        return
    vectors = kind.vectors(samples)
    if vectors.ndim != 2 or len(vectors) != len(samples) or not vectors.isfinite().all():
        raise Broken(f"vectors() of {len(samples)} samples are {list(vectors.shape)}: return finite float32 [n, d]")
    if not torch.equal(kind.vectors(samples.take(some)), vectors[some]):
        raise Broken("the vector of a sample depends on the others: normalise by nothing that is counted over a batch")


@MODALITY.add(samples_have_one_form)
def sound_samples_are_found_sound(case: Case) -> None:
    """`aigc-lab check` of a dataset or a system asks the modality what is wrong with its samples."""
    kind, shape = case.object, case.dataset.shape
    if (fault := kind.fault_of_stored("train", case.samples, shape)) is not None:
        raise Broken(f"fault_of_stored() of sound samples: {fault:.80}")
    if (fault := kind.fault_of_generated(kind.trivial(case.samples, 50), shape)) is not None:
        raise Broken(f"fault_of_generated() of trivial samples: {fault:.80}")
    blank = kind.blank(shape, 3, None)
    _are_samples(case, blank, "blank", 3)
