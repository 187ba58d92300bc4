"""Figures of sweeps: what they draw is what the runs have, nothing is cut off, and what cannot be drawn is said."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from made_runs import SIGNATURE, a_run, random_search, stability
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from aigc_lab.commands.plot import KINDS, figure_of, refuse_path, write_figure
from aigc_lab.errors import UsageError
from aigc_lab.pictures import pareto
from aigc_lab.pictures.rows import Look
from aigc_lab.pictures.style import COLOURS, MARKERS, SMALL, typeset, written
from aigc_lab.registry.seed_runs import SeedRun, group_runs
from aigc_lab.registry.standings import median_interval
from aigc_lab.statistics.budget import best_of_budget
from aigc_lab.sweeps import importance
from aigc_lab.verdicts.seeds import kaplan_meier


@pytest.fixture(autouse=True)
def _few_deals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "_DEALS", 12)


def draw(runs: Sequence[SeedRun], kind: str, **options: Any) -> Figure:
    with typeset():
        return figure_of(runs, kind, **options)


def texts(figure: Figure) -> list[Text]:
    """All that is written in a figure; matplotlib makes more ticks than it shows."""
    found = list(figure.texts)
    for axes in figure.axes:
        found += [
            *axes.texts,
            axes.title,
            *(each for each in axes.get_children() if isinstance(each, Text)),
            axes.xaxis.label,
            axes.yaxis.label,
        ]
        legend = axes.get_legend()
        found += legend.get_texts() if legend else []
        axis: Any
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            places = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False)
            found += [label for at, label in places if low <= at <= high]
    return [each for each in found if each.get_text().strip()]


def xs(line: Any) -> list[float]:
    return [float(each) for each in np.atleast_1d(line.get_xdata())]


def ys(line: Any) -> list[float]:
    return [float(each) for each in np.atleast_1d(line.get_ydata())]


def named(figure: Figure) -> list[str]:
    """What the legend names."""
    legend = figure.axes[0].get_legend()
    return [] if legend is None else [each.get_text() for each in legend.get_texts()]


def footnote(figure: Figure) -> str:
    return " ".join(" ".join(each.get_text().split()) for each in figure.texts)


def rivals(systems: int = 4, seeds: int = 6, **changes: Any) -> list[SeedRun]:
    source = np.random.default_rng(0)
    return [
        a_run(
            trial, seed, float(np.exp(source.normal(trial / 3, 0.2))), system=f"system_{trial:02d}",
            collapse=("NONE", "PARTIAL", "INCONCLUSIVE")[trial % 3], stability=stability(1.0, fails=trial % 2 == 1),
            others={"coverage": 0.1 * trial + 0.01 * seed}, **changes,
        )
        for trial in range(systems)
        for seed in range(seeds)
    ]  # fmt: skip


LONG = [
    a_run(
        trial, seed, 10.0 + trial * seed, system="a_system_of_mine_with_a_very_long_name_that_no_column_can_hold",
        config={"параметр": f"значение {trial} $x_1$", "激活": trial / 7},
        others={"coverage": 0.1 * seed + trial / 100},
    )
    for trial in range(4)
    for seed in range(10)
]  # fmt: skip
DEAD = [a_run(0, seed, None) for seed in range(10)] + [
    a_run(1, seed, 5.0 + seed if seed < 6 else None, system="gan", others={"coverage": 0.5}) for seed in range(10)
]
WORLDS = {
    "four": rivals(),
    "thirty": rivals(30, 10),
    "one": [a_run(others={"coverage": 0.5})],
    "dead": DEAD,
    "long": LONG,
    "search": list(random_search(14)),
    "higher": rivals(3, 10, better="higher"),
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_off_and_all_can_be_read(world: str, kind: str) -> None:
    try:
        figure = draw(WORLDS[world], kind)
    except UsageError:
        return
    with typeset():
        FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    page = figure.bbox
    for each in texts(figure):
        box = each.get_window_extent()
        assert box.x0 > page.x0 - 1 and box.x1 < page.x1 + 1, each.get_text()
        assert box.y0 > page.y0 - 1 and box.y1 < page.y1 + 1, each.get_text()
        assert float(each.get_fontsize()) >= SMALL
    (note,) = figure.texts
    bottom = min(frame.y0 for axes in figure.axes if (frame := axes.get_tightbbox()))
    assert note.get_window_extent().y1 <= bottom + 2, "the footnote hides the figure"
    said = footnote(figure)
    assert SIGNATURE in said
    assert re.search(r"n = \d", said)


def test_every_seed_is_a_dot_and_the_median_a_stroke() -> None:
    runs = rivals(2, 6)
    figure = draw(runs, "seeds")
    (axes,) = figure.axes
    lines = [(line, xs(line)) for line in axes.lines]
    dots = sorted(x for line, at in lines if line.get_marker() in ("o", "s") for x in at)
    assert dots == pytest.approx(sorted(run.last for run in runs if run.last is not None))
    strokes = [at[0] for line, at in lines if line.get_linewidth() == 2]
    groups = [[run.last for run in runs if run.trial == trial and run.last is not None] for trial in (0, 1)]
    assert strokes == pytest.approx(sorted(median(each) for each in groups))
    bars = sorted(at for line, at in lines if line.get_linewidth() == 6)
    assert bars == [list(median_interval(each)[:2]) for each in sorted(groups)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["system_00", "system_01"]
    assert "97 % of 6 seeds" in footnote(figure)
    assert [at for line, at in lines if line.get_linestyle() == "--"] == [[0.5, 0.5]], "the floor"


def test_diverged_seeds_stand_at_the_worse_edge() -> None:
    for better, edge in (("lower", 1), ("higher", 0)):
        runs = [a_run(0, seed, 5.0 + seed if seed else None, better=better) for seed in range(3)]
        (axes,) = draw(runs, "seeds").axes
        (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
        assert xs(cross)[0] == axes.get_xlim()[edge]
        assert "1 diverged" in [each.get_text() for each in axes.texts]


def test_panels_of_unlike_signatures_are_kept_apart() -> None:
    runs = rivals(2, 3) + [
        a_run(0, seed, 2.0, sweep="other-0", signature="other|n:5", dataset="moons") for seed in (0, 1)
    ]
    figure = draw(runs, "seeds")
    assert len(figure.axes) == 2
    assert "do not compare" in footnote(figure) and "other|n:5" in footnote(figure)


def test_the_matrix_has_a_letter_for_every_verdict() -> None:
    runs = [
        a_run(0, 0, collapse="TOTAL"),
        a_run(0, 1, collapse="POSTERIOR-COLLAPSED", stability=None),
        a_run(0, 2, collapse=None, stability=None, state="PRUNED", value=None),
    ]
    left, right = draw(runs, "verdicts").axes
    letters = [[each.get_text() for each in axes.texts if len(each.get_text()) == 1] for axes in (left, right)]
    assert letters == [["T", "C", "p"], ["S", "–", "p"]]
    assert len([patch for patch in left.patches if isinstance(patch, Rectangle)]) == 3
    assert [each.get_text() for each in left.texts if "/" in each.get_text()] == ["2/2 [34, 100 %]"]
    note = footnote(draw(runs, "verdicts"))
    assert "T TOTAL" in note and "C POSTERIOR-COLLAPSED" in note and "p pruned" in note and "SEVERE" not in note


def test_survival_is_kaplan_and_meiers_without_pruned_runs() -> None:
    runs = [a_run(0, seed, stability=stability(1.0, fails=seed < 2)) for seed in range(5)]
    runs += [a_run(0, 9, state="PRUNED")]
    figure = draw(runs, "survival")
    curve = max(figure.axes[0].lines, key=lambda line: len(xs(line)))
    truth = kaplan_meier([1200, 1200, 1400, 1400, 1400], [True, True, False, False, False])
    assert ys(curve)[:2] == [1.0, truth.survival[0]] == [1.0, 0.6]
    at_risk = [each.get_text() for each in figure.axes[0].texts]
    assert at_risk == ["at risk", "5", "5", "5", "5", "5", "3", "vae"]
    assert "n = 5 runs" in footnote(figure) and "1 pruned run left out" in footnote(figure)


def test_the_budget_curve_is_of_drawn_trials_alone() -> None:
    runs = list(random_search(13))
    (axes,) = draw(runs, "budget").axes
    line = axes.lines[0]
    medians = [median(run.last for run in runs if run.trial == trial and run.last) for trial in range(1, 13)]
    assert ys(line) == best_of_budget(medians).median
    assert xs(line) == list(range(1, 13)), "the first trial has its paper's defaults"
    mixed = [run for run in runs if run.trial < 12] + [a_run(12, 0, None, config={"width": 8}, state="PRUNED")]
    assert "1 trial diverged or pruned" in footnote(draw(mixed, "budget"))


@pytest.mark.parametrize(
    ("runs", "kind", "said"),
    [
        (list(random_search(12, sampler="tpe", drawn=False)), "budget", "the sampler was tpe, whose trials are no"),
        (list(random_search(5)), "budget", "4 trials that the random search drew .* it takes 5"),
        (rivals(2, 9), "profile", "needs 10 runs .* there are 9 runs of one at most"),
        (list(random_search(9)), "importance", "vae has 9 finished trials, too few .* it takes 10"),
        ([a_run(trial, 0, trial, config={"lr": trial / 9}) for trial in range(12)], "importance", "only lr differs"),
        ([a_run(trial, 0, 1.0, config={"lr": trial, "b": -trial}) for trial in range(12)], "importance", "ended alike"),
        ([a_run(value=None)], "seeds", "no run has finished with a score yet"),
        ([a_run(stability=None)], "survival", "has a stability verdict"),
        ([a_run(stability=None, collapse=None)], "verdicts", "no run has a verdict yet"),
        ([a_run()], "pareto", "none of these scores is known to be one of diversity; name it with --x"),
        ([], "seeds", "the sweep has no runs yet"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_with_what_could(runs: list[SeedRun], kind: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        draw(runs, kind)


def test_a_profile_is_of_ten_seeds_or_three_datasets() -> None:
    assert [text.split(",")[0] for text in named(draw(rivals(2, 10), "profile"))] == ["system_00", "system_01"]
    over = [
        a_run(place, seed, 10.0 * scale * (1 + place) * (1 + seed / 100), system=name, sweep=f"{data}-0", dataset=data,
              signature=f"{data}|n:5")
        for scale, data in ((1, "ring"), (5, "grid"), (100, "moons"))
        for place, name in enumerate(("gan", "vae"))
        for seed in range(3)
    ]  # fmt: skip
    figure = draw(over, "profile")
    assert named(figure)[0].startswith("gan, IQM 1 [")
    assert "over 3 datasets" in footnote(figure) and "Bretagnolle" in footnote(figure)


def test_the_front_is_filled_and_the_rest_is_not() -> None:
    figure = draw(rivals(4, 3), "pareto")
    large = [line for line in figure.axes[0].lines if line.get_markersize() == 8]
    assert [line.get_markerfacecolor() != "white" for line in large] == [True] * 4  # coverage rises as fd does
    beaten = [*rivals(2, 3), *[a_run(7, seed, 50.0, system="bad", others={"coverage": 0.0}) for seed in range(3)]]
    large = [line for line in draw(beaten, "pareto").axes[0].lines if line.get_markersize() == 8]
    assert [line.get_markerfacecolor() != "white" for line in large] == [True, True, False]


def beside(figure: Figure) -> list[Any]:
    """The boxes of the numbers in a plane, as drawn."""
    with typeset():
        FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    return [each.get_window_extent() for each in figure.axes[0].texts]


def test_numbers_of_a_plane_stand_apart() -> None:
    modes = [0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 8, 8]
    runs = [
        a_run(trial, seed, 0.03 if count == 8 else 3.0, others={"modes": float(count + (trial % 2 and seed % 2))})
        for trial, count in enumerate(modes)
        for seed in range(2)
    ]
    figure = draw(runs, "pareto")
    boxes = beside(figure)
    assert len(boxes) >= 6
    pairs = [(a, b) for place, a in enumerate(boxes) for b in boxes[:place]]
    assert not any(a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1 for a, b in pairs)
    assert "for want of room" not in footnote(figure)


def test_numbers_that_find_no_room_are_said_to_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pareto, "_PLACES", ((6, 4),))
    runs = [a_run(trial, 0, 3.0, others={"modes": trial / 18}) for trial in range(1000, 1018)]
    figure = draw(runs, "pareto")
    told = [each.get_text() for each in figure.axes[0].texts]
    missing = 18 - sum(len(text.split(", ")) for text in told)
    assert missing > 0 and f"{missing} trials without a number, for want of room." in footnote(figure)


@pytest.mark.parametrize(("values", "whole"), [((1.0, 2.0), True), ((1.0, 2.5), False)])
def test_ticks_of_a_count_are_whole(values: tuple[float, ...], whole: bool) -> None:
    runs = [a_run(trial, 0, value, others={"modes": value}) for trial, value in enumerate(values)]
    for kind in ("pareto", "seeds"):
        ticks = draw(runs, kind).axes[0].get_xticks()
        assert all(float(tick).is_integer() for tick in ticks) == whole


def test_the_one_parameter_that_matters_is_found() -> None:
    (told,) = importance.importances(list(random_search(24)))
    assert max(told.shares, key=lambda name: told.shares[name]) == "width"
    assert told.shares["width"] > told.chance["width"]
    assert all(told.shares[name] < told.chance[name] for name in ("lr", "beta"))
    assert told.trials == 24


def of_three_systems() -> list[SeedRun]:
    """Twelve trials of each system; `a_first` is the worst and has no verdicts, `m_middle` the best."""
    places: dict[str, dict[str, Any]] = {"z_last": {}, "a_first": {"stability": None, "collapse": None}, "m_middle": {}}
    runs = []
    for place, (system, changes) in enumerate(places.items()):
        for run in random_search(12, seeds=1, system=system, **changes):
            worse = {"z_last": 2.0, "a_first": 5.0, "m_middle": 1.0}[system]
            value = worse * (run.last or 0.0)
            scores = {
                name: score | {"value": value if name == "fd" else 1 / value} for name, score in run.scores.items()
            }
            at: dict[str, Any] = {"trial": 20 * place + run.trial, "run": f"{system}.{run.trial}"}
            runs.append(replace(run, **at, last=value, reference=value, scores=scores))
    return runs


@pytest.mark.parametrize("kind", ["seeds", "profile", "survival", "budget", "pareto", "importance"])
def test_a_system_has_one_colour_in_every_figure(kind: str) -> None:
    wanted = dict(zip(("a_first", "m_middle", "z_last"), COLOURS, strict=False))
    figure = draw(of_three_systems(), kind, **({"by": "system"} if kind in ("seeds", "pareto") else {}))
    found: dict[str, Any] = {}
    for axes in figure.axes:
        if kind == "importance":
            found[axes.get_title(loc="left").split(",")[0]] = axes.patches[0].get_edgecolor()
        elif kind == "seeds":
            bars = [line for line in axes.lines if line.get_linewidth() == 6]
            labels = [label.get_text() for label in axes.get_yticklabels()]
            found |= {label: bars[round(place)].get_color() for place, label in enumerate(labels)}
        else:
            for line in axes.lines:
                if not str(line.get_label()).startswith("_"):
                    name = str(line.get_label()).strip().split(",")[0]
                    found[name] = line.get_markeredgecolor() if kind == "pareto" else line.get_color()
    assert set(found) == set(wanted) - ({"a_first"} if kind == "survival" else set())
    assert {name: to_hex(colour) for name, colour in found.items()} == {name: wanted[name] for name in found}


def test_marks_of_a_system_are_those_of_other_figures() -> None:
    (axes,) = draw(of_three_systems(), "budget").axes
    marks = {str(line.get_label()): line.get_marker() for line in axes.lines if line.get_marker() != "None"}
    assert marks == dict(zip(("a_first", "m_middle", "z_last"), MARKERS, strict=False))


def test_curves_of_one_figure_are_never_alike() -> None:
    groups = group_runs(of_three_systems(), "system")
    for systems in (["z_last"] * 12, ["z_last"] * 7 + ["a_first"], [None, "a_first"], ["a_first", "z_last", "a_first"]):
        looks = [tuple(each.items()) for each in Look(groups).lines(systems)]
        assert len(set(looks)) == len(systems)
    first, _, third = Look(groups).lines(["a_first", "z_last", "a_first"])
    assert first["color"] == third["color"] == COLOURS[0]
    assert Look(groups).lines(["z_last"])[0]["color"] == COLOURS[2]


@pytest.mark.parametrize(("sampler", "said"), [("random", False), ("grid", False), ("tpe", True), ("gp", True)])
def test_only_a_search_that_learned_is_said_to(sampler: str, said: bool) -> None:
    runs = list(random_search(12, seeds=1, sampler=sampler))
    note = footnote(draw(runs, "importance"))
    assert "TPE" not in note
    assert (f"The search ({sampler}) learned from its trials" in note) == said


# ---- files


def test_fonts_are_embedded_and_the_same_runs_give_the_same_bytes() -> None:
    pdf = written(draw(rivals(), "seeds"), "pdf")
    assert b"/FontFile2" in pdf and b"/Subtype /Type3" not in pdf and b"/Subtype /Image" not in pdf
    for form in ("pdf", "svg", "png"):
        assert written(draw(rivals(), "seeds"), form) == written(draw(rivals(), "seeds"), form)


def test_a_page_is_one_file_that_needs_no_network(tmp_path: Path) -> None:
    path = tmp_path / "f.html"
    write_figure(path, draw(LONG, "seeds"), title="<script>alert(1)</script>")
    page = path.read_text("utf-8")
    assert "<svg" in page and "<script>" not in page and "&lt;script&gt;" in page
    assert not re.search(r"(?:src|href)=\"https?:|url\(http|@import", page)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("f.jpg", r"is no figure's suffix \(.jpg\); name a file that ends in .png, .pdf, .svg, .html"),
        ("f", "has no suffix; name a file that ends in .png, .pdf, .svg, .html"),
        ("no/f.pdf", "there is no folder"),
        ("folder.pdf", "is a folder"),
    ],
)
def test_a_path_that_cannot_be_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder.pdf").mkdir()
    with pytest.raises(UsageError, match=said):
        refuse_path(tmp_path / name)


def test_a_figure_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.png"
    path.write_text("before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aigc_lab.host.files.sync", full)
    with pytest.raises(UsageError, match=r"-o .*f.png: it cannot be written \(No space left"):
        write_figure(path, draw([a_run()], "seeds"), title="")
    assert path.read_text() == "before" and [each.name for each in tmp_path.iterdir()] == ["f.png"]
