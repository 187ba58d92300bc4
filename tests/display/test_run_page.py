"""The page of a run: what is there is shown, and of a history what changed."""

import io
from typing import Any

import pytest
from rich.console import Console

from aigc_lab.display.run_page import show_page


def printed(row: dict[str, Any]) -> list[str]:
    console = Console(file=io.StringIO(), width=200, markup=False, highlight=False)
    console.print(show_page(row))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.fixture
def row() -> dict[str, Any]:
    """A run of which nothing is known but that it is queued."""
    empty: dict[str, Any] = {
        **{key: [] for key in ("scores", "scores_selected", "verdicts", "progress", "attempts", "checkpoints")},
        "artifacts": [],
        "describing": [],
        "promotions": [],
        "scalars": {},
        "environment": {},
        "config": {},
    }
    facts = {"run": "a-1.0.0", "system": "vae", "state": "QUEUED", "role": "search"}
    return empty | facts | dict.fromkeys(("reason", "seconds", "doubt", "mlflow_run_id"))


def attempt(number: int, **facts: Any) -> dict[str, Any]:
    columns = ("from_step", "step", "pid", "host", "started_at", "heartbeat_at", "ended_at", "reason")
    return dict.fromkeys(columns) | {"number": number, "state": "KILLED"} | facts


def collapse(step: int, verdict: str, *missing: str) -> dict[str, Any]:
    bins = [{"name": name, "state": "missing" if name in missing else "present"} for name in "abc"]
    row = {"kind": "collapse", "step": step, "verdict": verdict, "reason": "why", "signature": "of digits"}
    return row | {"evidence": {"bins": bins}}


def test_a_run_that_has_not_begun_has_facts_and_no_headings(row: dict[str, Any]) -> None:
    assert printed(row) == [
        "run            a-1.0.0",
        "system         vae",
        "state          QUEUED",
        "role           search",
        "configuration  as written",
    ]


def test_the_worst_class_is_named_beside_its_score(row: dict[str, Any]) -> None:
    score = {"name": "class_fd_worst", "better": "lower", "value": 9.0, "low": 8.0, "high": 10.0, "n": 40, "floor": 1.0}
    row["scores"] = [score | {"signature": "clf", "of_class": "eight"}]
    assert any("9 [8, 10], class eight" in line for line in printed(row))


def test_only_columns_that_some_attempt_fills_are_shown(row: dict[str, Any]) -> None:
    row["attempts"] = [attempt(1, step=40, started_at="2026-01-02T03:04:05.678"), attempt(2, pid=7, host="here")]
    lines = printed(row)
    table = lines[lines.index("attempts") + 1 :]
    assert table[0].split() == ["attempt", "state", "step", "process", "started"]
    assert table[2].split() == ["1", "KILLED", "40", "2026-01-02", "03:04:05"]
    assert table[3].split() == ["2", "KILLED", "7", "on", "here"]


def test_the_history_of_a_collapse_is_where_it_changed(row: dict[str, Any]) -> None:
    row["verdicts"] = [
        *(collapse(10, "PARTIAL", "a"), collapse(20, "PARTIAL", "a"), collapse(30, "PARTIAL", "a", "b")),
        *(collapse(40, "NONE"), collapse(50, "SEVERE", "c")),
    ]
    row["checkpoints"] = [{"kind": "last", "step": 40, "path": "w"}]
    lines = printed(row)
    assert "step 10: PARTIAL (a missing); step 30: PARTIAL (a, b missing); step 40: NONE" in lines
    assert lines[lines.index("collapse") + 1].startswith("NONE")  # of the result's step, not of what came after it


def test_of_pictures_on_the_way_the_last_stands_for_all(row: dict[str, Any]) -> None:
    names = ("curves", "samples/000250", "samples/000500", "grid", "grid/000250", "traversals/000500")
    row["artifacts"] = [{"name": name, "path": f"/home/{name}.png"} for name in names]
    lines = printed(row)
    assert [line.split()[-1] for line in lines[lines.index("files") + 1 :]] == [
        *("/home/curves.png", "/home/grid.png", "/home/samples/000500.png", "/home/traversals/000500.png"),
    ]
    assert any(line.split()[:4] == ["traversals", "at", "step", "000500"] for line in lines)


def test_a_score_that_only_describes_has_no_arrow(row: dict[str, Any]) -> None:
    """One that ships is known by its name, with its features or without; a user's is named by the run."""
    score = {"value": 1.0, "low": None, "high": None, "n": 9, "floor": None, "signature": "s", "better": "higher"}
    names = ("fd_clf", "kl", "fd_gap_clf", "ink", "paper")
    row["scores"], row["describing"] = [{"name": name, **score} for name in names], ["ink"]
    table = [line.split()[:2] for line in printed(row) if line.split()[:1] and line.split()[0] in names]
    assert table == [["fd_clf", "↑"], ["kl", "1"], ["fd_gap_clf", "1"], ["ink", "1"], ["paper", "↑"]]


def test_a_promotion_is_shown_with_its_reason_and_with_what_was_passed_over(row: dict[str, Any]) -> None:
    score = {"name": "fd", "value": 1.2, "low": 1.0, "high": 1.4}
    passed = {"run": "a-1.2.0", "rank": 1, "score": score, "reasons": ["collapse SEVERE: half is missing"]}
    selection = {"confirmed": True, "confirmed_trials": 1, "passed_over": [passed], "passed_over_more": 2}
    version = {"model": "digits", "version": 3, "aliases": ["champion"], "selection": selection, "reason": "for a talk"}
    row["promotions"] = [version, version | {"version": 4, "aliases": [], "selection": None, "reason": None}]
    (line,) = (each for each in printed(row) if each.startswith("promoted"))
    shown = " ".join(printed(row)[printed(row).index(line) :])
    assert " ".join(shown.split()) == (
        "promoted digits version 3 @champion, all the same: for a talk, passed over a-1.2.0 (fd 1.2 [1, 1.4], rank 1):"
        " collapse SEVERE: half is missing, passed over 2 more, for such reasons; digits version 4"
    )
