"""Divergences of codes against closed forms, quadrature and enumeration."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, kl_divergence

from aigc_lab.objectives import mmd
from aigc_lab.objectives.likelihood import (
    normal_log_density,
    standard_normal_kl,
    standard_normal_kls,
    standard_normal_log_ratio,
)
from aigc_lab.objectives.total_correlation import decomposition, equal_log_weights, stratified_log_weights

# Three posteriors of two latents, far from a product: their means lie near a line.
MEAN = torch.tensor([[-1.5, -1.2], [0.1, 0.3], [1.4, 1.6]], dtype=torch.float64)
LOG_VARIANCE = torch.tensor([[-1.0, -1.6], [-1.4, -0.8], [-0.7, -1.1]], dtype=torch.float64)


def logs(law: Distribution, values: Tensor) -> Tensor:
    found: Tensor = law.log_prob(values)
    return found


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near(values: Tensor, truth: float) -> None:
    """The mean of the values is the truth, to five standard errors."""
    error = values.std().item() / math.sqrt(len(values))
    assert error < 0.02
    assert values.mean().item() == pytest.approx(truth, abs=5 * error)


def test_the_kl_is_the_mean_of_the_log_ratio_of_draws() -> None:
    draws = normal(200_000, 3, 2)
    latents = MEAN + (0.5 * LOG_VARIANCE).exp() * draws
    ratio = standard_normal_log_ratio(latents, draws, LOG_VARIANCE)
    by_hand = (logs(Normal(0.0, 1.0), latents) - normal_log_density(latents, MEAN, LOG_VARIANCE)).sum(2)
    torch.testing.assert_close(ratio, by_hand)
    kl = standard_normal_kl(MEAN, LOG_VARIANCE)
    for row in range(3):
        near(-ratio[:, row], kl[row].item())
    exact = kl_divergence(Normal(MEAN, (0.5 * LOG_VARIANCE).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(standard_normal_kls(MEAN, LOG_VARIANCE), exact)


# ---- β-TC-VAE's decomposition


def test_the_decomposition_is_that_of_the_exact_aggregate() -> None:
    """With the whole dataset as its batch: each part against quadrature on a grid, and their sum against the KL."""
    axis = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    step = (axis[1] - axis[0]).item()
    each = normal_log_density(axis[:, None, None], MEAN, LOG_VARIANCE).exp()  # [place, image, latent]
    joint = torch.einsum("an,bn->ab", each[:, :, 0], each[:, :, 1]) / 3
    marginals = each.mean(1)
    product = marginals[:, None, 0] * marginals[None, :, 1]
    total_correlation = torch.special.xlogy(joint, joint / product).sum().item() * step**2
    prior = logs(Normal(torch.zeros((), dtype=torch.float64), 1.0), axis)
    dimension_wise = (marginals * (marginals.log() - prior[:, None])).sum().item() * step
    kl = standard_normal_kl(MEAN, LOG_VARIANCE).mean().item()
    assert total_correlation > 0.3

    draws = normal(100_000, 3, 2)
    latents = MEAN + (0.5 * LOG_VARIANCE).exp() * draws
    weights = equal_log_weights(MEAN, 3)
    parts = torch.vmap(lambda z: decomposition(z, MEAN, LOG_VARIANCE, weights))(latents)
    near(parts.total_correlation.mean(1), total_correlation)
    near(parts.dimension_wise.mean(1), dimension_wise)
    near(parts.mutual_information.mean(1), kl - total_correlation - dimension_wise)
    near(torch.stack(list(parts)).sum(0).mean(1), kl)


@pytest.mark.parametrize("population", [None, 50])
def test_the_parts_add_up_at_every_code(population: int | None) -> None:
    mean, log_variance, draws = normal(6, 4), normal(6, 4, seed=1), normal(6, 4, seed=2)
    latents = mean + (0.5 * log_variance).exp() * draws
    weights = equal_log_weights(mean, 6) if population is None else stratified_log_weights(mean, 6, population)
    parts = decomposition(latents, mean, log_variance, weights)
    torch.testing.assert_close(sum(parts), -standard_normal_log_ratio(latents, draws, log_variance))


def test_stratified_sampling_is_unbiased_for_the_aggregate() -> None:
    """Over every batch that an image may lie in, the mean of the estimate is q(z) of all images."""
    population, batch = 5, 3
    mean, log_variance, z = normal(population, 2), 0.3 * normal(population, 2, seed=1), normal(2, seed=2)
    density = normal_log_density(z, mean, log_variance).sum(1).exp()
    weights = stratified_log_weights(mean, batch, population).exp()
    torch.testing.assert_close(weights.sum(1), torch.ones(batch, dtype=torch.float64))
    for row in range(batch):
        found = []
        for others in itertools.permutations(range(1, population), batch - 1):
            images = list(others)
            images.insert(row, 0)
            found.append((weights[row] * density[images]).sum())
        torch.testing.assert_close(torch.stack(found).mean(), density.mean())


# ---- MMD


def expected_kernel(one: Normal, two: Normal, scale: float, d: int) -> float:
    """E exp(−‖x − y‖²/scale) of d independent coordinates of each law, in closed form."""
    spread = scale + 2 * (one.variance + two.variance).item()
    away = (one.mean - two.mean).item()
    return float((scale / spread) ** (d / 2) * math.exp(-d * away**2 / spread))


def test_the_mmd_of_two_gaussians_is_known() -> None:
    d, scale, one, two = 3, 6.0, Normal(0.0, 1.0), Normal(0.4, 0.5)
    truth = sum(sign * expected_kernel(a, b, scale, d) for sign, a, b in ((1, one, one), (1, two, two), (-2, one, two)))
    x, y = normal(400, 60, d), 0.4 + 0.5 * normal(400, 50, d, seed=1)
    found = torch.vmap(lambda a, b: mmd.unbiased("rbf", a, b, scale))(x, y)
    near(found, truth)
    assert truth > 0.05
    same = torch.vmap(lambda a, b: mmd.unbiased("imq", a, b, scale))(x, normal(400, 60, d, seed=2))
    near(same, 0.0)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_the_mmd_of_equal_sets_is_zero(kernel: Any) -> None:
    x = normal(20, 4)
    assert mmd.biased(kernel, x, x[torch.randperm(20)], 3.0).item() == pytest.approx(0, abs=1e-12)
    assert mmd.biased(kernel, x, normal(20, 4, seed=1), 3.0) > 0


def test_kernels_are_what_they_say() -> None:
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 2.0]])
    assert mmd.kernel("imq", x, y, 3.0).item() == pytest.approx(3 / 8)
    assert mmd.kernel("rbf", x, y, 2.0).item() == pytest.approx(math.exp(-2.5))
