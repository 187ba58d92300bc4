"""What a conditional system draws for each class that it is asked for: that class or another, and how varied.

The verdict on collapse counts all samples in bins, whatever they were asked for: a system that draws an 8 for a 3 and a
3 for an 8 has collapsed nowhere. It stays as it is, and what is found here is said beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aigc_lab.statistics.intervals import clopper_pearson
from aigc_lab.verdicts.asked_words import MOST, words
from aigc_lab.verdicts.bins import order_of
from aigc_lab.verdicts.collapse import Judge
from aigc_lab.verdicts.conclusion import CollapseVerdict
from aigc_lab.verdicts.states import DRAWN, NARROW, ONE, OTHER, UNMEASURED, UNTOLD, VARIED

_ALPHA = 0.05
# As for the bins of the verdict: less of real samples' diversity is narrow, and this little above one sample's is one.
_HALF, _TENTH = 0.5, 0.1


def asked(judge: Judge, vectors: Tensor, labels: Tensor) -> list[dict[str, Any]] | None:
    """A row for each class that vectors [n, d] were asked for as, by `labels` [n]; None where the bins of the judge are
    no classes.

    `drawn` is the share that is sorted into the class, with bounds `low` and `high` that hold for all classes together
    (Clopper–Pearson, Bonferroni), beside the share `real` of the class's real samples; `mostly` is the class that most
    are sorted into, and `mostly_share` its share. `diversity` is that of all samples of the class beside as many real
    ones, with bounds, None for fewer than ten. A class that has no real samples is left out.
    """
    if judge.bins.numbers is None:
        return None
    bin_of = {number: place for place, number in enumerate(judge.bins.numbers)}
    numbers = [number for number in torch.unique(labels).tolist() if number in bin_of]
    return [_row(judge, vectors[labels == number].double(), bin_of[number], len(numbers)) for number in numbers]


def _row(judge: Judge, vectors: Tensor, own: int, count: int) -> dict[str, Any]:
    """Row of one of `count` classes from its vectors [k, d]."""
    names, n = judge.bins.names, len(vectors)
    vectors = vectors[order_of(vectors)]
    hits = torch.bincount(judge.bins_of(vectors), minlength=len(names))
    mostly, real = int(hits.argmax()), float(judge.recognised[own])
    low, high = clopper_pearson(int(hits[own]), n, _ALPHA / count)
    drawn = OTHER if high < MOST * real else DRAWN if low > MOST * real else UNTOLD
    diversity = judge.diversity(names[own], vectors, judge.pool[judge.bins.of == own], count)
    variety = UNMEASURED
    if diversity is not None:
        least = diversity.least
        flat = diversity.high - least < _TENTH * (1 - least)
        narrow, varied = diversity.high < _HALF, diversity.low >= _HALF
        variety = ONE if flat else NARROW if narrow else VARIED if varied else UNMEASURED
    return {
        "name": names[own],
        "n": n,
        "drawn": int(hits[own]) / n,
        "low": low,
        "high": high,
        "real": real,
        "mostly": names[mostly],
        "mostly_share": int(hits[mostly]) / n,
        "state": drawn,
        "diversity": diversity and diversity.value,
        "diversity_low": diversity and diversity.low,
        "diversity_high": diversity and diversity.high,
        "variety": variety,
    }


def with_asked(verdict: CollapseVerdict, rows: Sequence[Mapping[str, Any]] | None) -> CollapseVerdict:
    """The verdict with what was drawn for each class that was asked for, and its sentence at the end of the reason.
    Nothing is said of samples of which too few look real.
    """
    if not rows:
        return verdict
    said = words(verdict.verdict, rows)
    reason = f"{verdict.reason}; {said}" if said else verdict.reason
    return replace(verdict, asked=[dict(row) for row in rows], reason=reason)
