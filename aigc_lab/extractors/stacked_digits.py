"""A classifier of single digits, applied to each channel of stacked ones: what counts the modes of `stacked_mnist`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from aigc_lab import plugins
from aigc_lab.data.base import Dataset, Split
from aigc_lab.errors import Failure, UsageError
from aigc_lab.extractors import base
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape

# Three digits are right together when each is: 0.97³ = 0.91 of the stacks.
_GATE = 0.97
# Times the steps of the `classifier` features: those reach 0.966 on MNIST.
_ROUNDS = 5


def classes_per_channel(dataset: Dataset) -> int:
    """Number K of classes of each channel, for datasets of three channels whose label of (a, b, c) is aK² + bK + c; 0
    for others.
    """
    shape = dataset.shape
    if shape.modality != Modality.IMAGES or shape.size[0] != 3 or shape.classes is None:
        return 0
    each = round(shape.classes ** (1 / 3))
    return each if each**3 == shape.classes else 0


class _Red(Dataset):
    """Dataset of the first channel, labelled by its digit."""

    def __init__(self, stacked: Dataset) -> None:
        super().__init__(stacked.config, stacked.data_dir)
        self._stacked = stacked
        self._classes = classes_per_channel(stacked)

    @property
    def name(self) -> str:
        return f"{self._stacked.name}-red"

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, *self._stacked.shape.size[1:]), self._classes)

    def load(self, split: Split) -> Images:
        stacks = self._stacked.load(split)
        assert stacks.labels is not None
        return Images(stacks.values[:, :1], stacks.labels // self._classes**2)


class StackedDigits(base.Extractor):
    """Classifier of the `classifier` features, trained on the first channel of the train split. Vectors are those of
    the three channels side by side; logits [N, 3K] are K for each channel, not one for each of the K³ classes.

    Its accuracy on real MNIST is in the index beside its weights (`accuracy`), and is published with the scores.
    """

    short = "stacked"
    dimensions = 3 * 32  # of `classifier`, for each channel

    def __init__(self, single: base.Extractor) -> None:
        self._single = single
        self.network = single.network
        self.identity = f"stacked:{single.identity}"

    @classmethod
    def check(cls, dataset: Dataset, weights: WeightsPolicy) -> None:
        if not classes_per_channel(dataset):
            raise UsageError(
                f"the stacked digits' classifier needs three channels of one class each, and dataset {dataset.name} "
                f"holds {dataset.shape}, {dataset.shape.classes or 'no'} classes; choose a protocol without it"
            )

    @classmethod
    def prepare(
        cls, dataset: Dataset, *, cache: Path, weights: WeightsPolicy, device: str, say: Callable[[str], None]
    ) -> "StackedDigits":
        red: Any = _Red(dataset)
        kind: Any = plugins.find(base.Extractor, "classifier")
        single: base.Extractor = kind.prepare(red, cache=cache, weights=weights, device=device, say=say, rounds=_ROUNDS)
        reference = red.load("reference")
        logits = single.extract(reference).logits
        assert logits is not None
        accuracy = (logits.argmax(1) == reference.labels).double().mean().item()
        if accuracy < _GATE:
            raise Failure(
                f"the classifier for {dataset.name} cannot count modes: accuracy {accuracy:.3f} on single digits of "
                f"the reference split (at least {_GATE} wanted); choose a protocol without modes"
            )
        return cls(single)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        single = images.flatten(0, 1).unsqueeze(1)
        vectors, logits = self._single(single)
        assert logits is not None
        return vectors.reshape(len(images), -1), logits.reshape(len(images), -1)
