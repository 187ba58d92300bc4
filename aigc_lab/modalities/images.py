"""Images of one or three channels, drawn as a grid; written, and read, as folders of files too."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aigc_lab.data.base import Dataset, Modes
from aigc_lab.errors import UsageError
from aigc_lab.extractors.shared import lookup
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.modalities.base import Form, Lookalikes, ModalityKind, uniform
from aigc_lab.modalities.shared import blocks as stored
from aigc_lab.modalities.shared.gaussian import gaussian
from aigc_lab.modalities.shared.image_folder import ImageFolder
from aigc_lab.modalities.shared.inputs import Input, Range, check_finite
from aigc_lab.pictures import drawing
from aigc_lab.pictures.class_grid import class_grid
from aigc_lab.samples import Images, Samples
from aigc_lab.shape import Modality, Shape
from aigc_lab.verdicts.collapse import Beside, Judge
from aigc_lab.verdicts.conclusion import CollapseVerdict
from aigc_lab.verdicts.sentences import Sentences

if TYPE_CHECKING:
    from aigc_lab.modalities.base import Array
    from aigc_lab.pictures.drawing import Pixels

# A file takes of a disk pieces of so many bytes.
_CLUSTER = 4096
_REMEDY = "give uint8, or say what the numbers mean: unit (0 to 1), signed (-1 to 1) or byte (0 to 255)"


class ImagesKind(ModalityKind):
    """Images [N, C, H, W]: uint8 as they are stored, floats in [0, 1] as systems generate them."""

    samples = Images
    noun = "pictures"
    is_image = True
    example = "digits"
    overview = "grid.png"
    array_dimensions = frozenset({3, 4})
    reads_folders = True
    learns_labels = True
    stored_dtype = torch.uint8
    _remedy = "--size N brings both to N×N"

    def picture(self, samples: Samples, modes: Modes | None = None) -> "Pixels":
        return drawing.grid(_images(samples))

    def picture_by_class(self, samples: Samples, names: Sequence[str]) -> "Pixels":
        return class_grid(_images(samples), names)

    def tiles(self, samples: Samples, columns: int) -> "Pixels":
        return drawing.grid(_images(samples), columns=columns)

    # ---- written

    def array(self, samples: Samples) -> "Array":
        """uint8 [n, H, W, C]."""
        values: Array = samples.canonical().values.permute(0, 2, 3, 1).contiguous().numpy()
        return values

    def of_array(self, array: "Array") -> Images:
        return Images(torch.from_numpy(array).permute(0, 3, 1, 2))

    def write(self, folder: Path, blocks: "Iterable[Array]", n: int, classes: Sequence[str] = ()) -> dict[str, Any]:
        """Writes a PNG for each image, `00000.png` or `00000-cat.png` and so on, and the grid of the first of them."""
        shown: list[Array] = []
        for number, image in enumerate(chain.from_iterable(blocks)):
            of_class = classes[number % len(classes)] if classes else ""
            (folder / stored.sample_file(number, of_class)).write_bytes(_png(image))
            if number < stored.most_shown(image.nbytes):
                shown.append(image)
        (folder / self.overview).write_bytes(drawing.png(self.picture_of(stored.stacked(shown))))
        return {"files": [self.overview], "images": n}

    def size_on_disk(self, block: "Array", *, in_one_file: bool) -> int:
        if in_one_file:
            return super().size_on_disk(block, in_one_file=True)
        return sum(-(-len(content) // _CLUSTER) * _CLUSTER for content in map(_png, block))

    # ---- read

    def read_array(self, values: Tensor, name: str, numbers: Range | None) -> Images:
        """Images of an array [N, H, W], [N, C, H, W] or [N, H, W, C] with 1 or 3 channels."""
        if values.ndim == 3:
            values = values.unsqueeze(1)
        if values.ndim != 4 or 0 in values.shape:
            raise UsageError(f"{name}: images are [N, H, W], [N, C, H, W] or [N, H, W, C], not {list(values.shape)}")
        first, last = values.shape[1] in (1, 3), values.shape[3] in (1, 3)
        if first == last:
            why = "could be channels first or last" if first else "has 1 or 3 channels neither first nor last"
            raise UsageError(f"{name}: {list(values.shape)} {why}; give [N, C, H, W] with 1 or 3 channels")
        values = values if first else values.permute(0, 3, 1, 2)
        check_finite(Images(values), name)
        return Images(_bytes(values, name, numbers))

    def read_folder(self, root: Path, *, skip_broken: bool) -> Input:
        return ImageFolder(root, skip_broken)

    def extent(self, samples: Samples) -> tuple[int, tuple[int, int] | None]:
        _, channels, height, width = samples.values.shape
        return channels, (height, width)

    def in_form(self, samples: Samples, channels: int, side: int | None) -> Images:
        values = samples.values
        if values.shape[1] != channels:
            values = values.expand(-1, 3, -1, -1) if channels == 3 else _luma(_images(samples))
        if side is not None and tuple(values.shape[2:]) != (side, side):
            values = _resized(Images(values), side)
        return Images(values, samples.labels)

    def common_form(self, generated: Input, reference: Input, side: int | None) -> Form:
        """Grey images become RGB where the other set has colours, and those generated for a dataset what it is. Sets of
        mixed sizes are brought to the size of the other set, else to what most images have.
        """
        channels = reference.channels if reference.split else max(generated.channels, reference.channels)
        mixed = [each for each in (generated, reference) if each.sides is None]
        if side is None and mixed:
            even = reference if reference.sides is not None else generated if generated.sides is not None else None
            side = reference.common if even is None else even.common
        if side is not None and not 8 <= side <= 1024:
            raise UsageError(f"--size {side}: images are brought to 8 to 1024 pixels")
        rules = [] if side is None else [f"resize:{side}:crop-bicubic"]
        if channels not in {generated.channels} & {reference.channels}:
            rules.append("grey:rgb" if channels == 3 else "rgb:luma")
        return Form(channels, side, "|".join(rules))

    # ---- scored

    def best_features(
        self, dataset: Dataset, weights: WeightsPolicy, unfit: Callable[[], str | None]
    ) -> tuple[str, str]:
        """Inception where its weights are, else the dataset's own classifier where it is fit, else `lite0`. Raises
        `UsageError` where not even its weights are there: a random network judges only where it is named.
        """
        inception: Any = lookup.find_extractor("inception")
        lacking = "Inception's weights are not on this machine; --features inception downloads them"
        if inception.published.found(weights) is not None:
            return "inception", "features: inception"
        why = unfit()
        if why is None:
            return "classifier", f"features: the classifier of {dataset.name} ({lacking})"
        try:
            lookup.find_extractor("lite0").check(dataset, weights)
        except UsageError as error:
            own = "or name --features random, by which scores rank and mean nothing beyond that"
            raise UsageError(f"features: {why}, and lite0 cannot serve: {error}; {own}") from None
        return "lite0", f"features: lite0, ImageNet's EfficientNet-Lite0, whose scores are no FID ({why}; {lacking})"

    def trivial(self, train: Samples, count: int) -> Images:
        """A Gaussian of the training images, cut to [0, 1]; of more than 1,024 numbers an image, pixel by pixel."""
        return Images(gaussian(train.as_inputs(), count).clamp(0, 1))

    def noise(self, like: Samples, count: int, *key: str) -> Images:
        """Pixels drawn uniformly from [0, 1]."""
        return Images((uniform(like, count, key) + 1) / 2)

    # ---- judged

    def judged(
        self,
        judge: Judge,
        vectors: Tensor,
        generated: Any,
        *,
        copies: Callable[[], Tensor | None],
        sentences: Sentences | None,
        real: Lookalikes | None,
    ) -> CollapseVerdict:
        """The verdict on vectors; copies are told by pixels, and `real` images show whether a change of all generated
        ones, such as blur, hides what is there.
        """
        alike = copies()
        assert alike is not None
        return judge.judge(vectors, Beside(alike, shifted=None if real is None else partial(real.like, generated)))

    def error_of_mean(self, reference: Samples) -> float:
        pixels = reference.as_inputs().double()
        return (pixels - pixels.mean(0)).square().mean().item()

    # ---- counted and checked

    def blank(self, shape: Shape, count: int, labels: Tensor | None) -> Images:
        return Images(torch.zeros((count, *shape.size), dtype=torch.uint8), labels)

    def example_shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, 16, 16))

    def odd_shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, 15, 17), classes=10)

    def fault_of_stored(self, name: str, samples: Samples, shape: Shape) -> str | None:
        values = samples.values
        low, high = values[:50].min().item(), values[:50].max().item()
        if low < 26 and high > 229:
            return None
        return f"{name}: 50 pictures go from {low} to {high}, and uint8 pictures from 0 to 255: were they scaled?"

    def fault_of_generated(self, samples: Samples, shape: Shape) -> str | None:
        fault = super().fault_of_generated(samples, shape)
        if fault is not None:
            return fault
        low, high = samples.values.min().item(), samples.values.max().item()
        if 0 <= low <= high <= 1:
            return None
        return f"pixels go from {low:.3g} to {high:.3g}, and images are in [0, 1]: after tanh, (x + 1) / 2"


def _images(samples: Samples) -> Images:
    assert isinstance(samples, Images)
    return samples


def _png(image: "Array") -> bytes:
    return drawing.png(image[..., 0] if image.shape[2] == 1 else image)


def _bytes(values: Tensor, name: str, numbers: Range | None) -> Tensor:
    """Pixels as uint8. Raises `UsageError` for numbers whose meaning would have to be guessed."""
    if values.dtype == torch.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    has = f"{name}: {str(values.dtype).removeprefix('torch.')} numbers from {low:.4g} to {high:.4g}"
    if numbers is None:
        if not values.is_floating_point() and low >= 0 and high <= 255 and high > 1:
            numbers = "byte"
        elif values.is_floating_point() and low >= 0 and high <= 1:
            numbers = "unit"
        else:
            raise UsageError(f"{has} may mean several things; {_REMEDY} (--range)")
    limits = {"unit": (0.0, 1.0), "signed": (-1.0, 1.0), "byte": (0.0, 255.0)}[numbers]
    if low < limits[0] - 1e-3 or high > limits[1] + 1e-3:
        raise UsageError(f"{has} are not {numbers} ({limits[0]:g} to {limits[1]:g}); {_REMEDY}")
    unit = (values.float() - limits[0]) / (limits[1] - limits[0])
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8)


def _luma(images: Images) -> Tensor:
    """Grey by ITU-R BT.601, as Pillow turns colours into grey."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    return (images.canonical().values.float() * weights[:, None, None]).sum(1, keepdim=True).round().to(torch.uint8)


def _resized(images: Images, side: int) -> Tensor:
    """The middle square, resized by Pillow's bicubic filter: what becomes of a folder's images."""
    from PIL import Image

    values = images.canonical().values
    _, channels, height, width = values.shape
    cut = min(height, width)
    top, left = (height - cut) // 2, (width - cut) // 2
    values = values[:, :, top : top + cut, left : left + cut]
    rows = torch.empty(len(values), channels, side, side, dtype=torch.uint8)
    for index, each in enumerate(values.permute(0, 2, 3, 1).numpy()):
        picture = Image.fromarray(each[..., 0] if channels == 1 else each)
        pixels = np.array(picture.resize((side, side), Image.Resampling.BICUBIC))
        rows[index] = torch.from_numpy(pixels.reshape(side, side, channels)).permute(2, 0, 1)
    return rows
