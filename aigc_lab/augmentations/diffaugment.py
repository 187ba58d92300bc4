"""DiffAugment (Zhao et al. 2020): colour, translation and cut-out, always."""

from collections.abc import Mapping

from torch import Tensor

from aigc_lab.augmentations.base import Augmentation
from aigc_lab.nets import augmentation
from aigc_lab.noise import Draw, Noise


class DiffAugment(Augmentation):
    """All three of section 4, with the strengths of the published code."""

    def noise(self, which: str, count: int) -> dict[str, Draw]:
        return {f"augment_{which}": Draw((count, augmentation.DIFFERENTIABLE), "unit")}

    def changed(self, images: Tensor, noise: Noise, which: str, memory: Mapping[str, Tensor]) -> Tensor:
        return augmentation.differentiable(images, noise[f"augment_{which}"])
