"""Figures of a report that all seeds make together: verdicts as a matrix, survival, and the best of a budget."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_lab.display.wording import Row
from aigc_lab.errors import UsageError
from aigc_lab.pictures import budget, seed_dots, style, survival, verdict_matrix
from aigc_lab.registry.seed_runs import SeedGroup, SeedRun, group_runs
from aigc_lab.web.tables import Cell, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = dict[str, Any]

# Rows of the matrix, and squares of a row, that a page shows.
_ROWS, _COLUMNS = 60, 40


def matrix(runs: Sequence[SeedRun], ranked: Sequence[Row]) -> Json:
    """The verdicts on the runs of each trial in the order of the ranking, with what their letters mean."""
    place = {row["trial"]: place for place, row in reversed(list(enumerate(ranked)))}
    groups = sorted(group_runs(runs), key=lambda group: place.get(group.trial, len(place)))
    judged = [
        group for group in groups if any(verdict_matrix.verdict_of(run, kind) for run in group.runs for kind in _KINDS)
    ]
    shown = judged[:_ROWS]
    return {
        "rows": [
            {"trial": group.trial, "system": group.system, "parts": [_part(group, kind) for kind in _KINDS]}
            for group in shown
        ],
        "legend": verdict_matrix.meanings(shown),
        "left_out": len(judged) - len(shown),
    }


_KINDS = verdict_matrix.KINDS


def _part(group: SeedGroup, kind: str) -> Json:
    told = verdict_matrix.chance(group, kind)
    undecided = f", {told.undecided} undecided" if told and told.undecided else ""
    return {
        "cells": [_cell(run, kind) for run in group.runs[:_COLUMNS]],
        "share": f"{told.wrong}/{told.decided} [{told.low:.0%}, {told.high:.0%}]{undecided}" if told else "",
    }


def _cell(run: SeedRun, kind: str) -> Json:
    verdict = verdict_matrix.verdict_of(run, kind)
    cell = verdict_matrix.cell_of(run, kind)
    return {
        "letter": cell.letter,
        "kind": cell.severity,
        "title": f"seed {run.seed}: {verdict or f'not judged, {run.state.lower()}'}",
    }


# ---- curves


def curves(runs: Sequence[SeedRun], colours: Mapping[str, int]) -> Json:
    """The data of the figures `survival` and `budget`; each is empty where the runs cannot give it."""
    return {
        "survival": [
            _survival(group, colours.get(group.system or "", 0), place) for place, group in enumerate(_lasting(runs))
        ],
        "budget": [
            _budget(search, colours.get(search.groups[0].system or "", 0), place)
            for place, search in enumerate(_searches(runs))
        ],
    }


def _lasting(runs: Sequence[SeedRun]) -> list[SeedGroup]:
    return [group for group in group_runs(runs, "system") if survival.times(group)]


def _searches(runs: Sequence[SeedRun]) -> list[budget.Search]:
    try:
        return budget.searches(runs)
    except UsageError:  # another sampler, or too few trials
        return []


def _survival(group: SeedGroup, colour: int, place: int) -> Json:
    told = survival.curve(group)
    assert told is not None, "groups without verdicts are left out"
    watched = survival.times(group)
    end = max(time for time, _ in watched)
    alive = sorted({time for time, failed in watched if not failed})
    last = told.survival[-1:] if len(told.times) else np.ones(1)
    columns = (told.times, told.at_risk, told.failures, told.survival, told.low, told.high)
    return {
        "name": group.system or "several systems",
        "colour": colour,
        "dash": place,
        "n": len(watched),
        "trials": group.trials,
        "step": [0.0, *told.times.tolist(), end * 1.03],
        "share": [1.0, *told.survival.tolist(), *last.tolist()],
        "low": [1.0, *told.low.tolist(), *told.low[-1:].tolist()],
        "high": [1.0, *told.high.tolist(), *told.high[-1:].tolist()],
        "watched": alive,
        "at": [told.at(time) for time in alive],
        "rows": [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)],
    }


def _budget(search: budget.Search, colour: int, place: int) -> Json:
    told = search.told
    return {
        "name": search.name,
        "colour": colour,
        "dash": place,
        "n": len(search.groups),
        "trials": told.trials,
        "low": told.low,
        "high": told.high,
        **{key: _finite(getattr(told, key) or []) for key in ("median", "expected", "chosen")},
    }


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


# ---- files


def tables_of(runs: Sequence[SeedRun]) -> list[Table]:
    """The numbers behind both figures, as the page's script writes them too."""
    told = curves(runs, {})
    lasting: list[list[Cell]] = [[each["name"], *row] for each in told["survival"] for row in each["rows"]]
    keys = ("trials", "median", "low", "high", "expected", "chosen")
    found: list[list[Cell]] = [
        [each["name"], *row, each["n"]]
        for each in told["budget"]
        for row in zip(*(each[key] for key in keys), strict=True)
    ]
    bounds = ["low (95 %)", "high (95 %)"]
    step = ["system", "step (training steps)", "at risk (runs)", "failures", "not failed (share)", *bounds]
    best = ["system", "budget (trials)", "best, median", *bounds, "best, mean", "on the holdout, mean", "n (trials)"]
    return [Table("survival", step, lasting), Table("budget", best, found)]


def pictures(runs: Sequence[SeedRun]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the PNG files; what these runs cannot give is left out."""
    trials, systems = group_runs(runs), group_runs(runs, "system")
    drawings: dict[str, Callable[[], Figure]] = {
        "seeds": lambda: seed_dots.seed_dots(trials),
        "verdict-matrix": lambda: verdict_matrix.verdict_matrix(trials),
        "survival": lambda: survival.survival(systems),
        "budget": lambda: budget.budget(runs),
    }
    for name, draw in drawings.items():
        try:
            with style.typeset():
                yield f"{name}.png", style.png(draw())
        except UsageError:
            continue
