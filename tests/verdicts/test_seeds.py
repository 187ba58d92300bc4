"""What seeds say together, against closed forms, scipy and a published table."""

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight
from statsmodels.stats.proportion import proportion_confint

from aigc_lab.verdicts.seeds import (
    Strength,
    across_seeds,
    kaplan_meier,
    p_collapse,
    p_unstable,
    seed_spread,
    steps_to_best,
    time_to_failure,
    wilson,
)
from aigc_lab.verdicts.stability import StabilityVerdict, judge

# ---- chances


@pytest.mark.parametrize("trials", [1, 5, 10, 35, 1000])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(trials: int, share: float, confidence: float) -> None:
    successes = round(share * trials)
    theirs = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert wilson(successes, trials, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_how_little_none_of_ten_says() -> None:
    assert wilson(0, 10)[1] == pytest.approx(0.2775, abs=1e-4)
    assert wilson(0, 34)[1] > 0.1 > wilson(0, 35)[1]  # a claim below 10 % needs 0/35
    assert wilson(0, 0) == (0, 1)
    assert str(p_unstable(["STABLE"] * 10)) == "0/10 still allows 28 %"


@pytest.mark.parametrize(("bad", "of"), [(-1, 3), (4, 3)])
def test_what_is_no_proportion(bad: int, of: int) -> None:
    with pytest.raises(ValueError, match=f"{bad} of {of} is no proportion"):
        wilson(bad, of)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_what_is_no_confidence(confidence: float) -> None:
    with pytest.raises(ValueError, match="lies between 0 and 1"):
        wilson(1, 2, confidence)


def test_everything_but_stable_is_unstable() -> None:
    chance = p_unstable(["STABLE", "DIVERGED", "NEVER-LEARNED", "REGRESSED", "OSCILLATING"])
    assert (chance.wrong, chance.decided, chance.undecided, chance.value) == (4, 5, 0, 0.8)
    assert (chance.low, chance.high) == wilson(4, 5)


def test_the_undecided_may_have_gone_either_way() -> None:
    chance = p_collapse(["NONE"] * 6 + ["TOTAL", "SEVERE"] + ["INCONCLUSIVE", "UNMEASURABLE"])
    assert (chance.wrong, chance.decided, chance.undecided, chance.value) == (2, 8, 2, 0.25)
    assert (chance.low, chance.high) == (wilson(2, 10)[0], wilson(4, 10)[1])
    nothing = p_unstable(["WITHHELD"] * 12)
    assert nothing.value is None and nothing.low == 0 and nothing.high == 1
    assert nothing.strength is Strength.TOO_FEW


def test_a_claim_needs_ten_decided_seeds() -> None:
    assert [p_unstable(["STABLE"] * n).strength for n in (4, 5, 9, 10)] == ["TOO-FEW", "SCREEN", "SCREEN", "CLAIM"]
    assert p_unstable(["STABLE"] * 9 + ["WITHHELD"]).strength == "SCREEN"
    assert str(p_unstable(["STABLE"] * 5)) == "0/5 still allows 43 %; a claim needs 10 seeds"


def test_an_unknown_verdict_is_named() -> None:
    with pytest.raises(ValueError, match="unknown verdict 'FINE'"):
        p_unstable(["STABLE", "FINE"])


# ---- time to failure

# The 6-MP arm of Freireich et al. 1963: weeks in remission; the first nine relapsed. Its Kaplan–Meier curve is in every
# textbook, the log(−log) intervals are those of R's survfit(conf.type = "log-log").
WEEKS = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
RELAPSED = [True] * 9 + [False] * 12


def test_the_leukaemia_table() -> None:
    curve = kaplan_meier(WEEKS, RELAPSED)
    assert curve.times.tolist() == [6, 7, 10, 13, 16, 22, 23]
    assert curve.at_risk.tolist() == [21, 17, 15, 12, 11, 7, 6]
    assert curve.failures.tolist() == [3, 1, 1, 1, 1, 1, 1]
    assert curve.survival == pytest.approx([0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], abs=5e-4)
    assert curve.errors == pytest.approx([0.0764, 0.0869, 0.0963, 0.1068, 0.1141, 0.1282, 0.1346], abs=5e-5)
    assert curve.low == pytest.approx([0.620, 0.563, 0.503, 0.432, 0.368, 0.268, 0.188], abs=5e-4)
    assert curve.high == pytest.approx([0.952, 0.923, 0.889, 0.849, 0.805, 0.747, 0.680], abs=5e-4)
    assert curve.median == 23
    assert [curve.at(week) for week in (0, 5.9, 6, 100)] == pytest.approx([1, 1, 0.857, 0.448], abs=5e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=25))
def test_the_curve_is_scipys(runs: list[tuple[int, bool]]) -> None:
    times, failed = (np.array(each) for each in zip(*runs, strict=True))
    curve = kaplan_meier(times, failed)
    theirs = stats.ecdf(stats.CensoredData.right_censored(times.astype(float), ~failed)).sf
    assert curve.survival == pytest.approx(theirs.evaluate(curve.times), abs=1e-12)
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):  # of where nobody is left
        interval = theirs.confidence_interval(0.95, method="log-log")
    alive = curve.survival > 1e-12
    for ours, bound in ((curve.low, interval.low), (curve.high, interval.high)):
        assert ours[alive] == pytest.approx(bound.evaluate(curve.times[alive]), abs=1e-9)


def test_nobody_failed_and_everybody_failed() -> None:
    nobody = kaplan_meier([5, 6], [False, False])
    assert nobody.times.size == 0 and nobody.at(100) == 1 and nobody.median is None
    at_once = kaplan_meier([5, 5, 5], [True] * 3)
    assert (at_once.survival.tolist(), at_once.low.tolist(), at_once.high.tolist()) == ([0], [0], [1])
    all_ = kaplan_meier([1, 2, 3], [True] * 3)
    assert all_.survival[-1] == 0 and all_.high[-1] == all_.high[-2] and all_.errors[-1] == 0
    assert all_.median == 2


@pytest.mark.parametrize(
    ("times", "failed", "said"),
    [
        ([], [], "0 times and 0 outcomes"),
        ([1.0], [True, False], "1 times and 2 outcomes"),
        ([1.0, math.nan], [True, True], "a time is nan"),
        ([-1.0], [True], "a time is -1.0"),
    ],
)
def test_what_is_no_time_to_failure(times: list[float], failed: list[bool], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kaplan_meier(times, failed)


def run(last: float, broken: bool = False) -> StabilityVerdict:
    values = [300.0, 100.0, 30.0] + [10.0] * 8 + [last] * 4 + ([math.nan] if broken else [])
    return judge([100 * place for place in range(len(values))], values, [0.1] * len(values))


def test_a_run_failed_at_its_alarm_and_was_else_watched_to_its_end() -> None:
    assert time_to_failure(run(10.0)) == (1400, False)
    assert time_to_failure(run(30.0)) == (1200, True)
    assert time_to_failure(run(10.0, broken=True)) == (1500, True)
    with pytest.raises(ValueError, match="has no time to failure"):
        time_to_failure(judge([], []))


# ---- spread and speed


def test_the_interval_of_a_spread_is_chi_squares() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    spread = seed_spread(values)
    low, high = (math.sqrt(4 * np.var(values, ddof=1) / stats.chi2.ppf(tail, 4)) for tail in (0.975, 0.025))
    assert (spread.n, spread.median) == (5, 3.0)
    assert spread.sd == pytest.approx(math.sqrt(2.5))
    assert (spread.low, spread.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("values", "said"), [([], "0 values have no spread"), ([1.0], "1 values"), ([1.0, math.nan], "a value is nan")]
)
def test_what_has_no_spread(values: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        seed_spread(values)


def test_steps_to_a_tenth_above_the_best() -> None:
    steps = [1, 2, 3, 4, 5, 6]
    assert steps_to_best(steps, [300, 100, 12, 10.9, 10, 11]) == 4
    assert steps_to_best(steps, [300, 100, 12, 10.9, 10, 11], factor=1.2) == 3
    assert steps_to_best(steps, [1, 4, 7, 7.4, 8, 7], better="higher") == 4
    assert steps_to_best(steps, [0.3, 0.1, 0.02, 0.0, -0.001, 0.001], baseline=0.3) == 3
    assert steps_to_best([3, 1, 2], [10, 300, 10.5]) == 2
    assert steps_to_best(steps, [300, math.nan, math.inf, 20, 10, math.nan]) == 5
    assert steps_to_best([1], [math.nan]) is None


def test_a_tenth_above_zero_needs_a_baseline() -> None:
    with pytest.raises(ValueError, match=r"the best is -0.1 and .* give a baseline"):
        steps_to_best([1, 2], [0.3, -0.1])
    with pytest.raises(ValueError, match="2 steps and 1 values"):
        steps_to_best([1, 2], [0.3])


# ---- together


def test_a_verdict_is_told_and_read_again() -> None:
    for said in (run(10.0), run(30.0), run(10.0, broken=True), judge([], [])):
        assert StabilityVerdict.of(json.loads(json.dumps(said.as_dict()))) == said


def test_a_system_in_plain_data() -> None:
    runs = [run(10.0)] * 8 + [run(30.0), run(10.0, broken=True)]
    found = across_seeds(runs, ["NONE"] * 9 + ["PARTIAL"], last=[1.0, 2.0, 4.0], selected=[1.0])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["seeds"] == 10
    assert found["unstable"]["value"] == 0.2 and found["unstable"]["strength"] == "CLAIM"
    assert found["collapse"]["reason"].startswith("1/10 allows ")
    # The other eight were watched to step 1400 and are no longer at risk at 1500.
    assert found["survival"]["at_risk"] == [10, 1]
    assert found["last"]["n"] == 3 and found["selected"] is None
    json.dumps(across_seeds([run(30.0)] * 3), allow_nan=False)
    empty = across_seeds([])
    assert empty["seeds"] == 0 and not any(empty.values())


# ---- against statsmodels


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (0, 10), (3, 10), (35, 35), (7, 400)])
def test_wilson_is_statsmodels(successes: int, trials: int) -> None:
    theirs = proportion_confint(successes, trials, alpha=0.05, method="wilson")
    assert wilson(successes, trials) == pytest.approx(theirs, abs=1e-12)


def test_survival_and_greenwoods_errors_are_statsmodels() -> None:
    theirs = SurvfuncRight(np.array(WEEKS, float), np.array(RELAPSED, int))
    curve = kaplan_meier(WEEKS, RELAPSED)
    failed = theirs.n_events > 0
    assert curve.times == pytest.approx(theirs.surv_times[failed])
    assert curve.at_risk == pytest.approx(theirs.n_risk[failed])
    assert curve.survival == pytest.approx(theirs.surv_prob[failed])
    assert curve.errors == pytest.approx(theirs.surv_prob_se[failed])
