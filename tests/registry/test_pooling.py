"""Comparisons of several sweeps, of chosen trials, and with a row for all trials of one value."""

import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registries import Lab, order, url_in

from aigc_lab.display.meaning import Commands, stored_meaning
from aigc_lab.display.ranking import explanations, notes, rank_text
from aigc_lab.errors import UsageError
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.pooling import By, rank_pools
from aigc_lab.registry.records import StoredScore
from aigc_lab.registry.standings import Configuration, SeedOutcome
from aigc_lab.registry.states import RunState, is_nan_failure
from aigc_lab.registry.store import Registry
from aigc_lab.registry.trial_columns import VERDICTS
from aigc_lab.verdicts.conclusion import Collapse
from aigc_lab.verdicts.stability import Stability

RANDOM = {"search": {"sampler": "random"}}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(Registry.open(url_in(tmp_path)))


def filled(lab: Lab, sweep: str, systems: dict[str, list[list[float | None]]], start: int = 0, **changes: Any) -> None:
    """Trials from `start` on, of each system the seeds of each trial; None is one that diverged."""
    trial = start
    for system, trials in systems.items():
        for place, values in enumerate(trials):
            for seed, value in enumerate(values):
                state = RunState.DIVERGED if value is None else RunState.FINISHED
                config = {"lr": 10.0**-place, "training.batch_size": 64}
                lab.run(sweep, trial, seed, value, state=state, system=system, config=config, **changes)
            trial += 1


def alone(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what is said of them beside others, which are those that are shown."""
    return [{key: value for key, value in row.items() if key not in ("leaders", "against")} for row in rows]


# ---- several sweeps


def test_several_sweeps_are_ranked_together_and_each_is_taken_once(lab: Lab) -> None:
    one, two, third = lab.sweep("one"), lab.sweep("two"), lab.sweep("third")
    for sweep, value in ((one, 2.0), (two, 1.0), (third, 0.5)):
        lab.run(sweep, 0, 0, value)
    rows = compare_trials(lab.registry, ["one", two, "two", one]).rows
    assert [(row["rank"], row["sweep"]) for row in rows] == [(1, two), (2, one)]
    assert compare_trials(lab.registry, ["one"]).rows == compare_trials(lab.registry, one).rows
    with pytest.raises(UsageError, match="unknown sweep 'thrid'; did you mean third"):
        compare_trials(lab.registry, ["one", "thrid"])


def test_sweeps_of_which_no_two_have_a_signature_in_common_are_refused(lab: Lab) -> None:
    one, two, third = lab.sweep("one"), lab.sweep("two", "kid"), lab.sweep("third")
    shared = StoredScore("mmd", 1.0, None, None, 9, None, "mmd|n:9", "lower", "last", 10, "holdout")
    for sweep, name, signature in ((one, "fd", "fd|n:1000|v:2"), (two, "kid", "kid|n:500|v:2")):
        run = lab.run(sweep, 0, 0, 2.0, name=name, signature=signature)
        lab.registry.finish(run, 1, RunState.FINISHED, scores=[shared, *stored(name, signature)])
    with pytest.raises(UsageError) as refused:
        compare_trials(lab.registry, ["one", "two"])
    assert str(refused.value) == (
        f"{one} and {two} have no signature in common, so their scores do not compare: they differ in fd n:1000 / "
        "kid n:500; mmd is computed alike in both: --score mmd compares them"
    )
    assert len(compare_trials(lab.registry, ["one", "two"], score="mmd").groups) == 1
    lab.run(third, 0, 0, 3.0, signature="fd|n:1000|v:2")
    mixed = compare_trials(lab.registry, ["one", "two", "third"])  # two of the three do compare
    assert [(row["rank"], row["sweep"]) for row in mixed.rows] == [(1, one), (2, third), (1, two)]
    assert mixed.groups[0].sweeps == {one, third}
    assert len(compare_trials(lab.registry).groups) == 2  # nobody asked to compare these two
    assert len(compare_trials(lab.registry, "two").rows) == 1


def stored(name: str, signature: str) -> list[StoredScore]:
    return [StoredScore(name, 2.0, None, None, 9, None, signature, "lower", "last", 10, "holdout")]


def test_a_sweep_without_scores_yet_is_no_reason_to_refuse(lab: Lab) -> None:
    one, two = lab.sweep("one"), lab.sweep("two", "kid")
    lab.run(one, 0, 0, 2.0)
    lab.run(two, 0, 0, state=RunState.RUNNING)
    assert [row["state"] for row in compare_trials(lab.registry, ["one", "two"]).rows] == ["FINISHED", "RUNNING"]


# ---- where


def test_a_condition_chooses_the_trials_before_they_are_ranked(lab: Lab) -> None:
    sweep = lab.sweep("one")
    other = lab.sweep("other")
    filled(lab, sweep, {"vae": [[3.0, 4.0], [1.0]], "dcgan": [[2.0, None], [5.0]]})
    filled(lab, other, {"vae": [[9.0]]})
    lab.run(other, 1, 0, state=RunState.PRUNED, config={}, system="vae")
    lab.run(other, 2, 0, 8.0, config={"lr": None}, system="vae", verdicts=[("collapse", "TOTAL")])
    lab.run(other, 2, 1, 8.0, config={"lr": None}, system="vae", verdicts=[("collapse", "NONE")])

    def chosen(where: str) -> list[tuple[str, int]]:
        return [(row["sweep"].split("-")[0], row["trial"]) for row in compare_trials(lab.registry, where=where).rows]

    assert chosen("system = vae and lr <= 0.1") == [("one", 1)]
    assert chosen("config.lr = 1") == [("one", 0), ("other", 0), ("one", 2)]  # ranked among these alone
    assert chosen("sweep = other and not state = pruned") == [("other", 2), ("other", 0)]
    assert chosen(f"sweep = {other} and seeds > 1") == [("other", 2)]
    assert chosen("state = diverged") == [("one", 2)]  # one of two seeds: so is the median
    assert chosen("collapse = total") == chosen("collapse = NONE") == [("other", 2)]
    assert chosen("collapse != none") == []  # a run has it
    assert chosen("batch_size = 64 and trial in (1, 3)") == [("one", 1), ("one", 3)]
    assert chosen("confirmed") == []
    assert chosen("lr = null") == [("other", 2)]
    assert chosen("not lr > 0") == [("other", 2), ("other", 1)]  # with those that have none
    with pytest.raises(UsageError, match="--where: unknown column 'lrr'; did you mean lr?"):
        chosen("lrr < 3")
    with pytest.raises(UsageError, match="at its end: a value is expected"):
        chosen("lr <")
    left = compare_trials(lab.registry, where="trial = 0")
    assert (left.filtered, [row["rank"] for row in left.rows]) == (5, [1, 2])
    assert alone(compare_trials(lab.registry, where="trial = 0", most=1).rows) == alone(left.rows[:1])


@pytest.mark.parametrize(
    ("where", "by_outcome"),
    [("trial < 2", False), ("lr = 1 and not (trial = 7 or state = FAILED)", True), ("not collapse in (TOTAL)", True)],
)
def test_a_choice_by_outcome_is_said(lab: Lab, where: str, by_outcome: bool) -> None:
    """p-values suppose that rows were chosen by what they are, not by how their runs ended."""
    filled(lab, lab.sweep(), {"vae": [[1.0], [2.0], [3.0]]})
    comparison = compare_trials(lab.registry, where=where)
    assert comparison.by_outcome == by_outcome
    said = any("how their runs ended" in note for note in notes(comparison))
    assert said == (by_outcome and comparison.filtered > 0)


def test_the_condition_leaves_groups_out_and_no_luck_is_forgotten(lab: Lab) -> None:
    """A trial that was the best of three is no less chosen for standing alone now."""
    one, other = lab.sweep("one"), lab.sweep("other")
    for trial, value in enumerate([2.0, 3.0, 4.0]):
        for seed in (0, 1):
            lab.run(one, trial, seed, value)
    lab.run(one, 3, 0, 1.0, signature="fd|n:1")
    lab.run(other, 0, 0, 5.0)
    for seed in (1, 2):
        lab.run(other, 0, seed, 6.0, role="confirm")
    whole = compare_trials(lab.registry)
    assert len(whole.groups) == 2 and whole.rows[0]["marks"] == ["not confirmed"]
    part = compare_trials(lab.registry, where="trial = 0")
    assert len(part.groups) == 1 and part.note == ""
    assert [(row["rank"], row["sweep"], row["marks"]) for row in part.rows] == [
        (1, one, ["not confirmed"]),
        (2, other, []),
    ]


@pytest.mark.parametrize("where", ["trial != 1", "lr < 0.15", None])
def test_the_first_rows_of_chosen_trials_are_told_in_full(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, where: str | None
) -> None:
    monkeypatch.setattr("aigc_lab.registry.comparison.BATCH", 2)
    sweep = lab.sweep()
    for trial, value in enumerate([3.0, 1.0, 2.0, 9.0]):
        lab.run(sweep, trial, 0, value, low=value - 1, high=value + 1)
    whole = compare_trials(lab.registry, where=where)
    first = compare_trials(lab.registry, where=where, most=1)
    assert alone(first.rows) == alone(whole.rows[:1]) and first.filtered == whole.filtered
    assert first.rows[0]["score"]["low"] is not None and first.rows[0]["config"]


# ---- by


def test_the_values_of_a_row_are_the_medians_of_its_trials(lab: Lab) -> None:
    sweep = lab.sweep(experiment=RANDOM)
    filled(lab, sweep, {"vae": [[1.0, 2.0, 9.0], [4.0], [7.0, 5.0]], "dcgan": [[3.0, 3.5, 8.0]]})
    comparison = compare_trials(lab.registry, by="system")
    (dcgan, vae), (of_dcgan, of_vae) = comparison.rows, comparison.values
    assert (of_vae, of_dcgan) == ([2.0, 4.0, 6.0], [3.0, 3.5, 8.0])
    assert [(row["rank"], row["by"], row["by_value"]) for row in comparison.rows] == [
        (1, "system", "dcgan"),
        (2, "system", "vae"),
    ]
    assert (vae["unit"], vae["units"], vae["trials"], vae["trial"], vae["seeds"]) == ("trial", 3, 3, None, 6)
    assert (dcgan["unit"], dcgan["units"], dcgan["trials"], dcgan["trial"]) == ("seed", 3, 1, 3)
    assert [vae["score"][key] for key in ("value", "low", "high", "confidence")] == [4.0, 2.0, 6.0, 0.75]
    assert vae["config"] == {"training.batch_size": 64} and dcgan["config"] == {"lr": 1.0, "training.batch_size": 64}
    assert vae["sweep"] == sweep and vae["sweeps"] == [sweep] and vae["states"] == {"FINISHED": 6}
    assert not vae["adaptive"] and vae["seconds"] == 6.0
    assert [[(each.trial, each.role) for each in members] for members in comparison.members] == [
        [(3, "search")],
        [(0, "search"), (1, "search"), (2, "search")],
    ]


def test_rows_by_a_parameter_go_across_sweeps(lab: Lab) -> None:
    one, two = lab.sweep("one", experiment=RANDOM), lab.sweep("two", experiment=RANDOM)
    filled(lab, one, {"vae": [[5.0], [1.0]]})
    filled(lab, two, {"vae": [[7.0], [3.0]]})
    lab.run(two, 2, 0, 4.0, config={})
    lab.run(two, 3, 0, 9.0, config={"lr": True})
    rows = compare_trials(lab.registry, by="lr").rows
    assert [(row["by_value"], row["score"]["value"], row["trials"], "lr" in row["config"]) for row in rows] == [
        (0.1, 2.0, 2, True),
        (None, 4.0, 1, False),
        (1.0, 6.0, 2, True),
        (True, 9.0, 1, True),
    ]
    assert rows[0]["sweep"] is None and rows[0]["sweeps"] == [one, two]
    assert [row["by_value"] for row in compare_trials(lab.registry, by="batch_size", where="trial < 2").rows] == [64]
    assert [row["by_value"] for row in compare_trials(lab.registry, by="sweep").rows] == [one, two]
    with pytest.raises(UsageError, match="--by: unknown column 'sytem'; did you mean system?"):
        compare_trials(lab.registry, by="sytem")


def test_trials_that_diverged_are_the_worst_of_their_row_and_others_do_not_count(lab: Lab) -> None:
    sweep = lab.sweep(experiment=RANDOM)
    filled(lab, sweep, {"vae": [[1.0], [2.0], [None]], "gan": [[0.5], [None], [None]]})
    lab.run(sweep, 6, 0, state=RunState.FAILED, reason="out of memory: 2 GB", system="vae")
    lab.run(sweep, 7, 0, state=RunState.FAILED, reason="ValueError: Input contains NaN.", system="vae")
    comparison = compare_trials(lab.registry, by="system")
    vae, gan = comparison.rows
    assert comparison.values == [[], []] and [row["rank"] for row in comparison.rows] == [None, None]
    assert {row["by_value"]: row["state"] for row in (vae, gan)} == {"vae": "DIVERGED", "gan": "DIVERGED"}
    better = compare_trials(lab.registry, by="system", where="not trial = 7")
    assert [(row["by_value"], row["rank"]) for row in better.rows] == [("vae", 1), ("gan", None)]
    assert better.values == [[1.0, 2.0, math.inf], []]
    assert better.rows[0]["states"] == {"FINISHED": 2, "DIVERGED": 1, "FAILED": 1} and better.rows[0]["trials"] == 3
    assert better.rows[0]["score"]["value"] == 2.0 and better.rows[0]["score"]["high"] is None


def test_trials_that_a_sampler_or_a_pruner_chose_are_no_random_draw(lab: Lab) -> None:
    tpe, random, pruned = lab.sweep("tpe"), lab.sweep("random", experiment=RANDOM), lab.sweep("p", experiment=RANDOM)
    for sweep in (tpe, random, pruned):
        filled(lab, sweep, {"vae": [[1.0, 2.0], [2.0]], "gan": [[3.0, 4.0]]})
    lab.run(pruned, 3, 0, state=RunState.PRUNED, system="vae")

    def adaptive(sweep: str) -> dict[str, bool]:
        return {row["by_value"]: row["adaptive"] for row in compare_trials(lab.registry, sweep, by="system").rows}

    assert adaptive(tpe) == adaptive(pruned) == {"vae": True, "gan": False}  # of one trial the seeds are drawn
    assert adaptive(random) == {"vae": False, "gan": False}


def test_fresh_seeds_count_of_a_trial_that_was_confirmed(lab: Lab) -> None:
    sweep = lab.sweep(experiment=RANDOM)
    filled(lab, sweep, {"vae": [[1.0]], "gan": [[2.0], [2.5]]})
    config = {"lr": 1.0, "training.batch_size": 64}
    for seed, value in enumerate([6.0, 7.0, 8.0], start=100):
        lab.run(sweep, 0, seed, value, role="confirm", system="vae", config=config)
    comparison = compare_trials(lab.registry, by="system")
    assert [(row["by_value"], row["confirmed"], row["marks"]) for row in comparison.rows] == [
        ("gan", False, []),
        ("vae", True, []),
    ]
    assert comparison.values == [[2.0, 2.5], [6.0, 7.0, 8.0]]
    alone = compare_trials(lab.registry, by="system", where="trial != 2")  # single trials, as without `by`
    assert [row["by_value"] for row in alone.rows] == ["vae", "gan"]


def test_a_pool_of_single_trials_is_the_ranking_of_trials(lab: Lab) -> None:
    sweep = lab.sweep()
    filled(lab, sweep, {"vae": [[1.0, 2.0, 9.0]], "gan": [[3.0, None]], "wgan": [[2.0, 3.0, None]]})
    trials, pools = compare_trials(lab.registry), compare_trials(lab.registry, by="system")
    assert order(trials.rows) == order(pools.rows) and trials.values == pools.values
    assert [row["score"] for row in trials.rows] == [row["score"] for row in pools.rows]


def test_signatures_are_not_pooled(lab: Lab) -> None:
    sweep = lab.sweep(experiment=RANDOM)
    filled(lab, sweep, {"vae": [[1.0], [2.0]]}, signature="fd|n:1")
    filled(lab, sweep, {"vae": [[3.0], [5.0], [6.0]]}, start=2, signature="fd|n:2")
    comparison = compare_trials(lab.registry, by="system")
    assert comparison.values == [[1.0, 2.0], [3.0, 5.0, 6.0]] or comparison.values == [[3.0, 5.0, 6.0], [1.0, 2.0]]
    assert len(comparison.groups) == 2


def outcome(value: float | None) -> SeedOutcome:
    state = "DIVERGED" if value is None else "FINISHED"
    return SeedOutcome.brief("search", state, value, None if value is None else "fd|1", "lower", "fd")


VALUES = st.one_of(st.none(), st.integers(0, 9).map(float))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(VALUES, min_size=1, max_size=4)), min_size=1, max_size=9))
def test_pools_are_what_the_definition_says(drawn: list[tuple[str, list[float | None]]]) -> None:
    configurations = [
        Configuration("sweep", trial, system, "FINISHED", [outcome(value) for value in values])
        for trial, (system, values) in enumerate(drawn)
    ]
    comparison = rank_pools(configurations, By("system", lambda configuration: (configuration.system,)))
    expected = {}
    for name in {system for system, _ in drawn}:
        trials = [
            [math.inf if value is None else value for value in values] for system, values in drawn if system == name
        ]
        if any(math.isfinite(value) for values in trials for value in values):
            units = sorted(trials[0] if len(trials) == 1 else map(statistics.median, trials))
            if math.isfinite(statistics.median(units)):
                expected[name] = units
    found = {row["by_value"]: sorted(values) for row, values in zip(comparison.rows, comparison.values, strict=True)}
    assert {name: values for name, values in found.items() if values} == expected
    ranked = [row["score"]["value"] for row in comparison.rows if row["rank"]]
    assert ranked == sorted(map(statistics.median, expected.values()))
    assert sum(row["trials"] for row in comparison.rows) == len(drawn)


# ---- numbers that are none


@pytest.mark.parametrize(
    ("reason", "own"),
    [
        ("ValueError: array must not contain infs or NaNs", True),
        ("ValueError: Input X contains NaN.", True),
        ("RuntimeError: Function 'LinearBackward' returned nan values in its 0th output", True),
        ("FloatingPointError: overflow encountered in exp", True),
        ("ValueError: 3 of 10 values are not finite", True),
        ("AssertionError: loss is infinity", True),
        ("out of memory: tried to allocate inf bytes", False),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/data/nan'", False),
        ("ValueError: /runs/inf/weights cannot be read", False),
        ("RuntimeError: CUDA error: an illegal memory access", False),
        ("ValueError: the finances of nanny info", False),
        ("KeyError: 'info'", False),
        (None, False),
    ],
)
def test_a_failure_by_numbers_of_its_own_is_told_by_its_reason(reason: str | None, own: bool) -> None:
    assert is_nan_failure(reason) is own


def test_a_run_that_failed_by_nan_of_its_own_is_the_worst_and_others_are_left_out(lab: Lab) -> None:
    sweep = lab.sweep()
    for trial, reason in enumerate(["ValueError: Input contains NaN.", "out of memory: 2 GB", None]):
        lab.run(sweep, trial, 0, 1.0 + trial)
        if reason:
            lab.run(sweep, trial, 1, state=RunState.FAILED, reason=reason)
    lab.run(sweep, 3, 0, state=RunState.FAILED, reason="ValueError: nan in the samples")
    lab.run(sweep, 4, 0, state=RunState.FAILED, reason="RuntimeError: no")
    rows = compare_trials(lab.registry).rows
    assert order(rows) == [(1, 1, 2.0), (2, 2, 3.0), (None, 0, None), (None, 3, None), (None, 4, None)]
    assert [(row["trial"], row["state"], row["nan_failures"]) for row in rows[2:]] == [
        (0, "DIVERGED", 1),
        (3, "DIVERGED", 1),
        (4, "FAILED", 0),
    ]
    assert rows[2]["states"] == {"FINISHED": 1, "DIVERGED": 1} and rows[0]["states"] == {"FINISHED": 1, "FAILED": 1}
    first = compare_trials(lab.registry, most=2)
    assert first.rows == rows[:2]


def test_rows_over_several_sweeps_are_explained(lab: Lab) -> None:
    for sweep in (lab.sweep("one"), lab.sweep("two")):
        filled(lab, sweep, {"vae": [[1.0], [2.0]], "gan": [[3.0], [4.0]]})
    comparison = compare_trials(lab.registry, ["one", "two"], by="system")
    assert {row["sweep"] for row in comparison.rows} == {None}
    assert "system=vae leads with fd 1.5" in stored_meaning(lab.registry, comparison, Commands("")).sentences[0]
    assert not any("ranked first" in line for line in explanations(comparison.rows))


def test_rows_of_systems_say_which_variants_they_pool_and_what_splits_them(lab: Lab) -> None:
    sweep = lab.sweep()
    configs: list[dict[str, Any]] = [
        {"conditional": "projection", "lr": 0.1},
        {"conditional": "concat", "lr": 0.2},
        {"lr": 0.3},
    ]
    for trial, config in enumerate(configs):
        lab.run(sweep, trial, 0, 1.0 + trial, system="ns_gan", config=config)
    for trial, lr in ((3, 0.1), (4, 0.2)):  # what differs in numbers alone is one variant
        lab.run(sweep, trial, 0, 9.0, system="vae", config={"loss": "bernoulli", "lr": lr})
    by_system = compare_trials(lab.registry, sweep, by="system")
    assert by_system.variants == {"ns_gan": ["conditional"]}
    assert notes(by_system) == [
        "a row pools all variants of its system, and these differ: ns_gan by conditional "
        "(--where 'system = ns_gan' --by conditional); --by trial tells each apart"
    ]
    # As it says.
    split = compare_trials(lab.registry, sweep, by="conditional", where="system = ns_gan")
    assert [row["by_value"] for row in split.rows] == ["projection", "concat", None]
    for other in (split, compare_trials(lab.registry, sweep)):
        assert not any("variants" in note for note in notes(other))


def test_a_row_whose_trials_all_violate_a_constraint_says_so(lab: Lab) -> None:
    sweep = lab.sweep(experiment={"objective": {"minimize": "fd", "subject_to": {"collapse": ["NONE"]}}})
    for trial, (system, verdict) in enumerate(
        [("gan", "PARTIAL"), ("gan", "SEVERE"), ("vae", "NONE"), ("vae", "SEVERE")]
    ):
        lab.run(sweep, trial, 0, float(trial), system=system, verdicts=[("collapse", verdict)])
    rows = compare_trials(lab.registry, sweep, by="system").rows
    assert [(row["system"], "×" in rank_text(row)) for row in rows] == [("vae", False), ("gan", True)]
    assert "violates a constraint in all 2 trials" in rows[1]["marks"]


def test_a_condition_knows_every_verdict() -> None:
    assert {"collapse": tuple(Collapse), "stability": tuple(Stability)} == VERDICTS
