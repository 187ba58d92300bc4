"""A point beside curves: against hand-computed values, and its error rates against simulated draws."""

import math

import numpy as np
import pytest

from aigc_lab.statistics.frontier import Bound, Measured, Point, beside, qualities, smooth

CURVE = [Point(0.4, 0.8), Point(0.3, 0.6), Point(0.2, 0.1)]


def exact(*points: Point) -> Measured:
    return Measured(points, [points] * 4)


@pytest.mark.parametrize(("diversity", "expected"), [(0.35, 0.7), (0.22, 0.2), (0.3, 0.6), (0.9, 0.8), (0.1, 0.1)])
def test_between_points_it_is_the_chord_and_beyond_the_ends_they_stay(diversity: float, expected: float) -> None:
    assert {round(each, 12) for each in qualities(CURVE, diversity)} == {expected}


def test_a_curve_that_turns_back_has_several_qualities() -> None:
    curve = [Point(0.4, 0.8), Point(0.2, 0.6), Point(0.4, 0.1)]
    assert qualities(curve, 0.3) == pytest.approx([0.7, 0.35])
    assert set(qualities(curve, 0.1)) == {0.6}
    assert sorted(qualities(curve, 0.3, also=[1])) == pytest.approx([0.35, 0.6, 0.7])


@pytest.mark.parametrize("after", [[], [Point(0.1, 0.05)]], ids=["end", "turn"])
def test_an_end_or_a_turn_that_is_as_near_as_the_error_counts(after: list[Point]) -> None:
    """The true point may be before it, where the curve passes a second time."""
    curve = exact(Point(0.4, 0.8), Point(0.2, 0.6), Point(0.3, 0.1), *after)

    def point(error: float) -> Measured:
        shifts = [-error / math.sqrt(3), error / math.sqrt(3)] * 2  # of four groups
        return Measured([Point(0.32, 0.5)], [[Point(0.32 + shift, 0.5)] for shift in shifts])

    sure, unsure = beside([point(0.005)], [curve]), beside([point(0.02)], [curve])
    assert (sure.over_best.value, sure.over_worst.value) == pytest.approx((0.5 - 0.72, 0.5 - 0.72))
    assert (unsure.over_best.value, unsure.over_worst.value) == pytest.approx((0.5 - 0.72, 0.5 - 0.1))


def test_places_in_between_lie_on_the_function_that_the_points_are_of() -> None:
    """Parabolas are exact, whatever the distances; a chord misses them."""
    places = [-0.7, -0.36, -0.16, 0.0, 0.14, 0.34]
    line = smooth(places, [Point(1 - at, at * at) for at in places])
    assert [line[8 * number].diversity for number in range(6)] == pytest.approx([1 - at for at in places])
    assert len(line) == 41
    for point in line:
        assert point.quality == pytest.approx((1 - point.diversity) ** 2, abs=1e-12)
    assert smooth([0.0, 1.0], CURVE[:2]) == CURVE[:2]


def test_the_difference_of_points_that_are_known_exactly() -> None:
    found = beside([exact(Point(0.35, 0.75))], [exact(*CURVE)])
    assert found.over_best.value == pytest.approx(0.05) and found.over_best.error == 0
    assert found.over_best.interval() == (found.over_best.value, found.over_best.value)
    assert not found.too_diverse and not found.too_narrow
    assert beside([exact(Point(0.5, 0.75))], [exact(*CURVE)]).too_narrow
    assert beside([exact(Point(0.1, 0.75))], [exact(*CURVE)]).too_diverse


def test_its_error_has_both_coordinates_of_the_point_and_the_curve() -> None:
    """By hand: the slope of the curve is 2, so that a shift of the diversity shifts the quality twice."""
    shifts = [-0.0003, -0.0001, 0.0001, 0.0003]
    scale = math.sqrt(3 / 4 * sum(shift**2 for shift in shifts))  # a delete-group jackknife of four groups

    def point(of: float, up: float) -> Measured:
        at = Point(0.35, 0.7)
        return Measured([at], [[Point(at.diversity + of * shift, at.quality + up * shift)] for shift in shifts])

    def curve(up: float) -> Measured:
        return Measured(
            CURVE, [[each._replace(quality=each.quality + up * shift) for each in CURVE] for shift in shifts]
        )

    for of, up, whole, expected in (
        (0, 1, 0, 1),
        (1, 0, 0, 2),
        (1, 2, 0, 0),
        (1, -1, 0, 3),
        (0, 0, 1, 1),
        (0, 3, 4, 5),
    ):
        found = beside([point(of, up)], [curve(whole)]).over_best
        assert found.error == pytest.approx(expected * scale, abs=1e-12), (of, up, whole)


def test_over_several_seeds_their_spread_is_the_error() -> None:
    points = [exact(Point(0.3, 0.6 + shift)) for shift in (-0.1, 0.0, 0.1)]
    found = beside(points, [exact(*CURVE)]).over_best
    assert found.value == pytest.approx(0)
    assert found.error == pytest.approx(0.1 / math.sqrt(3)) and found.freedom == pytest.approx(2)
    # Welch and Satterthwaite: equal variances with two degrees of freedom each make four.
    curves = [exact(*(each._replace(quality=each.quality + shift) for each in CURVE)) for shift in (-0.1, 0.0, 0.1)]
    found = beside(points, curves).over_best
    assert found.error == pytest.approx(0.1 * math.sqrt(2 / 3)) and found.freedom == pytest.approx(4)


def test_seeds_that_agree_by_chance_are_no_more_certain_than_their_samples() -> None:
    shifts = [-0.0003, -0.0001, 0.0001, 0.0003]
    one = Measured([Point(0.3, 0.7)], [[Point(0.3, 0.7 + shift)] for shift in shifts])
    error = beside([one], [exact(*CURVE)]).over_best.error
    found = beside([one, one], [exact(*CURVE)]).over_best
    assert found.error == pytest.approx(error / math.sqrt(2)) and found.freedom == pytest.approx(6)


def test_the_interval_is_students() -> None:
    low, high = Bound(1.0, 0.5, 3.0).interval(0.95)
    assert (low, high) == pytest.approx((1 - 0.5 * 3.182446305, 1 + 0.5 * 3.182446305))


# ---- how often it errs

GROUPS, TEMPERATURES = 20, (0.5, 0.7, 0.85, 1.0, 1.15, 1.4)


def truth(temperature: float) -> tuple[float, float]:
    """A curve as BLEU has it: less diverse and better the colder, and bent."""
    return 0.1 + 0.4 * math.exp(-2 * (temperature - 0.5)), 0.15 + 0.5 * math.exp(-3 * (temperature - 0.5))


def drawn(at: list[tuple[float, float]], rng: np.random.Generator, error: float = 0.01) -> Measured:
    """Means of 20 groups with their replicates; the same groups err alike at all temperatures, as the same latents."""
    noise = error * math.sqrt(GROUPS) * rng.normal(size=(GROUPS, 1, 2)) + 0.3 * error * rng.normal(
        size=(GROUPS, len(at), 2)
    )
    groups = np.array(at) + noise
    groups[..., 1] += 0.5 * noise[..., 0]  # sentences that are more alike are likelier
    whole = groups.sum(0)

    def line(values: np.ndarray) -> list[Point]:
        return smooth(
            [math.log(each) for each in TEMPERATURES][: len(at)], [Point(*map(float, each)) for each in values]
        )

    return Measured(line(whole / GROUPS), [line((whole - group) / (GROUPS - 1)) for group in groups])


@pytest.mark.parametrize("temperature", [0.6, 0.77, 0.93, 1.1, 1.27])
def test_what_is_on_the_curve_is_told_apart_in_five_of_a_hundred_at_most(temperature: float) -> None:
    rng, wrong, reps = np.random.default_rng(int(100 * temperature)), 0, 100
    for _ in range(reps):
        curve = drawn([truth(each) for each in TEMPERATURES], rng)
        found = beside([drawn([truth(temperature)], rng)], [curve])
        wrong += found.over_best.interval()[0] > 0 or found.over_worst.interval()[1] < 0
    # P(more than 11 of 100 at 5 %) is under 1 %.
    assert wrong <= 11


@pytest.mark.parametrize("better_by", [-0.08, 0.08])
def test_what_is_far_from_it_is_told(better_by: float) -> None:
    rng, told = np.random.default_rng(5), 0
    for _ in range(20):
        curve = drawn([truth(each) for each in TEMPERATURES], rng)
        diversity, quality = truth(0.93)
        found = beside([drawn([(diversity, quality + better_by)], rng)], [curve])
        told += found.over_best.interval()[0] > 0 if better_by > 0 else found.over_worst.interval()[1] < 0
    assert told >= 19
