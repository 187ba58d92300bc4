"""CLIP's ViT-B/32 (Radford et al. 2021): features that know captions, and ImageNet's classes only from them."""

from pathlib import Path
from typing import ClassVar

from torch import Tensor

from aigc_lab.extractors.base import as_rgb
from aigc_lab.extractors.shared import pretrained
from aigc_lab.host.weights import Published
from aigc_lab.nets import vit

# Its sha256 is a part of the published address.
_SHA256 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"


class CLIP(pretrained.Pretrained):
    """Features [N, 512] before they are scaled to unit length, of images resized to 224×224 (bicubic, antialiased)."""

    short = "clip"
    kind = "clip-vitb32:bicubic224"
    block = 32
    form: ClassVar[vit.Form] = vit.Form(width=768, depth=12, heads=12, patch=32, grid=7, output=512)
    published = Published(
        "CLIP", "ViT-B-32.pt", _SHA256, f"https://openaipublic.azureedge.net/clip/models/{_SHA256}/ViT-B-32.pt"
    )

    @classmethod
    def built(cls, path: Path) -> vit.ViT:
        return vit.clip(pretrained.read_weights(path, vit.clip_shapes(cls.form)), cls.form)

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        return self.network(as_rgb(images)), None
