"""What is said of a sweep's best run below its table, and on its page."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from registries import Lab, url_in

from aigc_lab.commands.explain import explained
from aigc_lab.commands.sweep import _next_steps
from aigc_lab.host.settings import Settings
from aigc_lab.registry.best import RankedRun, Selection
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.records import StoredVerdict
from aigc_lab.registry.store import Registry
from aigc_lab.web.report import _place

SCORE = {"name": "fd", "value": 1.0, "low": None, "high": None, "better": "lower", "signature": "fd"}
SOUND = RankedRun("a-1.1.0", ("a-1", 1), SCORE, 1.0, rank=2)
COLLAPSED = replace(SOUND, run="a-1.0.0", trial=("a-1", 0), rank=1, objections=("collapse TOTAL: why",))


def lines(*runs: RankedRun, tmp_path: Path) -> list[str]:
    selection = Selection(runs)
    best: dict[str, Any] = {
        "run": selection.best.run,
        "samples": None,
        "marks": [],
        "doubt": None,
        "selection": selection,
    }
    return _next_steps(best, "a-1", Settings.load(tmp_path), tmp_path)


def test_the_lines_below_a_sweep_name_what_was_passed_over(tmp_path: Path) -> None:
    said = lines(COLLAPSED, SOUND, tmp_path=tmp_path)
    assert said[0] == "! Passed over a-1.0.0 (fd 1, rank 1): collapse TOTAL: why"
    assert any("show a-1.1.0" in line for line in said) and any("promote a-1" in line for line in said)
    said = lines(SOUND, tmp_path=tmp_path)
    assert said[0] == "Next:"


def test_where_nothing_passes_no_promotion_is_proposed(tmp_path: Path) -> None:
    said = lines(COLLAPSED, tmp_path=tmp_path)
    assert any("show a-1.0.0" in line for line in said) and not any("promote" in line for line in said)


def test_a_page_says_which_run_its_picture_is_of() -> None:
    assert _place(Selection((SOUND,))) == "the best seed of the first"
    assert (
        _place(Selection((COLLAPSED, SOUND))) == "the best run that no verdict speaks against (one run ranks before it)"
    )


@pytest.mark.parametrize("verdict", ["STABLE", "REGRESSED"])
def test_the_first_is_proposed_for_promotion_where_promote_would_take_it(tmp_path: Path, verdict: Any) -> None:
    registry = Registry.open(url_in(tmp_path))
    lab = Lab(registry)
    sweep = lab.sweep()
    for trial in range(2):
        for seed in range(4):
            run = lab.run(sweep, trial, seed, 1.0 + 10 * trial + seed / 10)
            registry.rejudge(run, [StoredVerdict("stability", 10, verdict if trial == 0 else "STABLE", "", {}, "")])
    told = explained(registry, compare_trials(registry, sweep), Settings.load(tmp_path), None)
    assert ("promote" in told.command) == (verdict == "STABLE")
