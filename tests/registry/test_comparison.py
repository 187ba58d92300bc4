"""Trials compared: which runs, splits and checkpoints count, and what stands beside a rank."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from registries import SIGNATURE, Lab, order, url_in

from aigc_lab.commands.compare import flat_rows
from aigc_lab.display.ranking_views import Ranking
from aigc_lab.errors import UsageError
from aigc_lab.registry.best import best_run
from aigc_lab.registry.columns import FinalCheckpoint
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.records import Judged, Role, StoredCheckpoint, StoredScore, StoredVerdict
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.verdicts import collapse_doubt, last_verdicts, missing_bins, partial_reasons


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(Registry.open(url_in(tmp_path)))


def test_each_row_of_the_first_group_holds_what_it_is_beside_later_ones(lab: Lab) -> None:
    sweep = lab.sweep()
    for trial, start in enumerate((20, 0, 10)):
        for seed in range(6):
            lab.run(sweep, trial, seed, float(start + seed))
    lab.run(sweep, 3, 0, 7.0, signature="another")
    comparison = compare_trials(lab.registry)
    against = {row["trial"]: [pair["second"]["trial"] for pair in row.get("against", [])] for row in comparison.rows}
    assert against == {1: [2, 0], 2: [0], 0: [], 3: []} and "against" not in comparison.rows[-1]
    assert all(pair["first_is"] == "better" for row in comparison.rows for pair in row.get("against", []))
    assert Ranking(comparison).pairs == [pair for row in comparison.rows for pair in row.get("against", [])]
    json.dumps(comparison.rows, allow_nan=False)
    assert not any(name.startswith("against") for name in flat_rows(comparison)[0])


FINALS: tuple[FinalCheckpoint, ...] = ("last", "selected")


def test_trials_are_ranked_by_the_median_over_their_seeds(lab: Lab) -> None:
    sweep = lab.sweep()
    for trial, values in enumerate([(5, 1, 9), (4, 4, 4), (3, 100, 2)]):
        for seed, value in enumerate(values):
            lab.run(sweep, trial, seed, value, floor=float(value))
    comparison = compare_trials(lab.registry)
    assert order(comparison.rows) == [(1, 2, 3.0), (2, 1, 4.0), (3, 0, 5.0)]
    first = comparison.rows[0]
    assert {key: first[key] for key in ("sweep", "system", "config", "seeds", "states", "state", "confirmed")} == {
        "sweep": sweep,
        "system": "vae",
        "config": {"lr": 0.2},
        "seeds": 3,
        "states": {"FINISHED": 3},
        "state": "FINISHED",
        "confirmed": False,
    }
    assert first["score"] == {
        "name": "fd",
        "value": 3.0,
        "reference": None,
        "low": 2.0,
        "high": 100.0,
        "n": 1000,
        "floor": 3.0,
        "floor_sd": None,
        "signature": SIGNATURE,
        "confidence": 0.75,
        "better": "lower",
    }
    assert comparison.note == ""


def on_both(lab: Lab, sweep: str, trial: int, seed: int, reference: float, holdout: float, **changes: Any) -> str:
    """A finished run that was scored on both splits."""
    run = lab.run(sweep, trial, seed, state=RunState.RUNNING, **changes)
    (attempt,) = show_run(lab.registry, run)["attempts"]
    scores = [
        StoredScore("fd", value, value - 1, value + 1, 1000, 0.5, SIGNATURE, "lower", "last", 10, split)
        for split, value in (("reference", reference), ("holdout", holdout))
    ]
    lab.registry.finish(run, attempt["number"], RunState.FINISHED, seconds=1.0, scores=scores)
    return run


def test_the_reference_split_ranks_and_the_holdout_is_shown(lab: Lab) -> None:
    sweep = lab.sweep()
    runs = [on_both(lab, sweep, trial, 0, *values) for trial, values in enumerate([(2.0, 1.0), (1.0, 3.0), (3.0, 2.0)])]
    comparison = compare_trials(lab.registry)
    assert order(comparison.rows) == [(1, 1, 3.0), (2, 0, 1.0), (3, 2, 2.0)]
    assert [row["score"]["reference"] for row in comparison.rows] == [1.0, 2.0, 3.0]
    assert [comparison.rows[0]["score"][key] for key in ("low", "high")] == [2.0, 4.0]
    best = best_run(lab.registry, sweep)
    assert best is not None and best["run"] == runs[1]


def test_a_value_on_the_reference_that_is_not_finite_is_the_worst(lab: Lab) -> None:
    sweep = lab.sweep()
    for trial, values in enumerate([(math.nan, 1.0), (5.0, 2.0), (4.0, 3.0)]):
        on_both(lab, sweep, trial, 0, *values)
    rows = compare_trials(lab.registry).rows
    assert order(rows) == [(1, 2, 3.0), (2, 1, 2.0), (3, 0, 1.0)]
    assert rows[-1]["score"]["reference"] is None


def test_across_sweeps_a_lucky_seed_ahead_of_confirmed_values_is_marked(lab: Lab) -> None:
    one, other = lab.sweep("one"), lab.sweep("other")
    lab.run(one, 0, 0, 2.0)
    for seed, value in enumerate([5.0, 6.0, 7.0], start=1):
        lab.run(one, 0, seed, value, role="confirm")
    for trial, value in enumerate([4.0, 9.0]):
        lab.run(other, trial, 0, value)
    rows = compare_trials(lab.registry).rows
    assert [(row["sweep"], *place) for row, place in zip(rows, order(rows), strict=True)] == [
        (other, 1, 0, 4.0),
        (one, 2, 0, 6.0),
        (other, 3, 1, 9.0),
    ]
    assert [row["marks"] for row in rows] == [["not confirmed"], [], []]


def test_several_seeds_that_nothing_was_chosen_by_need_no_mark(lab: Lab) -> None:
    one, trained = lab.sweep("one"), lab.sweep("trained")
    lab.run(one, 0, 0, 2.0)
    lab.run(one, 0, 1, 6.0, role="confirm")
    for seed, value in enumerate([4.0, 5.0]):
        lab.run(trained, 0, seed, value)
    rows = compare_trials(lab.registry).rows
    assert [(row["sweep"], row["marks"]) for row in rows] == [(trained, []), (one, [])]


def test_a_row_whose_samples_a_score_says_little_of_is_marked(lab: Lab) -> None:
    sweep = lab.sweep()
    for trial, verdicts in enumerate([("UNMEASURABLE",), ("SEVERE", "NONE"), ("PARTIAL", "NONE")]):
        for seed, verdict in enumerate(verdicts):
            judged(lab, sweep, trial, seed, 1.0 + trial, verdict)
    rows = compare_trials(lab.registry).rows
    assert [row["marks"] for row in rows] == [["collapse UNMEASURABLE"], ["collapse SEVERE in 1 of 2 runs"], []]
    assert collapse_doubt(lab.registry, f"{sweep}.0.0") == "UNMEASURABLE: why"
    assert collapse_doubt(lab.registry, f"{sweep}.2.0") is None


def test_a_verdict_on_samples_is_that_of_the_checkpoint(lab: Lab) -> None:
    """Training went on for two evaluations after the weights that are the result, and collapsed."""
    sweep = lab.sweep()
    run = lab.run(sweep, 0, 0, state=RunState.RUNNING)
    (attempt,) = show_run(lab.registry, run)["attempts"]
    said: list[tuple[Judged, int, str]] = [
        ("collapse", 10, "NONE"),
        ("collapse", 20, "PARTIAL"),
        ("collapse", 30, "TOTAL"),
        ("stability", 30, "STABLE"),
    ]
    lab.registry.finish(
        run,
        attempt["number"],
        RunState.FINISHED,
        seconds=1.0,
        scores=[
            StoredScore("fd", 1.0, None, None, 1000, 0.5, SIGNATURE, "lower", "last", 20, "holdout"),
            StoredScore("fd", 1.0, None, None, 1000, 0.5, SIGNATURE, "lower", "selected", 10, "holdout"),
        ],
        verdicts=[StoredVerdict(kind, step, verdict, "why", {}, "signature") for kind, step, verdict in said],
        checkpoints=[StoredCheckpoint("last", 20, "a", "0", 1), StoredCheckpoint("selected", 10, "b", "1", 1)],
    )
    (last,), (selected,) = (compare_trials(lab.registry, checkpoint=kind).rows for kind in FINALS)
    assert last["verdicts"] == {"collapse": {"PARTIAL": 1}, "stability": {"STABLE": 1}} and last["marks"] == []
    assert selected["verdicts"]["collapse"] == {"NONE": 1}
    assert last_verdicts(lab.registry, sweep) == {run: {"collapse": "PARTIAL", "stability": "STABLE"}}
    assert [row["collapse"] for row in list_runs(lab.registry, sweep)] == ["PARTIAL"]
    assert collapse_doubt(lab.registry, run) is None


def judged(lab: Lab, sweep: str, trial: int, seed: int, value: float, verdict: str) -> None:
    run = lab.run(sweep, trial, seed, state=RunState.RUNNING)
    (attempt,) = show_run(lab.registry, run)["attempts"]
    lab.registry.finish(
        run,
        attempt["number"],
        RunState.FINISHED,
        seconds=1.0,
        scores=[StoredScore("fd", value, None, None, 1000, 0.5, SIGNATURE, "lower", "last", 10, "holdout")],
        verdicts=[StoredVerdict("collapse", 10, verdict, "why", {}, "signature")],
    )


def test_higher_is_better_when_the_score_says_so(lab: Lab) -> None:
    sweep = lab.sweep("text", "bleu", "higher")
    for trial, value in enumerate([0.1, 0.9, 0.5]):
        lab.run(sweep, trial, 0, value, name="bleu", better="higher")
    assert order(compare_trials(lab.registry, sweep).rows) == [(1, 1, 0.9), (2, 2, 0.5), (3, 0, 0.1)]


def test_equal_values_share_a_rank(lab: Lab) -> None:
    sweep = lab.sweep()
    for trial, value in enumerate([2, 1, 1, 3]):
        lab.run(sweep, trial, 0, value)
    assert [row["rank"] for row in compare_trials(lab.registry).rows] == [1, 1, 3, 4]


def test_one_seed_has_the_sampling_interval_of_its_run(lab: Lab) -> None:
    lab.run(lab.sweep(), 0, 0, 5, low=4.0, high=7.0)
    (row,) = compare_trials(lab.registry).rows
    assert [row["score"][key] for key in ("low", "high", "confidence")] == [4.0, 7.0, 0.95]


def test_one_seed_without_an_interval_claims_no_confidence(lab: Lab) -> None:
    lab.run(lab.sweep(), 0, 0, 5)
    (row,) = compare_trials(lab.registry).rows
    assert [row["score"][key] for key in ("low", "high", "confidence")] == [None, None, None]


def test_a_diverged_seed_is_the_worst_value(lab: Lab) -> None:
    sweep = lab.sweep()
    for seed, value in enumerate([1.0, 2.0]):
        lab.run(sweep, 0, seed, value)
    lab.run(sweep, 0, 2, state=RunState.DIVERGED)
    lab.run(sweep, 1, 0, 1.5)
    lab.run(sweep, 2, 0, 0.1)
    for seed in (1, 2):
        lab.run(sweep, 2, seed, state=RunState.DIVERGED)
    comparison = compare_trials(lab.registry)
    assert order(comparison.rows) == [(1, 1, 1.5), (2, 0, 2.0), (None, 2, None)]
    with_one, with_two = comparison.rows[1:]
    assert (with_one["seeds"], with_one["states"]) == (2, {"FINISHED": 2, "DIVERGED": 1})
    assert [with_one["score"][key] for key in ("low", "high", "confidence")] == [1.0, None, 0.75]
    assert (with_two["state"], with_two["score"], with_two["seeds"]) == ("DIVERGED", None, 1)


def test_a_score_that_is_not_finite_counts_like_a_divergence(lab: Lab) -> None:
    sweep = lab.sweep()
    lab.run(sweep, 0, 0, math.nan)
    lab.run(sweep, 1, 0, 9.0)
    assert order(compare_trials(lab.registry).rows) == [(1, 1, 9.0), (None, 0, None)]


def test_only_finished_runs_have_a_score(lab: Lab) -> None:
    sweep = lab.sweep()
    lab.run(sweep, 0, 0, 9.0)
    states = [RunState.PRUNED, RunState.FAILED, RunState.KILLED, RunState.RUNNING, RunState.QUEUED]
    for trial, state in enumerate(states, start=1):
        lab.run(sweep, trial, 0, 1.0, state=state)
    rows = compare_trials(lab.registry).rows
    assert order(rows)[0] == (1, 0, 9.0)
    assert [(row["rank"], row["score"], row["state"]) for row in rows[1:]] == [(None, None, s.value) for s in states]


def test_confirmed_trials_use_their_fresh_seeds_and_come_first(lab: Lab) -> None:
    sweep = lab.sweep()
    lab.run(sweep, 0, 0, 1.0)
    lab.run(sweep, 1, 0, 2.0)
    for seed, value in enumerate([7.0, 8.0, 9.0], start=100):
        lab.run(sweep, 1, seed, value, role="confirm")
    rows = compare_trials(lab.registry).rows
    assert order(rows) == [(1, 1, 8.0), (2, 0, 1.0)]
    assert [(row["confirmed"], row["seeds"]) for row in rows] == [(True, 3), (False, 1)]


def test_verdicts_are_counted_of_the_runs_that_the_score_is_of(lab: Lab) -> None:
    """A trial that won the search is shown by its fresh seeds, and so is what was said of it."""
    sweep = lab.sweep()
    cases: list[tuple[int, int, Role, str]] = [
        (0, 0, "search", "SEVERE"),
        (0, 1, "search", "NONE"),
        (1, 0, "search", "SEVERE"),
        (1, 100, "confirm", "NONE"),
        (1, 101, "confirm", "NONE"),
        (1, 102, "confirm", "PARTIAL"),
    ]
    for trial, seed, role, verdict in cases:
        run = lab.run(sweep, trial, seed, 1.0, role=role)
        said = [StoredVerdict("collapse", step, each, "", {}, "") for step, each in ((1, "TOTAL"), (2, verdict))]
        lab.registry.rejudge(run, said)
    rows = {row["trial"]: row["verdicts"] for row in compare_trials(lab.registry).rows}
    assert rows == {0: {"collapse": {"NONE": 1, "SEVERE": 1}}, 1: {"collapse": {"NONE": 2, "PARTIAL": 1}}}


def test_a_confirmation_that_only_diverged_is_not_forgotten(lab: Lab) -> None:
    sweep = lab.sweep()
    lab.run(sweep, 0, 0, 1.0)
    lab.run(sweep, 0, 100, role="confirm", state=RunState.DIVERGED)
    (row,) = compare_trials(lab.registry).rows
    assert (row["rank"], row["state"], row["confirmed"]) == (None, "DIVERGED", True)


def test_a_confirmation_that_is_under_way_does_not_hide_the_search(lab: Lab) -> None:
    sweep = lab.sweep()
    lab.run(sweep, 0, 0, 1.0)
    lab.run(sweep, 0, 100, role="confirm", state=RunState.RUNNING)
    (row,) = compare_trials(lab.registry).rows
    assert (row["score"]["value"], row["state"], row["confirmed"]) == (1.0, "RUNNING", False)


def test_signatures_are_never_ranked_together(lab: Lab) -> None:
    sweep = lab.sweep()
    for trial, (value, n) in enumerate([(5, 1000), (1, 500), (3, 1000), (2, 500), (4, 1000)]):
        lab.run(sweep, trial, 0, value, signature=f"fd|n:{n}")
    comparison = compare_trials(lab.registry)
    assert order(comparison.rows) == [(1, 2, 3.0), (2, 4, 4.0), (3, 0, 5.0), (1, 1, 1.0), (2, 3, 2.0)]
    assert [(group.signature, group.rows) for group in comparison.groups] == [("fd|n:1000", 3), ("fd|n:500", 2)]
    expected = "2 signatures are present and differ in n:1000 / n:500; ranks restart in each group."
    assert comparison.note == expected


def test_seeds_of_different_signatures_are_not_averaged(lab: Lab) -> None:
    sweep = lab.sweep()
    lab.run(sweep, 0, 0, 1.0, signature="fd|v1")
    lab.run(sweep, 0, 1, 9.0, signature="fd|v2")
    assert sorted(order(compare_trials(lab.registry).rows)) == [(1, 0, 1.0), (1, 0, 9.0)]


def test_score_and_checkpoint_can_be_chosen(lab: Lab) -> None:
    sweep = lab.sweep()
    run = lab.run(sweep, 0, 0, 5.0)
    more = [
        StoredScore("kid", 0.3, None, None, 10, None, "kid", "lower", "last", 10, "holdout"),
        StoredScore("fd", 4.0, None, None, 10, None, "fd", "lower", "selected", 6, "holdout"),
    ]
    lab.registry.finish(run, 1, RunState.FINISHED, scores=more)
    assert order(compare_trials(lab.registry, score="kid").rows) == [(1, 0, 0.3)]
    assert order(compare_trials(lab.registry, checkpoint="selected").rows) == [(1, 0, 4.0)]
    assert order(compare_trials(lab.registry).rows) == [(None, 0, None)]
    with pytest.raises(UsageError, match="unknown score 'kidd'; did you mean kid?"):
        compare_trials(lab.registry, score="kidd")


@pytest.mark.parametrize("stored", [("holdout", "reference"), ("reference", "holdout")])
def test_the_holdout_counts_when_a_score_stands_on_two_splits(lab: Lab, stored: tuple[str, str]) -> None:
    run = lab.run(lab.sweep(), 0, 0, 5.0)
    both = [
        StoredScore(
            "fd", {"holdout": 6.0, "reference": 5.0}[split], None, None, 10, None, "fd", "lower", "last", 10, split
        )
        for split in stored
    ]
    lab.registry.finish(run, 1, RunState.FINISHED, scores=both)
    assert order(compare_trials(lab.registry).rows) == [(1, 0, 6.0)]
    (row,) = list_runs(lab.registry)
    assert [(score["value"], score["split"]) for score in row["scores"]] == [(6.0, "holdout")]


def test_all_sweeps_are_compared_by_their_own_objectives(lab: Lab) -> None:
    lab.run(lab.sweep("a"), 0, 0, 2.0)
    lab.run(lab.sweep("b"), 0, 0, 1.0)
    lab.run(lab.sweep("c", "bleu", "higher"), 0, 0, 0.5, name="bleu", better="higher", signature="bleu|v1")
    comparison = compare_trials(lab.registry)
    assert [(row["rank"], row["sweep"][0]) for row in comparison.rows] == [(1, "b"), (2, "a"), (1, "c")]
    assert "fd n:1000 / bleu v1" in comparison.note


# ---- many runs: what is left out changes nothing of what is shown


@pytest.mark.parametrize("batch", [2, 1000])
def test_the_first_rows_are_told_in_full(lab: Lab, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr("aigc_lab.registry.comparison.BATCH", batch)
    sweep = lab.sweep()
    for trial, value in enumerate([3.0, 1.0, 2.0]):
        for seed in (0, 1):
            lab.run(sweep, trial, seed, value + seed)
    whole, first = compare_trials(lab.registry), compare_trials(lab.registry, most=2)
    for row in [*first.rows, *whole.rows]:
        row.pop("against")  # it is of the rows that are shown, as the correction for the number of their pairs
    assert first.rows == whole.rows[:2]
    assert [(row["score"]["n"], row["score"]["value"], row["seconds"]) for row in first.rows] == [
        (1000, 1.5, 2.0),
        (1000, 2.5, 2.0),
    ]
    assert [row["config"] for row in first.rows] == [{"lr": 0.1}, {"lr": 0.2}]
    assert (first.total, len(whole.rows)) == (3, 3)


def test_what_is_missing_and_why_is_that_of_the_runs_which_the_score_is_of(lab: Lab) -> None:
    """Of a confirmed trial only fresh seeds count, of a run its last verdict, and of verdicts those that a bin is
    proved to be missing in.
    """

    def judged(trial: int, seed: int, said: list[tuple[int, str, str]], role: Role = "search", why: str = "") -> None:
        run = lab.run(sweep, trial, seed, role=role, state=RunState.RUNNING)
        verdicts = []
        for step, verdict, missing in said:
            bins = [{"name": each, "state": "missing" if each in missing else "present"} for each in "abcdef"]
            verdicts.append(StoredVerdict("collapse", step, verdict, why, {"bins": bins}, "signature"))
        attempt = lab.registry.begin(run, {})
        score = StoredScore("fd", 1.0, None, None, 10, None, SIGNATURE, "lower", "last", 10, "holdout")
        lab.registry.finish(run, attempt, RunState.FINISHED, scores=[score], verdicts=verdicts)

    sweep = lab.sweep()
    judged(0, 0, [(10, "TOTAL", "abc")])
    judged(0, 1, [(5, "SEVERE", "ab"), (10, "SEVERE", "d")], role="confirm")
    judged(0, 2, [(10, "TOTAL", "de")], role="confirm")
    judged(1, 0, [(5, "SEVERE", "a"), (10, "NONE", "")])
    judged(2, 0, [(10, "UNMEASURABLE", "a")])
    judged(3, 0, [(10, "SEVERE", "")])
    judged(4, 0, [(10, "PARTIAL", "f")], why="of the search")
    judged(4, 1, [(5, "PARTIAL", ""), (10, "NONE", "")], role="confirm", why="of before")
    judged(4, 3, [(10, "PARTIAL", "a")], role="confirm", why="of the second")
    judged(4, 2, [(5, "NONE", ""), (10, "PARTIAL", "")], role="confirm", why="of the first")
    rows = compare_trials(lab.registry, sweep).rows
    assert missing_bins(lab.registry, rows) == {(sweep, 0): ["d", "e"], (sweep, 3): []}
    assert partial_reasons(lab.registry, rows) == {(sweep, 4): "of the first"}


def test_values_are_those_that_the_scores_are_the_median_of(lab: Lab) -> None:
    sweep = lab.sweep()
    for seed, value in enumerate((3.0, 1.0, 2.0)):
        lab.run(sweep, 0, seed, value)
    lab.run(sweep, 1, 0, 5.0)
    lab.run(sweep, 1, 1, 9.0, role="confirm")
    lab.run(sweep, 1, 2, 8.0, role="confirm")
    lab.run(sweep, 1, 3, state=RunState.DIVERGED, role="confirm")
    lab.run(sweep, 2, 0, state=RunState.PRUNED)
    comparison = compare_trials(lab.registry, sweep)
    assert [row["trial"] for row in comparison.rows] == [1, 0, 2]
    assert comparison.values == [[9.0, 8.0, math.inf], [3.0, 1.0, 2.0], []]
    assert compare_trials(lab.registry, sweep, most=1).values == [[9.0, 8.0, math.inf]]
