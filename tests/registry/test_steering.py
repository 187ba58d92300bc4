"""Constraints on verdicts and several objectives in the registry: marks, ranks, fronts, and what is confirmed."""

from pathlib import Path
from typing import Any

import pytest
from registries import Lab, url_in
from sqlalchemy import update

from aigc_lab.commands.compare import flat_rows
from aigc_lab.display.markdown import comparison_markdown
from aigc_lab.display.meaning import Commands, meaning, stored_meaning
from aigc_lab.registry.best import best_run
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.records import Role, StoredScore, StoredVerdict
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.savings import savings
from aigc_lab.registry.states import RunState
from aigc_lab.registry.steering import Steering, feasible
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Trial
from aigc_lab.sweeps.steering import Worth, worth

ALLOWED = {"collapse": ["NONE", "PARTIAL"], "stability": ["STABLE", "WITHHELD"]}
CONSTRAINED = {"objective": {"minimize": "fd", "subject_to": ALLOWED}}
SEVERAL = {"objective": [{"minimize": "fd"}, {"maximize": "coverage"}]}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(Registry.open(url_in(tmp_path)))


def a_sweep(lab: Lab, experiment: dict[str, Any]) -> str:
    sweep: str = lab.registry.sweep("steered", "steered_" * 2, experiment, "fd", "lower")
    return sweep


def run(
    lab: Lab,
    sweep: str,
    trial: int,
    seed: int = 0,
    *,
    collapse: str | None = "NONE",
    stability: str | None = "STABLE",
    state: RunState = RunState.FINISHED,
    role: Role = "search",
    **values: float | None,
) -> None:
    """A run that has ended with these scores on the reference split and these verdicts; its trial has ended too."""
    name = lab.run(sweep, trial, seed, state=RunState.RUNNING, role=role)
    (attempt,) = show_run(lab.registry, name)["attempts"]
    better = {"fd": "lower", "coverage": "higher"}
    scores = [
        StoredScore(score, value, None, None, 100, None, f"{score}|n", better[score], "last", 10, "reference")  # type: ignore[arg-type]
        for score, value in values.items()
    ]
    kinds = (("collapse", collapse), ("stability", stability))
    verdicts = [StoredVerdict(kind, 10, said, "why", {}, "s") for kind, said in kinds if said is not None]  # type: ignore[arg-type]
    lab.registry.finish(name, attempt["number"], state, seconds=1.0, scores=scores, verdicts=verdicts)
    if role == "search":
        lab.registry.finish_trial(sweep, trial, state, values.get("fd"))


def test_a_trial_that_violates_a_constraint_is_ranked_last_and_says_so(lab: Lab) -> None:
    sweep = a_sweep(lab, CONSTRAINED)
    run(lab, sweep, 0, fd=3.0)
    run(lab, sweep, 1, fd=1.0, collapse="TOTAL")
    run(lab, sweep, 2, fd=2.0, stability="REGRESSED", collapse="SEVERE")
    run(lab, sweep, 3, fd=4.0, collapse="PARTIAL", stability="WITHHELD")
    rows = compare_trials(lab.registry, sweep).rows
    assert [(row["trial"], row["rank"]) for row in rows] == [(0, 1), (3, 2), (1, 3), (2, 4)]
    assert [row["marks"] for row in rows] == [
        [],
        [],
        ["collapse TOTAL", "violates collapse: TOTAL"],
        ["collapse SEVERE", "violates collapse: SEVERE", "violates stability: REGRESSED"],
    ]
    best = best_run(lab.registry, sweep)
    assert best is not None and best["run"] == f"{sweep}.0.0"
    assert [row["trial"] for row in feasible(lab.registry, sweep, Steering.of(CONSTRAINED))] == [0, 3, 1, 2]


def test_that_no_trial_meets_the_constraint_is_said_first(lab: Lab) -> None:
    sweep = a_sweep(lab, {"objective": {"minimize": "fd", "subject_to": {"collapse": ["NONE", "PARTIAL"]}}})

    def sentences() -> list[str]:
        comparison = compare_trials(lab.registry, sweep)
        return stored_meaning(lab.registry, comparison, Commands("")).sentences

    run(lab, sweep, 0, fd=1.0, collapse="SEVERE")
    run(lab, sweep, 1, fd=2.0, collapse="TOTAL")
    unmet = "No trial meets the constraint collapse: NONE, PARTIAL. What follows ranks trials that do not."
    assert sentences()[0] == unmet
    run(lab, sweep, 2, fd=3.0, collapse="PARTIAL")
    assert unmet not in sentences()


def test_seeds_that_violate_are_counted_and_fresh_ones_take_their_place(lab: Lab) -> None:
    sweep = a_sweep(lab, CONSTRAINED)
    for seed, verdict in enumerate(("NONE", "TOTAL", None)):
        run(lab, sweep, 0, seed, fd=1.0, collapse=verdict)
    told = worth(lab.registry, sweep, 0, 1.0, Steering.of(CONSTRAINED))
    assert told == Worth(1.0, {"collapse": 2 / 3, "stability": 0.0})
    (row,) = compare_trials(lab.registry, sweep).rows
    assert row["marks"][-1] == "violates collapse: TOTAL in 1 of 3 runs, no verdict in 1 of 3 runs"
    run(lab, sweep, 0, 3, fd=1.0, role="confirm")
    (row,) = compare_trials(lab.registry, sweep).rows
    assert row["confirmed"] and not row["marks"]
    assert worth(lab.registry, sweep, 0, 1.0, Steering.of(CONSTRAINED)) == told, "the search saw its own seeds"


def test_a_diverged_run_violates_what_it_has_no_verdict_of_and_a_pruned_one_does_not(lab: Lab) -> None:
    sweep = a_sweep(lab, CONSTRAINED)
    run(lab, sweep, 0, state=RunState.DIVERGED, collapse=None, stability="DIVERGED")
    run(lab, sweep, 1, state=RunState.PRUNED, collapse="TOTAL", stability=None)
    run(lab, sweep, 2, state=RunState.PRUNED, collapse=None, stability=None)
    steering = Steering.of(CONSTRAINED)
    told = [worth(lab.registry, sweep, trial, None, steering).violations for trial in range(3)]
    assert told == [
        {"collapse": 1.0, "stability": 1.0},
        {"collapse": 1.0, "stability": 0.0},
        {"collapse": 0.0, "stability": 0.0},
    ]


def test_of_several_objectives_the_front_is_told_and_confirmed(lab: Lab) -> None:
    sweep = a_sweep(lab, SEVERAL)
    for trial, (fd, coverage) in enumerate([(1.0, 0.2), (2.0, 0.9), (3.0, 0.9), (1.5, 0.1), (4.0, 0.95)]):
        run(lab, sweep, trial, fd=fd, coverage=coverage)
    rows = compare_trials(lab.registry, sweep).rows
    assert [(row["trial"], row["front"]) for row in rows] == [(0, True), (3, False), (1, True), (2, False), (4, True)]
    assert [row["objectives"]["coverage"] for row in rows] == [0.2, 0.1, 0.9, 0.9, 0.95]
    steering = Steering.of(SEVERAL)
    assert [row["trial"] for row in feasible(lab.registry, sweep, steering)] == [0, 1, 4]
    assert worth(lab.registry, sweep, 4, 4.0, steering) == Worth([4.0, 0.95], {})


def test_every_form_shows_the_further_objectives_and_says_what_the_front_is(lab: Lab) -> None:
    sweep = a_sweep(lab, SEVERAL)
    for trial, (fd, coverages) in enumerate([(1.0, (0.1, 0.2, 0.6)), (2.0, (0.9,)), (3.0, (0.85,))]):
        for seed, coverage in enumerate(coverages):
            run(lab, sweep, trial, seed, fd=fd, coverage=coverage)
    comparison = compare_trials(lab.registry, sweep)
    head, _, *lines = comparison_markdown(comparison).splitlines()
    place = head.split(" | ").index("coverage")
    assert [line.split(" | ")[place] for line in lines[:3]] == ["0.2", "0.9", "0.85"]
    assert "- coverage: median over its seeds on the reference split" in lines
    assert any(line.startswith("- front: no other trial is as good in all objectives") for line in lines)
    said = meaning(comparison, {}, {}, Commands("")).sentences
    assert "2 trials are on the front of fd and coverage: none is better in both: trials 0, 1." in said
    assert [row["objectives.coverage"] for row in flat_rows(comparison)] == [0.2, 0.9, 0.85]


def test_of_several_objectives_the_median_over_seeds_counts_and_a_lost_value_is_the_worst_seen(lab: Lab) -> None:
    sweep, steering = a_sweep(lab, SEVERAL), Steering.of(SEVERAL)
    run(lab, sweep, 0, state=RunState.DIVERGED)
    assert worth(lab.registry, sweep, 0, 1.0, steering).values is None, "nothing had been seen"
    run(lab, sweep, 1, fd=1.0, coverage=0.3)
    for seed, coverage in enumerate((0.9, 0.8, None)):
        run(lab, sweep, 2, seed, fd=1.0, coverage=coverage)
    run(lab, sweep, 3, fd=1.0, coverage=0.1)
    assert worth(lab.registry, sweep, 2, 1.0, steering).values == [1.0, 0.8]
    run(lab, sweep, 2, 3, fd=1.0, coverage=None)
    assert worth(lab.registry, sweep, 2, 1.0, steering).values == [1.0, pytest.approx((0.3 + 0.8) / 2)]
    assert worth(lab.registry, sweep, 1, None, steering).values is None


def test_a_front_is_made_of_what_violates_nothing(lab: Lab) -> None:
    constrained = [{"minimize": "fd", "subject_to": {"collapse": ["NONE"]}}, {"maximize": "coverage"}]
    sweep = a_sweep(lab, {"objective": constrained})
    run(lab, sweep, 0, fd=1.0, coverage=0.99, collapse="TOTAL")
    run(lab, sweep, 1, fd=2.0, coverage=0.9)
    run(lab, sweep, 2, fd=3.0, coverage=0.8)
    rows = compare_trials(lab.registry, sweep).rows
    assert [(row["trial"], row["front"]) for row in rows] == [(1, True), (2, False), (0, False)]
    assert [row["trial"] for row in feasible(lab.registry, sweep, Steering.of({"objective": constrained}))] == [1]


def test_a_confirmed_trial_is_put_off_the_front_by_confirmed_ones_alone(lab: Lab) -> None:
    sweep = a_sweep(lab, SEVERAL)
    for trial, (fd, coverage) in enumerate([(1.0, 0.9), (1.1, 0.8), (0.9, 0.1), (5.0, 0.05)]):
        run(lab, sweep, trial, fd=fd, coverage=coverage)
    run(lab, sweep, 0, 1, role="confirm", fd=2.0, coverage=0.7)
    run(lab, sweep, 2, 1, role="confirm", fd=3.0, coverage=0.6)
    rows = {row["trial"]: row["front"] for row in compare_trials(lab.registry, sweep).rows}
    assert rows == {0: True, 1: True, 2: False, 3: False}
    # Whatever was confirmed already, the same trials are confirmed by a sweep that goes on.
    assert [row["trial"] for row in feasible(lab.registry, sweep, Steering.of(SEVERAL))] == [2, 0]


def test_without_constraints_trials_are_confirmed_by_their_value(lab: Lab) -> None:
    higher = {"objective": {"maximize": "coverage"}}
    sweep = lab.registry.sweep("plain", "plain___" * 2, higher, "coverage", "higher")
    for trial, value in enumerate((1.0, 3.0, 2.0)):
        lab.run(sweep, trial, 0, value)
        lab.registry.finish_trial(sweep, trial, RunState.FINISHED, value)
    lab.run(sweep, 3, 0, state=RunState.DIVERGED)
    lab.registry.finish_trial(sweep, 3, RunState.DIVERGED, 9.0)
    assert [row["trial"] for row in feasible(lab.registry, sweep, Steering.of(higher))] == [1, 2, 0]
    assert all("front" not in row and not row["marks"] for row in compare_trials(lab.registry, sweep).rows)


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_steps_that_a_pruner_saved(lab: Lab, seeds: int) -> None:
    """Of 4 trials of 100 steps (a hole: 300 for trial 3) two were stopped, at 40 and 60."""
    experiment = {"training": {"steps": 100}, "search": {"pruner": "median", "seeds": seeds}}
    sweep = a_sweep(lab, experiment)
    for trial, (state, step) in enumerate([("FINISHED", 100), ("PRUNED", 40), ("DIVERGED", 20), ("PRUNED", 60)]):
        for seed in range(1 if state == "PRUNED" else seeds):
            lab.run(sweep, trial, seed, 1.0, state=RunState(state), checkpoint="progress", step=step)
        lab.registry.finish_trial(sweep, trial, RunState(state), 1.0)
    with lab.registry.write() as connection:
        of_last = Trial.c.number == 3
        connection.execute(update(Trial).where(of_last).values(config={"training.steps": 300}))
    whole, saved = seeds * (3 * 100 + 300), seeds * (100 + 300) - 40 - 60
    with lab.registry.read() as connection:
        told = savings(connection, sweep)
    assert told == ("median", 2, 4, saved, whole)
    share = {1: "50%", 2: "58%"}[seeds]
    assert str(told) == f"Pruner median stopped 2 of 4 trials: {saved:,} of {whole:,} steps ({share}) were not trained."


def test_where_nothing_was_stopped_nothing_is_said(lab: Lab) -> None:
    sweep = a_sweep(lab, {"training": {"steps": 100}, "search": {"pruner": "median"}})
    run(lab, sweep, 0, fd=1.0)
    with lab.registry.read() as connection:
        assert savings(connection, sweep) is None
