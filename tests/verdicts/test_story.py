"""Verdicts in words, from what is stored of them."""

import json
from typing import Any

from worlds import judged_of, world

from aigc_lab.verdicts import wording
from aigc_lab.verdicts.stability import judge


def row(name: str, state: str, **others: Any) -> dict[str, Any]:
    plain = {"generated": 0.05, "low": 0.01, "high": 0.1, "real": 0.1, "diversity": 0.9, "diversity_high": 1.2}
    return {"name": name, "state": state} | plain | others


def told(*rows: dict[str, Any]) -> list[str]:
    return wording.of_collapse({"verdict": "PARTIAL", "reason": "so it is", "bins": list(rows)}).split("\n")


def test_a_verdict_is_told_with_the_bins_behind_it() -> None:
    gone = row(
        "cat", "missing", generated=0.0, low=0.0, high=0.006, diversity=None, examples=["a.png", "b.png", "c", "d"]
    )
    lines = told(row("ant", "present"), row("bee", "undecided"), row("bat", "present", diversity_high=0.99), gone)
    assert lines[0] == "PARTIAL: so it is" and lines[1].startswith("  share of the samples that look real [")
    assert lines[2:] == [
        "  cat: missing, 0.0% [0.0%, 0.6%] of 10.0%",
        "    real ones: a.png; b.png; c",
        "  bee: undecided, 5.0% [1.0%, 10.0%] of 10.0%, diversity 0.90 of real",
        "  bat: present, 5.0% [1.0%, 10.0%] of 10.0%, diversity 0.90 of real",
    ]
    assert told(row("ant", "present")) == ["PARTIAL: so it is"]


def test_of_many_bins_the_missing_ones_are_told() -> None:
    lines = told(*[row(f"u{number}", "undecided") for number in range(30)], row("gone", "missing"))
    assert lines[2].startswith("  gone: missing") and lines[-1] == "  and 19 more" and len(lines) == 2 + 12 + 1


def test_what_is_stored_can_be_told() -> None:
    said = json.loads(
        json.dumps(judged_of(world().draw(400, "dropped", 0, of=(0, 1, 2, 3))).as_dict(), allow_nan=False)
    )
    assert "  eel: missing, 0.0% [0.0%, " in wording.of_collapse(said)
    found = judge([100 * place for place in range(14)], [300, 80, 30, 12, 11, *[10] * 6, 40, 42, 41]).as_dict()
    lines = wording.of_stability(json.loads(json.dumps(found))).split("\n")
    assert lines[0].startswith("REGRESSED: ") and "  alarm at step 1200" in lines
    assert any(line.startswith("  the best of 14: 10 (step ") for line in lines)
