"""Pictures as uint8 arrays [H, W, 3]: grids of images, scatter plots, vector fields, line plots."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aigc_lab.data.base import Modes
from aigc_lab.samples import Images

Pixels = npt.NDArray[np.uint8]

# Small images are enlarged (nearest neighbour) until a tile is at least this wide: a browser would blur them.
_TILE = 48
_GAP = 2
_CANVAS = 400
_DOT, _RING, _PAPER, _END = (31, 119, 180), (200, 200, 200), (255, 255, 255), (214, 39, 40)
_ARROWS = 21


def png(pixels: Pixels) -> bytes:
    """The picture as the bytes of a PNG file."""
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels(file: Path) -> Pixels:
    """The pixels of a PNG file that `png` wrote."""
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image)


def grid(images: Images, columns: int | None = None) -> Pixels:
    """Images in rows of tiles with a dark gap of 2 pixels, in their order; about square without `columns`. Small ones
    are enlarged.
    """
    values = images.canonical().values.cpu()
    values = values.expand(-1, 3, -1, -1) if values.shape[1] == 1 else values
    times = math.ceil(_TILE / values.shape[3])
    values = values.repeat_interleave(times, 2).repeat_interleave(times, 3)
    count, _, height, width = values.shape
    columns = columns or max(math.ceil(math.sqrt(count)), 1)
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 40, np.uint8)
    for index, tile in enumerate(values.permute(0, 2, 3, 1).numpy()):
        row, column = divmod(index, columns)
        top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
        canvas[top : top + height, left : left + width] = tile
    return canvas


def scatter(
    points: Tensor, modes: Modes | None, colours: Sequence[tuple[int, int, int]] = (_DOT,), *, dot: int = 0
) -> Pixels:
    """The first two dimensions of points [N, D] on a square around the centres of the modes, which are drawn as
    circles, else around all points. Points beyond the square are left out. Each of several `colours` is that of as many
    points, in their order. A point is a square of 2 · `dot` + 1 pixels a side.
    """
    shown = _plane(points.cpu().double())
    frame = _plane(modes.centres.double()) if modes is not None else shown
    frame = frame if len(frame) else torch.zeros((1, 2), dtype=torch.float64)
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
    for part, colour in zip(_to_pixels(shown, middle, half).tensor_split(len(colours)), colours, strict=True):
        for right, down in itertools.product(range(-dot, dot + 1), repeat=2):
            _put(canvas, part.round() + torch.tensor([right, down]), colour)
    return canvas


def vector_field(
    velocity: Callable[[tuple[float, float]], tuple[float, float]],
    path: Sequence[tuple[float, float]],
    end: tuple[float, float],
    *,
    extent: float,
    labels: tuple[str, str],
) -> Pixels:
    """A plane vector field, and a path in it. Arrows of `velocity` over [−extent, extent]² are of one length, and
    fainter where it is slow. The path begins at a ring, if that is inside, and `end` is a dot, at the edge if it lies
    outside. The axes cross at 0.
    """
    from PIL import Image, ImageDraw

    scale = 2  # drawn larger and shrunk: smooth lines
    side = _CANVAS * scale
    image = Image.new("RGB", (side, side), _PAPER)
    draw = ImageDraw.Draw(image)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = (min(max(value / extent, -1.02), 1.02) for value in point)
        return side / 2 * (1 + 0.94 * x), side / 2 * (1 - 0.94 * y)

    for start, stop in (((-extent, 0.0), (extent, 0.0)), ((0.0, -extent), (0.0, extent))):
        draw.line([place(start), place(stop)], fill=_RING, width=scale)
    places = [extent * (2 * index / (_ARROWS - 1) - 1) for index in range(_ARROWS)]
    arrows = [((x, y), velocity((x, y))) for x in places for y in places]
    fastest = max(max(math.hypot(*speed) for _, speed in arrows), 1e-12)
    length = 0.7 * 2 * extent / (_ARROWS - 1)
    for (x, y), (dx, dy) in arrows:
        speed = math.hypot(dx, dy)
        if speed < 1e-12:
            continue
        shade = round(200 - 120 * math.sqrt(speed / fastest))
        ux, uy = length * dx / speed, length * dy / speed
        head = place((x + ux / 2, y + uy / 2))
        draw.line([place((x - ux / 2, y - uy / 2)), head], fill=(shade,) * 3, width=scale)
        for turn in (2.6, -2.6):
            bx = (ux * math.cos(turn) - uy * math.sin(turn)) * 0.35
            by = (ux * math.sin(turn) + uy * math.cos(turn)) * 0.35
            barb = place((x + ux / 2 + bx, y + uy / 2 + by))
            draw.line([head, barb], fill=(shade,) * 3, width=scale)
    for start, stop in itertools.pairwise(path):
        if max(map(abs, (*start, *stop))) <= 1.1 * extent:
            draw.line([place(start), place(stop)], fill=_DOT, width=scale)
    for point in (point for point in path if max(map(abs, point)) <= extent):
        _disc(draw, place(point), 1.5 * scale, fill=_DOT)
    _disc(draw, place(path[0]), 5 * scale, outline=_DOT, width=2 * scale)
    _disc(draw, place(end), 5 * scale, fill=_END)
    draw.text((side - 4 * scale, side / 2 + 3 * scale), labels[0], (90, 90, 90), font_size=13 * scale, anchor="ra")
    draw.text((side / 2 + 5 * scale, 2 * scale), labels[1], fill=(90, 90, 90), font_size=13 * scale)
    pixels: Pixels = np.asarray(image.resize((_CANVAS, _CANVAS), Image.Resampling.LANCZOS))
    return pixels


def _disc(draw: Any, at: tuple[float, float], radius: float, **style: Any) -> None:
    draw.ellipse([at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius], **style)


def _plane(points: Tensor) -> Tensor:
    """The first two dimensions [N, 2]; points of one dimension get 0 as the second."""
    return torch.cat([points, torch.zeros_like(points)], 1)[:, :2] if points.shape[1] == 1 else points[:, :2]


def _to_pixels(points: Tensor, middle: Tensor, half: float) -> Tensor:
    unit = (points - middle) / half
    return torch.stack([unit[:, 0] + 1, 1 - unit[:, 1]], 1) * (_CANVAS / 2)


def _put(canvas: Pixels, positions: Tensor, colour: tuple[int, int, int]) -> None:
    places = positions.round().long()
    inside = ((places >= 0) & (places < _CANVAS)).all(1)
    columns, rows = places[inside].numpy().T
    canvas[rows, columns] = colour


class Plot(NamedTuple):
    """A line through points (x, y, label); its `own` point is marked by a ring, that of `real` samples by a cross."""

    across: str
    up: str
    line: Sequence[tuple[float, float, str]]
    own: tuple[float, float]
    real: tuple[float, float] | None


def panels(plots: Sequence[Plot], side: int = 460) -> Pixels:
    """Plots side by side, each `side` pixels wide and high, with axes, ticks and labels."""
    from PIL import Image

    scale = 2
    drawn = [_panel(plot, side * scale, scale) for plot in plots]
    image = Image.new("RGB", (side * scale * len(drawn), side * scale), _PAPER)
    for number, each in enumerate(drawn):
        image.paste(each, (number * side * scale, 0))
    return np.asarray(image.resize((side * len(drawn), side), Image.Resampling.LANCZOS))


def _panel(plot: Plot, side: int, scale: int) -> Any:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (side, side), _PAPER)
    draw = ImageDraw.Draw(image)
    points = [(x, y) for x, y, _ in plot.line] + ([plot.real] if plot.real else [])
    left, right, top, bottom = 62 * scale, side - 16 * scale, 28 * scale, side - 52 * scale
    lows, highs, ticks = zip(*(_axis([point[axis] for point in points]) for axis in (0, 1)), strict=True)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = ((point[axis] - lows[axis]) / (highs[axis] - lows[axis]) for axis in (0, 1))
        return left + x * (right - left), bottom - y * (bottom - top)

    ink, small = (90, 90, 90), 12 * scale
    draw.rectangle([left, top, right, bottom], outline=_RING, width=scale)
    for value in ticks[0]:
        x, _ = place((value, lows[1]))
        draw.line([(x, top), (x, bottom)], fill=(238, 238, 238), width=scale)
        draw.text((x, bottom + 5 * scale), f"{value:.4g}", ink, font_size=small, anchor="ma")
    for value in ticks[1]:
        _, y = place((lows[0], value))
        draw.line([(left, y), (right, y)], fill=(238, 238, 238), width=scale)
        draw.text((left - 5 * scale, y), f"{value:.4g}", ink, font_size=small, anchor="rm")
    draw.text(((left + right) / 2, side - 8 * scale), plot.across, ink, font_size=13 * scale, anchor="ms")
    draw.text((left, 6 * scale), plot.up, ink, font_size=13 * scale, anchor="la")
    line = [place((x, y)) for x, y, _ in plot.line]
    draw.line(line, fill=_DOT, width=2 * scale)
    for at, (_, _, label) in zip(line, plot.line, strict=True):
        _disc(draw, at, 3 * scale, fill=_DOT)
        draw.text((at[0] + 6 * scale, at[1] - 4 * scale), label, _DOT, font_size=small, anchor="ls")
    _disc(draw, place(plot.own), 6 * scale, outline=_END, width=2 * scale)
    if plot.real is not None:
        x, y = place(plot.real)
        arm = 7 * scale
        draw.line([(x - arm, y), (x + arm, y)], fill=(44, 160, 44), width=3 * scale)
        draw.line([(x, y - arm), (x, y + arm)], fill=(44, 160, 44), width=3 * scale)
        draw.text((x + 9 * scale, y + 2 * scale), "real", (44, 160, 44), font_size=small, anchor="la")
    return image


def _axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """The ends of an axis, a little beyond the values, and round numbers between them."""
    low, high = min(values), max(values)
    room = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - room, high + room
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step = next(step * times for times in (0.5, 1, 2, 5) if (high - low) / (step * times) <= 6)
    return low, high, [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
