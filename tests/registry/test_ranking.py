"""Ranking against independent truth: intervals by counting, and the first rows of many as those of all."""

import itertools
import math
import random
import statistics
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registries import SIGNATURE

from aigc_lab.registry.ranking import rank
from aigc_lab.registry.standings import Configuration, SeedOutcome, median_interval


def coverage(k: int, low: int, high: int) -> Fraction:
    """How often the low-th and high-th smallest of k draws enclose the median: by counting all 2^k sign patterns."""
    # A pattern says for each draw whether it fell below the median; the median is enclosed when at least `low` and at
    # most `high` - 1 draws did.
    hits = sum(low <= sum(pattern) < high for pattern in itertools.product((0, 1), repeat=k))
    return Fraction(hits, 2**k)


@pytest.mark.parametrize("k", range(2, 15))
def test_the_interval_is_the_narrowest_that_covers(k: int) -> None:
    low, high, confidence = median_interval([float(place) for place in range(k, 0, -1)])
    assert confidence == pytest.approx(float(coverage(k, int(low), int(high))), abs=1e-12)
    assert low + high == k + 1
    if k < 6:
        assert (low, high) == (1, k)
        assert confidence == 1 - 2.0 ** (1 - k) < 0.95
    else:
        assert confidence >= 0.95
        assert low + 1 > high - 1 or coverage(k, int(low) + 1, int(high) - 1) < Fraction(95, 100)


def test_three_seeds_promise_75_percent() -> None:
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0, 0.75)


def test_many_seeds_agree_with_the_binomial_quantile() -> None:
    """The textbook's table of the sign test: for n = 25 the 8th and 18th value, 95.67 %."""
    low, high, confidence = median_interval([float(place) for place in range(1, 26)])
    assert (low, high) == (8, 18)
    assert confidence == pytest.approx(0.9567, abs=1e-4)


def test_thousands_of_values_have_the_interval_of_the_normal_limit() -> None:
    """Half the width of the interval's ranks is 1.96 √k / 2 in the limit."""
    k = 20_000
    low, high, confidence = median_interval([float(place) for place in range(1, k + 1)])
    assert low + high == k + 1 and 0.95 <= confidence < 0.9517  # a rank further in on both sides is 0.0017 less
    assert (high - low) / 2 == pytest.approx(1.95996 * math.sqrt(k) / 2, abs=1.5)


def test_what_the_holdout_says_of_the_best_of_equal_trials_is_unbiased() -> None:
    """Twenty trials whose true value is 10, measured with an error of 1 on each split, 2,000 times. The smallest of
    twenty holdout values is 8.13 on average, and would be shown if the holdout ranked.
    """
    source = random.Random(1)
    shown, smallest = [], []
    for _ in range(2000):
        values = [(source.gauss(10, 1), source.gauss(10, 1)) for _ in range(20)]
        outcomes = [
            SeedOutcome(
                "search", "FINISHED", "fd", holdout, None, None, 1000, None, None, SIGNATURE, "lower", 1.0, reference
            )
            for reference, holdout in values
        ]
        trials = [Configuration("sweep", trial, "gan", "FINISHED", [outcome]) for trial, outcome in enumerate(outcomes)]
        shown.append(rank(trials, 1).rows[0]["score"]["value"])
        smallest.append(min(holdout for _, holdout in values))
    error = 1 / math.sqrt(2000)
    assert abs(statistics.mean(shown) - 10) < 4 * error
    assert statistics.mean(smallest) == pytest.approx(10 - 1.867, abs=4 * error)


def reference(configurations: list[Configuration]) -> list[tuple[int | None, str, int, float | None]]:
    """Rank, sweep, trial and value by the words of the definition, one signature: sort by hand, then count."""
    told = []
    for each in configurations:
        ended = {run.role for run in each.outcomes if run.state in ("FINISHED", "DIVERGED")}
        role = "report" if "report" in ended else "confirm" if "confirm" in ended else "search"
        runs = [run for run in each.outcomes if run.role == role]
        values = [run.value for run in runs if run.state == "FINISHED" and run.value is not None and run.name]
        bad = sum(run.state == "DIVERGED" or (run.state == "FINISHED" and run.value is None) for run in runs)
        ordered = sorted(values) + [math.inf] * bad
        value = statistics.median(ordered) if values else math.inf
        told.append((each, ("report", "confirm", "search").index(role), value if math.isfinite(value) else None))
    several = len({each.sweep for each, _, value in told if value is not None}) > 1
    keys = {id(each): (0 if several else tier, value) for each, tier, value in told if value is not None}
    ranked = sorted((each for each, _, value in told if value is not None), key=lambda each: keys[id(each)])
    rows: list[tuple[int | None, str, int, float | None]] = [
        (1 + sum(other < keys[id(each)] for other in keys.values()), each.sweep, each.trial, keys[id(each)][1])
        for each in ranked
    ]
    return rows


OUTCOMES = st.builds(
    lambda role, state, value: SeedOutcome(role, state, "fd", value, None, None, 10, None, None, "fd", "lower", 1.0),
    st.sampled_from(["search", "search", "confirm", "report"]),
    st.sampled_from(["FINISHED", "FINISHED", "FINISHED", "DIVERGED", "FAILED", "RUNNING"]),
    st.one_of(st.none(), st.integers(0, 6).map(float)),
)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.lists(OUTCOMES, max_size=5)), max_size=8), st.integers(0, 9))
def test_the_first_rows_are_those_of_the_whole_ranking(drawn: list[tuple[str, list[SeedOutcome]]], most: int) -> None:
    configurations = [Configuration(sweep, trial, "vae", "FINISHED", runs) for trial, (sweep, runs) in enumerate(drawn)]
    whole, first = rank(configurations), rank(configurations, most)
    ranked = [(row["rank"], row["sweep"], row["trial"], row["score"]["value"]) for row in whole.rows if row["score"]]
    assert ranked == reference(configurations)
    assert first.rows == whole.rows[:most]
    assert (first.total, first.groups, first.note) == (len(whole.rows), whole.groups, whole.note)


SIGNED = OUTCOMES.flatmap(
    lambda outcome: st.sampled_from([outcome, outcome._replace(signature="fd 2"), outcome._replace(name=None)])
)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.lists(SIGNED, max_size=5)), max_size=8), st.integers(0, 9))
def test_ranking_needs_but_little_of_an_outcome(drawn: list[tuple[str, list[SeedOutcome]]], most: int) -> None:
    known, brief = {}, []
    for trial, (sweep, runs) in enumerate(drawn):
        known[sweep, trial] = Configuration(sweep, trial, "vae", "FINISHED", runs)
        little = [
            SeedOutcome.brief(run.role, run.state, run.value, run.signature if run.name else None, run.better, "fd")
            for run in runs
        ]
        brief.append(Configuration(sweep, trial, "vae", "FINISHED", little))
    asked: list[tuple[str, int]] = []

    def whole(some: list[Configuration]) -> list[Configuration]:
        asked.extend(each.key for each in some)
        return [known[each.key] for each in reversed(some)]

    assert rank(brief, most, whole) == rank(known.values(), most)
    assert len(asked) <= most
