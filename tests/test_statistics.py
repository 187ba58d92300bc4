"""Distances and intervals against pytorch-fid, closed forms, and repeated draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_fid.fid_score import calculate_frechet_distance
from scipy.stats import binom
from torch import Tensor

from aigc_lab.statistics import (
    _distance_of_picks,
    binomial_tail,
    bootstrap_standard_error,
    clopper_pearson,
    frechet_distance,
    frechet_standard_error,
    moments,
)


def draws(rows: int, dimensions: int, seed: int, scale: float = 1.0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dimensions, generator=source, dtype=torch.float64) * scale


def mixed(rows: int, dimensions: int, seed: int) -> Tensor:
    """Correlated features of unequal scales around a mean that is not zero."""
    mixing = draws(dimensions, dimensions, 1000 + seed) / math.sqrt(dimensions)
    return draws(rows, dimensions, seed) @ mixing + draws(1, dimensions, 2000 + seed)


def reference(a: Tensor, b: Tensor) -> float:
    """pytorch-fid's distance from numpy's moments."""
    first, second = a.double().numpy(), b.double().numpy()
    return float(
        calculate_frechet_distance(
            first.mean(0), np.cov(first, rowvar=False), second.mean(0), np.cov(second, rowvar=False)
        )
    )


def test_moments_are_numpys() -> None:
    x = mixed(50, 6, 1)
    mean, covariance = moments(x)
    np.testing.assert_allclose(mean, x.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-12)
    assert moments(draws(20, 1, 1))[1].shape == (1, 1)


def test_the_frechet_distance_is_pytorch_fids() -> None:
    a, b = mixed(400, 16, 1), mixed(300, 16, 2)
    assert frechet_distance(a, b) == pytest.approx(reference(a, b), rel=1e-9)
    assert frechet_distance(a.float(), b.float()) == pytest.approx(reference(a.float(), b.float()), rel=1e-9)


@pytest.mark.parametrize(("first", "second"), [(20, 24), (20, 200), (200, 20)])
def test_with_fewer_rows_than_dimensions_it_is_still_pytorch_fids(first: int, second: int) -> None:
    a, b = mixed(first, 64, 1), mixed(second, 64, 2)
    # The reference takes the root of a singular product: its own error is about 1e-6 here.
    assert frechet_distance(a, b) == pytest.approx(reference(a, b), rel=1e-5)


def test_both_branches_agree_where_they_meet() -> None:
    # A dimension of zeros changes neither moments nor distance, but it makes more dimensions than rows.
    a, b = mixed(30, 29, 1), mixed(30, 29, 2)
    padded = [torch.cat([x, torch.zeros(30, 5, dtype=torch.float64)], 1) for x in (a, b)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_features_that_never_vary_do_not_matter() -> None:
    a, b = mixed(100, 8, 1), mixed(100, 8, 2)
    padded = [torch.cat([x, torch.full((100, 3), 2.0, dtype=torch.float64)], 1) for x in (a, b)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(a, b), rel=1e-6)


@pytest.mark.parametrize("rows", [10, 200])
def test_a_shift_costs_its_square(rows: int) -> None:
    a, shift = mixed(rows, 16, 1), draws(1, 16, 7)
    assert frechet_distance(a, a + shift) == pytest.approx(shift.square().sum().item(), rel=1e-9)


@pytest.mark.parametrize("rows", [10, 200])
def test_a_scaling_costs_its_square_of_the_variance(rows: int) -> None:
    a = mixed(rows, 16, 1)
    a -= a.mean(0)
    total = a.square().sum().item() / (rows - 1)
    assert frechet_distance(a, 3 * a) == pytest.approx((3 - 1) ** 2 * total, rel=1e-9)


@pytest.mark.parametrize("rows", [10, 16, 17, 200])
def test_a_set_is_at_no_distance_from_itself(rows: int) -> None:
    a = mixed(rows, 16, 1)
    assert 0 <= frechet_distance(a, a) < 1e-9
    assert 0 <= frechet_distance(a, a[torch.randperm(rows, generator=torch.Generator().manual_seed(0))]) < 1e-9


def test_it_is_symmetric_and_never_negative() -> None:
    for seed in range(10):
        a, b = mixed(30, 8, seed), mixed(12, 8, seed)
        assert frechet_distance(a, b) >= 0
        assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


@pytest.mark.parametrize(
    ("n", "m", "d", "over"), [(200, 300, 4, 1.35), (400, 100, 16, 1.35), (24, 40, 60, 1.35), (200, 24, 60, 2.7)]
)
def test_the_standard_error_is_the_spread_over_independent_draws(n: int, m: int, d: int, over: float) -> None:
    """Never less than the truth by more than a factor of 1.35, of which the empirical spread (200 draws) may take 1.15.

    With few rows against many it is too large, by 2.3 at 24 × 200 rows of 60 dimensions: the interval is then too wide.
    """

    def pair(seed: int) -> tuple[Tensor, Tensor]:
        return draws(n, d, 2 * seed, 1.5) + 0.5, draws(m, d, 2 * seed + 1)

    empirical = torch.tensor([frechet_distance(*pair(seed)) for seed in range(200)]).std().item()
    estimates = [frechet_standard_error(*pair(1000 + seed), replicates=100) for seed in range(8)]
    assert empirical / 1.35 < sum(estimates) / len(estimates) < empirical * over


@pytest.mark.parametrize(("n", "m", "d"), [(9, 14, 20), (14, 9, 20), (30, 6, 20), (40, 50, 6)])
def test_a_replicate_in_sample_space_is_the_distance_of_the_picked_rows(n: int, m: int, d: int) -> None:
    x, y = mixed(n, d, 1), mixed(m, d, 2)
    source = torch.Generator().manual_seed(5)
    picks_x, picks_y = (torch.randint(count, (count,), generator=source) for count in (n, m))
    ours = _distance_of_picks(x, y, x @ y.T, picks_x, picks_y).item()
    assert ours == pytest.approx(frechet_distance(x[picks_x], y[picks_y]), rel=1e-6)


def test_both_ways_to_resample_give_the_same_error() -> None:
    # 60 rows of 20 dimensions go by moments; 40 more dimensions of zeros send the same rows through sample space.
    x, y = mixed(60, 20, 1), mixed(60, 20, 2)
    padded = [torch.cat([z, torch.zeros(60, 40, dtype=torch.float64)], 1) for z in (x, y)]
    by_moments = frechet_standard_error(x, y, replicates=400)
    by_rows = frechet_standard_error(padded[0], padded[1], replicates=400)
    assert by_rows == pytest.approx(by_moments, rel=0.2)


def test_the_standard_error_repeats_and_an_offset_cancels() -> None:
    x, y = mixed(60, 5, 1), mixed(80, 5, 2)
    once = frechet_standard_error(x, y, replicates=50)
    assert frechet_standard_error(x, y, replicates=50) == once
    # Nothing is lost to differences of large second moments.
    assert frechet_standard_error(x + 1e7, y + 1e7, replicates=50) == pytest.approx(once, rel=1e-5)


def test_the_bootstrap_error_of_a_mean_is_sigma_over_root_n() -> None:
    values = draws(400, 1, 3, 2.0).flatten()
    error = bootstrap_standard_error(lambda rows: values[rows].mean().item(), 400, replicates=800)
    # 800 replicates know it to 2.5 %.
    assert error == pytest.approx(values.std(correction=0).item() / math.sqrt(400), rel=0.1)


@pytest.mark.parametrize("trials", [1, 7, 50, 2500])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 8])
def test_clopper_pearson_solves_its_defining_equations(trials: int, share: float, alpha: float) -> None:
    successes = round(share * trials)
    low, high = clopper_pearson(successes, trials, alpha)
    assert 0 <= low <= successes / trials <= high <= 1
    if successes > 0:
        assert binom.sf(successes - 1, trials, low) == pytest.approx(alpha / 2, rel=1e-6)
    else:
        assert low == 0
    if successes < trials:
        assert binom.cdf(successes, trials, high) == pytest.approx(alpha / 2, rel=1e-6)
    else:
        assert high == 1


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0, 1))
def test_the_binomial_tail_is_that_of_the_distribution(trials: int, share: float, chance: float) -> None:
    hits = round(share * trials)
    ours = binomial_tail(torch.tensor([0, hits]), trials, torch.tensor([chance, chance], dtype=torch.float64))
    assert ours.tolist() == pytest.approx([1.0, binom.sf(hits - 1, trials, chance)], rel=1e-9, abs=1e-300)
