"""What a ranking is said to mean, of comparisons whose answer is known."""

import math
import random
import statistics
from dataclasses import replace
from typing import Any

import pytest
from rankings import compared, comparison, row, score

from aigc_lab.display.meaning import Commands, meaning
from aigc_lab.display.ranking import explanations
from aigc_lab.registry.pairs import mark_leaders
from aigc_lab.registry.ranking import Comparison

COMMANDS = Commands("SAMPLES", more_seeds="MORE", promote="PROMOTE", status="STATUS")


def told(of: Comparison, missing: Any = None, commands: Commands = COMMANDS) -> str:
    found = meaning(of, missing or {}, {}, commands)
    return "\n".join([*found.sentences, f"{found.purpose}: {found.command}"])


def test_who_leads_and_by_how_much_beside_the_floor() -> None:
    lead = told(compared([7.8], [9.0], [20.0])).splitlines()[0]
    assert lead == (
        "Trial 0 (dcgan) leads with fd_clf 7.8 (lower is better), 1.2 ahead of trial 1 (dcgan) with 9; real samples "
        "score 0.959 (the floor), 6.84 better than the first."
    )


def test_of_a_score_that_is_better_higher_the_larger_one_leads() -> None:
    changes: dict[str, Any] = {"better": "higher", "name": "inception_score", "floor": 9.0}
    rows = [(row(trial, [value], score=score([value], **changes)), [value]) for trial, value in ((0, 7.0), (1, 4.0))]
    lead = told(comparison(*rows)).splitlines()[0]
    assert "inception_score 7 (higher is better), 3 ahead of trial 1" in lead
    assert "real samples score 9 (the floor), 2 better than the first" in lead


def test_a_leader_at_the_floor_is_not_called_worse_than_real_samples() -> None:
    assert "real samples score 0.959 (the floor), no better than the first." in told(compared([0.9], [9.0]))


def test_a_leader_without_a_floor() -> None:
    only = told(comparison(*((row(t, [v], score=score([v], floor=None)), [v]) for t, v in ((0, 1.0), (1, 2.0)))))
    assert "1 ahead of trial 1 (dcgan) with 2." in only and "floor" not in only


@pytest.mark.parametrize(
    ("n", "more"), [(1, "3 more seeds each"), (2, "about 5 more seeds each"), (3, "about 2 more seeds each")]
)
def test_with_few_seeds_chance_cannot_be_told_and_how_many_more_would(n: int, more: str) -> None:
    of = told(compared([float(each) for each in range(n)], [100.0 + each for each in range(n)]))
    assert f"cannot be told yet: with {n} and {n} seeds no result could tell; {more} would" in of
    assert "p =" not in of and of.endswith("To find out, as a sweep of its own: MORE")


def test_seeds_that_do_not_overlap_are_more_than_chance() -> None:
    of = told(compared([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]))
    assert "That is more than chance (exact rank test of 4 and 4 seeds, p = 0.029)." in of  # 2 / C(8, 4)
    assert of.endswith("To keep the first: PROMOTE")


def test_the_answer_is_that_of_all_pairs_of_the_first_rows() -> None:
    """2 / C(10, 5) is 0.0079: six times that of four rows, ten times of five, of which the first four are compared."""
    rows = [[start + seed for seed in range(5)] for start in (0.0, 10.0, 20.0, 30.0, 40.0)]
    of = told(compared(*rows))
    assert (
        "That is more than chance (exact rank test of 5 and 5 seeds, Holm's correction for 6 pairs, p = 0.048)." in of
    )
    rows[1] = [0.5, 1.5, 2.5, 3.5, 4.5]
    of = told(compared(*rows))
    assert (
        "The difference may be chance (exact rank test of 5 and 5 seeds, Holm's correction for 6 pairs, p = 0.69" in of
    )
    few = told(compared(*(row[:4] for row in rows)))
    assert "no result could tell one of 6 pairs; to tell them apart takes more than 100 more seeds each." in few


def test_the_leaders_within_noise_are_named_where_they_are_not_the_first_two() -> None:
    rows = [[start + seed for seed in range(5)] for start in (0.0, 0.1, 0.2, 30.0)]
    of = compared(*rows)
    mark_leaders(of)
    sentence = "Leaders within noise, none of which a test finds worse than the first: "
    assert f"{sentence}trial 0 (dcgan), trial 1 (dcgan) and trial 2 (dcgan)." in told(of)
    of = compared(*rows[:2])
    mark_leaders(of)
    assert sentence not in told(of)


def test_rows_of_trials_that_are_no_random_draw_are_not_tested() -> None:
    first, second = ([start + seed for seed in range(5)] for start in (0.0, 10.0))
    of = told(comparison((row(0, first, adaptive=True), first), (row(1, second), second)))
    assert "no random draw, so no test can tell" in of and "p =" not in of
    of = told(comparison((row(0, first, unit="trial"), first), (row(1, second), second)))
    assert "of the other its seeds: no test compares them." in of and "p =" not in of


def test_seeds_that_overlap_may_be_chance() -> None:
    of = told(compared([1.0, 3.0, 5.0, 7.0], [2.0, 4.0, 6.0, 8.0]))
    assert (
        "The difference may be chance (exact rank test of 4 and 4 seeds, p = 0.69; below 0.05 it would count as more)"
        in of
    )
    assert "; about 90 more seeds each would tell." in of
    assert "more than chance (" not in of


@pytest.mark.parametrize("configurations", [2, 3, 8])
@pytest.mark.parametrize("seeds", [4, 6])
def test_of_equal_configurations_at_most_one_in_twenty_leads_by_more_than_chance(
    configurations: int, seeds: int
) -> None:
    draw, alarms, sweeps = random.Random(configurations), 0, 1000
    for _ in range(sweeps):
        values = sorted(
            ([draw.gauss(9, 1) for _ in range(seeds)] for _ in range(configurations)), key=statistics.median
        )
        alarms += "more than chance (" in told(compared(*values))
    assert alarms / sweeps < 0.05 + 3 * (0.05 * 0.95 / sweeps) ** 0.5


def test_a_seed_that_diverged_is_the_worst_value() -> None:
    of = told(compared([1.0, 2.0, 3.0, math.inf], [5.0, 6.0, 7.0, 8.0]))
    assert "may be chance" in of and "p = 0.34" in of  # ranks 1, 2, 3, 8: of 70 partings, 12 have a sum of 14 or less


def test_the_holdout_may_say_the_opposite_of_the_reference() -> None:
    of = told(compared([5.0], [4.0]))
    assert "ranks first with fd_clf 5 (lower is better), before trial 1 (dcgan) with 4: the reference split ranks" in of
    assert "leads" not in of
    apart = told(compared([5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0]))
    assert "By more than chance it is trial 1 (dcgan) that is better (exact rank test" in apart


def test_fresh_seeds_and_those_of_the_search_are_not_tested_against_each_other() -> None:
    first, second = [5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0]
    of = told(comparison((row(0, first, confirmed=True), first), (row(1, second), second)))
    assert "it is confirmed on fresh seeds, and the other was chosen by the seeds that it is scored on" in of
    assert "with 4 and 0 fresh seeds no result could tell; 3 more fresh seeds each would" in of and "p =" not in of


def test_equal_values_lead_together() -> None:
    assert "Trial 0 (dcgan) and trial 1 (dcgan) have the same value, fd_clf 3" in told(compared([3.0], [3.0]))


def test_variants_of_one_system_are_told_apart() -> None:
    of = compared([1.0, 2.0], [3.0, 4.0])
    for each, way in zip(of.rows, ("concat", "projection"), strict=True):
        each["config"] = {"conditional": way, "lr": 0.1 * each["rank"]}
    lead = told(of)
    assert lead.startswith("Trial 0 (dcgan conditional=concat) leads") and "trial 1 (dcgan conditional=proj" in lead


def test_one_configuration_is_compared_with_nothing() -> None:
    of = told(compared([3.0]))
    assert of.startswith("Only trial 0 (dcgan) has a score to rank") and "chance" not in of


def test_of_rows_that_a_limit_leaves_out_nothing_is_said() -> None:
    whole = compared([3.0], [4.0], [5.0], verdicts={"collapse": {"NONE": 1}})
    of = told(replace(whole, rows=whole.rows[:1], values=whole.values[:1]))
    assert "Trial 0 (dcgan) ranks first with fd_clf 3" in of and "Only" not in of and "chance" not in of
    assert "No configuration that is shown collapsed" in of


def test_who_collapsed_how_and_what_is_lacking() -> None:
    gone = row(1, [30.0], system="wgan", verdicts={"collapse": {"SEVERE": 1}}, marks=["collapse SEVERE"])
    some = row(2, [40.0, 50.0], verdicts={"collapse": {"NONE": 1, "TOTAL": 1}})
    fine = row(0, [3.0], verdicts={"collapse": {"NONE": 1}})
    of = told(comparison((fine, [3.0]), (gone, [30.0]), (some, [40.0, 50.0])), {(gone["sweep"], 1): ["1", "4", "7"]})
    assert "Trial 1 (wgan) collapsed (SEVERE): it lacks 1, 4 and 7. Trial 2 (dcgan) collapsed (TOTAL in 1 of 2" in of


def test_every_verdict_on_the_runs_of_a_collapsed_trial_is_counted() -> None:
    of = told(compared([40.0] * 6, verdicts={"collapse": {"PARTIAL": 5, "TOTAL": 1}}))
    assert "Trial 0 (dcgan) collapsed (TOTAL in 1 of 6 runs, PARTIAL in 5)." in of


def test_who_collapsed_in_part_and_why() -> None:
    some = row(1, [30.0, 31.0], system="wgan", verdicts={"collapse": {"PARTIAL": 1, "NONE": 1}})
    fine = row(0, [3.0], verdicts={"collapse": {"NONE": 1}})
    gone = row(2, [40.0], verdicts={"collapse": {"SEVERE": 1}}, marks=["collapse SEVERE"])
    why = {(some["sweep"], 1): "classes 4, 7 vary at most 0.31 times as much as real samples"}
    said = f"Trial 1 (wgan) collapsed in part (PARTIAL in 1 of 2 runs): {why[some['sweep'], 1]}."
    of = meaning(comparison((fine, [3.0]), (some, [30.0, 31.0])), {}, why, COMMANDS).sentences[-1]
    assert of.startswith("No configuration was found to have collapsed severely; ") and of.endswith(f". {said}")
    of = meaning(comparison((fine, [3.0]), (some, [30.0, 31.0]), (gone, [40.0])), {}, why, COMMANDS).sentences[-1]
    assert of == f"Trial 2 (dcgan) collapsed (SEVERE). {said}"


def test_of_many_that_collapsed_the_first_are_named_and_the_rest_counted() -> None:
    five = compared(*([3.0] for _ in range(5)), verdicts={"collapse": {"TOTAL": 1}})
    of = told(five, {("digits-dbeb81dd", 0): list("0123456789")})
    assert "it lacks 0, 1, 2, 3, 4, 5, 6, 7 and 2 more. Trial 1" in of
    assert "Trial 2 (dcgan) collapsed (TOTAL). So did 2 more." in of and "Trial 3" not in of


def test_what_is_unlike_anything_real_is_not_said_to_have_collapsed() -> None:
    of = told(compared([3.0], [4.0], verdicts={"collapse": {"UNMEASURABLE": 1}}, marks=["collapse UNMEASURABLE"]))
    assert "Trial 0 (dcgan) and trial 1 (dcgan) make samples too unlike real ones to be measured (UNMEASURABLE)." in of
    assert "collapsed" not in of
    assert of.endswith("To look at the samples: SAMPLES")  # and the leader is not promoted


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        ([{}, {}], None),
        ([{"NONE": 1}, {"NONE": 2}], "No configuration collapsed: every verdict on a collapse is NONE."),
        (
            [{"NONE": 1}, {"INCONCLUSIVE": 2}],
            "No configuration was found to have collapsed severely; verdicts by run: 2 INCONCLUSIVE, 1 NONE; "
            "INCONCLUSIVE: too little is known to rule a collapse out.",
        ),
        (
            [{"PARTIAL": 1}, {"NONE": 2}],
            "No configuration was found to have collapsed severely; verdicts by run: 2 NONE, 1 PARTIAL.",
        ),
    ],
)
def test_no_collapse_is_said_only_where_every_verdict_says_so(verdicts: list[Any], sentence: str | None) -> None:
    rows = [(row(trial, [3.0], verdicts={"collapse": each}), [3.0]) for trial, each in enumerate(verdicts)]
    of = told(comparison(*rows))
    assert (sentence in of.splitlines()) if sentence else "collapse" not in of


def test_rows_that_may_still_change_are_so_far() -> None:
    of = told(comparison((row(0, [3.0]), [3.0]), (row(1, [4.0], state="RUNNING"), [4.0])))
    assert of.startswith("So far: Trial 0 (dcgan) leads") and of.endswith("To see how far it is: STATUS")


def test_numbers_of_another_signature_are_left_out() -> None:
    other = row(1, [0.1], score=score([0.1], signature="other"))
    of = told(comparison((row(0, [3.0]), [3.0]), (other, [0.1])))
    assert of.startswith("Only trial 0 (dcgan) has a score to rank")
    assert "Rows of 1 other signature do not compare with these." in of and "0.1" not in of


def test_without_a_score_there_is_no_leader() -> None:
    of = told(comparison((row(0, [], state="PRUNED"), [])))
    assert of == "No configuration has a score to rank by.\nTo look at the samples: SAMPLES"
    assert meaning(comparison(), {}, {}, COMMANDS) == ([], "", "", ())


def test_of_several_sweeps_each_trial_names_its_own() -> None:
    of = told(comparison((row(0, [3.0]), [3.0]), (row(0, [4.0], sweep="ring-1"), [4.0])))
    assert "Trial 0 (dcgan, digits-dbeb81dd) leads" in of and "trial 0 (dcgan, ring-1)" in of


def test_why_a_row_ranks_before_one_with_a_better_value() -> None:
    """By what it is ranked: a violated constraint, the confirmation's winner, or the other split."""
    best, second = [float(each) for each in range(20, 25)], [float(each) for each in range(10, 15)]

    def first(changes: dict[str, Any], others: dict[str, Any]) -> str:
        return told(comparison((row(0, best, **changes), best), (row(1, second, **others), second)))

    violating = first({}, {"marks": ["violates collapse: SEVERE"]})
    assert "before trial 1 (dcgan) with 12: the other violates a constraint of its sweep;" in violating
    assert "Trial 1 (dcgan) violates a constraint of its sweep, so no test compares the two." in violating
    won = first({"confirmed": True, "role": "report"}, {"confirmed": True, "role": "confirm"})
    assert "with 12: it won the confirmation, and its value is of seeds that chose nothing;" in won
    assert "holdout" not in violating + won
    assert "on the holdout the order is the other way round" in first({}, {})


@pytest.mark.parametrize("violates", [False, True])
def test_confirmed_rows_are_said_to_rank_first_only_where_they_do(violates: bool) -> None:
    marks = ["violates collapse: SEVERE"] if violates else []
    rows = [row(0, [1.0, 2.0], confirmed=True, marks=marks), row(1, [3.0, 4.0])]
    lines = explanations(rows[::-1] if violates else rows)
    assert any("* confirmed on fresh seeds" in line for line in lines)
    assert any("ranked first" in line for line in lines) is not violates
