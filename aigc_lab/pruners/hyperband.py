"""Hyperband (Li et al. 2018), asynchronously as in ASHA (Li et al. 2020): halving after ever longer stretches."""

import math
import zlib
from collections.abc import Iterator, Sequence

from aigc_lab.config import Better
from aigc_lab.pruners.base import Curve, Pruner

# η: of those that reach a rung one in so many goes on, and the next rung is so many times as far.
_FACTOR = 3


class Hyperband(Pruner):
    """A run stops at a rung unless its value is among the best third of those that have reached the rung, of its system
    and bracket. The first rung is the first evaluation, thrice, nine times … as late in the later brackets; trials fall
    into brackets by their number, in Hyperband's proportions. The rule of Optuna's `HyperbandPruner`, with a resource
    of at least one evaluation.
    """

    reason = "not among the best third of its system at this step"

    def stops(self, run: Curve, others: Sequence[Curve], better: Better) -> bool:
        if not run.values:
            return False
        first, last = min(run.values), max(run.values)
        bracket = self._bracket(run.number, first)
        rivals = [other for other in others if other.values and self._bracket(other.number, first) == bracket]
        return any(
            _falls(run.values[last], [value for rival in rivals if (value := _at(rival, rung)) is not None], better)
            for rung in self._rungs(first, bracket)
            if _reached(run, rung) == last
        )

    def _rungs(self, first: int, bracket: int) -> Iterator[int]:
        """Steps of the rungs of a bracket."""
        rung = first * _FACTOR**bracket
        while rung <= self.steps:
            yield rung
            rung *= _FACTOR

    def _bracket(self, number: int, first: int) -> int:
        """The bracket of a trial; 0 halves earliest and is given most trials."""
        most = math.floor(math.log(max(self.steps / first, 1), _FACTOR) + 1e-9)
        sizes = [math.ceil((most + 1) * _FACTOR**s / (s + 1)) for s in range(most, -1, -1)]
        place = zlib.crc32(f"hyperband_{number}".encode()) % sum(sizes)
        for bracket, size in enumerate(sizes):
            place -= size
            if place < 0:
                return bracket
        raise AssertionError("the sizes add up to more than any place")


def _reached(curve: Curve, rung: int) -> int | None:
    """The first evaluation at a rung or after it."""
    return min((step for step in curve.values if step >= rung), default=None)


def _at(curve: Curve, rung: int) -> float | None:
    """The value with which a run competes at a rung; NaN competes with nobody, for it was stopped."""
    step = _reached(curve, rung)
    return None if step is None or math.isnan(curve.values[step]) else curve.values[step]


def _falls(value: float, rivals: Sequence[float], better: Better) -> bool:
    """Whether a value is not among the best third, of which there is always one."""
    if math.isnan(value):
        return True
    ordered = sorted([*rivals, value], reverse=better == "higher")
    last = ordered[max(len(ordered) // _FACTOR, 1) - 1]
    return value > last if better == "lower" else value < last
