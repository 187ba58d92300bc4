"""The look of all figures: colours that the colour-blind tell apart, marks that differ without colour, footnotes."""

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from aigc_lab.host import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# As `dashboards/style.css` has them, after Okabe and Ito (2008).
COLOURS = ("#0072b2", "#d55e00", "#008a64", "#b0558c", "#a87300", "#3a9bd0")
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
INK, SOFT, LINE = "#1b1e23", "#5d6570", "#e1e3e0"
# A width that two columns of a paper have, in inches, and sizes of type in points: what is printed smaller is not read.
WIDTH, SMALL, NORMAL = 6.9, 7.0, 8.0
# From this ratio of the largest to the smallest value an axis is logarithmic.
_WIDE = 20.0
_LONGEST = 46
# Scripts that the first font lacks; those that this machine has are used.
_FALLBACKS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Noto Sans Arabic", "Noto Emoji", "Symbola")


def blank(rows: int, columns: int, size: tuple[float, float], **layout: Any) -> "tuple[Figure, Any]":
    """A figure of so many inches with empty axes [rows, columns]."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained", facecolor="white")
    grid = figure.subplots(rows, columns, squeeze=False, **layout)
    for axes in grid.flat:
        axes.grid(visible=True, color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=NORMAL)
        for each in (axes.xaxis.label, axes.yaxis.label):
            each.set_fontsize(NORMAL)
    return figure, grid


def footnote(figure: "Figure", sentences: Sequence[str]) -> None:
    """Writes sentences below a figure, which grows by what they need: n, the kind of interval, the signature."""
    width, height = figure.get_size_inches()
    # A letter is half as wide as it is high, and a little more.
    letters = int((width - 0.2) * 72 / (SMALL * 0.56))
    lines = [line for each in sentences if each for line in textwrap.wrap(plain(each), letters)]
    below = (len(lines) * SMALL * 1.35 + 8) / 72
    figure.set_size_inches(width, height + below)
    share = below / (height + below)
    figure.get_layout_engine().set(rect=(0, share, 1, 1 - share))  # type: ignore[union-attr, call-arg]
    text = "\n".join(lines)
    figure.text(0.1 / width, 4 / 72 / (height + below), text, fontsize=SMALL, color=SOFT, va="bottom", linespacing=1.2)


def direction(name: str, better: str) -> str:
    """The title of an axis: a score and which way is better."""
    return plain(f"{name} ({better} is better)")


def plain(text: str) -> str:
    """A user's text as it is: a dollar sign begins no formula."""
    return visible.line(text).replace("$", r"\$")


def short(text: str, longest: int = _LONGEST) -> str:
    """The text, or where it is long its beginning and its end."""
    text = visible.line(text)
    half = (longest - 1) // 2
    return plain(text if len(text) <= longest else f"{text[:half]}…{text[-half:]}")


def is_wide(numbers: Sequence[float]) -> bool:
    """Whether positive numbers span so much that a linear axis would show the small ones as one."""
    return bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) > _WIDE


def logarithmic(axes: "Axes", which: str) -> None:
    """Makes an axis logarithmic, with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axis.get_view_interval()
    decades = high / low if low > 0 else 1e9
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 300 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def whole_ticks(axes: "Axes", which: str, numbers: Sequence[float]) -> None:
    """Ticks at whole numbers alone, where all numbers are whole: a count has no halves."""
    from matplotlib.ticker import MaxNLocator

    if all(float(number).is_integer() for number in numbers):
        (axes.xaxis if which == "x" else axes.yaxis).set_major_locator(MaxNLocator("auto", integer=True))


def line_look(place: int, further: int = 0) -> dict[str, Any]:
    """Colour and dash of a curve by its place: no two of 36 are alike in both. `further` curves of the same colour have
    the next dashes.
    """
    dash = (place + place // len(COLOURS) + further) % len(DASHES)
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[dash]}


def legend(axes: "Axes", **options: Any) -> None:
    """A legend without a frame, if there is anything to name."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=SMALL, frameon=False, **options)


# ---- files


@cache
def _fonts() -> list[str]:
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _FALLBACKS if name in there)]


def letters(text: str, size: int) -> Any:
    """A font of Pillow's for a text, of so many pixels: Pillow's own for Latin letters, else the first that has all of
    the letters, or the most.
    """
    from PIL import ImageFont

    if text.isascii():
        return ImageFont.load_default(size)
    from matplotlib import font_manager

    files = [font_manager.findfont(name, fallback_to_default=False) for name in _fonts()]
    wanted = set(map(ord, text))
    best = max(files, key=lambda file: len(wanted & font_manager.get_font(file).get_charmap().keys()))
    return ImageFont.truetype(best, size)


@contextmanager
def typeset() -> Iterator[None]:
    """Within the block, texts of figures have letters of as many scripts as this machine has fonts for."""
    import matplotlib

    with matplotlib.rc_context({"font.family": _fonts()}):
        yield


def png(figure: "Figure") -> bytes:
    return written(figure, "png")


def written(figure: "Figure", form: str) -> bytes:
    """The bytes of a `png`, `pdf` or `svg` file. Letters of a PDF stay text, with their fonts embedded; those of an SVG
    are shapes, which look alike on every machine. The same figure gives the same bytes.
    """
    import matplotlib

    file = io.BytesIO()
    nothing: dict[str, Any] = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[form]
    rules: Any = {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "aigc-lab"}
    with matplotlib.rc_context(rules), typeset(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*missing from font")  # such a letter is a box, as in any program
        figure.savefig(file, format=form, metadata=nothing)
    return file.getvalue()
