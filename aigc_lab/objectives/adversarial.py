"""Adversarial losses: what the critic and the generator minimise, given the critic's raw outputs."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor


class AdversarialLoss(NamedTuple):
    """`critic(real, fake)` and `generator(real, fake)`: means over outputs of any shape, as 0-d tensors.

    `paired`: the generator's loss reads what the critic says of real samples too, one for each that was made.
    `saturates`: the generator's gradient vanishes where the critic is sure of what was made. `relative`: a constant
    that is added to all of the critic's outputs changes no gradient, so that the critic needs no last bias.
    `boundary`: the output of a critic that cannot tell: above it, it takes a sample for real.
    """

    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    paired: bool = False
    saturates: bool = False
    relative: bool = False
    boundary: float = 0.0


def _cross_entropy_critic(real: Tensor, fake: Tensor) -> Tensor:
    # −log σ(real) − log(1 − σ(fake)), with softplus so that no sigmoid saturates.
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _minimax_generator(real: Tensor, fake: Tensor) -> Tensor:
    return -F.softplus(fake).mean()


def _nonsaturating_generator(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-fake).mean()


def _least_squares_critic(real: Tensor, fake: Tensor) -> Tensor:
    return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()


def _least_squares_generator(real: Tensor, fake: Tensor) -> Tensor:
    return 0.5 * (fake - 1).square().mean()


def _wasserstein_critic(real: Tensor, fake: Tensor) -> Tensor:
    return fake.mean() - real.mean()


def _linear_generator(real: Tensor, fake: Tensor) -> Tensor:
    return -fake.mean()


def _hinge_critic(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _relativistic_critic(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(fake - real).mean()


def _relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(real - fake).mean()


Name = Literal["minimax", "nonsaturating", "least_squares", "wasserstein", "hinge", "relativistic"]

LOSSES: dict[Name, AdversarialLoss] = {
    # Goodfellow et al. 2014, eq. 1: both players on the same value; the generator minimises log(1 − D(G(z))).
    "minimax": AdversarialLoss(_cross_entropy_critic, _minimax_generator, saturates=True),
    # Goodfellow et al. 2014, eq. 1 for the critic, section 3 for the generator: maximise log D(G(z)).
    "nonsaturating": AdversarialLoss(_cross_entropy_critic, _nonsaturating_generator),
    # Mao et al. 2017, eq. 2 with the labels of eq. 9: a = 0, b = c = 1.
    "least_squares": AdversarialLoss(_least_squares_critic, _least_squares_generator, boundary=0.5),
    # Arjovsky et al. 2017, eq. 2–3; the critic must be kept Lipschitz by clipping or a penalty.
    "wasserstein": AdversarialLoss(_wasserstein_critic, _linear_generator, relative=True),
    # Lim & Ye 2017, eq. 6; Miyato et al. 2018, eq. 16–17.
    "hinge": AdversarialLoss(_hinge_critic, _linear_generator),
    # Jolicoeur-Martineau 2019, RpGAN; Huang et al. 2024, eq. 2 with f(t) = −log(1 + e^−t): each made sample against
    # a real one.
    "relativistic": AdversarialLoss(_relativistic_critic, _relativistic_generator, paired=True, relative=True),
}
