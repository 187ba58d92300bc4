"""Changes of pictures that a critic sees, real and made alike, and that gradients pass through.

Pictures are [N, C, H, W] in [−1, 1]. All randomness is given, one row of numbers for each picture, so that a change
is a function of its arguments. Shifts are products with matrices of ones and zeros, which can be differentiated twice
and stacked.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from aigc_lab.nets.precision import single

#: how many uniform numbers in [0, 1] `differentiable` takes for each picture
DIFFERENTIABLE = 7
#: how many uniform numbers in [0, 1], and how many normal ones, `adaptive` takes for each picture
ADAPTIVE_UNIFORM, ADAPTIVE_NORMAL = 22, 7
#: how many uniform numbers in [0, 1] `flip_and_shift` takes for each picture
FLIP_AND_SHIFT = 3


def _moved(length: int, by: Tensor) -> Tensor:
    """[N, length, length]: the matrices that move a row of pixels by so many places [N]; what comes in is 0."""
    places = torch.arange(length, device=by.device)
    return (places[:, None] - places[None] == by.reshape(-1, 1, 1)).float()


def _whole(unit: Tensor, most: int) -> Tensor:
    """Whole numbers from −most to most, alike likely, of uniform ones."""
    return (unit * (2 * most + 1)).floor().clamp(max=2 * most).long() - most


def shift(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Pictures moved by whole pixels, [N] each; 0 comes in."""
    rows, columns = (_moved(length, by)[:, None] for length, by in zip(images.shape[2:], (down, right), strict=True))
    moved: Tensor = rows.to(images.dtype) @ images @ columns.to(images.dtype).transpose(2, 3)
    return moved


def flip_and_shift(images: Tensor, unit: Tensor) -> Tensor:
    """Mirrored half of the time, and moved by up to 4 of 32 pixels each way: the changes of consistency regularisation
    (Zhang et al. 2020, section 3.1); `unit` is [N, 3].
    """
    down, right = (_whole(unit[:, i], side // 8) for i, side in enumerate(images.shape[2:], 1))
    mirrored = torch.where((unit[:, 0] < 0.5).reshape(-1, 1, 1, 1), images.flip(3), images)
    return shift(mirrored, down, right)


def differentiable(images: Tensor, unit: Tensor) -> Tensor:
    """DiffAugment's colour, translation and cut-out (Zhao et al. 2020, section 4): brightness ±½, saturation 0 to 2,
    contrast ½ to 1½, moves by up to an eighth of the side, a square of half the side set to 0. `unit` is [N, 7].
    """
    number = [value.reshape(-1, 1, 1, 1) for value in unit.unbind(1)]
    images = images + number[0] - 0.5
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (2 * number[1]) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * (number[2] + 0.5) + mean
    height, width = images.shape[2:]
    images = shift(images, _whole(unit[:, 3], height // 8), _whole(unit[:, 4], width // 8))
    return images * _outside(height, unit[:, 5])[:, None, :, None].logical_or(
        _outside(width, unit[:, 6])[:, None, None, :]
    )


def _outside(length: int, unit: Tensor) -> Tensor:
    """Which of the places [N, length] lie outside of a stretch of half the length, whose middle may be anywhere."""
    half = length // 2
    first = (unit * (length + 1 - half % 2)).floor() - half // 2
    places = torch.arange(length, device=unit.device)
    return (places < first[:, None]) | (places >= first[:, None] + half)


def adaptive(images: Tensor, unit: Tensor, normal: Tensor, p: Tensor) -> Tensor:
    """The changes of adaptive discriminator augmentation (Karras et al. 2020, appendix B: pixel blitting, general
    geometry, colour), each with probability `p` (0-d). `unit` is [N, 22] and `normal` [N, 7].

    All geometry is one bilinear sampling of the picture, mirrored beyond its edges, where the paper filters with
    wavelets; grey pictures have brightness, contrast and inversion only.
    """
    with single(images):
        return _adaptive(images if images.dtype == torch.float64 else images.float(), unit, normal, p)


def _adaptive(images: Tensor, unit: Tensor, normal: Tensor, p: Tensor) -> Tensor:
    # Nine coins and nine numbers, and a coin more for each change of colour but the first.
    apply = torch.cat([unit[:, :9], unit[:, 18:]], 1) < p
    value = unit[:, 9:18]
    one, zero = torch.ones_like(value[:, 0]), torch.zeros_like(value[:, 0])

    def chosen(index: int, changed: Tensor) -> Tensor:
        """The number of a change where it is applied; nought, which changes nothing, elsewhere."""
        return torch.where(apply[:, index], changed, zero)

    def matrix(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return torch.stack([torch.stack(row, 1) for row in (*rows, (zero, zero, one))], 1)

    def scale(x: Tensor, y: Tensor) -> Tensor:
        return matrix((x, zero, zero), (zero, y, zero))

    def turn(angle: Tensor) -> Tensor:
        return matrix((angle.cos(), -angle.sin(), zero), (angle.sin(), angle.cos(), zero))

    def move(x: Tensor, y: Tensor) -> Tensor:
        return matrix((one, zero, x), (zero, one, y))

    # A rotation before and one after the stretching: together as likely as every other change.
    half = 1 - (1 - p.clamp(max=1)).sqrt()
    before, after = (torch.where(unit[:, i] < half, (value[:, i] * 2 - 1) * math.pi, zero) for i in (5, 6))
    mirror = torch.where(apply[:, 0] & (value[:, 0] < 0.5), -one, one)
    quarter = chosen(1, (value[:, 1] * 4).floor() * (math.pi / 2))
    # Coordinates go from −1 to 1 over the height: an eighth of it is a quarter.
    whole = [chosen(2, _whole(value[:, 2 + i], images.shape[3 - i] // 8) * (2 / images.shape[2])) for i in range(2)]
    size = 2 ** chosen(3, normal[:, 0] * 0.2)
    stretch = 2 ** chosen(4, normal[:, 1] * 0.2)
    geometry = (
        scale(mirror, one)
        @ turn(quarter)
        @ move(*whole)
        @ scale(size, size)
        @ turn(before)
        @ scale(stretch, 1 / stretch)
        @ turn(after)
        @ move(chosen(7, normal[:, 2] * 0.25), chosen(7, normal[:, 3] * 0.25))
    )
    height, width = images.shape[2:]
    rows, columns = (
        (2 * torch.arange(side, device=images.device, dtype=normal.dtype) + 1) / side - 1 for side in (height, width)
    )
    # As long in both directions while it is turned, whatever the shape of the picture.
    aspect = width / height
    places = torch.stack(
        [columns.repeat(height) * aspect, rows.repeat_interleave(width), torch.ones_like(rows.repeat(width))], 1
    )
    moved = places @ geometry[:, :2].transpose(1, 2)
    grid = torch.stack([moved[..., 0] / aspect, moved[..., 1]], -1).reshape(-1, height, width, 2).to(images.dtype)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return _colour(images, apply[:, 8:], value[:, 8], value[:, 4], normal[:, 4:])


def _colour(images: Tensor, apply: Tensor, unit: Tensor, hue: Tensor, normal: Tensor) -> Tensor:
    """Brightness, contrast, inversion of the luma axis, hue and saturation; `apply` [N, 5] says which."""

    def each(index: int, values: Tensor) -> Tensor:
        chosen = torch.where(apply[:, index], values, torch.zeros_like(values))
        return chosen.reshape(-1, 1, 1, 1).to(images.dtype)

    images = (images + each(0, normal[:, 0] * 0.2)) * 2 ** each(1, normal[:, 1] * 0.5)
    grey = images.mean(1, keepdim=True)
    images = images - 2 * grey * each(2, (unit < 0.5).to(normal.dtype))
    if images.shape[1] != 3:
        return images
    grey = images.mean(1, keepdim=True)
    # A turn about the grey axis (Rodrigues' formula), and how far colours are from it.
    angle = each(3, (2 * hue - 1) * math.pi)
    away = images - grey
    crossed = (away.roll(1, 1) - away.roll(-1, 1)) / math.sqrt(3)
    return grey + (away * angle.cos() + crossed * angle.sin()) * 2 ** each(4, normal[:, 2])
