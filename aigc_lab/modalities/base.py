"""One object for each kind of samples: how they are read, written, drawn, judged and scored where nobody says how.

A modality is a file in this folder and has the name of its file: `modality("images")`. A user's file adds one by
defining a class of samples and a `ModalityKind` of it, beside the dataset or the system that uses it; it is known once
that file is imported, which happens before any of its samples exist. Installed packages offer theirs under the entry
point group `aigc_lab.modalities`.
"""

import hashlib
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from aigc_lab import plugins

if TYPE_CHECKING:
    import numpy
    import numpy.typing
    import torch
    from torch import Tensor

    from aigc_lab.data.base import Dataset, Modes
    from aigc_lab.host.weights import WeightsPolicy
    from aigc_lab.modalities.shared.inputs import Input, Range
    from aigc_lab.pictures.drawing import Pixels
    from aigc_lab.samples import Samples
    from aigc_lab.shape import Shape
    from aigc_lab.verdicts.collapse import Judge
    from aigc_lab.verdicts.conclusion import CollapseVerdict
    from aigc_lab.verdicts.sentences import Sentences

    Array = numpy.typing.NDArray[Any]

#: how the value of an option of sampling is written: a text, a whole number, or any number
OptionType = Literal["words", "whole", "number"]
# Samples in one picture: points on known modes, which show whether all modes are there; and any others.
_ON_MODES, _IN_PICTURE = 2000, 64


class Form(NamedTuple):
    """The form that two sets are brought to before they are compared: `channels` (0 where there are none), a `side` in
    pixels (None: as they are), and `rule`, what was done to get there, for signatures ("" for nothing).
    """

    channels: int
    side: int | None
    rule: str


class Lookalikes(Protocol):
    """Real samples that were changed to look like generated ones (see `verdicts.shift`)."""

    def like(self, generated: Any, weights: "Tensor", of: "Tensor") -> "tuple[Tensor, Tensor]":
        """Their vectors [k, d], and their places in the pool of real samples [k]."""


class Named(Protocol):
    """Anything that says its modality: samples, a shape, a system or its class, sentences."""

    @property
    def modality(self) -> str: ...


class ModalityKind(ABC):
    """A kind of samples. A subclass names its class of `samples` and draws them with `picture`; all else has a default
    that suits numbers of any shape, scored and judged by metrics and extractors of a user's own.

    It holds no state: `modality` makes one object of each class. One's own stands in the file of a dataset or a system:

        class Waveform(ModalityKind):
            samples = Waves  # a subclass of Samples whose `modality` is Modality("waveform")
            is_vector = True

            def picture(self, samples, modes=None):
                return plotted(samples.canonical().values)  # uint8 [H, W, 3]
    """

    samples: "ClassVar[type[Samples]]"
    #: what several samples are called in a sentence
    noun: ClassVar[str] = "samples"
    #: whether runs and reports show a picture of samples, or lines of text
    shown_as: ClassVar[Literal["picture", "lines"]] = "picture"
    #: whether each sample is a picture by itself: one PNG file, one tile of a grid
    is_image: ClassVar[bool] = False
    #: whether a sample is a vector as it is, so that collapse is judged without features, and no extractor reads it
    is_vector: ClassVar[bool] = False
    #: the dataset that ships on which `aigc-lab check` trains a system of this kind
    example: ClassVar[str | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "samples" in cls.__dict__:
            _register(cls)

    # ---- drawn

    @abstractmethod
    def picture(self, samples: "Samples", modes: "Modes | None" = None) -> "Pixels | None":
        """All samples in one picture, uint8 [H, W, 3]; on the centres of the `modes` of their dataset where these are
        known. None for what is shown as lines.
        """

    def picture_by_class(self, samples: "Samples", names: "Sequence[str]") -> "Pixels | None":
        """Samples [classes × n], class after class and drawn from the same latents, in one picture that tells the
        classes apart by their names, uint8 [H, W, 3]; None where there is no such picture.
        """
        return None

    def lines(self, samples: "Samples") -> list[str] | None:
        """Each sample as a line of text; None for what is shown as a picture."""
        return None

    def lines_by_class(self, samples: "Samples", names: Sequence[str] | None) -> list[str] | None:
        """The `lines`, class after class, each behind the name of its class (its number without `names`):
        "sport | The match is over." Samples without labels give the lines as they are.
        """
        lines = self.lines(samples)
        if lines is None or samples.labels is None:
            return lines
        classes = samples.labels.tolist()
        rows = sorted(zip(classes, lines, strict=True), key=lambda row: row[0])
        return [f"{label if names is None else names[label]} | {line}" for label, line in rows]

    def shown(self, modes: "Modes | None") -> int:
        """How many samples a run shows at each evaluation."""
        return _IN_PICTURE if modes is None else _ON_MODES

    def tiles(self, samples: "Samples", columns: int) -> "Pixels":
        """Samples in rows of so many, uint8 [H, W, 3]; asked for only where each `is_image`."""
        raise NotImplementedError

    # ---- written: `aigc-lab sample`, and what a served model answers

    #: the file that holds all samples, for `-o NAME.npz` (an array) or `-o NAME.txt` (a line each)
    suffix: ClassVar[Literal[".npz", ".txt"]] = ".npz"
    #: in a folder: the array of all samples, and the file to look at
    array_file: ClassVar[str] = "samples.npy"
    overview: ClassVar[str] = "picture.png"
    #: what may be said of how samples are drawn, beside number, seed and label
    options: ClassVar[Mapping[str, OptionType]] = MappingProxyType({})

    def array(self, samples: "Samples") -> "Array":
        """The samples as NumPy's array [n, …], as they are written and served."""
        values: Array = samples.canonical().values.contiguous().numpy()
        return values

    def of_array(self, array: "Array") -> "Samples":
        """The samples of what `array` returned."""
        import torch

        return self.samples(torch.from_numpy(array))

    def picture_of(self, array: "Array") -> "Pixels":
        """What `array` returned, in one picture, uint8 [H, W, 3]; asked for only where a picture shows samples."""
        pixels = self.picture(self.of_array(array))
        assert pixels is not None
        return pixels

    def write(self, folder: Path, blocks: "Iterable[Array]", n: int, classes: "Sequence[str]" = ()) -> dict[str, Any]:
        """Writes `n` samples, which come in `blocks` of arrays, and what to look at. Returns what the folder's note
        says of them: `files`, the names of those that are no single sample. `classes` are the names of what a
        conditional system's samples are of, in turn.
        """
        from aigc_lab.modalities.shared import blocks as stored
        from aigc_lab.pictures import drawing

        first = stored.write_shown(folder / self.array_file, blocks, n)
        (folder / self.overview).write_bytes(drawing.png(self.picture_of(first)))
        return {"files": [self.array_file, self.overview]}

    def size_on_disk(self, block: "Array", *, in_one_file: bool) -> int:
        """The bytes of disk that a block of samples takes, in a folder or in a file with `suffix`."""
        return len(zlib.compress(block.tobytes())) if in_one_file else block.nbytes

    # ---- read: what a user gives to be scored

    #: arrays of so many dimensions are samples of this kind, where they are held against such samples
    array_dimensions: ClassVar[frozenset[int]] = frozenset()
    #: whether a folder of files is samples of this kind
    reads_folders: ClassVar[bool] = False

    def read_array(self, values: "Tensor", name: str, numbers: "Range | None") -> "Samples":
        """The samples of an array that a user calls `name`; `numbers` says what its values mean. Raises `UsageError`
        for one that holds none.
        """
        from aigc_lab.errors import UsageError
        from aigc_lab.modalities.shared.inputs import check_finite

        if self.array_dimensions and values.ndim not in self.array_dimensions:
            dimensions = " or ".join(map(str, sorted(self.array_dimensions)))
            raise UsageError(f"{name}: {self.noun} are an array of {dimensions} dimensions, not {list(values.shape)}")
        try:
            samples = self.samples(values.float())
        except ValueError as error:
            raise UsageError(f"{name}: {error}") from None
        return check_finite(samples, name)

    def read_folder(self, root: Path, *, skip_broken: bool) -> "Input":
        """The samples in a folder of files. Raises `UsageError` for one that holds none."""
        raise NotImplementedError

    def extent(self, samples: "Samples") -> tuple[int, tuple[int, int] | None]:
        """Channels and sides (height and width in pixels) of images; 0 and None for all else."""
        return 0, None

    def in_form(self, samples: "Samples", channels: int, side: int | None) -> "Samples":
        """The samples with so many channels, and resized to `side`×`side` where that is given."""
        return samples

    def common_form(self, generated: "Input", reference: "Input", side: int | None) -> Form:
        """What both sets are brought to. Raises `UsageError` for a `side` that cannot be."""
        return Form(0, side, "")

    def mismatch(self, generated: "Samples", reference: "Samples", names: tuple[str, str]) -> str | None:
        """Why two sets that the user calls by these names cannot be compared; None where they can."""
        if generated.values.shape[1:] == reference.values.shape[1:]:
            return None
        fake, real = (list(each.values.shape[1:]) for each in (generated, reference))
        return f"{names[0]} holds {fake}, and {names[1]} {real}; {self._remedy}"

    _remedy: ClassVar[str] = "compare like with like"

    # ---- scored

    def panel(self, features: str | None) -> list[str]:
        """The metrics of `aigc-lab evaluate` where nobody names any: those of these features, if any are chosen."""
        if features is None:
            return []
        first = ["fid", "inception_score"] if features == "inception" else ["fd"]
        if features == "classifier":
            first.append("classifier_score")
        return [*first, "fd_debiased", "kid", "prdc", "vendi", "memorisation"]

    def best_features(
        self, dataset: "Dataset", weights: "WeightsPolicy", unfit: "Callable[[], str | None]"
    ) -> tuple[str, str] | None:
        """The extractor that scores samples best here, and why; None where each metric has its own. `unfit` says why
        no classifier of the dataset's classes can serve, None where one can: it is trained and tested for that.
        """
        return None

    def trivial(self, train: "Samples", count: int) -> "Samples":
        """What the simplest sampler makes: a Gaussian of the training samples' mean and covariance. An objective is
        learned where it is better than of these.
        """
        from aigc_lab.modalities.shared.gaussian import gaussian

        return self.samples(gaussian(train.canonical().values, count))

    def noise(self, like: "Samples", count: int, *key: str) -> "Samples":
        """Samples without any structure, as large as those of `like`, drawn by `key`: contracts hold metrics and
        extractors against them.
        """
        return replace(like, values=2 * uniform(like, count, key), labels=None)

    def unscorable(self, samples: "Samples") -> "Iterator[tuple[Samples, str]]":
        """The samples with a value in the fourth that no metric may score, for each such value; and what that is."""
        for bad in (math.nan, math.inf):
            values = samples.values.clone()
            values[3].view(-1)[0] = bad
            yield replace(samples, values=values), f"samples with one {bad}"

    # ---- judged: has a generator collapsed?

    #: the extractor of the judge where no metric has one
    judge_extractor: ClassVar[str | None] = None
    #: whether given classes become labels of the reference, so that a classifier may learn from them
    learns_labels: ClassVar[bool] = False

    def vectors(self, samples: "Samples") -> "Tensor":
        """The samples as vectors, float32 [n, d]; asked for only where they are vectors as they are."""
        return samples.canonical().values.flatten(1)

    def content(self, samples: "Samples") -> list[bytes]:
        """A key for each sample that equal ones share; asked for where a sample is no vector as it is."""
        values = samples.canonical().values.cpu().flatten(1).contiguous().numpy()
        return [hashlib.sha256(each).digest() for each in values]

    def sentences(self, real: "Sequence[Samples]", train: "Samples | None") -> "Sentences | None":
        """What real sets say together as sentences; None for all but text. Raises `ValueError` for too few."""
        return None

    def judged(
        self,
        judge: "Judge",
        vectors: "Tensor",
        generated: Any,
        *,
        copies: "Callable[[], Tensor | None]",
        sentences: "Sentences | None",
        real: Lookalikes | None,
    ) -> "CollapseVerdict":
        """The verdict on vectors [n, d] of generated samples. `copies()` are numbers [n] that equal samples share,
        `sentences` what real sentences say besides, and `real` makes real pictures look like generated ones.
        """
        return judge.judge(vectors)

    def error_of_mean(self, reference: "Samples") -> float | None:
        """The error of reconstruction of an autoencoder that gives the mean sample for every code; None where
        `reconstruction_mse` is not measured.
        """
        return None

    # ---- counted and checked

    def blank(self, shape: "Shape", count: int, labels: "Tensor | None") -> "Samples":
        """`count` samples of a shape and of no content, by which memory is estimated."""
        import torch

        return self.samples(torch.rand((count, *shape.size)), labels)

    def example_shape(self) -> "Shape | None":
        """A small shape, which contracts show to systems of other kinds; None where there is none."""
        return None

    def odd_shape(self) -> "Shape | None":
        """A shape of unusual size, which a system must refuse by name or make exactly; None where none is odd."""
        return None

    @property
    def stored_dtype(self) -> "torch.dtype":
        """The dtype of values as datasets store them."""
        import torch

        return torch.float32

    def fault_of_stored(self, name: str, samples: "Samples", shape: "Shape") -> str | None:
        """What is wrong with a dataset's samples beside size and dtype, a sentence that begins with `name`."""
        finite = samples.values.isfinite()
        if finite.all():
            return None
        return f"{name}: {int((~finite).sum())} of {finite.numel()} values are not finite"

    def fault_of_generated(self, samples: "Samples", shape: "Shape") -> str | None:
        """What is wrong with a system's samples beside their size, a sentence."""
        import torch

        values = samples.values
        if values.dtype != torch.float32:
            return f"samples are {values.dtype}: end sample with .float()"
        if not values.isfinite().all():
            return f"{int((~values.isfinite()).sum())} of {values.numel()} values are not finite"
        return None


def uniform(like: "Samples", count: int, key: Sequence[str]) -> "Tensor":
    """Uniform in [−1, 1), float32 [count, …] of the size of the samples."""
    from aigc_lab import noise

    return noise.draw(noise.Draw((count, *like.values.shape[1:]), "uniform"), *key)


_CLASSES: dict[str, type[ModalityKind]] = {}
_OBJECTS: dict[str, ModalityKind] = {}


def _register(kind: type[ModalityKind]) -> None:
    """Makes a class that is being defined known by the name of its samples' modality. A file that has changed defines
    it anew. Raises `ValueError` for the name of a modality that ships.
    """
    name = str(kind.samples.modality)
    ships = Path(__file__).with_name(f"{name}.py").is_file()
    if ships and not kind.__module__.startswith(f"{__package__}."):
        raise ValueError(f"{kind.__name__}: the modality {name} ships with the package; give yours another name")
    _CLASSES[name] = kind
    _OBJECTS.pop(name, None)


def modality(name: str) -> ModalityKind:
    """The object of a modality, by its name. Raises `UsageError` for one that is not known.

    >>> modality("images").noun
    'pictures'
    """
    name = str(name)
    if name not in _OBJECTS:
        kind = _CLASSES.get(name) or plugins.find(ModalityKind, name)  # type: ignore[type-abstract]
        _OBJECTS[name] = kind()
    return _OBJECTS[name]


def modality_of(what: Named) -> ModalityKind:
    """The object of the modality of samples, a shape or a system.

    >>> from aigc_lab.shape import Modality, Shape
    >>> modality_of(Shape(Modality.POINTS, (2,))).panel(features=None)
    ['modes']
    """
    return modality(what.modality)
