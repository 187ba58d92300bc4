"""Scatter plots of points by class: a colour for each class, with its name beside the plot."""

import colorsys
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from aigc_lab.host import visible
from aigc_lab.pictures import drawing, style
from aigc_lab.pictures.drawing import Pixels

_LETTERS, _LINE, _MARGIN, _WIDEST = 13, 18, 8, 160
_INK = (90, 90, 90)
_FEW = 500  # points that leave room for large dots; of single pixels no colour is seen


def class_scatter(points: Tensor, names: Sequence[str]) -> Pixels:
    """Points [classes × n, D], class after class, as `drawing.scatter` draws them, in the colours of their classes;
    right of it stand the names in these colours. Raises `ValueError` for points that are not as many of each class.

    >>> import torch
    >>> class_scatter(torch.zeros(6, 2), ["cat", "dog"]).shape[0]
    400
    """
    if not names or len(points) % len(names):
        raise ValueError(f"{len(points)} points are not as many of each of {len(names)} classes")
    colours = _colours(len(names))
    plot = drawing.scatter(points, None, colours, dot=2 if len(points) <= _FEW else 1)
    return np.concatenate([plot, _legend(names, colours, len(plot))], 1)


def _colours(count: int) -> list[tuple[int, int, int]]:
    """Those of all figures, or as many shades as there are classes where they are more."""
    if count <= len(style.COLOURS):
        wheel = [tuple(int(each[place : place + 2], 16) for place in (1, 3, 5)) for each in style.COLOURS]
    else:
        shades = (colorsys.hsv_to_rgb(number / count, 0.85, 0.8) for number in range(count))
        wheel = [tuple(round(255 * part) for part in shade) for shade in shades]
    return [(red, green, blue) for red, green, blue in wheel[:count]]


def _legend(names: Sequence[str], colours: Sequence[tuple[int, int, int]], height: int) -> Pixels:
    from PIL import Image, ImageDraw

    lines, most = [*zip(map(visible.line, names), colours, strict=True)], height // _LINE
    if len(lines) > most:
        lines = [*lines[: most - 1], (f"and {len(lines) - most + 1} more", _INK)]
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    widths = [measure.textlength(text, font=style.letters(text, _LETTERS)) for text, _ in lines]
    legend = Image.new("RGB", (int(min(max(widths), _WIDEST)) + 2 * _MARGIN, height), (255, 255, 255))
    draw = ImageDraw.Draw(legend)
    for place, (text, colour) in enumerate(lines):
        at = (_MARGIN, (place + 0.5) * _LINE)
        draw.text(at, text, colour, font=style.letters(text, _LETTERS), anchor="lm")
    return np.asarray(legend)
