"""Losses against PyTorch's own formulations, torch.distributions, finite differences and numbers done by hand."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from aigc_lab.objectives.adversarial import LOSSES, AdversarialLoss, Name
from aigc_lab.objectives.likelihood import bernoulli_nll, gaussian_nll, standard_normal_kl

SHAPE = (5, 2, 3)

Vector = npt.NDArray[np.float64]
Formula = Callable[[Vector, Vector], float]


def normal(*size: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


# ---- adversarial losses


def log_sigmoid(x: Vector) -> Vector:
    """log 1/(1 + e^−x), without overflow."""
    values: Vector = -np.logaddexp(0, -x)
    return values


# What the papers print, in numpy; D(x) is the sigmoid of the critic's output where a loss wants a probability.
FORMULAS: dict[Name, tuple[Formula, Formula]] = {
    "minimax": (
        lambda real, fake: -log_sigmoid(real).mean() - log_sigmoid(-fake).mean(),
        lambda real, fake: log_sigmoid(-fake).mean(),
    ),
    "nonsaturating": (
        lambda real, fake: -log_sigmoid(real).mean() - log_sigmoid(-fake).mean(),
        lambda real, fake: -log_sigmoid(fake).mean(),
    ),
    "least_squares": (
        lambda real, fake: ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2,
        lambda real, fake: ((fake - 1) ** 2).mean() / 2,
    ),
    "wasserstein": (lambda real, fake: -(real.mean() - fake.mean()), lambda real, fake: -fake.mean()),
    "hinge": (
        lambda real, fake: -np.minimum(0, real - 1).mean() - np.minimum(0, -fake - 1).mean(),
        lambda real, fake: -fake.mean(),
    ),
    "relativistic": (
        lambda real, fake: -log_sigmoid(real - fake).mean(),
        lambda real, fake: -log_sigmoid(fake - real).mean(),
    ),
}
LOG_2 = math.log(2)
# Of a critic that says 0 of everything: its own loss and the generator's.
UNDECIDED: dict[Name, tuple[float, float]] = {
    "minimax": (2 * LOG_2, -LOG_2),
    "nonsaturating": (2 * LOG_2, LOG_2),
    "least_squares": (0.5, 0.5),
    "wasserstein": (0, 0),
    "hinge": (2, 0),
    "relativistic": (LOG_2, LOG_2),
}

every_loss = pytest.mark.parametrize("name", list(LOSSES))


@every_loss
def test_adversarial_losses_are_the_papers_formulas(name: Name) -> None:
    real, fake = normal(9, 1, seed=1, scale=3), normal(9, 1, seed=2, scale=3)
    loss, (critic, generator) = LOSSES[name], FORMULAS[name]
    assert loss.critic(real, fake).item() == pytest.approx(critic(real.numpy(), fake.numpy()), rel=1e-12)
    assert loss.generator(real, fake).item() == pytest.approx(generator(real.numpy(), fake.numpy()), rel=1e-12)
    assert loss.critic(real, fake).ndim == loss.generator(real, fake).ndim == 0


def test_the_nonsaturating_loss_is_binary_cross_entropy() -> None:
    real, fake = normal(7, 1, seed=1, scale=3), normal(9, 1, seed=2, scale=3)
    loss = LOSSES["nonsaturating"]
    truth = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    truth = truth + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    torch.testing.assert_close(loss.critic(real, fake), truth)
    torch.testing.assert_close(LOSSES["minimax"].critic(real, fake), truth)
    truth = F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))
    torch.testing.assert_close(loss.generator(real, fake), truth)
    truth = -F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    torch.testing.assert_close(LOSSES["minimax"].generator(real, fake), truth)


def test_the_hinge_loss_by_hand() -> None:
    real, fake = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([-3.0, 0.0, 1.0])
    loss = LOSSES["hinge"]
    assert loss.critic(real, fake).item() == pytest.approx((2 + 0.5 + 0) / 3 + (0 + 1 + 2) / 3)
    assert loss.generator(real, fake).item() == pytest.approx(-(-3 + 0 + 1) / 3)


@every_loss
def test_adversarial_losses_pull_the_right_way(name: Name) -> None:
    """A better critic scores lower, and a generator that fools it scores lower."""
    loss = LOSSES[name]
    good, bad, zero = torch.full((4,), 0.9), torch.full((4,), -0.9), torch.zeros(4)
    assert loss.critic(good, bad) < loss.critic(zero, zero) < loss.critic(bad, good)
    assert loss.generator(zero, good) < loss.generator(zero, zero) < loss.generator(zero, bad)
    undecided = loss.critic(zero, zero).item(), loss.generator(zero, zero).item()
    assert undecided == pytest.approx(UNDECIDED[name])


# How often each of four atoms is among eight samples, real and made.
OFTEN_REAL, OFTEN_FAKE = torch.tensor([1, 2, 3, 2]), torch.tensor([4, 1, 1, 2])
P, Q = OFTEN_REAL.double() / 8, OFTEN_FAKE.double() / 8


def _of_atoms(loss: AdversarialLoss, outputs: Tensor) -> Tensor:
    """The critic's loss where it says `outputs` [4] of the atoms: each real sample with each made one."""
    real, fake = outputs.repeat_interleave(OFTEN_REAL), outputs.repeat_interleave(OFTEN_FAKE)
    return loss.critic(real.repeat_interleave(8), fake.repeat(8))


@pytest.mark.parametrize(
    ("name", "best", "value"),
    [
        # log p/q, and ln 4 − 2 JSD (Goodfellow et al. 2014, theorem 1).
        ("minimax", (P / Q).log(), -(P * (P / (P + Q)).log() + Q * (Q / (P + Q)).log()).sum()),
        ("nonsaturating", (P / Q).log(), -(P * (P / (P + Q)).log() + Q * (Q / (P + Q)).log()).sum()),
        # p/(p + q) (Mao et al. 2017, eq. 5).
        ("least_squares", P / (P + Q), (P * Q / (P + Q)).sum() / 2),
        # The sign of p − q; where both are alike the loss is flat.
        ("hinge", (P - Q).sign(), 2 * torch.minimum(P, Q).sum()),
        # log p/q, where a pair is won with probability p(x)q(y) / (p(x)q(y) + q(x)p(y)).
        (
            "relativistic",
            (P / Q).log(),
            -(torch.outer(P, Q) * (torch.outer(P, Q) / (torch.outer(P, Q) + torch.outer(Q, P))).log()).sum(),
        ),
    ],
)
def test_the_best_critic_of_two_discrete_laws_is_known(name: Name, best: Tensor, value: Tensor) -> None:
    loss = LOSSES[name]
    torch.testing.assert_close(_of_atoms(loss, best), value, rtol=1e-12, atol=0)
    for seed in range(20):
        assert _of_atoms(loss, best + normal(4, seed=seed, scale=0.1)) >= value - 1e-12
    if name != "hinge":
        outputs = best.clone().requires_grad_()
        (slope,) = torch.autograd.grad(_of_atoms(loss, outputs), outputs)
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-15)


@every_loss
def test_relative_losses_do_not_see_a_constant(name: Name) -> None:
    """What the critic minimises, and what moves the generator."""
    loss = LOSSES[name]

    def seen(constant: float) -> tuple[Tensor, Tensor, Tensor]:
        real, fake = (normal(6, 1, seed=seed).add(constant).requires_grad_() for seed in (1, 2))
        value = loss.critic(real, fake)
        both = torch.cat(torch.autograd.grad(value, [real, fake]))
        return value.detach(), both, torch.autograd.grad(loss.generator(real, fake), fake)[0]

    before, after = seen(0.0), seen(3.0)
    if loss.relative:
        for here, there in zip(before, after, strict=True):
            torch.testing.assert_close(here, there, rtol=1e-12, atol=1e-14)
    else:
        assert abs(before[0] - after[0]) > 0.1 and (before[1] - after[1]).abs().max() > 0.01
    assert loss.relative == (name in ("wasserstein", "relativistic"))


@every_loss
def test_only_the_minimax_generator_is_left_alone_by_a_critic_that_is_sure(name: Name) -> None:
    loss = LOSSES[name]
    slopes = []
    for size in (-1.0, -10.0, -40.0):
        fake = torch.full((3,), size, dtype=torch.float64, requires_grad=True)
        slopes.append(torch.autograd.grad(loss.generator(torch.zeros_like(fake), fake), fake)[0].sum().item())
    assert all(slope < 0 for slope in slopes)
    if loss.saturates:
        assert slopes[0] < slopes[1] < slopes[2] and slopes[2] == pytest.approx(-math.exp(-40), rel=1e-9)
    else:
        assert slopes[2] <= -1 + 1e-15
    assert loss.saturates == (name == "minimax")


@every_loss
def test_a_generator_reads_real_scores_only_where_its_loss_says_so(name: Name) -> None:
    loss = LOSSES[name]
    fake = normal(5, seed=1)
    here, there = (loss.generator(normal(5, seed=seed), fake) for seed in (2, 3))
    assert (here != there).item() == loss.paired == (name == "relativistic")


@every_loss
def test_adversarial_losses_survive_extreme_logits(name: Name) -> None:
    loss = LOSSES[name]
    for size in (1e4, -1e4):
        real = torch.tensor([size, -size], requires_grad=True)
        fake = torch.tensor([-size, size], requires_grad=True)
        total = loss.critic(real, fake) + loss.generator(real, fake)
        assert total.isfinite()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(total, [real, fake]))


# ---- slopes of all losses


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
        *[lambda x, loss=loss: loss.generator(x[:3], x[3:]) for loss in LOSSES.values()],
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


# ---- likelihoods


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
