"""Networks that users bring: a file of features, and weights of the published forms, small and random."""

import torch
from torch import Tensor

from aigc_lab.nets import vit

FORMS = {"dinov2": vit.Form(64, 2, 4, 14, 37), "clip": vit.Form(64, 2, 1, 32, 7, output=16)}

MINE = '''"""Features of my own."""

import torch

from aigc_lab.extractors.base import Extractor, as_rgb


class Mine(Extractor):
    def __init__(self) -> None:
        torch.manual_seed(SEED)
        self.network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU())

    def __call__(self, images):
        return self.network(as_rgb(images).float() / 127.5 - 1).mean((2, 3)), None
'''


def random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(shape, generator=source) for name, shape in shapes.items()}
