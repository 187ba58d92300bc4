"""Values as text: digits, bounds, floors and counts."""

from typing import Any

import pytest

from aigc_lab.display.wording import (
    assignments,
    duration,
    omitted,
    ranked_score,
    spread,
    state_text,
    unbounded,
    verdict_counts,
)
from aigc_lab.statistics.wording import floor_text, interval, measured, number


def test_a_score_of_the_worst_class_says_which_it_is() -> None:
    score = {"value": 12.34, "low": 10.1, "high": 14.9}
    assert measured(score) == measured(score | {"of_class": None}) == "12.3 [10.1, 14.9]"
    assert measured(score | {"of_class": "eight"}) == "12.3 [10.1, 14.9], class eight"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[
            (None, ""),
            (0.0, "0"),
            (12.345, "12.3"),
            (99.96, "100"),
            (123.4, "123"),
            (1234.5, "1234"),
            (-1234.5, "-1234"),
        ],
        *[(1e7, "1e+07"), (0.0001234, "0.000123")],
    ],
)
def test_a_number_has_three_digits_or_all_of_a_longer_integer_part(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(7, "7 s"), (89, "89 s"), (90, "1.5 min"), (5399, "90.0 min"), (7200, "2.0 h")]
)
def test_a_duration_is_of_seconds_minutes_or_hours(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "low", "high", "infinite", "text"),
    [
        (7.82, 7.43, 8.21, False, "7.82 [7.43, 8.21]"),
        (7.82, None, None, False, "7.82"),
        (7.82, 7.43, None, True, "7.82 [7.43, ∞]"),
        (7.82, None, 8.21, True, "7.82 [-∞, 8.21]"),
        (7.82, None, 8.21, False, "7.82 [?, 8.21]"),
        (None, 7.43, 8.21, False, "not finite"),
    ],
)
def test_an_interval_says_which_bound_there_is(
    value: float | None, low: float | None, high: float | None, infinite: bool, text: str
) -> None:
    assert interval({"value": value, "low": low, "high": high}, infinite) == text


@pytest.mark.parametrize(
    ("seeds", "diverged", "confidence", "infinite"),
    [(1, 0, None, False), (1, 0, 0.95, False), (1, 1, 0.5, True), (2, 0, 0.5, True), (2, 1, None, False)],
)
def test_a_bound_is_infinite_only_of_several_seeds(
    seeds: int, diverged: int, confidence: float | None, infinite: bool
) -> None:
    states = {"FINISHED": seeds} | ({"DIVERGED": diverged} if diverged else {})
    assert unbounded({"seeds": seeds, "states": states, "score": {"confidence": confidence}}) == infinite


@pytest.mark.parametrize(
    ("seeds", "diverged", "low", "high", "confidence", "kind", "text"),
    [
        (1, 0, 7.43, 8.21, 0.95, "SAMPLING", "7.82 ± 0.39 sampling error"),
        (1, 0, 7.7, 8.21, 0.95, "SAMPLING", "7.82 ± 0.39 sampling error"),
        (1, 0, -130.0, 146.0, 0.95, "SAMPLING", "7.82 ± 138 sampling error"),
        (1, 0, None, None, None, None, "7.82"),
        (2, 0, 7.43, 8.21, 0.5, "RANGE", "7.82 (7.43–8.21 of 2 seeds)"),
        (2, 1, 7.43, None, 0.75, "RANGE", "7.82 (7.43–∞ of 3 seeds)"),
        (2, 1, None, 8.21, 0.75, "RANGE", "7.82 (-∞ to 8.21 of 3 seeds)"),
        (3, 0, -1.5, 8.21, 0.75, "RANGE", "7.82 (-1.5 to 8.21 of 3 seeds)"),
        (5, 0, 7.43, 8.21, 0.9375, "RANGE", "7.82 (7.43–8.21 of 5 seeds)"),
        (6, 0, 7.43, 8.21, 0.96875, "INTERVAL", "7.82 [7.43, 8.21]"),
        (5, 1, 7.43, None, 0.96875, "INTERVAL", "7.82 [7.43, ∞]"),
    ],
)
def test_what_stands_beside_a_value_says_what_it_is(
    seeds: int,
    diverged: int,
    low: float | None,
    high: float | None,
    confidence: float | None,
    kind: str | None,
    text: str,
) -> None:
    """A sampling error (of an interval that is lopsided the larger side), a range and an interval are never written
    alike.
    """
    states = {"FINISHED": seeds} | ({"DIVERGED": diverged} if diverged else {})
    score = {"value": 7.82, "low": low, "high": high, "confidence": confidence}
    row = {"seeds": seeds, "states": states, "score": score}
    assert (spread(row), ranked_score(row)) == (kind, text)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"floor": None}, ""),
        ({"floor": 0.959}, "0.959"),
        ({"floor": None, "floor_sd": 0.352}, ""),
        ({"floor": 0.959, "floor_sd": 0.352}, "0.959 ± 0.352"),
        ({"floor": 0.959, "floor_sd": 0.352, "at_floor": 9.87, "floor_n": 1200}, "0.959 ± 0.352 (9.87 at 1,200)"),
    ],
)
def test_a_floor_has_its_spread_and_the_score_at_as_few_samples(row: dict[str, Any], text: str) -> None:
    assert floor_text(row) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(3.066, 3.068, "3.067 (3.066–3.068"), (3.06501, 3.06503, "3.06502 (3.06501–3.06503"), (3.0, 3.0, "3 (3–3")],
)
def test_ends_of_a_range_that_differ_look_different(low: float, high: float, text: str) -> None:
    score = {"value": (low + high) / 2, "low": low, "high": high, "confidence": 0.5}
    assert ranked_score({"seeds": 2, "states": {}, "score": score}) == f"{text} of 2 seeds)"


def test_seeds_that_ended_otherwise_are_counted() -> None:
    assert state_text({"state": "FINISHED", "states": {"FINISHED": 3}}) == "FINISHED"
    assert state_text({"state": "FINISHED", "states": {"FINISHED": 1, "DIVERGED": 2}}) == "FINISHED, 2 DIVERGED"
    assert state_text({"state": "DIVERGED", "states": {"DIVERGED": 2}}) == "DIVERGED"


def test_verdicts_are_counted_where_runs_do_not_agree() -> None:
    assert verdict_counts({}) == ""
    assert verdict_counts({"NONE": 3}) == "NONE"
    assert verdict_counts({"NONE": 2, "SEVERE": 1}) == "2 NONE, 1 SEVERE"


def test_values_of_a_configuration_are_as_they_are_typed() -> None:
    config = {"lr": 0.00012345678, "loss": "hinge", "packing": 2, "clip": None, "ema": True}
    assert assignments(config) == "lr=0.0001235 loss=hinge packing=2 clip=null ema=true"


def test_omitted_rows_are_counted() -> None:
    assert omitted(3, 3) == ""
    assert omitted(20, 12020) == "… and 12,000 more; --limit 0 shows all"
