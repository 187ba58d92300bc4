"""Grids of images with a name for each row, a head for each column, and a note below."""

import textwrap
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from aigc_lab.host import visible
from aigc_lab.pictures import class_grid, style
from aigc_lab.pictures.drawing import Pixels
from aigc_lab.samples import Images

_GROUND, _INK, _LETTERS = (40, 40, 40), (235, 235, 235), 12
# Height of a line of text, and what a letter is wide, in pixels.
_LINE, _WIDTH, _MARGIN = 20, 6.2, 8


def labelled_grid(images: Images, rows: Sequence[str], columns: Sequence[str] = (), note: str = "") -> Pixels:
    """Images [rows × columns], row by row, uint8 [H, W, 3]: the grid of `class_grid` below the heads of its columns, if
    there are any, and above the note. Raises `ValueError` like `class_grid`, and for another number of heads.

    >>> import torch
    >>> images = Images(torch.zeros(6, 1, 48, 48))
    >>> labelled_grid(images, ["a", "b"], ["-1", "0", "1"], "a note").shape[0]
    142
    """
    body = class_grid.class_grid(images, rows)
    across = len(images) // len(rows)
    if columns and len(columns) != across:
        raise ValueError(f"{len(columns)} heads are none of {across} columns")
    parts = [body]
    if any(columns):
        parts.insert(0, _heads(columns, body, images.values.shape[3]))
    width = body.shape[1]
    lines = textwrap.wrap(visible.line(note), max(int((width - 2 * _MARGIN) / _WIDTH), 8))
    parts += [_text(((line, _MARGIN, "lm"),), width) for line in lines]
    return np.concatenate(parts, 0)


def _heads(columns: Sequence[str], body: Pixels, pixels: int) -> Pixels:
    """The heads, each above the middle of its column."""
    gap = 2
    tile = pixels * -(-48 // pixels) + gap
    left = body.shape[1] - len(columns) * tile - gap
    places = [left + gap / 2 + (place + 0.5) * tile for place in range(len(columns))]
    return _text(tuple((head, place, "mm") for head, place in zip(columns, places, strict=True)), body.shape[1])


@lru_cache(maxsize=32)  # the same at all steps, and most of the time of a small grid
def _text(texts: tuple[tuple[str, float, str], ...], width: int) -> Pixels:
    """A strip of one line with each text at its place, anchored there: uint8 [20, width, 3]."""
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (width, _LINE), _GROUND)
    draw = ImageDraw.Draw(strip)
    for text, place, anchor in texts:
        line = visible.line(text)
        draw.text((place, _LINE / 2), line, _INK, font=style.letters(line, _LETTERS), anchor=anchor)
    return np.asarray(strip)
