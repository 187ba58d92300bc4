"""Points that nothing beats."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from aigc_lab.registry.pareto import front


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    on = front(points, ("lower", "higher"))
    for place, (x, y) in enumerate(points):
        beaten = any((a < x and b >= y) or (a <= x and b > y) for a, b in points)
        assert (place in on) != beaten


def test_what_has_no_score_is_on_no_front() -> None:
    assert front([(math.inf, 1.0), (2.0, math.nan), (3.0, 3.0)], ("lower", "lower")) == [2]
