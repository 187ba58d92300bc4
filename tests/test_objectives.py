"""Losses against PyTorch's own formulations, torch.distributions, finite differences and numbers done by hand."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from aigc_lab.objectives.adversarial import LOSSES, AdversarialLoss
from aigc_lab.objectives.likelihood import bernoulli_nll, gaussian_nll, standard_normal_kl

SHAPE = (5, 2, 3)


def normal(*size: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def test_the_nonsaturating_loss_is_binary_cross_entropy() -> None:
    real, fake = normal(7, 1, seed=1, scale=3), normal(9, 1, seed=2, scale=3)
    loss = LOSSES["nonsaturating"]
    truth = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    truth = truth + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    torch.testing.assert_close(loss.critic(real, fake), truth)
    torch.testing.assert_close(loss.generator(fake), F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake)))


def test_the_hinge_loss_by_hand() -> None:
    real, fake = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([-3.0, 0.0, 1.0])
    loss = LOSSES["hinge"]
    assert loss.critic(real, fake).item() == pytest.approx((2 + 0.5 + 0) / 3 + (0 + 1 + 2) / 3)
    assert loss.generator(fake).item() == pytest.approx(-(-3 + 0 + 1) / 3)


@pytest.mark.parametrize(("name", "loss"), list(LOSSES.items()), ids=list(LOSSES))
def test_adversarial_losses_pull_the_right_way(name: str, loss: AdversarialLoss) -> None:
    """A better critic scores lower, and a generator that fools it scores lower; undecided is ln 4 or 2."""
    good, bad, zero = torch.full((4,), 0.9), torch.full((4,), -0.9), torch.zeros(4)
    assert loss.critic(good, bad) < loss.critic(zero, zero) < loss.critic(bad, good)
    assert loss.generator(good) < loss.generator(zero) < loss.generator(bad)
    assert loss.critic(zero, zero).item() == pytest.approx({"nonsaturating": math.log(4), "hinge": 2}[name])


@pytest.mark.parametrize(("name", "loss"), list(LOSSES.items()), ids=list(LOSSES))
def test_adversarial_losses_survive_extreme_logits(name: str, loss: AdversarialLoss) -> None:
    for size in (1e4, -1e4):
        real = torch.tensor([size, -size], requires_grad=True)
        fake = torch.tensor([-size, size], requires_grad=True)
        total = loss.critic(real, fake) + loss.generator(fake)
        assert total.isfinite()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(total, [real, fake]))


def _differences(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of a scalar function, one coordinate at a time."""
    slopes = torch.zeros_like(at)
    for index in range(at.numel()):
        nudge = torch.zeros_like(at)
        nudge.view(-1)[index] = step
        slopes.view(-1)[index] = (function(at + nudge) - function(at - nudge)) / (2 * step)
    return slopes


@pytest.mark.parametrize(
    "function",
    [
        *[lambda x, loss=loss: loss.critic(x[:3], x[3:]) for loss in LOSSES.values()],
        *[lambda x, loss=loss: loss.generator(x) for loss in LOSSES.values()],
        lambda x: bernoulli_nll(x, torch.full_like(x, 0.3)).mean(),
        lambda x: gaussian_nll(x[:3], x[3:, :1], torch.full_like(x[:3], 0.3)).mean(),
        lambda x: standard_normal_kl(x[:3], x[3:]).mean(),
    ],
)
def test_gradients_are_the_finite_differences(function: Callable[[Tensor], Tensor]) -> None:
    at = normal(6, 4, seed=3, scale=1.5).requires_grad_()
    (gradient,) = torch.autograd.grad(function(at), at)
    assert gradient.abs().sum() > 0
    torch.testing.assert_close(gradient, _differences(function, at.detach()), rtol=1e-6, atol=1e-8)


def test_the_bernoulli_likelihood_is_that_of_torch_distributions() -> None:
    logits, target = normal(*SHAPE, seed=1, scale=3), (normal(*SHAPE, seed=2) > 0).double()
    truth = -Independent(Bernoulli(logits=logits), 2).log_prob(target)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(bernoulli_nll(logits, target), truth)
    # Grey values: the cross-entropy, linear in the target between its two ends.
    grey = torch.full(SHAPE, 0.25, dtype=torch.float64)
    ends = 0.25 * bernoulli_nll(logits, torch.ones_like(grey)) + 0.75 * bernoulli_nll(logits, torch.zeros_like(grey))
    torch.testing.assert_close(bernoulli_nll(logits, grey), ends)


@pytest.mark.parametrize("log_sigma", [torch.tensor(-1.5).double(), normal(3, seed=5)])
def test_the_gaussian_likelihood_is_that_of_torch_distributions(log_sigma: Tensor) -> None:
    mean, target = normal(*SHAPE, seed=1), normal(*SHAPE, seed=2)
    truth = -Independent(Normal(mean, log_sigma.exp().expand(SHAPE)), 2).log_prob(target)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(gaussian_nll(mean, log_sigma, target), truth)


def test_the_kl_is_that_of_torch_distributions() -> None:
    mean, log_variance = normal(5, 3, seed=1), normal(5, 3, seed=2)
    prior = Normal(torch.zeros(3).double(), torch.ones(3).double())
    truth = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), prior).sum(1)
    torch.testing.assert_close(standard_normal_kl(mean, log_variance), truth)
    assert standard_normal_kl(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]


def test_likelihoods_survive_extremes() -> None:
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    for target in (torch.zeros(1, 2), torch.ones(1, 2)):
        loss = bernoulli_nll(logits, target)
        assert loss.isfinite().all() and torch.autograd.grad(loss.sum(), logits)[0].isfinite().all()
    log_variance = torch.tensor([[-60.0, 40.0]], requires_grad=True)
    divergence = standard_normal_kl(torch.zeros(1, 2), log_variance)
    assert divergence.isfinite().all() and torch.autograd.grad(divergence.sum(), log_variance)[0].isfinite().all()
    assert gaussian_nll(torch.zeros(1, 2), torch.tensor(-15.0), torch.full((1, 2), 0.5)).isfinite().all()
