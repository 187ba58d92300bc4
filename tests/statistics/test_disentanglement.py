"""MIG, SAP and DCI on codes whose answer is known: the factors themselves, a rotation of two of them, and noise."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mutual_info_score

from aigc_lab.statistics.disentanglement import BINS, Coded, Numbers, dci, mig, sap

N, F = 10_000, 6
NOMINAL = (True, *(False,) * 5)
RANDOM = np.random.default_rng(0)
CONTINUOUS = np.column_stack([RANDOM.integers(4, size=N).astype(float), RANDOM.random((N, 5))])
DISCRETE = np.column_stack([RANDOM.integers(size, size=N) for size in (4, 16, 16, 6, 10, 8)]).astype(float)
FACTORS = {
    "continuous": (CONTINUOUS, (4, None, None, None, None, None)),
    "discrete": (DISCRETE, (4, 16, 16, 6, 10, 8)),
}
either = pytest.mark.parametrize("kind", FACTORS)


def coded(kind: str, codes: Numbers) -> Coded:
    factors, sizes = FACTORS[kind]
    return Coded(codes, factors, sizes, NOMINAL)


def halves(whole: Coded, n: int = 1500) -> tuple[Coded, Coded]:
    return whole.take(np.arange(n)), whole.take(np.arange(n, 2 * n))


def rotated(factors: Numbers) -> Numbers:
    """x and y turned by 45°."""
    codes, (x, y) = factors.copy(), (factors[:, 1], factors[:, 2])
    codes[:, 1], codes[:, 2] = (x + y) / math.sqrt(2), (x - y) / math.sqrt(2)
    return codes


@either
def test_the_factors_themselves_are_perfect_codes(kind: str) -> None:
    """In any order, scale and sign, and with latents beside them that carry nothing."""
    factors = FACTORS[kind][0]
    useless = np.random.default_rng(1).normal(size=(N, 3))
    codes = np.column_stack([useless, -3 * factors[:, ::-1] + 5, np.zeros(N)])
    whole = coded(kind, codes)
    assert mig(whole) == pytest.approx(1, abs=0.01)
    assert sap(whole) == pytest.approx(1, abs=0.02)
    assert dci(*halves(whole)) == pytest.approx((1, 1, 1), abs=0.01)


@either
def test_a_rotation_of_two_factors_costs_their_share(kind: str) -> None:
    """Each of two latents tells half of x and half of y: no gap for them, and shares of importance ½ and ½, whose
    entropy is ln 2 of at most ln 6. Together they still tell all.
    """
    whole = coded(kind, rotated(FACTORS[kind][0]))
    assert mig(whole) == pytest.approx((F - 2) / F, abs=0.015)
    assert sap(whole) == pytest.approx((F - 2) / F, abs=0.015)
    expected = 1 - 2 / F * math.log(2) / math.log(F)
    assert dci(*halves(whole)) == pytest.approx((expected, expected, 1), abs=0.02)


def test_two_latents_of_all_rotated_are_not_disentangled() -> None:
    """Two factors, two latents at 45°: nothing is left."""
    factors = CONTINUOUS[:, 1:3]
    codes = rotated(CONTINUOUS)[:, 1:3]
    whole = Coded(codes, factors, (None, None), (False, False))
    assert mig(whole) < 0.02
    assert sap(whole) < 0.03
    first, second, told = dci(*halves(whole))
    assert first < 0.05
    assert second < 0.05
    assert told > 0.98


@either
def test_noise_gets_what_chance_gives(kind: str) -> None:
    whole = coded(kind, np.random.default_rng(2).normal(size=(N, 8)))
    order = np.random.default_rng(3).permutation(N)
    for measure in (mig, sap):
        assert measure(whole) < 0.01
        assert measure(coded(kind, FACTORS[kind][0]).mismatched(order)) < 0.01
    assert max(dci(*halves(whole))) < 0.03
    nothing = coded(kind, np.zeros((N, 8)))
    assert mig(nothing) == sap(nothing) == 0
    assert dci(*halves(nothing)) == (0, 0, 0)


def test_disentangled_is_not_complete() -> None:
    """One factor in two latents, halves of its range each: both are of use for it alone, and none suffices. One latent
    for two factors: the other way round.
    """
    x, y = CONTINUOUS[:, 1], CONTINUOUS[:, 2]
    factors = np.column_stack([x, y])
    split = np.column_stack([np.minimum(x, 0.5), np.maximum(x, 0.5), y])
    disentangled, complete, told = dci(*halves(Coded(split, factors, (None, None), (False, False))))
    assert disentangled > 0.99
    assert told > 0.99
    assert complete < 0.8
    both = np.column_stack([np.floor(8 * x) + y, np.random.default_rng(4).normal(size=N)])
    disentangled, complete, _ = dci(*halves(Coded(both, factors, (None, None), (False, False))))
    assert complete > 0.8
    assert disentangled < 0.2


def test_mig_is_that_of_the_histograms() -> None:
    """Against scikit-learn's mutual information of the same bins, by the definition, of codes that tell a little."""
    random = np.random.default_rng(5)
    codes = DISCRETE @ random.normal(size=(F, 4)) + random.normal(size=(N, 4))
    edges = [np.linspace(column.min(), column.max(), BINS + 1)[1:-1] for column in codes.T]
    bins = [np.digitize(column, edge) for column, edge in zip(codes.T, edges, strict=True)]
    gaps = []
    for factor in DISCRETE.T:
        second, first = sorted(mutual_info_score(factor, column) for column in bins)[-2:]
        gaps.append((first - second) / mutual_info_score(factor, factor))
    assert mig(coded("discrete", codes)) == pytest.approx(np.mean(gaps), abs=1e-9)


def test_sap_is_that_of_lines_and_thresholds() -> None:
    """Lines against scikit-learn's; thresholds against a code that tells two of four classes: 3 of 4 classes' worth
    are right at most as (1 + 1 + ½ + ½) / 4.
    """
    random = np.random.default_rng(6)
    x = CONTINUOUS[:, 1]
    codes = np.column_stack([x + random.normal(size=N), x + 2 * random.normal(size=N), random.normal(size=N)])
    second, first = sorted(LinearRegression().fit(code[:, None], x).score(code[:, None], x) for code in codes.T)[-2:]
    assert sap(Coded(codes, x[:, None], (None,), (False,))) == pytest.approx(first - second, abs=1e-9)
    classes = CONTINUOUS[:, :1]
    partly = np.column_stack([np.minimum(classes[:, 0], 2), np.zeros(N)])
    assert sap(Coded(partly, classes, (4,), (True,))) == pytest.approx((3 - 1) / 3, abs=1e-9)
