"""Real samples of a scoring, and the pool of them from which floors are drawn; without torch until samples are read."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from aigc_lab.samples import Samples

    Rows = npt.NDArray[np.int64]

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """Rows of one set of samples, or of several sets in a row; all of them if `rows` is None.

    Samples are only copied when `samples` is read: features of a part are rows of the features of its sets.
    """

    wholes: tuple[Samples, ...]
    rows: Rows | None = None

    def __len__(self) -> int:
        return sum(map(len, self.wholes)) if self.rows is None else len(self.rows)

    @property
    def samples(self) -> Samples:
        """Samples of the part; copied on each access unless the part is one whole set."""
        if self.rows is None and len(self.wholes) == 1:
            return self.wholes[0]
        parts = [whole.take(rows) for whole, rows in self.each()]  # type: ignore[arg-type]
        if len(parts) == 1:
            return parts[0]
        import torch

        label_parts = [each.labels for each in parts]
        labels = None if any(each is None for each in label_parts) else torch.cat(label_parts)  # type: ignore[arg-type]
        return replace(parts[0], values=torch.cat([each.values for each in parts]), labels=labels)

    def each(self) -> Iterator[tuple[Samples, Rows]]:
        """Each set with the selected rows [k], counted from the beginning of that set."""
        import numpy as np

        rows = np.arange(len(self)) if self.rows is None else self.rows
        first = 0
        for whole in self.wholes:
            inside = rows[(rows >= first) & (rows < first + len(whole))]
            yield whole, inside - first
            first += len(whole)


@dataclass(frozen=True)
class Pool:
    """Real samples of which floors are drawn, each draw by its number as the key.

    A draw has at most `most` samples. It is compared with the set `against` or, without one, with `rest` of the samples
    not drawn (None: all of them).
    """

    wholes: tuple[Samples, ...]
    most: int
    rest: int | None = None
    against: Samples | None = None

    def draw(self, number: int, n: int) -> tuple[Part, Part]:
        """Draw `number` of n samples, and the samples that it is compared with."""
        order, count = self._order(number), self.drawn(n)
        rest = Part(self.wholes, order[count:][: self.rest])
        return Part(self.wholes, order[:count]), rest if self.against is None else Part((self.against,))

    def alone(self, number: int, n: int) -> Part:
        """Draw `number` of n samples (all, if there are fewer) for scores of one set, which need nothing to compare
        with.
        """
        return Part(self.wholes, self._order(number)[:n])

    def drawn(self, n: int) -> int:
        """Size of a draw if n samples are asked for."""
        return min(n, self.most)

    @property
    def total(self) -> int:
        """Number of samples in the pool."""
        return sum(map(len, self.wholes))

    def _order(self, number: int) -> Rows:
        import numpy as np

        return np.random.default_rng((self.total, number)).permutation(self.total)


@dataclass(frozen=True)
class Real:
    """Real samples of a scoring.

    `reference` is what generated samples are compared with. `floor` is a second real set, of the generated size if
    there are enough, and `against` is what it is compared with: the reference, or a part of it without samples of the
    floor. `train` are the samples that systems trained on, if known. With a `pool`, `floor` and `against` are the first
    of many draws.
    """

    reference: Samples
    floor: Samples
    against: Samples
    train: Samples | None = None
    pool: Pool | None = None
    #: whether only values are asked for: then no floor is computed
    valued: bool = False
    _computed: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def drawn(cls, reference: Samples, pool: Pool, n: int, train: Samples | None = None) -> Self:
        """Real samples with the pool's first draw of n as the floor."""
        floor, against = pool.draw(0, n)
        return cls(reference, floor.samples, against.samples, train, pool)

    def once(self, what: Hashable, compute: Callable[[], T]) -> T:
        """Value of `compute`, which depends on these samples and on `what` alone: computed at the first call for that
        `what` and shared by all runs of a sweep.
        """
        if what not in self._computed:
            self._computed[what] = compute()
        value: T = self._computed[what]
        return value

    def draws(self, count: int, n: int) -> Iterator[tuple[Part, Part]]:
        """`count` draws of n samples, each with the samples that it is compared with.

        There is one draw without a pool, and one if a draw is the whole pool.
        """
        if self.pool is None:
            yield Part((self.floor,)), Part((self.against,))
            return
        one = self.pool.against is not None and self.pool.drawn(n) == self.pool.total
        for number in range(1 if one else count):
            yield self.pool.draw(number, n)

    def alone(self, count: int, n: int) -> Iterator[Part]:
        """`count` sets of n real samples for scores of one set; one set without a pool, or if n is all of the pool."""
        if self.pool is None:
            yield Part((self.floor,))
            return
        for number in range(1 if n >= self.pool.total else count):
            yield self.pool.alone(number, n)
