"""DINOv2's ViT-L/14 (Oquab et al. 2023), whose Fréchet distance people agree with more often (Stein et al. 2023)."""

from pathlib import Path
from typing import ClassVar

from torch import Tensor

from aigc_lab.extractors.base import as_rgb
from aigc_lab.extractors.shared import pretrained
from aigc_lab.host.weights import Published
from aigc_lab.nets import vit


class DINOv2(pretrained.Pretrained):
    """Features [N, 1024] of images resized to 224×224 (bicubic, antialiased); dgm-eval resizes with PIL."""

    short = "dinov2"
    kind = "dinov2-vitl14:bicubic224"
    block = 32
    form: ClassVar[vit.Form] = vit.Form(width=1024, depth=24, heads=16, patch=14, grid=37)
    published = Published(
        "DINOv2",
        "dinov2_vitl14_pretrain.pth",
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    )

    @classmethod
    def built(cls, path: Path) -> vit.ViT:
        return vit.dinov2(pretrained.read_weights(path, vit.dinov2_shapes(cls.form)), cls.form)

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        return self.network(as_rgb(images)), None
