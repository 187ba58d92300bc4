"""Points of several scores that no other point beats in all of them."""

import math
from collections.abc import Sequence

from aigc_lab.config import Better


def front(points: Sequence[Sequence[float]], directions: Sequence[Better]) -> list[int]:
    """Indices of the points on the Pareto front: those that no other equals or betters in all scores and betters in
    one. Equal points are on it together; a point with a score that is not finite never is.

    >>> front([(1.0, 5.0), (2.0, 4.0), (2.0, 6.0)], ("lower", "lower"))
    [0, 1]
    """
    signs = [1.0 if direction == "lower" else -1.0 for direction in directions]
    signed = [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in points]

    def beats(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
        return first != second and all(a <= b for a, b in zip(first, second, strict=True))

    finite = [place for place, point in enumerate(signed) if all(map(math.isfinite, point))]
    return [place for place in finite if not any(beats(signed[other], signed[place]) for other in finite)]
