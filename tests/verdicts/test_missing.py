"""How much of the real mass is missing: bounds of all bins together, against what is drawn."""

import itertools
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from scipy import stats

from aigc_lab.verdicts.missing import MASS, decide, least_missing, most_missing

Draw = tuple[list[int], list[float], list[float], float, float]


def quarters(shares: list[float]) -> list[float]:
    return [share / 4 for share in shares]


def drawn(random: np.random.Generator, bins: int, n: int, gone: float, uneven: bool) -> Draw:
    """Counts, real shares, thresholds, and the mass that is missing: below them, and not above them."""
    shares = random.dirichlet(np.full(bins, 3.0 if uneven else 1e6))
    strays = random.uniform(0, 0.2, size=bins) * shares
    factors = np.where(random.uniform(size=bins) < gone, random.choice([0, 0.1, 0.2, 0.25], size=bins), 1.0)
    q = shares * factors + strays * random.choice([0.0, 1.0])
    q = q / q.sum()
    thresholds = shares / 4 + strays
    low, high = float(shares[q < thresholds].sum()), float(shares[q <= thresholds].sum())
    return random.multinomial(n, q).tolist(), shares.tolist(), thresholds.tolist(), low, high


@pytest.mark.parametrize(("bins", "n"), [(8, 200), (50, 400), (1000, 3000), (1000, 12000)])
@pytest.mark.parametrize("uneven", [False, True])
def test_bounds_hold_as_often_as_they_say(bins: int, n: int, uneven: bool) -> None:
    random = np.random.default_rng(bins + n)
    trials, wrong = 160, 0
    for trial in range(trials):
        hits, shares, thresholds, low, high = drawn(random, bins, n, (0.0, 0.1, 0.4, 0.8)[trial % 4], uneven)
        level = 0.05  # so wide that a fault shows
        wrong += least_missing(hits, n, shares, thresholds, level) > low + 1e-12
        wrong += most_missing(hits, n, shares, thresholds, level) < high - 1e-12
    # 320 bounds, each wrong in at most 5 %: three standard errors above it.
    assert wrong <= 320 * 0.05 + 3 * math.sqrt(320 * 0.05 * 0.95)


def test_many_bins_are_told_together_where_none_is_by_itself() -> None:
    random = np.random.default_rng(0)
    bins, n = 1000, 10_000
    shares = [1 / bins] * bins
    for gone, least_at_least, named in ((0.5, 0.25, 0.0), (0.0, 0.0, 0.0)):
        q = np.array(shares)
        q[: round(gone * bins)] = 0
        hits = random.multinomial(n, q / q.sum()).tolist()
        rows: list[dict[str, Any]] = [{"real": 1 / bins, "threshold": 0.25 / bins} for _ in range(bins)]
        decide(rows, hits, n)
        assert sum(row["real"] for row in rows if row["state"] == "missing") == named
        low, high = least_missing(hits, n, shares, quarters(shares)), most_missing(hits, n, shares, quarters(shares))
        assert least_at_least <= low <= gone + 1e-9 <= high + 1e-9
        assert (high <= 0.02) == (gone == 0)


def exact_least(hits: list[int], n: int, share: float, level: float) -> float:
    """The bound for equal bins by the exact tail of independent ones, in place of Chernoff's: it is not below it."""
    bins, bounds = len(hits), []
    for rare in (0.02, 0.1, 0.25):
        few = max([0] + [c for c in range(n // 2) if stats.binom.cdf(c, n, share / 4) <= rare])
        chance, seen = stats.binom.cdf(few, n, share / 4), sum(hit <= few for hit in hits)
        # Were m bins missing, so many of the others would seldom be seen to have few.
        rejected = (m for m in range(bins) if stats.binom.sf(seen - m - 1, bins - m, chance) > level / 3)
        bounds.append(next(rejected, bins) * share)
    return float(max(bounds))


@pytest.mark.parametrize(("bins", "n"), [(40, 300), (100, 2000), (500, 4000)])
def test_the_lower_bound_is_not_above_the_exact_one_and_near_it(bins: int, n: int) -> None:
    random = np.random.default_rng(n)
    for gone in (0.2, 0.5, 0.9):
        q = np.where(np.arange(bins) < gone * bins, 0.0, 1.0)
        hits = random.multinomial(n, q / q.sum()).tolist()
        found, exact = (
            least_missing(hits, n, [1 / bins] * bins, [0.25 / bins] * bins),
            exact_least(hits, n, 1 / bins, MASS),
        )
        assert exact - 0.08 <= found <= exact + 1e-9


def test_the_upper_bound_is_the_exact_tail_of_what_hides_best() -> None:
    """Of few equal bins: were so many missing, the chance that so few of them have few samples is at most the level."""
    bins, n = 60, 400
    share, level = 1 / bins, 0.01
    few = math.floor(n * share / 4)
    chance = stats.binom.cdf(few, n, share / 4)
    for seen in (0, 1, 4, 20):
        hits = [0] * seen + [n // bins] * (bins - seen)
        bound = most_missing(hits, n, [share] * bins, [share / 4] * bins, level)
        exact = next(m for m in itertools.count(seen) if m > bins or stats.binom.cdf(seen, m, chance) <= level)
        assert min(exact - 1, bins) * share <= bound + 1e-9
        assert bound <= min(1.0, (1.35 * exact + 2) * share)


# ---- bins of any share, against all subsets of them


def subsets(values: list[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The sum over every subset, in the order of itertools."""
    return np.array([sum(chosen) for chosen in itertools.product(*((0.0, value) for value in values))])


def uneven(seed: int) -> tuple[list[int], int, list[float], list[float]]:
    random = np.random.default_rng(seed)
    shares, n = random.dirichlet(np.full(9, 0.7)), 120
    shares = np.maximum(shares, 0.004) / np.maximum(shares, 0.004).sum()
    q = np.where(random.uniform(size=9) < 0.5, 0.0, shares)
    q = q / q.sum() if q.any() else shares
    return random.multinomial(n, q).tolist(), n, shares.tolist(), [share / 4 for share in shares]


@pytest.mark.parametrize("seed", range(12))
def test_the_upper_bound_is_that_of_the_subset_that_hides_best(seed: int) -> None:
    """The heaviest of all subsets of which no more would be seen: parts of bins, which the bound allows, add little."""
    hits, n, shares, thresholds = uneven(seed)
    level = 0.3  # by which less than everything may be missing of so few bins
    few = [math.floor(n * least) for least in thresholds]
    chance = [stats.binom.cdf(count, n, least) for count, least in zip(few, thresholds, strict=True)]
    seen = sum(share for share, hit, count in zip(shares, hits, few, strict=True) if hit <= count)
    masses, best = subsets(shares), 1.0
    for lambda_ in np.geomspace(1, 20 / min(shares), 40):
        rates = [-math.log1p(c * math.expm1(-lambda_ * share)) for c, share in zip(chance, shares, strict=True)]
        hidden = subsets(rates) <= lambda_ * seen - math.log(level)
        best = min(best, float(masses[hidden].max()))
    assert best - 1e-9 <= most_missing(hits, n, shares, thresholds, level) <= best + max(shares)


@pytest.mark.parametrize("seed", range(12))
def test_the_lower_bound_is_that_of_the_subset_that_looks_emptiest(seed: int) -> None:
    """The least mass that may be missing, if of the rest the worst of all subsets has few samples by chance."""
    hits, n, shares, thresholds = uneven(seed)
    masses, bounds = subsets(shares), []
    for rare in (0.02, 0.1, 0.25):
        few = [max([0] + [c for c in range(1, n) if stats.binom.cdf(c, n, t) <= rare]) for t in thresholds]
        chance = [stats.binom.cdf(count, n, least) for count, least in zip(few, thresholds, strict=True)]
        seen = sum(share for share, hit, count in zip(shares, hits, few, strict=True) if hit <= count)
        lambdas = np.geomspace(1, 20 / min(shares), 40)
        pairs = list(zip(map(Decimal, chance), shares, strict=True))
        grown = [
            subsets([float((1 - c + c * Decimal(lambda_ * share).exp()).ln()) for c, share in pairs])
            for lambda_ in lambdas
        ]

        def explained(missing: float) -> float:
            there = masses <= 1 - missing + 1e-12
            worst = np.array([each[there].max() for each in grown])  # noqa: B023
            return missing + float(((worst - math.log(MASS / 3)) / lambdas).min())  # noqa: B023

        bounds.append(next((m for m in np.arange(0, 1, 1 / 4096) if explained(m) >= seen), 1.0))
    found = least_missing(hits, n, shares, thresholds)
    assert max(bounds) - max(shares) - 1e-3 <= found <= max(bounds) + 1e-3


def test_no_bin_and_nothing_else_is_missing_of_enough_samples() -> None:
    hits = [100] * 10
    assert least_missing(hits, 1000, [0.1] * 10, [0.025] * 10) == 0.0
    assert most_missing(hits, 1000, [0.1] * 10, [0.025] * 10) < 1.0
    # A bin that real samples never are in has no share to miss.
    assert least_missing([0, *hits], 1000, [0.0, *[0.1] * 10], [0.0, *[0.025] * 10]) == 0.0
    assert most_missing([0, *hits], 1000, [0.0, *[0.1] * 10], [0.0, *[0.025] * 10]) < 1.0
