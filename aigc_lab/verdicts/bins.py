"""Bins in which the mass of real samples is counted: classes, known modes, or clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aigc_lab.statistics.neighbours import assign, distances, k_means
from aigc_lab.verdicts.conclusion import needed

_MOST = 100  # clusters
# Least leave-one-out accuracy of real samples for classes to be used as bins.
ACCURACY = 0.75


@dataclass(frozen=True)
class Bins:
    """Bins of a pool of real vectors: `names` [K], and the bin `of` each vector [m].

    With `centres` [K, d] a vector belongs to the nearest centre, without them to the bin of the real vectors near it.
    `numbers` [K] are the labels of the samples that belong to each bin, None where bins are no classes. `note` explains
    the choice of bins to a reader. `withheld` is the reason why NONE cannot be concluded from them, "" if it can.
    `accuracy` is the share of real samples sorted into their known classes, for bins that are not these classes.
    """

    names: tuple[str, ...]
    of: Tensor
    centres: Tensor | None = None
    noun: tuple[str, str] = ("cluster", "clusters")
    note: str = ""
    withheld: str = ""
    accuracy: float | None = None
    numbers: tuple[int, ...] | None = None

    @classmethod
    def of_labels(cls, labels: Tensor, names: Sequence[str] | None = None) -> Bins:
        """Classes that occur in labels [m]. `names` are those of all classes."""
        present, of = torch.unique(labels, return_inverse=True)
        called = [str(int(each)) if names is None else names[int(each)] for each in present]
        return cls(tuple(called), of, noun=("class", "classes"), numbers=tuple(present.tolist()))

    @classmethod
    def of_centres(cls, pool: Tensor, centres: Tensor, noun: tuple[str, str] = ("mode", "modes")) -> Bins:
        """Known modes with centres [K, d]."""
        names = tuple(str(number) for number in range(len(centres)))
        return cls(names, assign(pool, centres), centres.double(), noun)

    @classmethod
    def of_clusters(cls, pool: Tensor, n: int, apart: Tensor | None = None) -> Bins:
        """K-means clusters, as many as n samples can decide about: n ≥ 8·K·ln(K / 0.05), from 2 to 100.

        The centres are fitted to the real vectors `apart` if given, else to the pool. A cluster with less than half of
        an equal share is dissolved into the others.
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


def predicted_bins(pool: Tensor, of: Tensor, count: int, neighbours: Tensor) -> tuple[Tensor, Tensor | None]:
    """Leave-one-out prediction of the bin of each real vector [m, d]: [m], and the bins' means [count, d] if they
    predict it.

    A vector is classified by the majority of its `neighbours` [m, k], nearest first, or by the nearest mean, whichever
    is right more often. Neighbours suit bins of any form; means are better for few vectors in each of many bins.
    """
    by_votes = voted(of[neighbours])
    sizes = torch.bincount(of, minlength=count).double()
    means = torch.zeros(count, pool.shape[1], dtype=torch.float64).index_add_(0, of, pool)
    means /= sizes[:, None].clamp_min(1)
    # Distance to the mean without the vector itself; a vector alone in its bin has no such mean.
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
    """Most frequent bin of each row [n, k], nearest neighbours first; of two as frequent the nearer."""
    weights = 1 - 0.01 * torch.arange(bins.shape[1], dtype=torch.float64)
    votes = ((bins[:, :, None] == bins[:, None]) * weights).sum(2)
    most: Tensor = bins.gather(1, votes.argmax(1, keepdim=True)).squeeze(1)
    return most


def order_of(vectors: Tensor) -> Tensor:
    """Lexicographic order of the rows [n], which does not depend on the order in which they come."""
    return torch.from_numpy(np.lexsort(vectors.T.flip(0).numpy()))
