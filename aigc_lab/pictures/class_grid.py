"""Grids of images by class: a row for each class, a column for each latent."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from aigc_lab.host import visible
from aigc_lab.pictures import drawing, style
from aigc_lab.pictures.drawing import Pixels
from aigc_lab.samples import Images

_LETTERS, _WIDEST, _MARGIN = 13, 160, 8
_GROUND, _INK = (40, 40, 40), (235, 235, 235)


def class_grid(images: Images, names: Sequence[str]) -> Pixels:
    """Images [classes × columns], class after class, as a grid of one row a class with the class's name at the left,
    uint8 [H, W, 3]; right of the names it is the picture that `drawing.grid` draws. Drawn from the same latents for
    every class, a column is one latent in all classes. Raises `ValueError` for images that are not as many for each
    class.

    >>> import torch
    >>> class_grid(Images(torch.zeros(6, 1, 48, 48)), ["cat", "dog"]).shape[0]
    102
    """
    columns, rest = divmod(len(images), len(names)) if names else (0, 0)
    if rest or not columns:
        raise ValueError(f"{len(images)} images are no rows of {len(names)} classes")
    tiles = drawing.grid(images, columns=columns)
    return np.concatenate([_names(names, len(tiles)), tiles], 1)


def _names(names: Sequence[str], height: int) -> Pixels:
    """The names, one below the other at equal distances, ending at the same place: uint8 [height, W, 3]."""
    from PIL import Image, ImageDraw

    row = height / len(names)
    size = max(min(_LETTERS, int(row) - 2), 6)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    fonts = [style.letters(name, size) for name in names]
    texts = [_cut(visible.line(name), measure, font) for name, font in zip(names, fonts, strict=True)]
    widest = max(measure.textlength(text, font=font) for text, font in zip(texts, fonts, strict=True))
    strip = Image.new("RGB", (int(widest) + 2 * _MARGIN, height), _GROUND)
    draw = ImageDraw.Draw(strip)
    for place, (text, font) in enumerate(zip(texts, fonts, strict=True)):
        draw.text((strip.width - _MARGIN, (place + 0.5) * row), text, _INK, font=font, anchor="rm")
    return np.asarray(strip)


def _cut(text: str, measure: Any, font: Any) -> str:
    """The text, or its beginning where it is wider than a strip of names may be."""
    if measure.textlength(text, font=font) <= _WIDEST:
        return text
    while text and measure.textlength(f"{text}…", font=font) > _WIDEST:
        text = text[:-1]
    return f"{text}…"
