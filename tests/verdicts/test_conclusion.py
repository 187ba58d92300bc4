"""The rules that a collapse verdict follows, on numbers that are given."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from worlds import FOUND, SPLITS, world

from aigc_lab.verdicts.bins import Bins
from aigc_lab.verdicts.collapse import Judge, Null, _Fidelity
from aigc_lab.verdicts.conclusion import Collapse, CollapseVerdict, Covered, Measured, conclude, needed


def measured(judge: Judge, made: Tensor, **others: Any) -> Measured:
    every = torch.ones(len(made), dtype=torch.bool)
    honest = _Fidelity(1.0, 1.0, every, every, Null(1.0, 1.0, 1.0, 0.0))
    rows, together = judge._rows(judge._counted(made, honest, judge.bins_of(made)))
    found = Measured(rows, together, judge.bins.noun, [], len(made), len(made), len(judge.pool), 1.0, 1.0, 0.0)
    return replace(found, **others)


def never() -> Covered:
    raise AssertionError("coverage is asked for where all else speaks for NONE")


def test_what_is_too_blurred_is_not_said_to_lack_anything() -> None:
    judge = world().judge
    kept = world().draw(400, "kept", of=(0, 1, 2, 3)).double()
    narrow = world().draw(400, "kept", of=(0, 1, 2, 3), spread=0.5).double()

    def said(judge: Judge, fidelity: float, coverage: float, made: Tensor = kept) -> tuple[Measured, Any]:
        found = measured(judge, made, fidelity=fidelity, coverage=coverage)
        return found, conclude(found, never)

    gone = measured(judge, kept).low
    assert gone == pytest.approx(
        sum(row["real"] for row in measured(judge, kept).rows if row["name"] in ("eel", "fox"))
    )
    found, (withheld, reason, low) = said(judge, 0.64, 0.2)
    assert withheld == Collapse.INCONCLUSIVE and "too blurred to tell" in reason and low == 0
    assert not any(row["state"] == "missing" for row in found.rows) and found.high == pytest.approx(gone)
    # Sharp samples, samples that cover what they are of, and narrow ones are another thing.
    edge = 0.35 * (1 - gone)
    for fidelity, coverage, made in ((0.66, 0.2, kept), (0.64, edge + 0.01, kept), (0.64, 0.2, narrow)):
        assert said(judge, fidelity, coverage, made)[1][0] == Collapse.SEVERE
    assert said(judge, 0.64, edge - 0.01)[1][0] == Collapse.INCONCLUSIVE
    # Blur moves nothing from one known mode to another.
    modes = Judge(judge.pool, Bins.of_centres(judge.pool, world().centres), "modes", SPLITS)
    assert said(modes, 0.64, 0.2)[1][0] == Collapse.SEVERE


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (0.019, Collapse.NONE),
        (0.021, Collapse.PARTIAL),
        (0.249, Collapse.PARTIAL),
        (0.251, Collapse.SEVERE),
        (0.899, Collapse.SEVERE),
        (0.901, Collapse.TOTAL),
    ],
)
def test_what_is_missing_decides_how_bad_it_is(missing: float, expected: Collapse) -> None:
    diverse = {"diversity": 1.0, "diversity_low": 0.9, "diversity_high": 1.1, "threshold": 0.0}
    diverse |= {"diversity_alone": 0.95, "diversity_least": 0.1}
    rows: list[dict[str, Any]] = [
        {"name": "ant", "real": missing, "generated": 0.0, "state": "missing"} | diverse,
        {"name": "bee", "real": 1 - missing, "generated": 1.0, "state": "present"} | diverse,
    ]
    found = Measured(rows, (0.0, 1.0), ("class", "classes"), [], 400, 400, 1600, 1.0, 1.0, 0.0)
    verdict, _, low = conclude(found, lambda: Covered(1.0, 1.0))
    assert (verdict, low) == (expected, missing)
    # What all bins hold together counts where no bin is missing by itself.
    rows[0]["state"] = "undecided"
    found = replace(found, together=(missing, 1.0))
    verdict, reason, low = conclude(found, lambda: Covered(1.0, 1.0))
    assert low == missing and (verdict == expected or expected == Collapse.NONE)
    if expected in FOUND:
        assert "classes that 400 samples do not tell one by one" in reason


def test_what_stands_against_none() -> None:
    honest = measured(world().judge, world().draw(400, "honest", 0).double())
    whole = lambda: Covered(0.95, 0.98)  # noqa: E731
    assert conclude(honest, whole)[0] == Collapse.NONE

    def reason(cover: Callable[[], Covered] = never, **others: Any) -> str:
        verdict, told, _ = conclude(replace(honest, **others), cover)
        assert verdict == Collapse.INCONCLUSIVE
        return told

    def changed(**fields: Any) -> list[dict[str, Any]]:
        return [honest.rows[0] | fields, *honest.rows[1:]]

    share = honest.rows[0]["real"]
    assert "6% of the samples are copies" in reason(duplicates=0.06)
    assert "coverage is 0.80 of real samples'" in reason(lambda: Covered(0.80, 0.98))
    assert conclude(honest, lambda: Covered(0.89, 0.98))[0] == Collapse.NONE  # 0.9 of what real ones have at worst
    whether = "to say whether class ant varies as real samples do, and 100 do"
    told = reason(rows=changed(diversity=None), realistic=100)
    assert f"it would take {math.ceil(20 / share):,} samples that look real {whether}" in told
    # Diversity of 1 is told from a half where its error is ln 2: half of that with four times as many samples.
    told = reason(rows=changed(diversity=1.0, diversity_alone=0.25), realistic=100)
    assert f"it would take 400 samples that look real {whether}" in told
    told = reason(rows=changed(diversity=0.51, diversity_alone=0.4), realistic=100)
    assert told.startswith("class ant varies about half as much as real samples do (0.51 times)")
    # Of a bin of which nothing is known, and of one that is not near a half, that is not said.
    unsure = [row | {"diversity": 0.8, "diversity_alone": 0.1} for row in honest.rows[1:2]]
    told = reason(rows=[*changed(diversity=None)[:1], *unsure, *honest.rows[2:]], realistic=100)
    assert told.startswith("it would take") and "classes ant, bee vary" in told
    told = reason(rows=changed(diversity=0.25, diversity_alone=0.1, diversity_high=1.0), realistic=100)
    assert f"it would take 400 samples that look real {whether}" in told
    told = reason(rows=changed(diversity=None), realistic=100, pool=round(19 / share))
    assert f"beside {2 * math.ceil(20 / share):,} real ones (there are {round(19 / share):,}) to say" in told
    assert 0.003 < share * 0.02 < 0.004
    small = [row | {"real": row["real"] * 0.02} for row in changed(diversity=None)[:1]] + honest.rows[1:]
    # Two percent of the mass are no matter; and where a bin is not there, nobody is told that it is.
    assert conclude(replace(honest, rows=small), whole)[0] == Collapse.NONE
    for state in ("missing", "undecided"):
        lost = replace(honest, rows=[small[0] | {"state": state}, *honest.rows[1:]])
        verdict, told, _ = conclude(lost, whole)
        assert verdict == Collapse.NONE and told.startswith("all but at most 0.4% of the real mass")
    undecided = changed(state="undecided", low=0.0, high=0.9)
    wanted = f"{needed(6, share):,} samples that look real would decide, and 100 do"
    assert wanted in reason(rows=undecided, realistic=100)
    beside = f"{needed(6, share):,} samples that look real beside {2 * needed(6, share):,} real ones (there are 300)"
    assert beside in reason(rows=undecided, realistic=100, pool=300)
    assert "and 100 of 400 do" in reason(rows=undecided, realistic=100, fidelity=0.3)
    assert "it holds more than nothing and less than its share" in reason(rows=undecided, realistic=10**5)
    two = [undecided[0], undecided[0] | {"name": "bee"}, *undecided[2:]]
    assert "they hold more than nothing and less than their share" in reason(rows=two, realistic=10**5)
    near = changed(state="undecided", low=0.0, high=0.0, threshold=0.1)
    assert "what is near them does not look real" in reason(rows=near, realistic=10**5)
    assert "by these features class ant cannot be told from" in reason(rows=undecided, unclear=["ant"])
    assert "up to 5% of the real mass may be missing" in reason(rows=undecided, together=(0.0, 0.05), realistic=100)
    coarse = reason(noun=("cluster", "clusters"))
    assert (
        "all of 6 clusters are there, and so few are too coarse" in coarse
        and f"{needed(16):,} samples that look real" in coarse
        and "would tell more of them" in coarse
    )
    assert "40% of the samples do not look real" in conclude(replace(honest, fidelity=0.6), whole)[1]


def test_a_bound_is_not_rounded_to_what_it_does_not_say() -> None:
    found = measured(world().judge, world().draw(400, "honest", 0).double(), together=(0.159, 1.0))
    assert "at least 15% of the real mass is missing" in conclude(found, never)[1]


def test_one_thing_in_every_bin_of_which_anything_is_known_is_total() -> None:
    """Of bins with too few samples to say how much they vary, nothing is known: the others must hold most of it."""
    honest = measured(world().judge, world().draw(400, "honest", 0).double())
    flat = {"diversity": 0.1, "diversity_low": 0.09, "diversity_high": 0.11, "diversity_least": 0.1}

    def said(known: int, still: int) -> Collapse:
        unknown = [row | {"diversity": None} for row in honest.rows[known:]]
        rows = [row | flat for row in honest.rows[:still]] + honest.rows[still:known] + unknown
        return conclude(replace(honest, rows=rows), lambda: Covered(0.95, 0.98))[0]

    assert said(known=6, still=6) == said(known=4, still=4) == Collapse.TOTAL
    assert said(known=2, still=2) == said(known=6, still=4) == said(known=4, still=3) == Collapse.PARTIAL


def test_a_verdict_is_one_line_and_a_notebook_shows_its_bins() -> None:
    row = {"name": "<4>", "state": "missing", "generated": 0.0, "low": 0.0, "high": 0.01, "real": 0.1}
    row |= {"diversity": None, "diversity_high": None}
    verdict = CollapseVerdict(
        Collapse.SEVERE, "at least 30% <is> missing", 400, 0.3, 0.3, 0.4, None, None, 1.0, 0.0, [row], "f:<x>|n:400"
    )
    assert repr(verdict) == "CollapseVerdict(SEVERE: at least 30% <is> missing; n 400)"
    shown = verdict._repr_html_()
    assert "SEVERE: at least 30% &lt;is&gt; missing" in shown and "&lt;4&gt;: missing, 0.0%" in shown
    assert "f:&lt;x&gt;|n:400" in shown and "<x>" not in shown
