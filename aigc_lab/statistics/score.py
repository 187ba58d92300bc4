"""A score and its floor: a value with its 95 % interval, beside what real samples get at the same n."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from aigc_lab.config import Better

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Score:
    """Value of a metric, its 95 % sampling interval, the floor, and the signature that says how it was computed.

    `floor` is the mean score of draws of real samples of the same n. `floor_sd` is the standard deviation of one draw,
    None if only one could be drawn. If real samples are too few for draws of n, a draw has `floor_n` samples, and
    `at_floor` is the score of as many generated ones: compare the floor with `at_floor` then, not with `value`. Both
    are None if the sizes are equal.

    Scores of different signatures are never ranked together. NumPy numbers are converted to Python's, because a score
    is stored as JSON and in databases. Raises `ValueError` for a value that is no number.

    >>> score = Score("fd", 8.2, 7.9, 8.5, 400, Floor.of([0.9, 1.0, 1.1]), "fd|n:400", "lower")
    >>> score.floor, round(score.floor_sd, 9)
    (1.0, 0.1)
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    floor: float
    signature: str
    better: Better
    floor_sd: float | None = None
    floor_n: int | None = None
    at_floor: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.floor, Floor):
            object.__setattr__(self, "floor_sd", self.floor.sd)
            object.__setattr__(self, "floor_n", self.floor.n)
        for field_name, kind in (("value", float), ("low", float), ("high", float), ("floor", float), ("n", int)):
            value = getattr(self, field_name)
            try:
                object.__setattr__(self, field_name, kind(value))
            except (TypeError, ValueError):
                raise ValueError(f"score {self.name}: {field_name} should be a number, not {value!r}") from None
        for field_name, kind in (("floor_sd", float), ("floor_n", int), ("at_floor", float)):
            value = getattr(self, field_name)
            object.__setattr__(self, field_name, None if value is None else kind(value))


class Floor(float):
    """Score of real samples: the mean over draws.

    `sd` is the standard deviation of one draw, None for a single one. `n` is the size of a draw if it is smaller than
    the number of generated samples, else None.
    """

    sd: float | None
    n: int | None

    @classmethod
    def of(cls, values: Sequence[float], n: int | None = None, overlap: float = 0.0) -> Self:
        """Mean of the values of draws; NaN if one of them is.

        `overlap` is the share of the set that each draw takes. Draws from a finite set vary less than new samples
        would, by √(1 − overlap); the standard deviation is corrected for that.
        """
        import numpy as np

        floor = cls(sum(values) / len(values))
        sd = float(np.std(values, ddof=1)) / math.sqrt(1 - overlap) if len(values) > 1 else math.nan
        floor.sd, floor.n = sd if math.isfinite(sd) else None, n
        return floor

    @classmethod
    def measured(cls, values: Tensor) -> Self:
        """Mean of values [n], one a sample, with its standard error."""
        return cls.known(values.mean().item(), values.std().item() / math.sqrt(len(values)))

    @classmethod
    def known(cls, value: float, error: float) -> Self:
        """Floor of a value and its standard error."""
        floor = cls(value)
        floor.sd, floor.n = error, None
        return floor
