"""Adversarial losses: what the critic and the generator minimise, given the critic's raw outputs."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor


class AdversarialLoss(NamedTuple):
    """`critic(real, fake)` and `generator(fake)`: means over logits of any shape, as 0-d tensors."""

    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def _cross_entropy_critic(real: Tensor, fake: Tensor) -> Tensor:
    # −log σ(real) − log(1 − σ(fake)), with softplus so that no sigmoid saturates.
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _nonsaturating_generator(fake: Tensor) -> Tensor:
    return F.softplus(-fake).mean()


def _hinge_critic(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _hinge_generator(fake: Tensor) -> Tensor:
    return -fake.mean()


Name = Literal["nonsaturating", "hinge"]

LOSSES: dict[Name, AdversarialLoss] = {
    # Goodfellow et al. 2014, eq. 1 for the critic, section 3 for the generator: maximise log D(G(z)).
    "nonsaturating": AdversarialLoss(_cross_entropy_critic, _nonsaturating_generator),
    # Lim & Ye 2017, eq. 6; Miyato et al. 2018, eq. 16–17.
    "hinge": AdversarialLoss(_hinge_critic, _hinge_generator),
}
