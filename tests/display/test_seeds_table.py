"""The table of `judge seeds` in terminals of several widths: lines fit, and no heading or value is broken."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from aigc_lab.display.seeds import seeds_table

SHARE = {"wrong": 2, "decided": 5, "low": 0.12, "high": 0.77, "undecided": 3}
SPREAD = {"median": 3.08, "sd": 0.00489, "low": 0.00323, "high": 0.00995}
ROW: dict[str, Any] = {
    "objective": "rkl", "signature": "modes:8", "sweeps": ["recorded-6293cf04"], "sweep": "recorded-6293cf04",
    "system": "point_gan", "trials": 1, "config": {"latent_size": 256, "critic_layers": 1, "lr": 0.0001627},
    "runs": 8, "pruned": 2, "confirmed": True, "collapse": SHARE, "unstable": SHARE, "survival": [], "last": SPREAD,
    "median_failure": None, "selected": SPREAD | {"sd": 0.0184}, "iqm": {"value": 3.06, "low": 2.72, "high": 3.08},
    "within": {"within": 1, "of": 11, "low": 0.02, "high": 0.38}, "steps": 1250,
}  # fmt: skip
HEADINGS = (
    "unstable", "collapsed", "fails at step", "rkl, sd", "selected checkpoint, sd", "interquartile mean",
    "within 1.2 × best", "steps to 1.1 × best",
)  # fmt: skip
VALUES = (
    "point_gan", "8* and 2 pruned", "2/5 [12%, 77%], 3 undecided", "not seen", "3.08, 0.00489 [0.00323, 0.00995]",
    "3.08, 0.0184 [0.00323, 0.00995]", "3.06 [2.72, 3.08]", "1/11 [2%, 38%]", "1250",
)  # fmt: skip


def printed(rows: list[dict[str, Any]], width: int) -> list[str]:
    """The lines above the explanations."""
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    console.print(seeds_table(rows), crop=False)
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    return lines[: next(place for place, line in enumerate(lines) if line.startswith("collapsed, unstable:"))]


@pytest.mark.parametrize("width", [80, 100, 120, 170, 10_000])
@pytest.mark.parametrize("trial", [7, None])
def test_lines_fit_and_words_stay_whole(width: int, trial: int | None) -> None:
    chosen = ROW["config"] if trial else {"lr": 0.0001627}
    row = ROW | {"trial": trial, "config": chosen}
    lines = printed([row, row | {"system": "vae"}], width)
    assert max(map(len, lines)) <= width
    shown = re.sub(r"\s+", " ", "\n".join(lines))
    for wanted in (*HEADINGS, *VALUES, *(f"{name}={value}" for name, value in chosen.items())):
        assert wanted in shown, wanted
    assert (len(lines) == 4) == (width == 10_000), "one line a row where there is room"


def test_no_rows_are_a_table_of_headings_alone() -> None:
    headings = "trial system configuration runs collapsed unstable fails at step score, sd"
    assert " ".join(printed([], 100)[0].split()) == headings
