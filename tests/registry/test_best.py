"""The best run of a sweep: what verdicts pass over, in which order, and what is said of it."""

import math
from pathlib import Path
from typing import Any

import pytest
from registries import SIGNATURE, Lab, url_in

from aigc_lab.display.selection import none_passes, passed_over_lines
from aigc_lab.registry.best import RECORDED, RankedRun, Selection, best_run, first_sound
from aigc_lab.registry.columns import FinalCheckpoint
from aigc_lab.registry.records import Role, StoredCheckpoint, StoredScore, StoredVerdict
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(Registry.open(url_in(tmp_path)))


def judged(
    lab: Lab,
    sweep: str,
    trial: int,
    seed: int,
    value: float,
    *verdicts: tuple[Any, str, int],
    role: Role = "search",
    holdout: float | None = None,
    checkpoints: dict[FinalCheckpoint, int] | None = None,
    signature: str = SIGNATURE,
    better: Any = "lower",
) -> str:
    """A finished run with a score of `value` on the reference split, and verdicts (kind, verdict, step)."""
    run = lab.run(sweep, trial, seed, state=RunState.RUNNING, role=role)
    (attempt,) = show_run(lab.registry, run)["attempts"]
    places: dict[FinalCheckpoint, int] = {"last": 10}
    stored = places if checkpoints is None else checkpoints
    lab.registry.finish(
        run,
        attempt["number"],
        RunState.FINISHED,
        seconds=1.0,
        scores=[
            StoredScore("fd", number, None, None, 1000, 0.5, signature, better, kind, step, split)
            for kind, step in stored.items()
            for split, number in (("reference", value), ("holdout", value if holdout is None else holdout))
        ],
        verdicts=[StoredVerdict(kind, step, said, "why", {}, "s") for kind, said, step in verdicts],
        checkpoints=[StoredCheckpoint(kind, step, kind, "0", 1) for kind, step in stored.items()],
    )
    return run


def selected(lab: Lab, sweep: str, checkpoint: FinalCheckpoint = "last") -> Selection:
    best = best_run(lab.registry, sweep, checkpoint)
    assert best is not None and best["run"] == best["selection"].best.run
    selection: Selection = best["selection"]
    return selection


REFUSED = [
    ("collapse", "SEVERE"),
    ("collapse", "TOTAL"),
    ("collapse", "UNMEASURABLE"),
    ("collapse", "POSTERIOR-COLLAPSED"),
    ("stability", "DIVERGED"),
    ("stability", "NEVER-LEARNED"),
    ("stability", "REGRESSED"),
]
ACCEPTED = [
    *(("collapse", verdict) for verdict in ("NONE", "PARTIAL", "INCONCLUSIVE")),
    *(("stability", verdict) for verdict in ("STABLE", "OSCILLATING", "WITHHELD")),
]


@pytest.mark.parametrize(("kind", "verdict"), REFUSED)
def test_a_run_that_a_verdict_speaks_against_is_passed_over(lab: Lab, kind: str, verdict: str) -> None:
    sweep = lab.sweep()
    first = judged(lab, sweep, 0, 0, 1.0, (kind, verdict, 10))
    second = judged(lab, sweep, 1, 0, 2.0, ("collapse", "NONE", 10), ("stability", "STABLE", 10))
    judged(lab, sweep, 2, 0, 3.0)
    selection = selected(lab, sweep)
    assert selection.sound and selection.best.run == second and selection.best.rank == 2
    (passed,) = selection.passed_over
    assert (passed.run, passed.rank, passed.objections) == (first, 1, (f"{kind} {verdict}: why",))
    assert passed_over_lines(selection.as_json()) == [f"passed over {first} (fd 1, rank 1): {kind} {verdict}: why"]


@pytest.mark.parametrize(("kind", "verdict"), ACCEPTED)
def test_other_verdicts_pass(lab: Lab, kind: str, verdict: str) -> None:
    sweep = lab.sweep()
    first = judged(lab, sweep, 0, 0, 1.0, (kind, verdict, 10))
    judged(lab, sweep, 1, 0, 2.0)
    selection = selected(lab, sweep)
    assert (selection.best.run, selection.passed_over) == (first, ())
    assert passed_over_lines(selection.as_json()) == []


def test_the_last_verdict_counts(lab: Lab) -> None:
    sweep = lab.sweep()
    first = judged(lab, sweep, 0, 0, 1.0, ("collapse", "SEVERE", 5), ("collapse", "NONE", 10))
    judged(lab, sweep, 1, 0, 0.5, ("collapse", "NONE", 5), ("collapse", "SEVERE", 10))
    assert selected(lab, sweep).best.run == first


def test_of_a_trial_the_next_seed_by_the_reference_split_is_taken(lab: Lab) -> None:
    """The holdout, which would choose otherwise, chooses nothing."""
    sweep = lab.sweep()
    runs = [
        judged(lab, sweep, 0, seed, value, ("collapse", verdict, 10), holdout=holdout)
        for seed, (value, verdict, holdout) in enumerate(
            [(3.0, "NONE", 0.1), (1.0, "TOTAL", 9.0), (2.0, "NONE", 8.0), (1.5, "SEVERE", 7.0)]
        )
    ]
    selection = selected(lab, sweep)
    assert selection.best.run == runs[2]
    assert [each.run for each in selection.passed_over] == [runs[1], runs[3]]
    assert [each.score["value"] for each in selection.passed_over] == [9.0, 7.0], "shown is the holdout's"


def test_of_a_score_of_which_more_is_better_the_largest_comes_first(lab: Lab) -> None:
    sweep = lab.sweep(better="higher")
    for seed, value in enumerate((1.0, 3.0, 2.0)):
        judged(lab, sweep, 0, seed, value, better="higher")
    assert selected(lab, sweep).best.run == f"{sweep}.0.1"


def test_a_value_that_is_not_finite_is_never_the_best(lab: Lab) -> None:
    sweep = lab.sweep()
    for seed, value in enumerate((math.nan, 3.0, 2.0, 1.0)):
        judged(lab, sweep, 0, seed, value, holdout=0.5)
    assert selected(lab, sweep).best.run == f"{sweep}.0.3"


def test_of_a_confirmed_trial_only_fresh_seeds_count_and_others_come_after_it(lab: Lab) -> None:
    sweep = lab.sweep()
    judged(lab, sweep, 0, 0, 0.1)
    judged(lab, sweep, 1, 0, 0.5)
    bad = ("stability", "REGRESSED", 10)
    fresh = [judged(lab, sweep, 1, seed, float(seed), bad, role="confirm") for seed in (101, 102)]
    good = judged(lab, sweep, 1, 103, 103.0, role="confirm")
    selection = selected(lab, sweep)
    assert selection.best.run == good and selection.best.confirmed
    assert [each.run for each in selection.passed_over] == fresh


def test_an_unconfirmed_run_before_which_confirmed_ones_were_passed_over_is_said_to_be_that(lab: Lab) -> None:
    sweep = lab.sweep()
    search = judged(lab, sweep, 0, 0, 0.1)
    judged(lab, sweep, 1, 0, 0.5)
    fresh = judged(lab, sweep, 1, 101, 9.0, ("collapse", "TOTAL", 10), role="confirm")
    selection = selected(lab, sweep)
    assert selection.best.run == search and not selection.best.confirmed and selection.confirmed_trials == 1
    lines = passed_over_lines(selection.as_json())
    assert lines[0].startswith(f"passed over {fresh} (fd 9, rank 1): ") and lines[1].startswith("not confirmed: ")


def test_where_nothing_passes_the_best_by_score_is_named_with_the_reasons(lab: Lab) -> None:
    sweep = lab.sweep()
    runs = [judged(lab, sweep, trial, 0, trial + 1.0, ("collapse", "TOTAL", 10)) for trial in range(4)]
    selection = selected(lab, sweep)
    assert not selection.sound and selection.best.run == runs[0] and selection.passed_over == ()
    assert [each.run for each in selection.runs] == runs
    said = none_passes(sweep, [each.as_json() for each in selection.runs])
    assert said.startswith(f"no ranked run of {sweep} passes: {runs[0]} (fd 1, rank 1): collapse TOTAL: why; {runs[1]}")
    assert said.endswith("; and 1 more") and runs[3] not in said


def test_a_regression_does_not_speak_against_weights_of_before(lab: Lab) -> None:
    """The last weights are of step 30 and regressed; the selected ones are of step 10, where all was well."""
    sweep = lab.sweep()
    places: dict[FinalCheckpoint, int] = {"last": 30, "selected": 10}
    run = judged(lab, sweep, 0, 0, 1.0, ("stability", "REGRESSED", 30), checkpoints=places)
    other = judged(lab, sweep, 1, 0, 2.0, checkpoints=places)
    assert selected(lab, sweep).best.run == other
    assert selected(lab, sweep, "selected").best.run == run
    # That training never learned, or broke, holds of all its weights.
    never = judged(lab, sweep, 2, 0, 0.5, ("stability", "NEVER-LEARNED", 30), checkpoints=places)
    assert [each.run for each in selected(lab, sweep, "selected").passed_over] == [never]


def test_only_the_signature_of_most_trials_counts(lab: Lab) -> None:
    sweep = lab.sweep()
    for trial, value in enumerate((2.0, 3.0)):
        judged(lab, sweep, trial, 0, value, ("collapse", "TOTAL", 10))
    judged(lab, sweep, 2, 0, 1.0, signature="fd|n:50")
    selection = selected(lab, sweep)
    assert not selection.sound and [each.trial[1] for each in selection.runs] == [0, 1]


def test_a_sweep_without_a_ranked_trial_has_no_best_run(lab: Lab) -> None:
    sweep = lab.sweep()
    lab.run(sweep, 0, 0, 1.0, state=RunState.FAILED)
    assert best_run(lab.registry, sweep) is None
    assert first_sound([], lambda rows: {}) is None


def test_of_many_that_are_passed_over_the_first_are_recorded_and_the_rest_counted() -> None:
    score = {"name": "fd", "value": 1.0, "low": 0.5, "high": 2.0, "better": "lower", "signature": "fd"}
    rows = [
        {"sweep": "s", "trial": trial, "rank": trial + 1, "confirmed": False, "marks": [], "score": score}
        for trial in range(RECORDED + 40)
    ]
    asked: list[int] = []

    def runs_of(some: Any) -> dict[tuple[str, int], list[RankedRun]]:
        asked.extend(row["trial"] for row in some)
        return {
            ("s", row["trial"]): [
                RankedRun(
                    f"s.{row['trial']}.0",
                    ("s", row["trial"]),
                    score,
                    1.0,
                    objections=() if row["trial"] == RECORDED + 3 else ("collapse TOTAL: why",),
                )
            ]
            for row in some
        }

    selection = first_sound(rows, runs_of)
    assert selection is not None and selection.best.run == f"s.{RECORDED + 3}.0"
    assert len(asked) < len(rows), "what comes after the best is not read"
    plain = selection.as_json()
    assert (len(plain["passed_over"]), plain["passed_over_more"]) == (RECORDED, 3)
    assert passed_over_lines(plain)[-1] == f"passed over {RECORDED - 2} more, for such reasons"
