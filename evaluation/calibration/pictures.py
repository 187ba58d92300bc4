"""Colour pictures with texture of ten known classes, made by code, and what cameras and codecs do to all of them."""

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from aigc_lab.samples import Images

CLASSES = (
    *("plain", "upright stripes", "level stripes", "upright bars", "level bars"),
    *("fine checks", "coarse checks", "dots", "rings", "slanted stripes"),
)
SIZE = 32


def pictures(count: int, source: torch.Generator, of: tuple[int, ...] | None = None) -> Images:
    """So many labelled pictures [count, 3, 32, 32] of all classes, or of these alone, in equal shares on average: a
    texture in two colours, at any place and turned a little, over a gradient and under grain. Colours say next to
    nothing of the class, and the fine textures are a few pixels wide, so that blur takes them away.
    """
    allowed = torch.tensor(of or tuple(range(len(CLASSES))))
    labels = allowed[torch.randint(len(allowed), (count,), generator=source)]

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand((count, *size, 1, 1), generator=source)

    grid = torch.arange(SIZE) - (SIZE - 1) / 2
    down, across = (each[None] for each in torch.meshgrid(grid, grid, indexing="ij"))
    slant = uniform(-0.15, 0.15) + (labels == 9)[:, None, None] * math.pi / 4
    x = across * slant.cos() + down * slant.sin() + uniform(-4, 4)
    y = down * slant.cos() - across * slant.sin() + uniform(-4, 4)
    period = torch.where(
        torch.isin(labels, torch.tensor([1, 2, 5, 9]))[:, None, None], uniform(2.8, 3.6), uniform(7, 11)
    )
    waves = [(2 * math.pi * each / period).cos() for each in (x, y)]
    kinds = torch.stack(
        [
            torch.zeros_like(waves[0]),
            *(waves[0], waves[1], waves[0], waves[1]),
            *(waves[0] * waves[1], waves[0] * waves[1]),
            2 * ((waves[0] + waves[1]) / 2).clamp_min(0).square() - 0.5,
            (2 * math.pi * (x.square() + y.square()).sqrt() / period).cos(),
            waves[0],
        ],
        1,
    )
    texture = kinds[torch.arange(count), labels][:, None]
    base, other = uniform(0.15, 0.85, 3), uniform(-0.35, 0.35, 3)
    tilt = uniform(-0.01, 0.01, 3) * across + uniform(-0.01, 0.01, 3) * down
    grain = uniform(0.01, 0.05, 1) * torch.randn((count, 3, SIZE, SIZE), generator=source)
    values = base + tilt + other * texture + grain
    return Images((255 * values).round().clamp(0, 255).byte(), labels)


def blurred(images: Images, sigma: float) -> Images:
    """A Gaussian filter of each channel, `sigma` in pixels."""
    away = torch.arange(-9.0, 10.0)
    line = torch.exp(-away.square() / (2 * sigma**2))
    line, channels = line / line.sum(), images.values.shape[1]
    wide = F.pad(images.unit(), (9, 9, 9, 9), mode="reflect")
    rows = F.conv2d(wide, line.expand(channels, 1, 1, 19), groups=channels)
    values = F.conv2d(rows, line[:, None].expand(channels, 1, 19, 1), groups=channels)
    return Images((255 * values).round().clamp(0, 255).byte(), images.labels)


def compressed(images: Images, quality: int) -> Images:
    """As JPEG of this quality shows them."""
    shown = []
    for picture in images.values.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        shown.append(np.asarray(Image.open(file)))
    return Images(torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).contiguous(), images.labels)


def tinted(images: Images, gains: tuple[float, float, float], offset: float = 0.0, colour: float = 1.0) -> Images:
    """Each channel times its gain and brighter by `offset` (white is 1), with so much of its `colour`."""
    pixels = images.unit()
    grey = pixels.mean(1, keepdim=True)
    values = (grey + colour * (pixels - grey)) * torch.tensor(gains)[:, None, None] + offset
    return Images((255 * values).round().clamp(0, 255).byte(), images.labels)
