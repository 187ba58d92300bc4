"""Figures of a report as PNG files, from the same data that its page draws: lines, heat maps and planes."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aigc_lab.pictures.style import COLOURS, DASHES, SOFT, blank, is_wide, plain, png
from aigc_lab.registry.roles import is_fresh
from aigc_lab.statistics.intervals import Z95
from aigc_lab.statistics.planes import PLANES, axis_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Json = Mapping[str, Any]

# More lines than this are not named one by one, and more bands hide each other.
_NAMED, _BANDS = 30, 12


def objective(data: Json) -> bytes | None:
    """The objective at each evaluation, a line a run, with intervals and floor; None where nothing was evaluated."""
    runs = [run for run in data["runs"] if run["history"]["step"]]
    if not runs:
        return None
    figure, ((axes,),) = blank(1, 1, (9.6, 5.2))
    for run in runs:
        told = run["history"]
        axes.plot(told["step"], _floats(told["value"]), label=_name(run), **_line(run, data))
        if len(runs) <= _BANDS:
            low, high = _floats(told["low"]), _floats(told["high"])
            axes.fill_between(told["step"], low, high, color=_colour(run), alpha=0.13, linewidth=0)
    if data["floor"] is not None:
        axes.axhline(data["floor"], color=SOFT, linewidth=1, linestyle="--")
    shown = [value for run in runs for value in run["history"]["value"] if value is not None]
    if is_wide(shown):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel(plain(f"{data['objective']} ({data['better']} is better)"))
    _legend(axes, len(runs))
    return png(figure)


def bins(told: Json) -> bytes:
    """The share of its real share of each bin at each step: 0 is missing, 1 as real, 2 and more twice."""
    names, steps = told["names"], told["steps"]
    figure, ((axes,),) = blank(1, 1, (9.0, min(40.0, 1.4 + 0.28 * max(len(names), 4))))
    ratios = [[min(ratio, 2.0) for ratio in row] for row in told["ratios"]]
    image = axes.imshow(ratios, aspect="auto", vmin=0, vmax=2, cmap="RdYlBu", interpolation="nearest")
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_xticks(range(len(steps)), [str(step) for step in steps])
    axes.grid(visible=False)
    axes.set_xlabel("step")
    figure.colorbar(image, ax=axes, ticks=[0, 1, 2], format=lambda at, _: ("missing", "as real", "twice")[round(at)])
    return png(figure)


def curves(data: Json, runs: Sequence[Json]) -> dict[str, bytes]:
    """Family of scalars (`loss`) -> its training curves, a panel each; what has one point only is left out."""
    families: dict[str, list[str]] = {}
    for name in sorted({name for run in runs for name in run["curves"] or {}}):
        if any(len(run["curves"].get(name, {"step": ()})["step"]) > 1 for run in runs if run["curves"]):
            families.setdefault(name.split("/")[0] if "/" in name else "other", []).append(name)
    return {family: _panels(data, runs, names) for family, names in families.items()}


def _panels(data: Json, runs: Sequence[Json], names: Sequence[str]) -> bytes:
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, grid = blank(rows, columns, (4.0 * columns, 0.4 + 2.6 * rows))
    panels = [axes for row in grid for axes in row]
    for axes, name in zip(panels, names, strict=False):
        axes.set_title(plain(name), fontsize=9, loc="left")
        for run in runs:
            if curve := (run["curves"] or {}).get(name):
                axes.plot(curve["step"], _floats(curve["value"]), **_line(run, data) | {"linewidth": 1.0})
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    return png(figure)


def beside(data: Json) -> bytes:
    """Curves of maximum likelihood over temperatures, and points of text GANs with ±1.96 standard errors."""
    figure, (grid,) = blank(1, 2, (11.0, 4.8))
    for axes, plane in zip(grid, PLANES, strict=True):
        across, up = plane.diversity, plane.quality
        for number, curve in enumerate(data["curves"]):
            look = {"color": COLOURS[curve["colour"] % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
            axes.plot(curve[across], curve[up], marker="o", markersize=4, label=plain(f" {curve['name']}"), **look)
            for temperature, x, y in zip(curve["temperature"], curve[across], curve[up], strict=True):
                if number == 0:
                    axes.annotate(f"{temperature:g}", (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
        for point in data["points"]:
            axes.errorbar(
                *([point[across]], [point[up]], [Z95 * point[f"{up}_error"]], [Z95 * point[f"{across}_error"]]),
                fmt="x",
                capsize=2,
                linewidth=1,
                color=COLOURS[point["colour"] % len(COLOURS)],
                label=plain(f" {point['name']}: {point['answer']}"),
            )
        axes.set_xlabel(axis_title(across))
        axes.set_ylabel(axis_title(up))
    _legend(grid[1], len(data["curves"]) + len(data["points"]))
    return png(figure)


def quality(runs: Sequence[Json]) -> bytes:
    """Quality against diversity of language models over temperatures: n-grams left, language models right."""
    figure, (grid,) = blank(1, 2, (11.0, 4.8))
    for axes, plane in zip(grid, PLANES, strict=True):
        across, up = plane.diversity, plane.quality
        for run in runs:
            points = run["temperature"]["points"]
            axes.plot(points[across], points[up], marker="o", markersize=4, color=_colour(run), label=_name(run))
            for temperature, x, y in zip(points["temperature"], points[across], points[up], strict=True):
                axes.annotate(f"{temperature:g}", (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
        real = runs[0]["temperature"]["real"]
        axes.plot([real[across]], [real[up]], "P", color="black", markersize=9, label="real")
        axes.set_xlabel(axis_title(across))
        axes.set_ylabel(axis_title(up))
    _legend(grid[1], len(runs) + 1)
    return png(figure)


def values(data: Json, name: str) -> bytes | None:
    """The score of each trial over the numbers that were chosen for `name`; None where fewer than two are known."""
    told = [trial for trial in data["trials"] if _is_number(trial["config"].get(name))]
    if len({trial["config"][name] for trial in told}) < 2:
        return None
    figure, ((axes,),) = blank(1, 1, (5.2, 4.0))
    for system in dict.fromkeys(trial["system"] for trial in told):
        mine = [trial for trial in told if trial["system"] == system]
        chosen = [trial["config"][name] for trial in mine]
        axes.plot(chosen, [trial["value"] for trial in mine], "o", color=_colour(mine[0]), label=plain(system))
    for scale, numbers in (
        (axes.set_xscale, [trial["config"][name] for trial in told]),
        (axes.set_yscale, [trial["value"] for trial in told]),
    ):
        if is_wide(numbers):
            scale("log")
    axes.set_xlabel(plain(name))
    axes.set_ylabel(plain(f"{data['objective']} ({data['better']} is better)"))
    _legend(axes, 2)
    return png(figure)


# ---- what they share


def _legend(axes: "Axes", lines: int) -> None:
    if lines <= _NAMED:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=7, frameon=False)


def _name(run: Json) -> str:
    # A label that begins with an underscore is left out of a legend, so that none does.
    return plain(f" {run['system']} {run['label']}{' *' if is_fresh(run['role']) else ''}")


def _colour(run: Json) -> str:
    return COLOURS[run["colour"] % len(COLOURS)]


def _line(run: Json, data: Json) -> dict[str, Any]:
    """Colour by system, dash by the trial among those of its system, as on the page."""
    mates = sorted({each["trial"] for each in data["runs"] if each["system"] == run["system"]})
    dash = DASHES[mates.index(run["trial"]) % len(DASHES)]
    return {"color": _colour(run), "linestyle": dash, "linewidth": 1.3 if is_fresh(run["role"]) else 1.8}


def _floats(numbers: Sequence[float | None]) -> list[float]:
    return [math.nan if number is None else number for number in numbers]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
