"""What the mass of real samples is counted in: classes, known modes, or clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aigc_lab.statistics.neighbours import assign, distances, k_means
from aigc_lab.verdicts.conclusion import needed

_MOST = 100  # clusters
# Of real samples so many must be sorted into their classes by the features, for a verdict to be about classes.
ACCURACY = 0.75


@dataclass(frozen=True)
class Bins:
    """What the mass is counted in: `names` [K], and the bin of each of the pool's vectors [m]. With `centres` [K, d] a
    vector is in the bin whose centre is nearest, without in that which real vectors near it are of. A `note` says why
    it is these and not others, where one would wonder; `withheld` why bins that are all there do not show that nothing
    is missing, where they do not. `accuracy` is the share of real samples that are sorted into the known classes, where
    these are no bins for it.
    """

    names: tuple[str, ...]
    of: Tensor
    centres: Tensor | None = None
    noun: tuple[str, str] = ("cluster", "clusters")
    note: str = ""
    withheld: str = ""
    accuracy: float | None = None

    @classmethod
    def of_labels(cls, labels: Tensor, names: Sequence[str] | None = None) -> Bins:
        """The classes that occur. `names` are those of all classes."""
        present, of = torch.unique(labels, return_inverse=True)
        called = [str(int(each)) if names is None else names[int(each)] for each in present]
        return cls(tuple(called), of, noun=("class", "classes"))

    @classmethod
    def of_centres(cls, pool: Tensor, centres: Tensor, noun: tuple[str, str] = ("mode", "modes")) -> Bins:
        """Known modes."""
        names = tuple(str(number) for number in range(len(centres)))
        return cls(names, assign(pool, centres), centres.double(), noun)

    @classmethod
    def of_clusters(cls, pool: Tensor, n: int, apart: Tensor | None = None) -> Bins:
        """K-means clusters of other real vectors than the pool's where these are known, as many as n samples can decide
        about: n ≥ 8·K·ln(K / 0.05), from 2 to 100. One with less than half of what equal ones would have is given up,
        and its vectors go to the others.
        """
        count = next(k for k in range(_MOST, 1, -1) if k == 2 or n >= needed(k))
        clustered = pool if apart is None else apart
        centres = k_means(clustered[order_of(clustered.double())], count)
        while True:
            sizes = torch.bincount(assign(pool, centres), minlength=len(centres))
            smallest = int(sizes.argmin())
            if len(centres) == 2 or n * int(sizes[smallest]) / len(pool) >= needed(len(centres)) / len(centres) / 2:
                return cls.of_centres(pool, centres, ("cluster", "clusters"))
            centres = torch.cat([centres[:smallest], centres[smallest + 1 :]])


def told(pool: Tensor, of: Tensor, count: int, neighbours: Tensor) -> tuple[Tensor, Tensor | None]:
    """The bin that each real vector [m, d] is taken for by the others [m]: that of most of its `neighbours` [m, k],
    nearest first, or that with the nearest mean, whichever is right more often; and the means [count, d], if it is
    these. Neighbours tell bins of any form; of few vectors in each of many bins means tell more.
    """
    by_votes = voted(of[neighbours])
    sizes = torch.bincount(of, minlength=count).double()
    means = torch.zeros(count, pool.shape[1], dtype=torch.float64).index_add_(0, of, pool)
    means /= sizes[:, None].clamp_min(1)
    # Without itself; one that is alone has no mean.
    own = (pool - means[of]).norm(dim=1) * sizes[of] / (sizes[of] - 1).clamp_min(1)
    own = own.masked_fill(sizes[of] == 1, torch.inf)
    by_means = torch.empty_like(of)
    for rows, squared in distances(pool, means):
        squared[torch.arange(len(squared)), of[rows]] = own[rows].square()
        by_means[rows] = squared.argmin(1)
    if (by_means == of).sum() > (by_votes == of).sum():
        return by_means, means
    return by_votes, None


def voted(bins: Tensor) -> Tensor:
    """The most frequent bin of each row [n, k], nearest neighbours first; of two as frequent the nearer."""
    weights = 1 - 0.01 * torch.arange(bins.shape[1], dtype=torch.float64)
    votes = ((bins[:, :, None] == bins[:, None]) * weights).sum(2)
    most: Tensor = bins.gather(1, votes.argmax(1, keepdim=True)).squeeze(1)
    return most


def order_of(vectors: Tensor) -> Tensor:
    """An order of the rows that is theirs alone, whatever the order in which they come."""
    return torch.from_numpy(np.lexsort(vectors.T.flip(0).numpy()))
