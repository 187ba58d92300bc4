"""Intervals against closed forms and the distributions that they are of."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from torch import Tensor

from aigc_lab.statistics.intervals import binomial_tail, bootstrap_standard_error, clopper_pearson


def draws(rows: int, dimensions: int, seed: int, scale: float = 1.0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dimensions, generator=source, dtype=torch.float64) * scale


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
