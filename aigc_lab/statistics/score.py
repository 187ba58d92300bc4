"""A score and its floor: a value with its 95 % interval, beside what real samples get at the same n."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from aigc_lab.config import Better
from aigc_lab.host import notebook
from aigc_lab.statistics.wording import floor_text, measured, only_describes, with_arrow

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Score:
    """Value of a metric, its 95 % sampling interval, the floor, and the signature that says how it was computed.

    `floor` is the mean score of draws of real samples of the same n. `floor_sd` is the standard deviation of one draw,
    None if only one could be drawn. If real samples are too few for draws of n, a draw has `floor_n` samples, and
    `at_floor` is the score of as many generated ones: compare the floor with `at_floor` then, not with `value`. Both
    are None if the sizes are equal. `of_class` names the class that a score of the worst class is of, None for others.

    Scores of different signatures are never ranked together. NumPy numbers are converted to Python's, because a score
    is stored as JSON and in databases. Raises `ValueError` for a value that is no number.

    >>> score = Score("fd", 8.2, 7.9, 8.5, 400, Floor.of([0.9, 1.0, 1.1]), "fd|n:400", "lower")
    >>> score.floor, round(score.floor_sd, 9)
    (1.0, 0.1)
    >>> score
    Score(fd 8.2 [7.9, 8.5], n 400, floor 1 ± 0.1, lower is better)
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
    of_class: str | None = None

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

    def __repr__(self) -> str:
        """One line; the signature is left out for its length."""
        return self.text()

    def text(self, describing: Container[str] = ()) -> str:
        """The line of `repr`; a score that only describes, as those in `describing` do, is said without a direction."""
        directed = not (only_describes(self.name) or self.name in describing)
        better = f", {self.better} is better" if directed else ""
        return f"Score({self.name} {measured(vars(self))}, n {self.n}, floor {floor_text(vars(self))}{better})"

    def _repr_html_(self) -> str:
        return Scores([self])._repr_html_()


class Scores(list[Score]):
    """Scores in the order of their metrics, shown as a table in a notebook. `pandas.DataFrame` takes them as rows.

    `left_out` holds the metrics of a default set that could not be computed, each with the reason, and `describing` the
    names of scores of which neither more nor less is better.

    >>> Scores([Score("fd", 8.2, 7.9, 8.5, 400, 1.0, "fd|n:400", "lower")], {"fid": "needs 2,048 samples"})
    [Score(fd 8.2 [7.9, 8.5], n 400, floor 1, lower is better)]
    left out: fid (needs 2,048 samples)
    """

    def __init__(
        self,
        scores: Iterable[Score] = (),
        left_out: Mapping[str, str] | None = None,
        describing: Iterable[str] = (),
    ) -> None:
        super().__init__(scores)
        self.left_out = dict(left_out or {})
        self.describing = frozenset(describing)

    def __repr__(self) -> str:
        left_out = [f"left out: {name} ({reason})" for name, reason in self.left_out.items()]
        return "\n".join(["[" + ",\n ".join(each.text(self.describing) for each in self) + "]", *left_out])

    def _repr_html_(self) -> str:
        rows = [
            (
                with_arrow(each.name, each.better, self.describing),
                measured(vars(each)),
                str(each.n),
                floor_text(vars(each)),
            )
            for each in self
        ]
        signatures = [f"{each.name}: {each.signature}" for each in self]
        left_out = [f"left out: {name} ({reason})" for name, reason in self.left_out.items()]
        return notebook.table(("score", "value [95 %]", "n", "floor"), rows, [*signatures, *left_out])


def unscored_row(left_out: tuple[str, str]) -> dict[str, Any]:
    """The row of a metric that was left out: its `name`, the reason as `left_out`, and None for all else."""
    nothing = dict.fromkeys(field.name for field in fields(Score))
    return {**nothing, "name": left_out[0], "left_out": left_out[1]}


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
