"""Samples as one picture: a grid of images, or points on a plane."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aigc_lab.data.base import Modes
from aigc_lab.samples import Images, Samples

Pixels = npt.NDArray[np.uint8]

# Small images are enlarged (nearest neighbour) until a tile is at least this wide: a browser would blur them.
_TILE = 48
_GAP = 2
_CANVAS = 400
_DOT, _RING, _PAPER = (31, 119, 180), (200, 200, 200), (255, 255, 255)


def picture(samples: Samples, modes: Modes | None = None) -> Pixels:
    """uint8 [H, W, 3]: every image in a grid that is about square, or every point, on the true centres if known."""
    return grid(samples) if isinstance(samples, Images) else scatter(samples.canonical().values, modes)


def png(pixels: Pixels) -> bytes:
    """The file of a picture."""
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def grid(images: Images, columns: int | None = None) -> Pixels:
    """Rows of tiles with a dark gap between them, in the order of the samples; about square without `columns`."""
    values = images.canonical().values.cpu()
    values = values.expand(-1, 3, -1, -1) if values.shape[1] == 1 else values
    times = math.ceil(_TILE / values.shape[3])
    values = values.repeat_interleave(times, 2).repeat_interleave(times, 3)
    count, _, height, width = values.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 40, np.uint8)
    for index, tile in enumerate(values.permute(0, 2, 3, 1).numpy()):
        row, column = divmod(index, columns)
        top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
        canvas[top : top + height, left : left + width] = tile
    return canvas


def scatter(points: Tensor, modes: Modes | None) -> Pixels:
    """The first two dimensions on a square that holds the true centres (else all points); strays beyond it are cut."""
    shown = points[:, :2].cpu().double()
    frame = modes.centres[:, :2].double() if modes is not None else shown
    middle = (frame.amax(0) + frame.amin(0)) / 2
    half = max(1.35 * ((frame.amax(0) - frame.amin(0)) / 2).max().item(), 1e-6)
    canvas = np.full((_CANVAS, _CANVAS, 3), _PAPER, np.uint8)
    if modes is not None:
        # The circle of 3σ, or a mark that can be seen where σ is tiny.
        radius = max(3 * modes.sigma / half * _CANVAS / 2, 6)
        angles = torch.linspace(0, 2 * math.pi, 200, dtype=torch.float64)
        circle = torch.stack([angles.cos(), angles.sin()], 1) * radius
        for centre in _to_pixels(frame, middle, half):
            _put(canvas, centre + circle, _RING)
    _put(canvas, _to_pixels(shown, middle, half), _DOT)
    return canvas


def _to_pixels(points: Tensor, middle: Tensor, half: float) -> Tensor:
    unit = (points - middle) / half
    return torch.stack([unit[:, 0] + 1, 1 - unit[:, 1]], 1) * (_CANVAS / 2)


def _put(canvas: Pixels, positions: Tensor, colour: tuple[int, int, int]) -> None:
    places = positions.round().long()
    inside = ((places >= 0) & (places < _CANVAS)).all(1)
    columns, rows = places[inside].numpy().T
    canvas[rows, columns] = colour
