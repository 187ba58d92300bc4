"""The stability verdict: each rule by histories made by hand, what must not matter, and how often it errs."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aigc_lab.host import content
from aigc_lab.verdicts.stability import Alarm, Stability, StabilityVerdict, first_alarm, judge

Values = Sequence[float]


def told(values: Values, errors: Values | float | None = None, **options: Any) -> StabilityVerdict:
    """The verdict on values at steps 100, 200, …; one error stands for all."""
    steps = [100 * (place + 1) for place in range(len(values))]
    if isinstance(errors, float):
        errors = [errors] * len(values)
    return judge(steps, values, errors, **options)


def verdict(values: Values, errors: Values | float | None = None, **options: Any) -> str:
    return told(values, errors, **options).verdict


DESCENT = [300.0, 120.0, 60.0, 30.0, 18.0]


# ---- one rule after the other


def test_a_verdict_needs_ten_evaluations() -> None:
    assert verdict([10.0] * 9) == "WITHHELD"
    assert verdict([10.0] * 10) == "STABLE"
    assert told([10.0] * 9).reason == "9 evaluations, and a verdict needs 10"
    nothing = told([])
    assert (nothing.verdict, nothing.best, nothing.last, nothing.n) == (Stability.WITHHELD, None, None, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 7, 19])
def test_one_value_that_is_not_finite_diverged(bad: float, place: int) -> None:
    values = [10.0] * 20
    values[place] = bad
    found = told(values)
    assert found.verdict == "DIVERGED" and found.alarm_step == 100 * (place + 1)
    assert found.reason == f"the score is {bad} at step {100 * (place + 1)}"


def test_what_diverged_early_is_not_withheld() -> None:
    assert verdict([300.0, math.nan]) == "DIVERGED"
    only = told([math.nan])
    assert only.verdict == "DIVERGED" and only.best is None and only.last is None


def test_a_loss_that_was_not_finite_counts_like_a_score() -> None:
    found = told(DESCENT + [10.0] * 10, diverged_at=(250, "the critic's loss is nan"))
    assert found.verdict == "DIVERGED" and found.alarm_step == 250
    assert found.reason == "the critic's loss is nan at step 250"
    both = told([10.0] * 12 + [math.inf], diverged_at=(2000, "a gradient is inf"))
    assert both.reason == "the score is inf at step 1300" and both.alarm_step == 1300
    assert [finding.what for finding in both.evidence[:2]] == ["the score is inf", "a gradient is inf"]


def test_the_best_must_be_below_half_of_the_baseline() -> None:
    assert verdict([200.0] * 5 + [151.0] * 10, baseline=300.0) == "NEVER-LEARNED"
    assert verdict([200.0] * 5 + [149.0] * 10, baseline=300.0) == "STABLE"
    assert verdict([200.0] * 5 + [151.0] * 10) == "STABLE"
    assert "cannot be told without a baseline" in told([151.0] * 10).reason


def test_luck_is_no_learning() -> None:
    values = [160.0] * 14 + [148.0]
    assert verdict(values, 10.0, baseline=300.0) == "NEVER-LEARNED"
    assert verdict(values, 0.1, baseline=300.0) == "STABLE"


@pytest.mark.parametrize(("reached", "said"), [(0.55, "NEVER-LEARNED"), (0.6, "STABLE")])
def test_half_of_the_way_to_the_floor_where_more_is_better(reached: float, said: str) -> None:
    rising = [0.2 + (reached - 0.2) * place / 20 for place in range(20)] + [reached] * 5
    assert verdict(rising, 0.001, better="higher", baseline=0.2, floor=0.95) == said


def test_without_a_floor_it_must_beat_the_baseline_beyond_three_errors() -> None:
    assert verdict([0.21] * 15, 0.01, better="higher", baseline=0.2) == "NEVER-LEARNED"
    assert verdict([0.3] * 15, 0.01, better="higher", baseline=0.2) == "STABLE"


@pytest.mark.parametrize(("last", "said"), [(13.4, "STABLE"), (13.6, "REGRESSED"), (200.0, "REGRESSED")])
def test_the_last_three_against_the_best(last: float, said: str) -> None:
    found = told(DESCENT + [10.0] * 12 + [last] * 4, 0.001)
    assert found.verdict == said
    assert found.best == (600, 10.0) and found.last == (2100, last)
    assert verdict(DESCENT + [10.0] * 12 + [last] * 4) == said  # its own noise is none


def test_one_bad_evaluation_among_the_last_three_is_no_regression() -> None:
    assert verdict(DESCENT + [10.0] * 12 + [10.0, 90.0, 10.0], 0.1) == "STABLE"
    assert verdict(DESCENT + [10.0] * 12 + [90.0, 10.0, 90.0], 0.1) == "REGRESSED"


def test_a_difference_counts_beyond_three_errors() -> None:
    values = DESCENT + [10.0] * 12 + [15.0] * 4
    assert verdict(values, [value / 50 for value in values]) == "REGRESSED"
    assert verdict(values, [value / 8 for value in values]) == "STABLE"


def test_the_story_of_a_regression_names_its_steps() -> None:
    found = told(DESCENT + [10.0] * 12 + [25.0] * 4, 0.1)
    assert found.reason == "the last 3 evaluations (median 25) are 2.50 times the best, 10 at step 600"
    assert found.alarm_step == 1900  # the second in a row
    assert ("beyond that since", 1800, 25.0) in found.evidence


def test_what_still_improves_fast_has_not_regressed() -> None:
    """The median of the last three is the last but one: twice the best of all."""
    halving = [300 / 2**place for place in range(12)]
    assert verdict(halving) == "STABLE"
    assert verdict(halving, 0.001) == "STABLE"


@pytest.mark.parametrize("errors", [None, 0.05])
def test_oscillation_is_ten_percent_around_the_trend(errors: float | None) -> None:
    def waves(size: float) -> list[float]:
        return DESCENT + [10 * math.exp(size * (-1) ** place) for place in range(20)]

    assert verdict(waves(0.2), errors) in ("OSCILLATING", "REGRESSED")
    assert verdict(waves(0.13), errors) == "OSCILLATING"
    assert verdict(waves(0.07), errors) == "STABLE"


def test_oscillation_that_errors_explain_is_none() -> None:
    values = DESCENT + [10 * math.exp(0.15 * math.sin(3 * place)) for place in range(20)]
    assert verdict(values, 0.05) == "OSCILLATING"
    assert verdict(values, 1.5) == "STABLE"
    assert "of which standard errors explain" in told(values, 0.05).reason


@pytest.mark.parametrize("learns_at", [8, 12, 14, 16])
def test_a_late_learner_does_not_oscillate(learns_at: int) -> None:
    """A line through the bent curve of its last half leaves a fifth."""
    values = [10 + 290 / (1 + math.exp(2.0 * (place - learns_at))) for place in range(20)]
    assert verdict(values) == "STABLE"
    assert verdict(values, [value / 50 for value in values]) == "STABLE"


def test_learning_at_the_very_end_is_no_oscillation() -> None:
    random = np.random.default_rng(0)
    values = [*(0.2 + 0.01 * random.normal(size=18)).tolist(), 0.8, 0.85]
    for options in ({"baseline": 0.2, "floor": 0.95}, {}):
        assert verdict(values, better="higher", **options) == "STABLE"


def test_one_spike_is_no_oscillation_and_no_alarm() -> None:
    values = DESCENT + [10.0] * 20
    values[18] = 40.0
    found = told(values)
    assert found.verdict == "STABLE" and found.alarm_step is None


def test_an_excursion_that_passed_is_told() -> None:
    values = DESCENT + [10.0] * 4 + [30.0] * 3 + [10.0] * 20
    found = told(values, 0.1)
    assert found.verdict == "STABLE" and found.alarm_step == 1100
    assert found.reason.endswith("the alarm of step 1100 has passed")


@pytest.mark.parametrize("size", [1.0, 0.3, -5.0, 0.0])
def test_a_constant_history_is_stable(size: float) -> None:
    for errors in (None, 0.0, 0.01):
        found = told([size] * 15, errors)
        assert found.verdict == "STABLE" and found.alarm_step is None


# ---- scales


def test_ratios_only_far_above_zero() -> None:
    assert told([10.0] * 12, 0.5).scale == "log"
    assert told([10.0] * 12, 3.0).scale == "normalised"  # three errors above zero
    assert told([10.0] * 12, baseline=300.0).scale == "log"
    assert told([10.0] * 11 + [1.0], baseline=300.0).scale == "normalised"  # less than a hundredth of the baseline
    assert told([10.0] * 11 + [0.0]).scale == "normalised"
    assert told([10.0] * 11 + [-1.0]).scale == "normalised"
    assert told([10.0] * 12, 0.5, better="higher").scale == "normalised"


KID = [0.3, 0.2, 0.1, 0.05, 0.02] + [0.001, -0.0005, 0.0008, -0.001, 0.0003, 0.0002, -0.0004] * 3


@pytest.mark.parametrize("errors", [None, 0.001])
@pytest.mark.parametrize("baseline", [None, 0.3])
def test_noise_around_zero_is_sound_and_a_tenth_of_the_gain_is_a_loss(
    errors: float | None, baseline: float | None
) -> None:
    assert told(KID, errors, baseline=baseline).scale == "normalised"
    assert verdict(KID, errors, baseline=baseline) == "STABLE"
    assert verdict([*KID, *[0.02] * 4], errors, baseline=baseline) == "STABLE"
    lost = told([*KID, *[0.05] * 4], errors, baseline=baseline)
    assert lost.verdict == "REGRESSED" and lost.alarm_step == 100 * (len(KID) + 2)


def test_noise_around_zero_from_the_first_evaluation_on_is_no_swing() -> None:
    """Without a baseline and errors there is nothing to measure it by; with either there is."""
    values = (0.001 * np.random.default_rng(3).normal(size=30)).tolist()
    found = told(values)
    assert found.verdict == "STABLE" and found.reason.endswith("nor swings from noise without standard errors")
    assert verdict(values, 0.001) == verdict(values, baseline=0.3) == "STABLE"
    assert verdict([10 * math.sin(place) for place in range(30)], 0.01) != "STABLE"


def test_below_zero_and_more_is_better() -> None:
    densities = [0.0, -40.0, -80.0, -95.0] + [-100.0, -99.0, -101.0, -98.5] * 4
    scores = [1.5, 4.0, 7.0] + [8.0, 7.9, 8.1, 8.05] * 4
    for values, bad, options in (
        (densities, -60.0, {"baseline": 0.0}),
        (densities, -60.0, {}),
        ([-value for value in densities], 60.0, {"better": "higher", "baseline": 0.0}),
        (scores, 5.0, {"better": "higher", "baseline": 1.5}),
        (scores, 5.0, {"better": "higher"}),
    ):
        assert verdict(values, 0.01, **options) == "STABLE"
        assert verdict([*values, *[bad] * 4], 0.01, **options) == "REGRESSED"
        assert told([*values, *[bad] * 4], 0.01, **options).alarm_step == 100 * (len(values) + 2)


# ---- what must not matter


def shaped(random: np.random.Generator, kind: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A run that settles, with noise; of some kinds it then regresses, swings, or never falls."""
    n = int(random.integers(12, 45))
    clean = 10 + 290 * np.exp(-np.arange(n) / random.uniform(1, 6))
    late = np.arange(n) >= 0.6 * n
    clean *= np.where(late, {1: 2.2, 2: 1.0}.get(kind, 1.0), 1.0)
    clean *= np.exp(0.4 * late * (-1.0) ** np.arange(n)) if kind == 2 else 1.0
    return (clean if kind != 3 else 0 * clean + 250) * np.exp(0.04 * random.normal(size=n))


CASES = st.tuples(st.integers(0, 10**6), st.integers(0, 3), st.booleans(), st.booleans())


def prepared(case: tuple[int, int, bool, bool]) -> dict[str, Any]:
    seed, kind, with_errors, with_baseline = case
    values = shaped(np.random.default_rng(seed), kind)
    return {
        "steps": np.arange(len(values)) * 500,
        "values": values,
        "errors": 0.04 * values if with_errors else None,
        "baseline": 300.0 if with_baseline else None,
    }


def outcome(found: StabilityVerdict) -> tuple[Any, ...]:
    return found.verdict, found.scale, found.alarm_step, found.best and found.best.step


@settings(max_examples=60, deadline=None)
@given(CASES, st.sampled_from([2.0**-40, 0.125, 4.0, 2.0**30]))
def test_the_unit_of_the_score_does_not_matter(case: tuple[int, int, bool, bool], unit: float) -> None:
    plain = prepared(case)
    scaled = {name: None if each is None or name == "steps" else unit * each for name, each in plain.items()}
    assert outcome(judge(**plain)) == outcome(judge(**{**scaled, "steps": plain["steps"]}))


@settings(max_examples=60, deadline=None)
@given(CASES, st.integers(-(10**6), 10**6), st.integers(1, 50), st.booleans())
def test_where_the_steps_begin_and_whether_they_are_told_backwards_does_not_matter(
    case: tuple[int, int, bool, bool], shift: int, stretch: int, backwards: bool
) -> None:
    plain = prepared(case)
    before = judge(**plain)
    order = slice(None, None, -1 if backwards else 1)
    moved = {name: each if np.ndim(each) == 0 else each[order] for name, each in plain.items()}
    after = judge(**{**moved, "steps": moved["steps"] * stretch + shift})
    assert before.verdict == after.verdict and before.last and after.last and before.last.value == after.last.value
    for one, other in ((before.alarm_step, after.alarm_step), (before.last.step, after.last.step)):
        assert other == (None if one is None else one * stretch + shift)


@settings(max_examples=40, deadline=None)
@given(CASES)
def test_more_is_better_is_the_mirror_of_less_is_better(case: tuple[int, int, bool, bool]) -> None:
    plain = prepared(case)
    shift = 400.0  # below zero there is no ratio, so that both are compared on the same scale
    less = {**plain, "values": plain["values"] - shift, "baseline": plain["baseline"] and plain["baseline"] - shift}
    more = {**plain, "values": shift - plain["values"], "baseline": plain["baseline"] and shift - plain["baseline"]}
    assert outcome(judge(**less, floor=-shift)) == outcome(judge(**more, floor=shift, better="higher"))


@settings(max_examples=80, deadline=None)
@given(CASES, st.sampled_from([None, 0, 5, 20]), st.sampled_from([1.1, 1.35]))
def test_the_alarm_told_step_by_step_is_that_of_the_whole(
    case: tuple[int, int, bool, bool], broken: int | None, factor: float
) -> None:
    run = prepared(case)
    if broken is not None and broken < len(run["values"]):
        run["values"][broken] = math.nan
    alarm = Alarm(baseline=run["baseline"], factor=factor)
    errors = [None] * len(run["values"]) if run["errors"] is None else run["errors"]
    raised = [alarm.add(*each) for each in zip(run["steps"], run["values"], errors, strict=True)]
    step = first_alarm(**run, factor=factor)
    assert alarm.step == step
    assert raised == [step is not None and each >= step for each in run["steps"]]
    if factor == 1.35:
        assert judge(**run).alarm_step == step


def test_a_resumed_run_takes_the_alarm_back() -> None:
    alarm = Alarm()
    for step, value in enumerate([50.0, 20.0, 10.0, 10.0, 10.0, 30.0]):
        assert not alarm.add(step, value, 0.1)
    assert alarm.add(6, 30.0, 0.1) and alarm.step == 6
    assert alarm.add(7, 10.0, 0.1)  # once raised it stays
    assert not alarm.add(5, 10.0, 0.1) and alarm.step is None
    assert not alarm.add(6, 30.0, 0.1)
    assert alarm.add(7, 30.0, 0.1) and alarm.step == 7


def test_without_errors_the_alarm_first_learns_the_noise() -> None:
    def raised(values: Values) -> float | None:
        return first_alarm(range(len(values)), values)

    assert raised([10.0, 10.0, 30.0, 30.0]) is None
    assert raised([10.0] * 6 + [30.0, 30.0]) == 7


# ---- what is given


def test_gaps_and_repeated_steps() -> None:
    steps = [1, 2, 3, 50, 51, 52, 400, 900, 901, 902, 902, 903]
    values = [300.0, 100.0, 30.0, 12.0, 10.0, 10.0, 10.0, 10.0, 10.0, 99.0, 10.0, 10.0]
    found = judge(steps, values, [0.1] * 12)
    assert (found.verdict, found.n, found.alarm_step) == ("STABLE", 11, None)
    assert "left out: 1 evaluations, followed by others of the same step" in [each.what for each in found.evidence]


def test_a_step_that_goes_back_is_a_restart() -> None:
    """Training was resumed at step 1,500: what was evaluated there and later, before, is void."""
    steps = [*range(100, 2100, 100), *range(1500, 1900, 100)]
    sound = [300 / (1 + place) for place in range(14)]
    values = [*sound, 41.0, 73.0, 112.0, 152.0, 193.0, 248.0, 20.9, 19.1, 18.0, 17.0]
    found = judge(steps, values)
    assert (found.verdict, found.n, found.alarm_step, found.last) == ("STABLE", 18, None, (1800, 18.0))
    what = "left out: 6 evaluations from here on, for training went back to this step"
    assert (what, 1500, None) in found.evidence
    abandoned = judge(steps[:20], values[:20])
    assert (abandoned.verdict, abandoned.alarm_step) == ("REGRESSED", 1600)
    alarm = Alarm()
    raised = [alarm.add(step, value) for step, value in zip(steps, values, strict=True)]
    assert raised[19] and not raised[-1]


def test_none_was_not_measured_and_nan_diverged() -> None:
    values: list[float | None] = [10.0] * 12
    values[4] = None
    found = judge(range(12), values)
    assert found.verdict == "STABLE" and found.n == 11
    assert "left out: 1 of 12 evaluations, which have no value" in [each.what for each in found.evidence]


def test_errors_that_are_lacking_are_taken_for_the_usual() -> None:
    values = DESCENT + [10.0] * 12 + [15.0] * 4
    most: list[float | None] = [value / 8 for value in values]
    most[-1] = most[3] = None
    assert judge(range(len(values)), values, most).verdict == "STABLE"
    assert judge(range(len(values)), values, [math.nan] * len(values)).verdict == "REGRESSED"  # none is given


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: judge([1, 2], [1.0]), "2 steps, 1 values and 1 errors"),
        (lambda: judge([1], [1.0], [1.0, 2.0]), "1 steps, 1 values and 2 errors"),
        (lambda: judge([1, 2], [1.0, "abc"]), r"values\[1\] is 'abc', which is no number"),
        (lambda: judge([1, 10**400], [1.0, 2.0]), r"steps\[1\] is 10+, which is no number"),
        (lambda: judge([1, "x"], [1.0, 2.0]), r"steps\[1\] is 'x'"),
        (lambda: judge([1, math.nan], [1.0, 2.0]), r"steps\[1\] is nan; it must be finite"),
        (lambda: judge([1, None], [1.0, 2.0]), r"steps\[1\] is None"),
        (lambda: judge([1], [1.0], [-0.1]), r"errors\[0\] is -0.1; a standard error is not negative"),
        (lambda: judge([1], [1.0], baseline=math.nan), "baseline is nan"),
        (lambda: judge([1], [1.0], floor=math.inf), "floor is inf"),
        (lambda: judge([1], [1.0], diverged_at=(math.nan, "x")), "diverged_at is nan"),
        (lambda: judge([1], [1.0], better="up"), "better is 'up'; it is 'lower' or 'higher'"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_judged_is_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


@settings(max_examples=150, deadline=None)
@example([1.0, 2.2e105, 0.03125, 3.6e76, 1.0, 1.0], False, 0.0, "lower")  # noise of a factor beyond float64
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40),
    st.booleans(),
    st.sampled_from([None, 0.0, 1.0, -1e300, 1e308]),
    st.sampled_from(["lower", "higher"]),
)
def test_any_numbers_get_a_verdict_in_strict_json(
    values: list[float], with_errors: bool, baseline: float | None, better: Any
) -> None:
    errors = [abs(value) / 10 for value in values] if with_errors else None
    found = told(values, errors, baseline=baseline, better=better)
    json.dumps(found.as_dict(), allow_nan=False)
    diverged = any(not math.isfinite(value) for value in values)
    assert (found.verdict == "DIVERGED") == diverged
    assert (found.verdict == "WITHHELD") == (not diverged and len(values) < 10)


def test_a_long_history() -> None:
    values = 10 + np.random.default_rng(0).normal(size=20_000)
    assert judge(range(20_000), values).verdict in ("STABLE", "OSCILLATING")


def test_steps_are_told_as_they_are_counted() -> None:
    found = judge([0.5 * place for place in range(12)], [10.0] * 12)
    assert found.best is not None and found.last is not None
    assert (found.best.step, found.last.step) == (0, 5.5)
    assert isinstance(told([10.0] * 12).as_dict()["last"]["step"], int)


def test_it_costs_no_torch() -> None:
    heavy = "{'torch', 'scipy', 'pandas', 'mlflow', 'optuna', 'sklearn', 'pydantic'} & {*sys.modules}"
    code = f"import sys, aigc_lab.verdicts.stability, aigc_lab.verdicts.seeds; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- how often it errs


def test_the_best_of_many_noisy_values_makes_no_regression() -> None:
    """Noise of 15 %, all of it told: by the best as it is, one run in fifteen would have regressed."""
    random = np.random.default_rng(0)
    wrong = regressed = 0
    for _ in range(400):
        values = (10 * (1 + 0.15 * random.normal(size=50))).tolist()
        found = told(values, 1.5)
        wrong += found.verdict != "STABLE" or found.alarm_step is not None
        end, best = float(np.median(values[-3:])), min(values)
        regressed += end >= 1.35 * best and end - best > 3 * math.hypot(1.5, 0.67 * 1.5)
    assert wrong <= 8 < regressed


# ---- histories as they are published

GOLDEN = json.loads((content.folder("evaluation") / "golden" / "fid_histories.json").read_text("utf-8"))


@pytest.mark.parametrize("name", GOLDEN["runs"])
def test_published_histories_are_judged_as_their_readers_would(name: str) -> None:
    """FID by step of 30 published runs: those that end at 1.5 times their best and more, and stay there, and others."""
    steps, values = (np.array(GOLDEN["runs"][name][column]) for column in ("thousands of steps", "fid"))
    regressed = name in GOLDEN["regressed"]
    for errors in (None, 0.005 * values, 0.03 * values):
        found = judge(steps, values, errors)
        assert found.verdict == ("REGRESSED" if regressed else "STABLE"), found.reason
        assert (found.alarm_step is not None) == regressed
        assert found.alarm_step is None or found.alarm_step < 0.7 * steps[-1]


@pytest.mark.parametrize("noise", [0.06, 0.08, 0.1])
@pytest.mark.parametrize("times", [1.8, 3.3])
def test_a_noisy_wreck_is_no_noise(noise: float, times: float) -> None:
    """An early best and a plateau far above it, which swings by its own size."""
    random = np.random.default_rng(3)
    clean = np.concatenate([150 * np.exp(-np.arange(15) / 5) + 40, np.full(45, times * 42)])
    found = judge(range(60), clean * np.exp(noise * random.normal(size=60)))
    assert found.verdict == "REGRESSED" and found.alarm_step is not None and 16 <= found.alarm_step <= 30


def test_what_regressed_and_swings_too_is_told_of_both() -> None:
    waves = [30 * math.exp(0.25 * (-1) ** place) for place in range(20)]
    found = told(DESCENT + [10.0] * 12 + waves)
    assert found.verdict == "REGRESSED" and "times the best" in found.reason
    assert "and the last half swings by" in found.reason
    assert "swings" not in told(DESCENT + [10.0] * 12 + [25.0] * 8).reason


# ---- what a reader is told


FALLING = [300, 150, 80, 40, 25, 18, 14, 12, 11, 10.5, 10.2, 10.1, 10, 10.1, 10]


def of(values: Sequence[float | None], **others: Any) -> StabilityVerdict:
    return judge([100 * place for place in range(len(values))], values, **others)


def test_what_ends_at_its_best_has_not_regressed() -> None:
    ends = [*FALLING, 30, 16, 40, 5]
    errors = [0.01 * (value or 1) for value in ends]
    found = of(ends, errors=errors)
    assert found.verdict != Stability.REGRESSED and found.best is not None and found.best.value == 5
    assert of([*ends[:-1], 16], errors=errors).verdict == Stability.REGRESSED
    for each in found.evidence:
        if "beyond that" in each.what:
            assert each.value is not None and each.value > 13.5


def test_what_has_no_value_at_the_end_is_told_of() -> None:
    """A program that writes NaN as nothing leaves a run that diverged without an end."""
    found = of([*FALLING, None, None, None])
    assert found.verdict == Stability.STABLE
    assert "the last 3 evaluations have no value: it diverged if that was NaN" in found.reason
    assert "have no value: it" not in of([*FALLING[:5], None, *FALLING[5:]]).reason
    assert "have no value: it" not in of([*FALLING, math.nan, None]).reason


def test_a_last_evaluation_that_is_ruined_is_told_of() -> None:
    found = of([*FALLING, 300])
    assert (
        found.verdict == Stability.STABLE and "the last evaluation alone, 300, is beyond what is sound" in found.reason
    )
    assert [(each.step, each.value) for each in found.evidence if "alone are beyond" in each.what] == [(1500, 300)]
    assert "alone" not in of(FALLING).reason


def test_why_it_never_learned() -> None:
    assert "is too near the baseline, 12" in of(FALLING[-7:] * 3, baseline=12).reason
    worse = of([100 + 20 * place for place in range(20)], baseline=100)
    assert worse.verdict == Stability.NEVER_LEARNED and "is no better than the baseline, 100" in worse.reason
    vague = of(FALLING, errors=[50] * len(FALLING), baseline=100)
    assert vague.verdict == Stability.NEVER_LEARNED
    assert "may be the luck of 15 evaluations with such standard errors" in vague.reason


def test_it_says_what_the_values_were_measured_against() -> None:
    steps, values = range(12), [10.0 / (step + 1) for step in range(12)]
    assert judge(steps, values).signature == "stability|better:lower|v:3"
    told = judge(steps, values, baseline=0, better="higher", floor=0.125)
    assert told.signature == "stability|better:higher|baseline:0|floor:0.125|v:3"
    assert StabilityVerdict.of(json.loads(json.dumps(told.as_dict()))) == told


def test_a_verdict_is_one_line_and_a_notebook_shows_its_evidence() -> None:
    verdict = replace(judge(range(12), [10.0 / (1 + step) for step in range(12)]), reason="a <b> & c")
    assert repr(verdict) == f"StabilityVerdict({verdict.verdict}: a <b> & c; n 12)"
    shown = verdict._repr_html_()
    assert f"{verdict.verdict}: a &lt;b&gt; &amp; c" in shown and "<b>" not in shown
