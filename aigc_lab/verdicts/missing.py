"""Missing bins of a generator, and their share of the real mass: from counts, with exact bounds.

A bin is missing if the generator gives it less than its threshold: a quarter of what real samples give it, beyond what
strays into it anyway. Each bin is decided by itself where n allows that. Where there are many bins and each gets few
samples, what they hold together is bounded: which of them are missing is then not known, and how much is.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aigc_lab.statistics.intervals import clopper_pearson
from aigc_lab.verdicts.states import MISSING, PRESENT, UNDECIDED

# All that is said holds together with 95 %: the bins' part of what may go wrong, and those of the mass's bounds.
BINS, MASS = 0.04, 0.005
# A bin that is hardly there is taken for an empty one this often, where n allows.
_RARE = (0.02, 0.1, 0.25)

Floats = npt.NDArray[np.float64]


def decide(rows: list[dict[str, Any]], hits: Sequence[int], n: int) -> None:
    """Adds to each row the bounds `low` and `high` of its share, which hold together (Clopper–Pearson, Bonferroni), and
    its `state`, by such bounds at Holm's levels, the clearest bin first.

    `rows` hold the `threshold` of each bin; `hits` [K] are the counts of n samples.
    """

    def state(level: float, row: dict[str, Any], hit: int) -> str:
        low, high = clopper_pearson(hit, n, level)
        return MISSING if high < row["threshold"] else PRESENT if low > row["threshold"] else UNDECIDED

    for row, hit in zip(rows, hits, strict=True):
        row["low"], row["high"] = clopper_pearson(hit, n, BINS / len(rows))
        row["state"] = UNDECIDED
    order = sorted(range(len(rows)), key=lambda at: _tail(hits[at], n, rows[at]["threshold"]))
    for place, at in enumerate(order):
        rows[at]["state"] = state(BINS / (len(rows) - place), rows[at], hits[at])
        if rows[at]["state"] == UNDECIDED:
            return  # Holm stops at the first that is not clear


def _tail(hit: int, n: int, share: float) -> float:
    """Binomial probability of a count as extreme, given the share: the smaller of both tails."""
    from scipy.special import betainc

    share = min(max(share, 1e-12), 1 - 1e-12)
    above = 1.0 if hit == 0 else float(betainc(hit, n - hit + 1, share))
    below = 1.0 if hit >= n else float(betainc(n - hit, hit + 1, 1 - share))
    return min(above, below)


def least_missing(
    hits: Sequence[int], n: int, shares: Sequence[float], thresholds: Sequence[float], level: float = MASS
) -> float:
    """Lower bound of the mass of all missing bins together, too high with probability at most `level`.

    It is the mass of the bins with few samples, less the part that present bins hold of it by chance. Counts of one
    sample are negatively associated (Joag-Dev & Proschan 1983), so Chernoff's bound for independent ones holds. The
    strength of the bound depends on the definition of few: several are tried, each at its part of the level.
    """
    p, count, allowed = _real(hits, shares, thresholds)
    if not len(p):
        return 0.0
    return max(_least(p, count, n, allowed, _most_below(n, allowed, rare), level / len(_RARE)) for rare in _RARE)


def _least(p: Floats, count: Floats, n: int, allowed: Floats, few: Floats, level: float) -> float:
    """Bound by the bins with at most `few` samples each. Were a mass M missing, bins of the other 1 − M could be among
    them.
    """
    lambdas = _lambdas(p)
    chance_of = _at_most(few, n, allowed)
    with np.errstate(divide="ignore"):  # what is never, or always, has a logarithm of −∞ beside it
        by_chance = np.logaddexp(np.log1p(-chance_of), np.log(chance_of) + lambdas[:, None] * p)
    order = np.argsort(-by_chance / p, axis=1)
    mass = np.insert(np.cumsum(p[order], axis=1), 0, 0.0, axis=1)
    chance = np.insert(np.cumsum(np.take_along_axis(by_chance, order, axis=1), axis=1), 0, 0.0, axis=1)
    seen = float(p[count <= few].sum())

    def explained(missing: float) -> float:
        """Largest mass that would be seen to have few samples, were `missing` of it missing."""
        there = [np.interp(1 - missing, *each) for each in zip(mass, chance, strict=True)]
        return missing + float(((np.array(there) - np.log(level)) / lambdas).min())

    low, high = 0.0, 1.0  # `explained` rises
    if explained(low) >= seen:
        return 0.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if explained(middle) >= seen else (middle, high)
    return low


def most_missing(
    hits: Sequence[int], n: int, shares: Sequence[float], thresholds: Sequence[float], level: float = MASS
) -> float:
    """Upper bound of the mass of all missing bins together, too low with probability at most `level`.

    At least half of the missing bins have few samples: were there more missing bins, more would be seen to have few.
    The bound is taken over the bins that are hardest to see, so it holds for any.
    """
    p, count, allowed = _real(hits, shares, thresholds)
    if not len(p):
        return 0.0
    few = np.floor(n * allowed)
    chance = _at_most(few, n, allowed)
    seen = float(p[count <= few].sum())
    bound = float(p.sum())
    for lambda_ in _lambdas(p):
        rates = -np.log1p(chance * np.expm1(-lambda_ * p))
        order = np.argsort(rates / p)
        exponent, mass = np.cumsum(rates[order]), np.cumsum(p[order])
        target = lambda_ * seen - np.log(level)
        at = int(np.searchsorted(exponent, target))
        if at < len(p):
            before = exponent[at - 1] if at else 0.0
            part = (target - before) / rates[order][at]
            bound = min(bound, float((mass[at - 1] if at else 0.0) + part * p[order][at]))
    return bound


def _real(hits: Sequence[int], shares: Sequence[float], thresholds: Sequence[float]) -> tuple[Floats, Floats, Floats]:
    """Shares, counts and thresholds of the bins with real samples."""
    p, count, allowed = (np.asarray(each, dtype=np.float64) for each in (shares, hits, thresholds))
    return p[p > 0], count[p > 0], allowed[p > 0]


def _at_most(count: Floats, n: int, share: Floats) -> Floats:
    """P(X ≤ count) of a binomial X."""
    from scipy.special import bdtr

    probability: Floats = np.asarray(bdtr(count, n, np.clip(share, 0, 1)))
    return probability


def _most_below(n: int, share: Floats, rare: float) -> Floats:
    """Largest count that a bin of that share stays at or below with probability at most `rare`; 0 if there is none."""
    few = np.zeros(len(share))
    while True:
        more = few + 1
        good = (more < n) & (_at_most(more, n, share) <= rare)
        if not good.any():
            return few
        few = np.where(good, more, few)


def _lambdas(shares: Floats) -> Floats:
    """Parameters of Chernoff's bound: it holds for any, and is tightest at about 1 over a bin's share."""
    return np.geomspace(1, 20 / float(shares.min()), 40)
