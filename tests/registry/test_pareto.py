"""The Pareto front against its definition, spelt out."""

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from aigc_lab.registry.pareto import front
from aigc_lab.registry.records import Better

Point = tuple[float | None, ...]
# Few different values, so that points tie and equal one another.
VALUES = st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.5, math.inf, -math.inf, math.nan, None])


def by_definition(points: Sequence[Point], directions: Sequence[Better]) -> list[bool]:
    def cost(point: Point) -> list[float]:
        signed = zip(point, directions, strict=True)
        return [math.inf if v is None or not math.isfinite(v) else v if d == "lower" else -v for v, d in signed]

    def dominates(a: list[float], b: list[float]) -> bool:
        pairs = list(zip(a, b, strict=True))
        return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

    costs = [cost(point) for point in points]
    return [math.inf not in mine and not any(dominates(other, mine) for other in costs) for mine in costs]


@given(st.data(), st.integers(1, 4))
def test_the_front_is_what_nothing_dominates(data: st.DataObject, objectives: int) -> None:
    directions = data.draw(st.lists(st.sampled_from(["lower", "higher"]), min_size=objectives, max_size=objectives))
    points = data.draw(st.lists(st.tuples(*[VALUES] * objectives), max_size=12))
    assert front(points, directions) == by_definition(points, directions)  # type: ignore[arg-type]


def test_one_objective_has_the_best_alone() -> None:
    assert front([(2.0,), (1.0,), (1.0,), (None,)], ["lower"]) == [False, True, True, False]
    assert front([], ["lower", "higher"]) == []
