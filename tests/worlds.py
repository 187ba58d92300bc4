"""Samples of which the truth is known, and their judges: what tests of the collapse verdict share."""

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.data.ring import Ring
from aigc_lab.verdicts.bins import Bins
from aigc_lab.verdicts.collapse import Judge
from aigc_lab.verdicts.conclusion import Collapse, CollapseVerdict

FOUND = {Collapse.PARTIAL, Collapse.SEVERE, Collapse.TOTAL}
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")
SPLITS = 40  # enough for medians; the nulls are most of the time


class World(NamedTuple):
    """A mixture of known classes: what is drawn of it is honest."""

    centres: Tensor
    judge: Judge

    def draw(self, n: int, *key: int | str, of: tuple[int, ...] | None = None, spread: float = 1.0) -> Tensor:
        """n samples, of some of the classes only, each as wide as `spread` says."""
        return self.labelled(n, *key, of=of, spread=spread)[0]

    def labelled(
        self, n: int, *key: int | str, of: tuple[int, ...] | None = None, spread: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        return mixture(self.centres, n, *key, of=of, spread=spread)


def mixture(
    centres: Tensor, n: int, *key: int | str, of: tuple[int, ...] | None = None, spread: float = 1.0
) -> tuple[Tensor, Tensor]:
    source = noise.generator("world", *key)
    allowed = torch.tensor(of if of is not None else tuple(range(len(centres))))
    labels = allowed[torch.randint(len(allowed), (n,), generator=source)]
    return centres[labels] + spread * torch.randn((n, centres.shape[1]), generator=source), labels


def made_world(classes: int, width: int, pool: int, names: tuple[str, ...] | None = None) -> World:
    centres = 5 * torch.randn((classes, width), generator=noise.generator("centres", classes, width)) / math.sqrt(2)
    vectors, labels = mixture(centres, pool, "pool")
    return World(centres, Judge(vectors, Bins.of_labels(labels, names), "world", splits=SPLITS))


@cache
def world() -> World:
    """Six classes in eight dimensions; 400 samples are enough by far (230 decide)."""
    return made_world(6, 8, 1600, NAMES)


@cache
def ring() -> tuple[Tensor, Judge]:
    """Samples of the ring, and their judge by its modes."""
    data = Ring(Ring.Config(), Path())
    pool = data.load("reference").values[:1600]
    judge = Judge(pool, Bins.of_centres(pool, data.modes.centres), "ring", splits=SPLITS)
    return data.load("train").values, judge


def judged_of(made: Tensor) -> CollapseVerdict:
    return world().judge.judge(made)


def missing(verdict: CollapseVerdict) -> set[str]:
    return {row["name"] for row in verdict.bins if row["state"] == "missing"}
