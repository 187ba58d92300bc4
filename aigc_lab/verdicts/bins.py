"""What the mass of real samples is counted in: classes, known modes, or clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aigc_lab.neighbours import assign, k_means
from aigc_lab.verdicts.conclusion import needed

_MOST = 100  # clusters


@dataclass(frozen=True)
class Bins:
    """What the mass is counted in: `names` [K], and the bin of each of the pool's vectors [m]. With `centres` [K, d] a
    vector is in the bin whose centre is nearest, without in that which real vectors near it are of. A `note` says why
    it is these and not others, where one would wonder.
    """

    names: tuple[str, ...]
    of: Tensor
    centres: Tensor | None = None
    noun: tuple[str, str] = ("cluster", "clusters")
    note: str = ""

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


def order_of(vectors: Tensor) -> Tensor:
    """An order of the rows that is theirs alone, whatever the order in which they come."""
    return torch.from_numpy(np.lexsort(vectors.T.flip(0).numpy()))
