"""The Pareto front of several objectives. A pure function, no database."""

import math
from collections.abc import Sequence

from aigc_lab.registry.records import Better


def front(points: Sequence[Sequence[float | None]], directions: Sequence[Better]) -> list[bool]:
    """Which points no other point dominates: none is as good in every objective and better in one. Equal points are
    both on the front. A point with a value that is None or not finite is on no front.

    Takes n points [n, objectives] in O(n² · objectives), and sorted by the first objective.

    >>> front([(1.0, 0.2), (2.0, 0.9), (2.0, 0.5), (1.0, None)], ["lower", "higher"])
    [True, True, False, False]
    """
    signs = [1.0 if better == "lower" else -1.0 for better in directions]
    costs = [tuple(_cost(value, sign) for value, sign in zip(point, signs, strict=True)) for point in points]
    kept: list[tuple[float, ...]] = []
    on_front = [False] * len(costs)
    # Whatever dominates a point comes before it in this order, and what is dominated dominates nothing new.
    for index in sorted(range(len(costs)), key=lambda index: costs[index]):
        cost = costs[index]
        if _WORST in cost:
            continue
        if not any(other != cost and all(a <= b for a, b in zip(other, cost, strict=True)) for other in kept):
            on_front[index] = True
            kept.append(cost)
    return on_front


_WORST = math.inf


def _cost(value: float | None, sign: float) -> float:
    return sign * value if value is not None and math.isfinite(value) else _WORST
